"""From a region in memory to pieces from which samples can be cut."""

from __future__ import annotations

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..common.buffers import Buffers
from ..planning.stages import BlockRead, WindowBox
from ..planning.windows import Windows
from ..samples.select import Part
from .views import (
    PieceInMemory,
    SplitView,
    View,
    is_small,
    window_views,
)

__all__ = ["HaloJoiner", "Halo", "joins"]


@dataclass(frozen=True, eq=False)
class HaloPart:
    """Data between two positions on the axis along which loads follow each other."""

    data: xr.Dataset
    start: int
    stop: int

    def cut(self, dim: Hashable, start: int, stop: int) -> HaloPart:
        """What of it lies between two positions; without a copy."""
        start, stop = max(start, self.start), min(stop, self.stop)
        along = {dim: slice(start - self.start, stop - self.start)}
        return HaloPart(self.data.isel(along, missing_dims="ignore"), start, stop)


# Steps at the end of a load that the next one needs too.
Halo = tuple[HaloPart, ...]


@dataclass(frozen=True, eq=False)
class HaloJoiner:
    """Makes windows ready to be gathered, with the steps that the load before has read.

    Made for one iteration; used on threads for work, loads one after the other.

    Parts in `transformed` are cut as labeled samples. Pieces that are `lasting`, kept for later
    epochs, and what is handed on with them hold no memory that loads before have handed on; those
    whose memory is `sent` elsewhere hold nothing but their own.
    """

    windows: Windows
    sample_dims: tuple[Hashable, ...]
    parts: tuple[Part, ...]
    transformed: frozenset[str]
    buffers: Buffers
    lasting: bool
    sent: bool = False

    def joins(self, load: BlockRead) -> bool:
        """Whether steps of a load are copied next to those that the load before has handed on."""
        return joins(self.parts, self.transformed, self.windows, load, self.lasting)

    def _splits(self, part: Part, dim: Hashable) -> bool:
        return not self.lasting and part.name not in self.transformed and can_split(part, dim)

    def pieces(
        self, load: BlockRead, block: xr.Dataset, tail: Halo
    ) -> tuple[list[PieceInMemory], Halo]:
        """The pieces of a load, and the steps that the next load needs.

        `block` is its region, read and preprocessed; `tail` what the load before has handed on.
        """
        if self.sent:
            block = _dense(block, self.buffers)
        if not self.windows.axes:
            return [self._piece(piece, (HaloPart(block, 0, 1),), None) for piece in load.pieces], ()
        dim = self.windows.axes[load.axis].dim
        own = HaloPart(block, *load.region[load.axis])
        segments = (*tail, own)
        # What was handed on is needed once more. Then there is one piece, which need not reach to
        # what was read.
        hands_on = self.lasting and load.keep is not None and load.keep < own.start
        pieces = []
        for piece in load.pieces:
            # A piece reaches over the whole region along the other axes, or is cut there.
            indexers = {
                axis.dim: slice(start - origin, stop - origin)
                for axis, (start, stop), (origin, _) in zip(
                    self.windows.axes, piece.region, load.region, strict=True
                )
                if axis.dim != dim
            }
            begin, stop = piece.region[load.axis]
            upto = max(stop, own.start) if hands_on else stop
            found = tuple(
                HaloPart(each.data.isel(indexers, missing_dims="ignore"), each.start, each.stop)
                for each in _between(segments, dim, begin, upto)
            )
            if self.lasting and found[0].start < own.start:
                joined = self._copied(found, dim, own.data.isel(indexers, missing_dims="ignore"))
                found = (joined.cut(dim, begin, stop),)
                if hands_on:
                    segments = (joined, own.cut(dim, joined.stop, own.stop))
            pieces.append(self._piece(piece, found, dim))
        if load.keep is None:
            return pieces, ()
        return pieces, _between(segments, dim, load.keep, own.stop)

    def _copied(self, segments: tuple[HaloPart, ...], dim: Hashable, block: xr.Dataset) -> HaloPart:
        """Neighboring segments as one, in memory of its own; what lacks the dim is of a block."""
        names = {name for part in self.parts for name in part.arrays}
        joined = _joined(segments, dim, names, self.buffers, anew=True)
        lacking = {name: block[name].variable for name in joined if dim not in joined[name].dims}
        return HaloPart(joined.assign(lacking), segments[0].start, segments[-1].stop)

    def _piece(
        self, piece: WindowBox, segments: tuple[HaloPart, ...], dim: Hashable | None
    ) -> PieceInMemory:
        split = [part for part in self.parts if len(segments) > 1 and self._splits(part, dim)]
        whole = [
            part for part in self.parts if part not in split and part.name not in self.transformed
        ]
        needed = {name for part in self.parts if part not in split for name in part.arrays}
        views: dict[str, Sequence[View]] = {}
        if split:
            views.update(self._split_views(split, segments, dim))
        if not needed:
            return PieceInMemory(piece, views)
        data = _joined(segments, dim, needed, self.buffers)
        made = window_views(
            self.windows, self.sample_dims, whole, data.variables, buffers=self.buffers
        )
        views.update(made)
        if not self.transformed:
            return PieceInMemory(piece, views)
        names = {
            name for part in self.parts if part.name in self.transformed for name in part.arrays
        }
        labelled = data[[name for name in data.data_vars if name in names]]
        return PieceInMemory(piece, views, labelled)

    def _split_views(
        self, parts: Sequence[Part], segments: tuple[HaloPart, ...], dim: Hashable
    ) -> dict[str, Sequence[View]]:
        axis = next(place for place, axis in enumerate(self.windows.axes) if axis.dim == dim)
        size = self.windows.axes[axis].size
        begins = [each.start - segments[0].start for each in segments]
        found = [
            window_views(
                self.windows, self.sample_dims, parts, each.data.variables, dim, self.buffers
            )
            for each in segments
        ]
        views: dict[str, Sequence[View]] = {}
        for stretch in (stretch for part in parts for stretch in part.stretches):
            part = stretch.part
            indexer = part.indexers.get(dim, slice(None))
            assert isinstance(indexer, slice), part
            inside = range(size)[indexer]
            along = part.dims.index(dim)
            of_part: list[View] = []
            for place, name in enumerate(part.arrays):
                arrays = [each[part.name][place] for each in found]
                if dim in segments[-1].data.variables[name].dims:
                    of_part.append(SplitView(axis, along, inside.start, begins, arrays))
                else:
                    of_part.append(arrays[-1])
            views[part.name] = of_part
        return views


