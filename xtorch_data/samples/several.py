"""Samples of several sources: which variables are whose, and a definition for each source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common.integers import as_integer
from ..common.spelling import did_you_mean
from ..planning.windows import SourceWindows, Windows
from ..sources.source import Source as Data
from ..sources.source import as_source
from .aligned import OtherData, aligned
from .batch import ATTRIBUTES, Batch
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
from .select import Select, as_counts, label_of, names_of, resolve_parts
from .source_rules import Source
from .transforms import Transform, transforms_of

__all__ = ["NO_BATCH_TRANSFORM", "defined_of_several", "is_several"]

NO_BATCH_TRANSFORM = (
    "batch_transform cannot be given with several sources, whose batches are no single Dataset: "
    "transform={part: function} works on samples, augment= of a loader on batches"
)


def is_several(ds: Any) -> bool:
    """Whether what is given as data are several sources by name."""
    return isinstance(ds, Mapping) and not isinstance(ds, xr.Dataset | xr.DataTree)


@contextlib.contextmanager
def _noted(source: str) -> Iterator[None]:
    """Let errors say of which source they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        error.add_note(f"of source {source!r}")
        raise


@dataclass(frozen=True, eq=False)
class _Sources:
    """The sources by name, the first one first, and what is said of the others."""

    data: Mapping[str, Data]
    given: Mapping[str, Source]

    @classmethod
    def of(cls, ds: Mapping[Any, Any]) -> _Sources:
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
            with _noted(name):
                data[name] = as_source(each.ds)
            if data[name].generator is not None:
                raise TypeError(
                    f"source {name!r} is an xbatcher.BatchGenerator, which can only be data alone"
                )
        return cls(data, given)

    @property
    def names(self) -> list[str]:
        return list(self.data)

    def owner(self, label: str, variable: Hashable) -> tuple[str, Hashable]:
        """The source of a variable that a part names, and its name there."""
        first = self.data[self.names[0]].dataset
        if variable in first.data_vars:
            return self.names[0], variable
        if isinstance(variable, str) and "/" in variable:
            source, _, name = variable.partition("/")
            if source in self.data:
                if name in self.data[source].dataset.data_vars:
                    return source, name
                known = list(self.data[source].dataset.data_vars)
                raise ValueError(
                    f"{label}: source {source!r} has no data variable {name!r}; it has {known}"
                    + did_you_mean(name, known)
                )
        others = [
            f"{source}/{name}"
            for source in self.names[1:]
            for name in self.data[source].dataset.data_vars
        ]
        raise ValueError(
            f"{label}: no data variable {variable!r}; those of {self.names[0]!r} are "
            f"{list(first.data_vars)}, others are named {others}"
            + did_you_mean(variable, [*first.data_vars, *others])
        )

    def owned(self, label: str, select: Select) -> tuple[str, Select]:
        """The source that a selection is of, and what it takes of that."""
        owners = [self.owner(label, name) for name in names_of(select)]
        sources = list(dict.fromkeys(source for source, _ in owners))
        if len(sources) > 1:
            raise ValueError(
                f"{label} has variables of several sources, {sources}: give each source a part of "
                "its own"
            )
        own = [name for _, name in owners]
        variables = own if isinstance(select.variables, list) else own[0]
        return sources[0] if sources else self.names[0], select._of(variables)

    def conditions(
        self, given: Mapping[str, Select], used: Sequence[str]
    ) -> dict[str, tuple[str, Select]]:
        """By what messages call it: the source that a condition is of, and what it counts there."""
        first = self.data[self.names[0]]
        counted = as_counts(given, first.dataset)
        found = {label: self.owned(label, select) for label, select in counted.items()}
        for label, (source, _) in found.items():
            if source not in used:
                raise ValueError(
                    f"{label} is of source {source!r}, of which samples have no part: there are "
                    f"parts of {list(used)}"
                )
        return found

    def selections(
        self, inputs: Any, targets: Any, parts: Mapping[str, Any] | None
    ) -> dict[str, tuple[str, Select]]:
        """By part: the source that it is of, and what it takes of that."""
        first = self.data[self.names[0]]
        reserved = {*ATTRIBUTES, *dir(Batch)}
        named = resolve_parts(first.dataset, first.single, inputs, targets, parts, reserved)
        found: dict[str, tuple[str, Select]] = {}
        for part, select in named.items():
            found[part] = self.owned(label_of(part), select)
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
    sources = _Sources.of(ds)
    if batch_transform is not None:
        raise ValueError(NO_BATCH_TRANSFORM)
    selections = sources.selections(inputs, targets, parts)

    def of(source: str) -> dict[str, Select]:
        return {part: select for part, (own, select) in selections.items() if own == source}

    variables = {
        source: [name for select in of(source).values() for name in names_of(select)]
        for source in sources.names
    }
    prepare = _preprocesses(preprocess, variables)
    functions = {
        part: _bound(function, selections[part][0], variables)
        for part, function in transforms_of(transform, target_transform, list(selections)).items()
    }

    def asked(source: str) -> dict[str, Select]:
        return {label: select for label, (own, select) in counted.items() if own == source}

    def counting(source: str, space: CheckedSpace) -> Any:
        return make(asked(source), space, None, {}, floating, None, None, seed)

    def made(source: str, space: CheckedSpace) -> Any:
        own = of(source)
        given = {part: each for part, each in functions.items() if part in own}
        return make(own, space, prepare.get(source), given, floating, cast, None, seed)

    first, *rest = sources.names
    data = sources.data[first]
    used = [name for name in rest if of(name)]
    counted = sources.conditions(conditions, [first, *used])
    space = checked_space(
        data,
        input_dims,
        input_overlap,
        of(first),
        prepare.get(first),
        breaks,
        edges,
        asked(first),
    )
    for name in used:
        lazy = sources.data[name].dataset
        require_dims(asked(name), lazy, _needed(lazy, [of(name)], prepare.get(name)).dims)
    others = tuple(
        OtherData(
            name,
            _needed(sources.data[name].dataset, [of(name), asked(name)], prepare.get(name)),
            sources.given[name].rules,
            sources.given[name].breaks == "ignore",
        )
        for name in used
    )
    for other in others:
        with _noted(other.name):
            there = [name for name in variables[other.name] if name in other.data.data_vars]
            require_regular(other.data[there])
    x = of(first).get("x")
    anchors = _anchors(anchor, space.windows, x)
    found = aligned(space.windows, space.source.dataset, others, anchors, space.beyond)
    if not len(found.windows):
        reasons = "; ".join(f"{loss.source!r}: {loss}" for loss in found.losses)
        raise ValueError(f"there is no sample of which all sources have their part: {reasons}")
    space = replace(space, windows=found.windows)
    main = made(first, space)
    count = counting(first, space) if counted else None
    beside, counts_beside = [], []
    for place, (name, lazy, laid) in enumerate(
        zip(used, found.data, found.laid, strict=True), start=1
    ):
        windows: Any = SourceWindows(found.windows.space, place)
        own = replace(sources.data[name], dataset=lazy)
        sizes = {axis.dim: axis.size for axis in windows.axes if axis.windowed}
        names, _ = names_in(of(name))
        with _noted(name):
            require_other_names(
                sizes, [each for one in of(name).values() for each in names_of(one)]
            )
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
            own,
        )
        each = made(name, of_source)
        named = replace(each.labels, source=name, laid=laid)
        rules = sources.given[name].rules
        beside.append(replace(each, source=name, labels=named, rules=rules))
        if counted:
            counts_beside.append(replace(counting(name, of_source), source=name))
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
        conditions=count
        and replace(count, source=first, others=tuple(counts_beside), order=tuple(counted)),
    )


