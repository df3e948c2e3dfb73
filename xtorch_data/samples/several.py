"""Samples of several sources: which variables are whose, and a definition for each source."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common.integers import as_integer
from ..planning.windows import SourceWindows, Windows
from ..sources.source import Source as Data
from ..sources.source import as_source
from .aligned import Aligned, OtherData, aligned
from .batch import ATTRIBUTES, Batch
from .breaks import BreakRule, SampleBreaks
from .checks import CheckedSpace, checked_space, reads_of
from .losses import CENTERS
from .select import Select, names_of, resolve_parts
from .source_rules import Source
from .transforms import Transform, transforms_of

__all__ = [
    "NO_BATCH_TRANSFORM",
    "Sources",
    "anchors_of",
    "defined_beside",
    "defined_of_several",
    "is_several",
    "other_data",
    "preprocesses",
]

NO_BATCH_TRANSFORM = (
    "batch_transform cannot be given with several sources, whose batches are no single Dataset: "
    "transform={part: function} works on samples, augment= of a loader on batches"
)


def is_several(ds: Any) -> bool:
    """Whether what is given as data are several sources by name."""
    return isinstance(ds, Mapping) and not isinstance(ds, xr.Dataset | xr.DataTree)


@dataclass(frozen=True, eq=False)
class Sources:
    """The sources by name, the first one first, and what is said of the others."""

    data: Mapping[str, Data]
    given: Mapping[str, Source]
    events: xr.Dataset | None = None  # whose variables are those of the source "centers"

    @classmethod
    def of(cls, ds: Mapping[Any, Any]) -> Sources:
        """Check what a user gives as several sources."""
        if not ds:
            raise ValueError("there are no sources: {name: data, …}")
        for name in ds:
            if not isinstance(name, str) or not name.isidentifier() or name.startswith("_"):
                raise ValueError(f"the name of a source must be an identifier, not {name!r}")
        given = {
            name: each if isinstance(each, Source) else Source(each) for name, each in ds.items()
        }
        first = next(iter(given))
        if given[first].rules:
            raise ValueError(
                f"source {first!r} comes first, and gives the samples: rules are for the others"
            )
        data = {}
        for name, each in given.items():
            try:
                data[name] = as_source(each.ds)
            except (TypeError, ValueError) as error:
                error.add_note(f"of source {name!r}")
                raise
            if data[name].generator is not None:
                raise TypeError(
                    f"source {name!r} is an xbatcher.BatchGenerator, which can only be data alone"
                )
        return cls(data, given)

    @property
    def names(self) -> list[str]:
        """Names of the sources, the first one first; events are none of them."""
        return list(self.data)

    def owner(self, part: str, variable: Hashable) -> tuple[str, Hashable]:
        """The source of a variable that a part names, and its name there."""
        first = self.data[self.names[0]].dataset
        if variable in first.data_vars:
            return self.names[0], variable
        if isinstance(variable, str) and "/" in variable:
            source, _, name = variable.partition("/")
            if source in self.data or (source == CENTERS and self.events is not None):
                known = list(self.dataset(source).data_vars)
                if name in known:
                    return source, name
                raise ValueError(
                    f"part {part!r}: source {source!r} has no data variable {name!r}; it has "
                    f"{known}"
                )
        others = [f"{CENTERS}/{name}" for name in self.events or ()]
        others += [
            f"{source}/{name}"
            for source in self.names[1:]
            for name in self.data[source].dataset.data_vars
        ]
        raise ValueError(
            f"part {part!r}: no data variable {variable!r}; those of {self.names[0]!r} are "
            f"{list(first.data_vars)}, others are named {others}"
        )

    def dataset(self, source: str) -> xr.Dataset:
        """The data of a source; of events, their variables."""
        if source == CENTERS and self.events is not None:
            return self.events
        return self.data[source].dataset

    def selections(
        self, inputs: Any, targets: Any, parts: Mapping[str, Any] | None
    ) -> dict[str, tuple[str, Select]]:
        """By part: the source that it is of, and what it takes of that."""
        first = self.data[self.names[0]]
        reserved = {*ATTRIBUTES, *dir(Batch)}
        named = resolve_parts(first.dataset, first.single, inputs, targets, parts, reserved)
        found: dict[str, tuple[str, Select]] = {}
        for part, select in named.items():
            owners = [self.owner(part, name) for name in names_of(select)]
            sources = list(dict.fromkeys(source for source, _ in owners))
            if len(sources) > 1:
                raise ValueError(
                    f"part {part!r} has variables of several sources, {sources}: give each source "
                    "a part of its own"
                )
            own = [name for _, name in owners]
            variables = own if isinstance(select.variables, list) else own[0]
            found[part] = (
                sources[0] if sources else self.names[0],
                Select(variables, select.indexers),
            )
        if parts is None:
            used = {source for source, _ in found.values()}
            for source in self.names[1:]:
                if source in found:
                    raise ValueError(
                        f"source {source!r} makes a part of its own name, which there is: give the "
                        "source another name, or say what each part has with parts="
                    )
                if source not in used:
                    whole = self.data[source]
                    every = list(whole.dataset.data_vars) if whole.single is None else whole.single
                    made = resolve_parts(whole.dataset, None, None, None, {source: every}, reserved)
                    found[source] = source, made[source]
        if not any(source == self.names[0] for source, _ in found.values()):
            raise ValueError(f"no part has a variable of the first source, {self.names[0]!r}")
        return found


def defined_of_several(
    make: Callable[..., Any],
    ds: Mapping[Any, Any],
    input_dims: Mapping[Any, Any] | None,
    input_overlap: Mapping[Any, Any] | None,
    *,
    anchor: Mapping[Any, int] | None,
    breaks: BreakRule | Mapping[Any, BreakRule | None] | None,
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
) -> Any:
    """The definition of the first source's samples, which has those of the others."""
    sources = Sources.of(ds)
    if batch_transform is not None:
        raise ValueError(NO_BATCH_TRANSFORM)
    selections = sources.selections(inputs, targets, parts)
    prepare = preprocesses(preprocess, sources.names)
    functions = transforms_of(transform, target_transform, list(selections))

    def of(source: str) -> dict[str, Select]:
        return {part: select for part, (own, select) in selections.items() if own == source}

    def made(source: str, data: Data, space: CheckedSpace) -> Any:
        own = of(source)
        given = {part: each for part, each in functions.items() if part in own}
        return make(data, own, space, prepare.get(source), given, floating, cast, None, seed)

    first, *rest = sources.names
    data = sources.data[first]
    space = checked_space(data, input_dims, input_overlap, of(first), prepare.get(first), breaks)
    used = [name for name in rest if of(name)]
    others = other_data(sources, used, of, prepare)
    anchors = anchors_of(anchor, space.windows, of(first).get("x"))
    found = aligned(space.windows, data.dataset, others, anchors)
    if not len(found.windows):
        reasons = "; ".join(f"{loss.source!r}: {loss}" for loss in found.losses)
        raise ValueError(f"there is no sample of which all sources have their part: {reasons}")
    main = made(first, data, replace(space, windows=found.windows))
    beside = defined_beside(made, sources, used, of, prepare, found, 1)
    labels = replace(
        main.labels, source=first, others={str(each.source): each.labels for each in beside}
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
    )