def joins(
    parts: Sequence[Part],
    transformed: Container[str],
    windows: Windows,
    load: BlockRead,
    lasting: bool,
) -> bool:
    """Whether steps of a load are copied next to those that the load before has handed on."""
    if load.carried is None:
        return False
    dim = windows.axes[load.axis].dim
    return lasting or not all(
        part.name not in transformed and can_split(part, dim) for part in parts
    )


def can_split(part: Part, dim: Hashable) -> bool:
    """Whether windows that lie in several segments are gathered from each, without joining them.

    Only windows that are not small, of which the part takes neighboring steps, in one stretch or
    in several.
    """
    return dim not in part.lacking and all(
        _takes_neighbors(stretch.part, dim) and not is_small(stretch.part.shape, stretch.part.dtype)
        for stretch in part.stretches
    )


def _takes_neighbors(part: Part, dim: Hashable) -> bool:
    indexer = part.indexers.get(dim, slice(None))
    return isinstance(indexer, slice) and indexer.step in (None, 1)


def _dense(block: xr.Dataset, buffers: Buffers) -> xr.Dataset:
    """A block without the values of others between its own, as where data in memory is cut."""
    copies = {}
    for name, variable in block.data_vars.items():
        array = variable.to_numpy()
        begin, stop = np.lib.array_utils.byte_bounds(array)
        if array.size and stop - begin > array.nbytes:
            out = buffers.take(array.shape, array.dtype)
            out[...] = array
            copies[name] = variable.variable.copy(data=out)
    return block.assign(copies)


def _between(segments: Sequence[HaloPart], dim: Hashable, start: int, stop: int) -> Halo:
    """What of neighboring segments lies between two positions."""
    return tuple(
        each.cut(dim, start, stop) for each in segments if each.start < stop and start < each.stop
    )


def _joined(
    segments: Sequence[HaloPart],
    dim: Hashable | None,
    names: Container[Hashable],
    buffers: Buffers,
    anew: bool = False,
) -> xr.Dataset:
    """Neighboring segments as one; a single one as it is, unless it is to be made `anew`.

    Variables without the dim are those of one of them.
    """
    chosen = [
        each.data.drop_vars([name for name in each.data.data_vars if name not in names])
        for each in segments
    ]
    last = chosen[-1]
    if (len(chosen) == 1 and not anew) or not any(
        dim in variable.dims for variable in last.variables.values()
    ):
        return last
    if last.coords:
        return xr.concat(
            chosen,
            dim=dim,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
    joined = {}
    for name, variable in last.data_vars.items():
        if dim not in variable.dims:
            joined[name] = variable.variable
            continue
        arrays = [each.variables[name].to_numpy() for each in chosen]
        axis = variable.dims.index(dim)
        shape = list(arrays[-1].shape)
        shape[axis] = sum(array.shape[axis] for array in arrays)
        out = buffers.take(shape, np.result_type(*arrays))
        joined[name] = xr.Variable(variable.dims, np.concatenate(arrays, axis=axis, out=out))
    return xr.Dataset(joined)
