"""Samples around events: a definition of the data, and one for each other source.

Inside, the events are the first source: they count the samples, and windows of the data lie beside
them as those of any other source do.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..planning.edges import EdgeRule
from ..planning.frames import SampleSpace
from ..planning.index_maps import Regular, Table
from ..planning.windows import Axis, SourceWindows, Windows
from ..sources.source import Source as Data
from ..sources.source import as_source
from .aligned import Around, aligned
from .breaks import BreakRule, SampleBreaks
from .centers import Centers
from .checks import CheckedSpace, checked_space, names_in
from .edges import extended, require_blanks
from .labels import Labels
from .leads import Anchors
from .losses import CENTERS
from .named_sources import Sources, is_several
from .placing import Placed, placed
from .select import Select, label_of, names_of
from .several import (
    NO_BATCH_TRANSFORM,
    Definer,
    anchors_of,
    functions_of,
    preprocesses,
    variables_of,
)
from .source_rules import Source
from .tensor_dtypes import is_numeric
from .transforms import Transform, transforms_of

__all__ = ["DATA", "defined_around_events"]

# The name of data that is given alone, inside.
DATA = "data"


def defined_around_events(
    make: Callable[..., Any],
    kind: Callable[..., Any],
    ds: Any,
    input_dims: Any,
    input_overlap: Any,
    *,
    dims: Any,
    centers: Any,
    tolerance: Any,
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
    """The definition of samples around events, which has those of the data and other sources.

    `make` makes the definition of a source, and `kind` is the class of definitions.
    """
    if batch_transform is not None:
        raise ValueError(NO_BATCH_TRANSFORM)  # as of several sources
    several = is_several(ds)
    if several:
        sources = Sources.of(ds)
        if CENTERS in sources.names:
            raise ValueError(
                f"a source is named {CENTERS!r}, which with centers= are the events: rename it"
            )
    else:
        sources = Sources({DATA: as_source(ds, dims)}, {DATA: Source(ds)})
    first = sources.names[0]
    data = sources.data[first]
    if data.generator is not None:
        raise TypeError(
            "an xbatcher.BatchGenerator has windows of its own, and takes no centers: give its data"
        )
    events = Centers.of(centers, data.sizes, input_dims, tolerance)
    for dim in input_overlap or {}:
        if dim in events.names:
            raise ValueError(
                f"input_overlap names {dim!r}, along which centers say where windows lie"
            )
    edges = _edges(edges, events, input_dims)
    sources = replace(sources, events=events.variables)
    selections = sources.selections(inputs, targets, parts)
    taken = variables_of(sources, selections)
    if several:
        prepare = preprocesses(preprocess, taken)
        functions = functions_of(transform, target_transform, selections, taken)
    else:
        prepare = {first: Transform.of(preprocess, "preprocess")}
        functions = transforms_of(transform, target_transform, list(selections))
    of_events = any(source == CENTERS for source, _ in selections.values())
    _require_numbers(events.variables, selections)
    used = [name for name in sources.names if taken[name]]
    counted = sources.conditions(conditions, [*used, *[CENTERS] * of_events])
    definer = Definer(make, sources, selections, counted, prepare, functions, floating, cast, seed)
    space = checked_space(
        data,
        input_dims,
        input_overlap,
        definer.of(first),
        prepare.get(first),
        breaks,
        edges,
        definer.asked(first),
        events.names,
    )
    space, windows, anchors = _placed(events, data, space, definer, anchor, breaks)
    laid = _counted(events, space.windows)
    around = Around(
        _axes(space, windows),
        {name: events.label(name, data.dataset) for name in events.names},
        windows.kept,
        of_events,
    )
    others = definer.other_data()
    found = aligned(laid, space.source.dataset, others, anchors, space.beyond, around)
    losses = (*windows.losses, *found.losses)
    if not len(found.windows):
        reasons = "; ".join(f"{loss.source!r}: {loss}" for loss in losses)
        raise ValueError(f"there is no event of which all sources have their part: {reasons}")

    def beside(place: int, of_source: CheckedSpace) -> CheckedSpace:
        own: Any = SourceWindows(found.windows.space, place)
        return replace(of_source, windows=own, breaks=SampleBreaks({}, found.windows))

    definitions, counts = [], []

    def define(source: str, own: CheckedSpace) -> None:
        each = definer.defined(source, own)
        labels = replace(each.labels, source=source)
        if source == first:
            labels = replace(labels, anchors=Anchors.of(anchors, each.parts))
        definitions.append(replace(each, source=source, labels=labels))
        if counted:
            counts.append(replace(definer.counting(source, own), source=source))

    define(first, beside(1, space))
    if of_events:
        known = as_source(events.variables)
        names = tuple(known.dataset.data_vars)
        own = CheckedSpace(found.windows, space.breaks, (), None, names, known.dataset, {}, known)
        define(CENTERS, beside(2, own))
    more, more_counts = definer.beside(found, 1 + len(definitions))
    definitions += more
    counts += more_counts
    labels = Labels(
        found.windows,
        _coords(events, space.source.dataset, found.windows),
        {},
        source=None,
        others={str(each.source): each.labels for each in definitions},
        events=first if several else DATA,
        joint=not several,
    )
    unruled = space.breaks.unruled - set(events.names)
    kept = {dim: each for dim, each in space.breaks.found.items() if dim not in events.names}
    samples = kind(
        data=xr.Dataset(),
        origin=data.origin,
        layouts=(),
        dtypes={},
        variable_dims={},
        variable_dtypes={},
        constants={},
        labels=labels,
        breaks=replace(space.breaks, found=kept, laid=laid, unruled=unruled),
        parts=(),
        sample_dims=(),
        floating=floating,
        cast=cast,
        preprocess=None,
        transforms={},
        seed=seed,
        others=tuple(definitions),
        order=tuple(selections),
        losses=losses,
        whole=found.where,
        anchors=anchors,
        halos=space.halos,
        centers=events,
    )
    if not counted:
        return samples
    counting = replace(
        samples,
        labels=replace(labels, others={str(each.source): each.labels for each in counts}),
        others=tuple(counts),
        order=tuple(counted),
    )
    return replace(samples, conditions=counting)


def _require_numbers(variables: xr.Dataset, selections: Mapping[str, tuple[str, Select]]) -> None:
    """Raise TypeError if a part takes values of events of which there are no tensors."""
    for part, (source, select) in selections.items():
        if source != CENTERS or select.takes != "values":
            continue
        for name in names_of(select):
            dtype = variables[name].dtype
            if is_numeric(dtype):
                continue
            made = f"pd.factorize(events[{name!r}])[0]"
            if dtype.kind == "M":
                made = f"events[{name!r}].dt.dayofyear"
            elif dtype.kind == "m":
                made = f"events[{name!r}] / np.timedelta64(1, 'h')"
            raise TypeError(
                f"{label_of(part)}: {name!r} of centers has dtype {dtype}, of which there are no "
                f"tensors: make numbers of it before, such as {made}. Names to split by, and labels"
                " of batches, need no part"
            )


def _edges(edges: Mapping[str, Any], events: Centers, input_dims: Any) -> dict[str, Any]:
    """Arguments for the ends of dims; ValueError where events leave nothing to say."""
    remainder = edges.get("remainder")
    if isinstance(remainder, Mapping):
        named = [dim for dim in events.names if remainder.get(dim) is not None]
    else:
        others = [dim for dim in input_dims if dim not in events.names]
        named = [] if remainder is None or others else list(events.names)
        remainder = None if remainder is None else dict.fromkeys(others, remainder)
    if named:
        raise ValueError(
            f"remainder is of {named[0]!r}, along which centers say where windows lie, so that "
            "none is the last"
        )
    return {**edges, "remainder": remainder}


def _placed(
    events: Centers,
    data: Data,
    space: CheckedSpace,
    definer: Definer,
    anchor: Mapping[Any, int] | None,
    breaks: Any,
) -> tuple[CheckedSpace, Placed, dict[Hashable, int]]:
    """The space, its windows with their halos, where each event has its own, and their anchors."""
    first = definer.sources.names[0]
    halos = {dim: rule.halo for dim, rule in space.edges.items()}
    axes = [replace(axis, size=axis.size + halos.get(axis.dim, 0)) for axis in space.windows.axes]
    windows = Windows.of(axes)
    sizes = {dim: windows.axis(dim).size for dim in events.names}
    middles = {
        dim: space.edges.get(dim, EdgeRule()).before + (size - halos.get(dim, 0)) // 2
        for dim, size in sizes.items()
    }
    anchors = anchors_of(anchor, windows, definer.of(first).get("x"), middles)
    found = placed(events, data.dataset, sizes, anchors, breaks, space.edges)
    present = [names_in(each)[1] for each in (definer.of(first), definer.asked(first))]
    names = [*space.reads, *present[0], *present[1]]
    require_blanks(space.source.dataset, names, found.beyond)
    laid = replace(
        space,
        windows=windows,
        source=replace(space.source, dataset=extended(space.source.dataset, found.beyond)),
        beyond={**space.beyond, **found.beyond},
    )
    return laid, found, anchors


def _axes(space: CheckedSpace, windows: Placed) -> tuple[Axis, ...]:
    """The dims of the data; those that events have labels of begin where each event says."""
    return tuple(
        replace(
            axis,
            length=len(space.beyond.get(axis.dim, range(axis.length))),
            starts=Table(windows.starts[axis.dim]),
        )
        if axis.dim in windows.starts
        else axis
        for axis in space.windows.axes
    )


def _counted(events: Centers, windows: Windows) -> Windows:
    """The sample space: the events, and the dims of the data of which they have no labels."""
    count = events.events.sizes[events.dim]
    along = Axis(events.dim, count, 1, Regular(0, count), windowed=False)
    space = Windows.of([along, *(a for a in windows.axes if a.dim not in events.names)]).space
    scattered = replace(space.axes[0], scattered=True)
    return Windows(SampleSpace((scattered, *space.axes[1:]), space.frames))


def _coords(events: Centers, data: xr.Dataset, windows: Windows) -> xr.Dataset:
    """Labels of events, and those of the data along dims that events have no labels of."""
    dims: set[Hashable] = {axis.dim for axis in windows.axes}
    own = events.labels
    along = {
        name: coord.variable
        for name, coord in data.coords.items()
        if coord.dims and set(coord.dims) <= dims and name not in own.variables
    }
    return own.assign_coords(along)