def other_data(
    sources: Sources,
    names: Sequence[str],
    of: Callable[[str], dict[str, Select]],
    prepare: Mapping[str, Transform | None],
) -> tuple[OtherData, ...]:
    """Other sources as rules look them up; `of` gives what parts take of one."""
    return tuple(
        OtherData(
            name,
            _needed(sources.data[name].dataset, of(name), prepare.get(name)),
            sources.given[name].rules,
            sources.given[name].breaks == "ignore",
        )
        for name in names
    )


def defined_beside(
    made: Callable[[str, Data, CheckedSpace], Any],
    sources: Sources,
    used: Sequence[str],
    of: Callable[[str], dict[str, Select]],
    prepare: Mapping[str, Transform | None],
    found: Aligned,
    first: int,
) -> list[Any]:
    """Definitions of other sources, of which the first one's frame has a place in the space."""
    beside = []
    for place, (name, lazy, laid) in enumerate(
        zip(used, found.data, found.laid, strict=True), start=first
    ):
        windows: Any = SourceWindows(found.windows.space, place)
        own = replace(sources.data[name], dataset=lazy)
        sizes = {axis.dim: axis.size for axis in windows.axes if axis.windowed}
        names = [each for select in of(name).values() for each in names_of(select)]
        constants: dict[Hashable, Any] = {}
        reads, template = reads_of(lazy, names, sizes, prepare.get(name), constants)
        of_source = CheckedSpace(
            windows,
            SampleBreaks({}, found.windows),
            tuple(sizes),
            None,
            reads,
            template,
            constants,
        )
        each = made(name, own, of_source)
        named = replace(each.labels, source=name, laid=laid)
        rules = sources.given[name].rules
        beside.append(replace(each, source=name, labels=named, rules=rules))
    return beside


def _needed(
    data: xr.Dataset, selections: Mapping[str, Select], prepare: Transform | None
) -> xr.Dataset:
    """What is read of a source: a preprocess may want all of it."""
    if prepare is not None:
        return data
    return data[list(dict.fromkeys(n for select in selections.values() for n in names_of(select)))]


def preprocesses(given: Any, names: Sequence[str]) -> dict[str, Transform | None]:
    """The functions for blocks, by source."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            "with several sources, preprocess is a mapping of their names to functions, "
            f"{{{names[0]!r}: …}}, not {type(given).__name__}"
        )
    for name in given:
        if name not in names:
            raise ValueError(f"preprocess names source {name!r}; the sources are {list(names)}")
    return {name: Transform.of(each, f"preprocess[{name!r}]") for name, each in given.items()}


def anchors_of(
    given: Any, windows: Windows, x: Select | None, centered: Container[Hashable] = ()
) -> dict[Hashable, int]:
    """By dim, the step of a window that a sample is at; events are in the middle by default."""
    anchors: dict[Hashable, int] = {}
    for axis in windows.axes:
        cut = None if x is None else x.indexers.get(axis.dim)
        if isinstance(cut, slice):
            anchors[axis.dim] = range(axis.size)[cut][-1]
        elif cut is None:
            anchors[axis.dim] = axis.size // 2 if axis.dim in centered else axis.size - 1
        else:
            anchors[axis.dim] = int(np.max(np.arange(axis.size)[cut]))
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"anchor must be a mapping of dims to steps of the window, not {given!r}")
    for dim, step in (given or {}).items():
        axis = windows.axis(dim)
        at = as_integer(step, f"anchor of {dim!r}")
        if not -axis.size <= at < axis.size:
            raise ValueError(f"anchor of {dim!r} is {at}, outside a window of {axis.size} steps")
        anchors[dim] = at % axis.size
    return anchors
