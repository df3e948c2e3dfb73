"""Samples of several sources: a definition for each source."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common.integers import as_integer
from ..planning.windows import SourceWindows, Windows
from .aligned import Aligned, OtherData, aligned
from .breaks import BreakRule, SampleBreaks
from .checks import (
    CheckedSpace,
    checked_space,
    names_in,
    reads_of,
    require_dims,
    require_other_names,
    require_regular,
)
from .leads import Anchors
from .named_sources import Sources, noted
from .schedule import Schedule
from .select import Select, names_of
from .transforms import Transform, transforms_of

__all__ = [
    "NO_BATCH_TRANSFORM",
    "Definer",
    "anchors_of",
    "defined_of_several",
    "functions_of",
    "preprocesses",
    "variables_of",
]

NO_BATCH_TRANSFORM = (
    "batch_transform cannot be given with several sources, whose batches are no single Dataset: "
    "transform={part: function} works on samples, augment= of a loader on batches"
)


@dataclass(frozen=True, eq=False)
class Definer:
    """What makes the definition of each source over its windows.

    Attributes
    ----------
    make : callable
        Makes the definition of one source.
    sources : Sources
        All of them.
    selections, counted : mapping of str to (str, Select)
        By part, and by condition: the source that it is of, and what it takes there.
    prepare : mapping of str to Transform or None
        By source, the function for its blocks.
    functions : mapping of str to Transform
        By part, the function for its samples.
    floating : numpy.dtype
        What floating data is gathered as.
    cast : torch.dtype or None
        What that is cast to afterwards.
    seed : int
        What random functions depend on.
    """

    make: Callable[..., Any]
    sources: Sources
    selections: Mapping[str, tuple[str, Select]]
    counted: Mapping[str, tuple[str, Select]]
    prepare: Mapping[str, Transform | None]
    functions: Mapping[str, Transform]
    floating: np.dtype[Any]
    cast: torch.dtype | None
    seed: int

    def of(self, source: str) -> dict[str, Select]:
        """What parts take of a source."""
        return {part: select for part, (own, select) in self.selections.items() if own == source}

    def asked(self, source: str) -> dict[str, Select]:
        """What conditions count of a source."""
        return {label: select for label, (own, select) in self.counted.items() if own == source}

    @property
    def used(self) -> list[str]:
        """The other sources of which there are parts."""
        return [name for name in self.sources.names[1:] if self.of(name)]

    def defined(self, source: str, space: CheckedSpace) -> Any:
        """The definition of the parts of a source."""
        own = self.of(source)
        given = {part: each for part, each in self.functions.items() if part in own}
        return self.make(
            own, space, self.prepare.get(source), given, self.floating, self.cast, None, self.seed
        )

    def counting(self, source: str, space: CheckedSpace) -> Any:
        """The definition of the counts of a source."""
        return self.make(self.asked(source), space, None, {}, self.floating, None, None, self.seed)

    def other_data(self) -> tuple[OtherData, ...]:
        """The other sources as rules look them up; ValueError if their data does not fit."""
        found = []
        for name in self.used:
            lazy, prepare = self.sources.data[name].dataset, self.prepare.get(name)
            own = self.of(name)
            require_dims(self.asked(name), lazy, _needed(lazy, [own], prepare).dims)
            needed = _needed(lazy, [own, self.asked(name)], prepare)
            rules = self.sources.given[name]
            found.append(OtherData(name, needed, rules.rules, rules.breaks == "ignore"))
        for other in found:
            with noted(other.name):
                taken = [
                    name for select in self.of(other.name).values() for name in names_of(select)
                ]
                there = [name for name in taken if name in other.data.data_vars]
                require_regular(other.data[there])
        return tuple(found)

    def beside(self, found: Aligned, first: int) -> tuple[list[Any], list[Any]]:
        """Definitions of the other sources, and of their counts if conditions are asked.

        The frame of the first of them is at place `first` of the space.
        """
        definitions, counts = [], []
        for place, (name, lazy, laid) in enumerate(
            zip(self.used, found.data, found.laid, strict=True), start=first
        ):
            windows: Any = SourceWindows(found.windows.space, place)
            own = replace(self.sources.data[name], dataset=lazy)
            sizes = {axis.dim: axis.size for axis in windows.axes if axis.windowed}
            names, _ = names_in(self.of(name))
            with noted(name):
                require_other_names(
                    sizes, [each for one in self.of(name).values() for each in names_of(one)]
                )
            constants: dict[Hashable, Any] = {}
            reads, template = reads_of(lazy, names, sizes, self.prepare.get(name), constants)
            of_source = CheckedSpace(
                windows,
                SampleBreaks({}, found.windows),
                tuple(sizes),
                None,
                reads,
                template,
                constants,
                own,
            )
            each = self.defined(name, of_source)
            named = replace(each.labels, source=name, laid=laid)
            rules = self.sources.given[name].rules
            definitions.append(replace(each, source=name, labels=named, rules=rules))
            if self.counted:
                counts.append(replace(self.counting(name, of_source), source=name))
        return definitions, counts


def defined_of_several(
    make: Callable[..., Any],
    ds: Mapping[Any, Any],
    input_dims: Mapping[Any, Any] | None,
    input_overlap: Mapping[Any, Any] | None,
    *,
    anchor: Mapping[Any, int] | None,
    breaks: BreakRule | Mapping[Any, BreakRule | None] | None,
    edges: Mapping[str, Any],
    inputs: Any,
    targets: Any,
    parts: Mapping[str, Any] | None,
    preprocess: Any,
    transform: Any,
    target_transform: Any,
    batch_transform: Any,
    seed: int,
    floating: np.dtype[Any],
    cast: torch.dtype | None,
    conditions: Mapping[str, Select],
) -> Any:
    """The definition of the first source's samples, which has those of the others."""
    sources = Sources.of(ds)
    if batch_transform is not None:
        raise ValueError(NO_BATCH_TRANSFORM)
    selections = sources.selections(inputs, targets, parts)
    taken = variables_of(sources, selections)
    definer = Definer(
        make,
        sources,
        selections,
        sources.conditions(conditions, [name for name in sources.names if taken[name]]),
        preprocesses(preprocess, taken),
        functions_of(transform, target_transform, selections, taken),
        floating,
        cast,
        seed,
    )
    first = sources.names[0]
    space = checked_space(
        sources.data[first],
        input_dims,
        input_overlap,
        definer.of(first),
        definer.prepare.get(first),
        breaks,
        edges,
        definer.asked(first),
    )
    others = definer.other_data()
    anchors = anchors_of(anchor, space.windows, definer.of(first).get("x"))
    found = aligned(space.windows, space.source.dataset, others, anchors, space.beyond)
    if not len(found.windows):
        reasons = "; ".join(f"{loss.source!r}: {loss}" for loss in found.losses)
        raise ValueError(f"there is no sample of which all sources have their part: {reasons}")
    space = replace(space, windows=found.windows)
    main = definer.defined(first, space)
    count = definer.counting(first, space) if definer.counted else None
    beside, counts = definer.beside(found, 1)
    labels = replace(
        main.labels,
        source=first,
        others={str(each.source): each.labels for each in beside},
        anchors=Anchors.of(anchors, main.parts),
    )
    return replace(
        main,
        source=first,
        labels=labels,
        others=tuple(beside),
        order=tuple(selections),
        losses=found.losses,
        whole=found.where,
        anchors=anchors,
        conditions=count
        and replace(count, source=first, others=tuple(counts), order=tuple(definer.counted)),
    )