def _needed(
    data: xr.Dataset, selections: Sequence[Mapping[str, Select]], prepare: Transform | None
) -> xr.Dataset:
    """What is read of a source: a preprocess may want all of it."""
    if prepare is not None:
        return data
    every = (select for some in selections for select in some.values())
    return data[list(dict.fromkeys(name for select in every for name in names_of(select)))]


def _preprocesses(
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
            if own is not None and not set(own.mean.data_vars).isdisjoint(variables[name]):
                found[name] = Transform.of(own, "preprocess")
        if not found:
            raise ValueError(
                f"preprocess has statistics of {list(given.mean.data_vars)}, and no part has any "
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
    if not hasattr(function, "_of_source"):
        return given
    own = function._of_source(source, source == next(iter(variables)), variables[source])
    return given if own is None else replace(given, function=own)


def _anchors(given: Any, windows: Windows, x: Select | None) -> dict[Hashable, int]:
    """By dim, the step of a window that a sample is at."""
    anchors: dict[Hashable, int] = {}
    for axis in windows.axes:
        cut = None if x is None else x.indexers.get(axis.dim)
        if isinstance(cut, slice):
            anchors[axis.dim] = range(axis.size)[cut][-1]
        elif cut is None:
            anchors[axis.dim] = axis.size - 1
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
