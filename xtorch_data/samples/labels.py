"""Labels of samples, computed from their numbers when someone asks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from ..common.redact import printable
from ..common.text import number_of
from ..planning.edges import ExtendedDim, Laid
from ..planning.frames import Frame, SampleSpace
from ..planning.windows import Axis, IntArray, SourceWindows, WindowDim
from ..sources.conventions import text_of, texts_of
from ..sources.lazy_arrays import in_memory
from .changes import Change
from .coordinates import dataset_of, renamed
from .generator_items import INPUT_BATCH, Items, Patches
from .label_registry import register, registered
from .leads import LEAD_TIME, Anchors, lead_coord
from .losses import CENTERS
from .part_labels import PartLabels

__all__ = [
    "BoolArray",
    "LabelledWindows",
    "Labels",
]

BoolArray = npt.NDArray[np.bool_]


class LabelledWindows:
    """The samples of a dataset: where they lie and what their coordinates are.

    ``len(windows)`` is the number of samples, ``windows[i]`` what ``isel`` takes to cut sample
    ``i``: a slice for every windowed dim, or positions where a window goes around the ends of the
    data or beyond them, and an integer for the others.
    """

    def __init__(self, labels: Labels) -> None:
        # Of events, windows are those of the data around them.
        self._events = None if labels.events is None else labels
        self._labels = labels if labels.events is None else labels.others[labels.events]

    def __len__(self) -> int:
        return len(self._labels.windows)

    def __getitem__(self, index: int) -> dict[Any, Any]:
        window: dict[Any, Any] = self._labels.windows[index]
        items = self._labels.items
        if items is not None:
            return items.region(window)
        for dim, (name, steps) in self._labels.laid.items():
            window[name] = _stored(steps, window.pop(dim))
        return window

    def of(self, source: str) -> LabelledWindows:
        """Where samples lie in a source, where there are several; by its name."""
        named: dict[str | None, Labels] = {self._labels.source: self._labels}
        named.update((self._events or self._labels).others)
        if self._events is not None:
            named.setdefault(CENTERS, self._events.alone())
        if source not in named or source is None:
            raise KeyError(f"there is no source {source!r}; there are {[n for n in named if n]}")
        return LabelledWindows(named[source])

    def coords(self, index: int) -> xr.Coordinates:
        """Coordinates of one sample, as ``isel`` would leave them."""
        return self._labels.coords.isel(self.laid(index), missing_dims="ignore").coords

    def laid(self, index: int) -> dict[Any, Any]:
        """What ``isel`` takes of data that is laid out as windows count it."""
        return self._labels.windows[index] if self._labels.items is None else self[index]

    def first_steps(self, dim: Hashable) -> IntArray:
        """First step of each window along a dim of the samples, as positions in the data.

        Of a dim that events have labels of, that of each event. ValueError if the samples have no
        such dim, or these are windows of another source.
        """
        windows = self._labels.windows
        if self._events is not None and any(along.dim == dim for along in windows.frame.maps):
            numbers = [np.arange(count) for count in self._events.windows.shape]
            starts = np.asarray(windows.map(dim).start(numbers)).ravel()
        else:
            axis = (self._events or self._labels).windows.axis(dim)
            if not isinstance(axis, Axis):
                raise ValueError(
                    "windows along a dim are those of the first source: "
                    f"dataset.windows.first_steps({dim!r}); of({self._labels.source!r})[i] says "
                    "where sample i lies in this one"
                )
            starts = axis.start(np.arange(len(axis)))
        if dim in self._labels.laid:
            starts = self._labels.laid[dim][1][starts]
        return starts

    def index(self, dim: Hashable) -> pd.Index[Any] | None:
        """The coordinate of a dim as an index, if the data has one."""
        for labels in filter(None, (self._labels, self._events)):
            if dim in labels.coords.coords:
                return labels.coords[dim].to_index()
        return None

    def data_index(self, dim: Hashable) -> pd.Index[Any] | None:
        """The coordinate of a dim of the data, without what lies beyond its ends."""
        index = self.index(dim)
        if index is None or dim not in self._labels.beyond:
            return index
        return index[slice(*self._labels.beyond[dim].inside)]

    def beyond(self, dim: Hashable) -> ExtendedDim | None:
        """What windows find beyond the ends of a dim, if they reach there."""
        return self._labels.beyond.get(dim)

    def texts(self, dim: Hashable) -> Callable[[int], str] | None:
        """From a step along a dim to its label, if the data has one in memory.

        Floats have as many decimals as neighboring steps need.
        """
        coord = self._labels.coords.variables.get(dim)
        return None if coord is None or not in_memory(coord) else texts_of(coord)

    def ranges(self, index: int) -> dict[str, str]:
        """First and last value of the coordinates of one sample, of those that are in memory."""
        region, found = self.laid(index), {}
        for name, coord in self._labels.coords.variables.items():
            if in_memory(coord):
                inside = coord[{dim: cut for dim, cut in region.items() if dim in coord.dims}]
                found[printable(name)] = _between(
                    [inside[dict.fromkeys(inside.dims, place)] for place in (0, -1)]
                )
        return found

    def extents(self) -> dict[Hashable, str]:
        """First and last value of the coordinate of each dim, over all samples."""
        found = {}
        for axis in self._labels.windows.axes:
            coord = self._labels.coords.variables.get(axis.dim)
            if not isinstance(axis, Axis) or not len(axis):
                continue
            if coord is not None and coord.ndim == 1 and in_memory(coord):
                last = axis.span(len(axis) - 1, len(axis))[1] - 1
                found[axis.dim] = _between([coord[axis.span(0, 1)[0]], coord[last]])
        return found

    def __repr__(self) -> str:
        events, windows, beyond = self._events, self._labels.windows, self._labels.beyond
        axes = list(windows.axes)
        if events is not None:  # dims of the data that events have no labels of are their axes too
            own = {axis.dim: axis for axis in events.windows.axes}
            axes = [next(iter(own.values())), *(own.get(axis.dim, axis) for axis in axes)]
        counted = ", ".join(_counted(axis, beyond.get(axis.dim)) for axis in axes)
        return f"<{number_of(len(self), 'sample')} ({counted})>"


def _counted(axis: WindowDim, beyond: ExtendedDim | None) -> str:
    """What samples have of a dim, and how many windows along it make samples."""
    length = axis.length if beyond is None else beyond.length
    if not isinstance(axis, Axis):
        return f"{printable(axis.dim)}: {axis.size} of {length}"
    if not axis.windowed:
        return f"{printable(axis.dim)}: {len(axis)}"
    return f"{printable(axis.dim)}: {len(axis)} × {axis.size} of {length}"


@dataclass(eq=False)
class Labels:
    """Coordinates of the data and the sample space, enough to label any samples.

    A batch that comes from a worker process carries only the token; the process that made the
    dataset has the labels.
    """

    windows: SourceWindows
    coords: xr.Dataset
    attrs: dict[Hashable, dict[Any, Any]]
    items: Items | None = None
    changes: tuple[Change, ...] = ()  # of values, in this order
    origin: str | None = None  # name of the dataset in a mixture
    source: str | None = None  # name of the source, where there are several
    others: Mapping[str, Labels] = field(default_factory=dict)  # of other sources, by name
    # Where these are labels of events: the name of the data around them, and whether that is all
    # the data there is, so that samples are one Dataset.
    events: str | None = None
    joint: bool = False
    beyond: Mapping[Hashable, ExtendedDim] = field(default_factory=dict)  # ends of dims, by dim
    # By dim that is laid out anew: its name in the data of the user, and which step each step is.
    laid: Laid = field(default_factory=dict)
    anchors: Anchors = field(default_factory=Anchors)  # of the first source
    # Of these labels alone: others made of them, by `dataclasses.replace`, get another.
    token: str = field(init=False, default_factory=lambda: uuid.uuid4().hex)
    # Leads that were worked out, by how windows are cut.
    _leads: dict[Any, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        register(self.token, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        register(self.token, self)

    def of_part(self, part: PartLabels) -> Labels:
        """Labels of the source that a part is of: these, or those of another."""
        return self if part.source is None else self.others[part.source]

    @property
    def labelled(self) -> LabelledWindows:
        """The windows with their labels."""
        return LabelledWindows(self)

    @staticmethod
    def find(token: str) -> Labels | None:
        """The labels with a token, if this process has them, or a copy of them."""
        return cast("Labels | None", registered(token))

    def to_datasets(
        self,
        parts: Mapping[str, tuple[npt.NDArray[Any], PartLabels]],
        samples: IntArray,
        flipped: Mapping[Hashable, BoolArray],
    ) -> dict[str, xr.Dataset]:
        """Label arrays of several sources, by source, the first one first; see `to_dataset`."""
        of_sources: dict[str | None, dict[str, tuple[npt.NDArray[Any], PartLabels]]] = {}
        for part, (array, labels) in parts.items():
            labels.require_fit(part, array.shape, samples.shape)
            of_sources.setdefault(labels.source, {})[part] = array, labels
        known: dict[str | None, Labels] = {None: self}
        known.update(self.others)
        return {
            str(each.source): each.to_dataset(
                of_sources[name], samples, suffixes=len(of_sources[name]) > 1, flipped=flipped
            )
            for name, each in known.items()
            if name in of_sources
        }

    def to_dataset(
        self,
        parts: Mapping[str, tuple[npt.NDArray[Any], PartLabels]],
        samples: IntArray,
        suffixes: bool,
        flipped: Mapping[Hashable, BoolArray],
    ) -> xr.Dataset:
        """Label arrays of shape ``(sample, [variable,] *dims)`` of some samples.

        `samples` are their numbers, 0-d for one sample without the ``sample`` axis; `suffixes` says
        whether several parts share the result, so that names may have to be told apart. `flipped`
        has, by dim, the samples whose windows run backwards.
        """
        starts = self.windows.starts(samples)
        names = [name for _, labels in parts.values() for name in labels.variables]
        cut_differently = {
            axis.dim
            for axis in self.windows.axes
            if len({self._cut(axis.dim, labels) for _, labels in parts.values()}) > 1
        }
        repeated = {name for name in names if names.count(name) > 1}
        if {f"{name}_{part}" for part in parts for name in repeated} & set(names):
            repeated = set(names)  # one of the names looks like a suffixed one
        unlike = self._unlike(parts, samples.ndim)
        lead = ("sample",) * samples.ndim
        data: dict[Hashable, xr.Variable] = {}
        coords: dict[Hashable, xr.Variable] = {}
        for part, (array, labels) in parts.items():

            def suffixed(name: Hashable, part: str = part) -> Hashable:
                return f"{name}_{part}" if suffixes else name

            if labels.unflattened is not None:
                lead_shape = array.shape[: samples.ndim + labels.stacked]
                array = array.reshape((*lead_shape, *labels.unflattened))
            variable_axis = samples.ndim
            sizes = dict(
                zip(labels.dims, array.shape[variable_axis + labels.stacked :], strict=True)
            )
            changed = {dim for dim, size in sizes.items() if size != self._steps(dim, labels, size)}
            changed |= unlike & set(sizes)
            gone = {  # dims that a transform has removed
                axis.dim
                for axis in self.windows.axes
                if axis.windowed
                and axis.dim not in labels.dims
                and not isinstance(labels.indexers.get(axis.dim), int)
            }
            dims = {
                dim: suffixed(dim) if dim in cut_differently or dim in changed else dim
                for dim in labels.dims
            }
            for place, name in enumerate(labels.variables):
                values = np.take(array, place, axis=variable_axis) if labels.stacked else array
                key = suffixed(name) if name in repeated else name
                variable_dims = (*lead, *(dims[dim] for dim in labels.dims))
                attrs = None if labels.present else self.attrs.get(name)  # such as units
                data[key] = xr.Variable(variable_dims, values, attrs)
            for name, variable in self.coords.variables.items():
                if set(variable.dims) & (changed | gone):
                    continue
                key = suffixed(name) if cut_differently & set(variable.dims) else name
                if key in coords:
                    continue
                found = self.of_samples(variable, labels, starts, lead, flipped)
                coords[key] = renamed(found, dims)
            along, lead_time = self._lead_time(labels)
            key = suffixed(LEAD_TIME) if along in cut_differently else LEAD_TIME
            taken = {*names, *data, *coords, *self.coords.dims, *self.coords.variables}
            if lead_time is not None and not {along} & {*changed, *gone, *flipped}:
                if key not in taken:
                    coords[key] = renamed(lead_time, dims)
        coords.setdefault("sample", xr.Variable(lead, samples))
        return dataset_of(data, coords)

    def alone(self) -> Labels:
        """Labels of the events of samples alone, without those of other dims."""
        windows = self.windows
        space = SampleSpace(windows.space.axes, (Frame(windows.frame.maps[:1]),))
        return Labels(SourceWindows(space), self.coords, {}, source=CENTERS)

    def of_events(self, samples: IntArray) -> dict[Hashable, xr.Variable]:
        """Labels of the events of some samples; `samples` are their numbers."""
        dim = self.windows.axes[0].dim
        places = xr.Variable(("sample",) * samples.ndim, self.windows.starts(samples)[0])
        return {
            name: coord.to_base_variable().isel({dim: places})
            for name, coord in self.coords.variables.items()
            if coord.dims == (dim,)
        }

    def _unlike(
        self, parts: Mapping[str, tuple[npt.NDArray[Any], PartLabels]], lead: int
    ) -> set[Hashable]:
        """Dims that transforms have made, of another size in one part than in another."""
        sizes: dict[Hashable, set[int]] = {}
        known = {axis.dim for axis in self.windows.axes}
        for array, labels in parts.values():
            if labels.unflattened is None:
                shape = array.shape[lead + labels.stacked :]
                for dim, size in zip(labels.dims, shape, strict=True):
                    sizes.setdefault(dim, set()).add(size)
        return {dim for dim, found in sizes.items() if dim not in known and len(found) > 1}

    def _cut(self, dim: Hashable, labels: PartLabels) -> range | tuple[int, ...] | int:
        """Steps of the window that a part has."""
        indexer = labels.indexers.get(dim, slice(None))
        if isinstance(indexer, int):
            return indexer
        if isinstance(indexer, list):
            return tuple(indexer)
        return range(self.windows.axis(dim).size)[indexer]

    def _lead_time(self, labels: PartLabels) -> tuple[Hashable, xr.Variable | None]:
        """Leads of a part that goes beyond the anchor, and along which dim it does."""
        if self.items is not None:
            return None, None
        cut = tuple((axis.dim, self._cut(axis.dim, labels)) for axis in self.windows.axes)
        if cut not in self._leads:
            inside = [axis for axis in self.windows.axes if axis.dim not in self.beyond]
            self._leads[cut] = lead_coord(
                self.windows, inside, self.coords, self.anchors, labels.indexers
            )
        return self._leads[cut] or (None, None)

    def _steps(self, dim: Hashable, labels: PartLabels, otherwise: int) -> int:
        if dim in self._patched(labels):
            return self._patched(labels)[dim].size
        indexer = labels.indexers.get(dim, slice(None))
        for axis in self.windows.axes:
            if axis.dim == dim and not isinstance(indexer, int):
                return len(np.arange(axis.size)[indexer])
        return otherwise

    def _patched(self, labels: PartLabels) -> Mapping[Hashable, Patches]:
        """Dims along which a sample of this part has windows of its own."""
        if self.items is None or self.items.patches is None or INPUT_BATCH not in labels.dims:
            return {}
        return self.items.patches

    def of_samples(
        self,
        variable: xr.Variable,
        labels: PartLabels,
        starts: IntArray,
        lead: Sequence[Hashable],
        flipped: Mapping[Hashable, BoolArray],
    ) -> xr.Variable:
        """What there is along the dims of the data, such as a coordinate, at places of samples."""
        indexers: dict[Hashable, xr.Variable] = {}
        patched = self._patched(labels)
        offsets: Mapping[Hashable, IntArray] = {}
        if self.items is not None and patched:
            offsets = self.items.offsets(self.items.firsts(starts))
        maps = self.windows.frame.maps
        for axis, along, start in zip(self.windows.axes, maps, starts, strict=True):
            if axis.dim not in variable.dims:
                continue
            if axis.dim in patched:
                of_windows = start[..., None, None] + offsets[axis.dim][:, None]
                place = of_windows + np.arange(patched[axis.dim].size)
                place = _turned(place, flipped.get(axis.dim), within=2)
                indexers[axis.dim] = xr.Variable((*lead, INPUT_BATCH, axis.dim), place)
                continue
            indexer = labels.indexers.get(axis.dim, slice(None))
            steps = np.arange(axis.size)[indexer] if axis.windowed else np.int64(0)
            if not np.ndim(steps):
                place = xr.Variable(lead, start + steps)
            elif (
                axis.dim in self.windows.fixed and axis.dim not in flipped
            ):  # of no sample, but of all
                begin = along.start([0] * len(self.windows.shape))
                place = xr.Variable((axis.dim,), begin + steps)
            else:
                steps = _turned(start[..., None] + steps, flipped.get(axis.dim), within=1)
                place = xr.Variable((*lead, axis.dim), steps)
            indexers[axis.dim] = place
        found = variable.to_base_variable().isel(indexers)
        return found.transpose(*lead, ...) if set(lead) <= set(found.dims) else found


def _stored(steps: IntArray, cut: slice | int) -> slice | int | IntArray:
    """What ``isel`` takes of the data for a cut of what is laid out by its steps."""
    if isinstance(cut, int):
        return int(steps[cut])
    found = steps[cut]
    if (np.diff(found) == 1).all():
        return slice(int(found[0]), int(found[-1]) + 1)
    return found


def _turned(places: IntArray, flipped: BoolArray | None, within: int) -> IntArray:
    """Places along the last axis, backwards for samples of which the last `within` axes are."""
    if flipped is None:
        return places
    return np.where(np.expand_dims(flipped, (*range(-within, 0),)), places[..., ::-1], places)


def _between(ends: Sequence[xr.Variable]) -> str:
    texts = (text_of(np.asarray(end.values)[()], end.attrs.get("units")) for end in ends)
    return " to ".join(dict.fromkeys(texts))