def variables_of(
    sources: Sources, selections: Mapping[str, tuple[str, Select]]
) -> dict[str, list[Hashable]]:
    """By source, the names of the variables that parts take."""
    return {
        source: [
            name
            for own, select in selections.values()
            if own == source
            for name in names_of(select)
        ]
        for source in sources.names
    }


def functions_of(
    transform: Any,
    target_transform: Any,
    selections: Mapping[str, tuple[str, Select]],
    variables: Mapping[str, Sequence[Hashable]],
) -> dict[str, Transform]:
    """The functions for samples, by part."""
    return {
        part: _bound(function, selections[part][0], variables)
        for part, function in transforms_of(transform, target_transform, list(selections)).items()
    }


def _needed(
    data: xr.Dataset, selections: Sequence[Mapping[str, Select]], prepare: Transform | None
) -> xr.Dataset:
    """What is read of a source: a preprocess may want all of it."""
    if prepare is not None:
        return data
    every = (select for some in selections for select in some.values())
    return data[list(dict.fromkeys(name for select in every for name in names_of(select)))]


def preprocesses(
    given: Any, variables: Mapping[str, Sequence[Hashable]]
) -> dict[str, Transform | None]:
    """The functions for blocks, by source; `variables` has the names of each that parts take."""
    names = list(variables)
    if given is None:
        return {}
    if hasattr(given, "_of_source"):  # of statistics, each source takes its own
        found: dict[str, Transform | None] = {}
        for name in names:
            own = given._of_source(name, name == names[0], variables[name])
            if own is not None and not set(own._variables).isdisjoint(variables[name]):
                found[name] = Transform.of(own, "preprocess")
        if not found:
            raise ValueError(
                f"preprocess has statistics of {list(given._variables)}, and no part has any "
                f"of these; variables of other sources than {names[0]!r} are named 'SOURCE/NAME'"
            )
        return found
    if not isinstance(given, Mapping):
        raise TypeError(
            "with several sources, preprocess is a mapping of their names to functions, "
            f"{{{names[0]!r}: …}}, not {type(given).__name__}"
        )
    for name in given:
        if name not in names:
            raise ValueError(f"preprocess names source {name!r}; the sources are {names}")
    made = {name: Transform.of(each, f"preprocess[{name!r}]") for name, each in given.items()}
    return {
        name: each if each is None else _bound(each, name, variables) for name, each in made.items()
    }


def _bound(given: Transform, source: str, variables: Mapping[str, Sequence[Hashable]]) -> Transform:
    """A function for one source: of statistics of several, those of that."""
    function = given.function
    if not hasattr(function, "_of_source") or source not in variables:
        return given
    own = function._of_source(source, source == next(iter(variables)), variables[source])
    return given if own is None else replace(given, function=own)


def _last(cut: Any, size: int) -> int:
    """The last step of a window that a cut takes."""
    if isinstance(cut, slice):
        return range(size)[cut][-1]
    return int(np.max(np.arange(size)[list(cut) if isinstance(cut, tuple) else cut]))


def anchors_of(
    given: Any,
    windows: Windows,
    x: Select | None,
    otherwise: Mapping[Hashable, int] | None = None,
) -> dict[Hashable, int]:
    """By dim, the step of a window that a sample is at; by default the last, or one `otherwise`."""
    anchors: dict[Hashable, int] = {}
    for axis in windows.axes:
        cut = None if x is None else x.indexers.get(axis.dim)
        if cut is None:
            anchors[axis.dim] = (otherwise or {}).get(axis.dim, axis.size - 1)
        else:
            phases = cut.phases.values() if isinstance(cut, Schedule) else [cut]
            anchors[axis.dim] = max(_last(each, axis.size) for each in phases)
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"anchor must be a mapping of dims to steps of the window, not {given!r}")
    for dim, step in (given or {}).items():
        axis = windows.axis(dim)
        at = as_integer(step, f"anchor of {dim!r}")
        if not -axis.size <= at < axis.size:
            raise ValueError(f"anchor of {dim!r} is {at}, outside a window of {axis.size} steps")
        anchors[dim] = at % axis.size
    return anchors
