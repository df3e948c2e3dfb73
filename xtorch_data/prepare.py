"""From a region in memory to pieces from which samples can be cut."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from .buffers import Buffers
from .epoch import Load, Piece
from .gather import PieceInMemory, labelled_generator, window_views
from .select import Part
from .windows import Windows

__all__ = ["Preparer", "Tail"]


@dataclass(frozen=True, eq=False)
class Tail:
    """Steps at the end of a load that the next one needs too."""

    data: xr.Dataset
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Preparer:
    """Makes the windows of a region ready to be gathered.

    Attributes
    ----------
    windows : Windows
        The sample space.
    sample_dims : tuple of Hashable
        Windowed dims in the order of the tensors.
    parts : tuple of Part
        What a sample consists of.
    transformed : frozenset of str
        Parts that are cut as labeled samples.
    buffers : Buffers
        Where memory for joined steps comes from.
    """

    windows: Windows
    sample_dims: tuple[Hashable, ...]
    parts: tuple[Part, ...]
    transformed: frozenset[str]
    buffers: Buffers

    def pieces(
        self, load: Load, block: xr.Dataset, tail: Tail | None
    ) -> tuple[list[PieceInMemory], Tail | None]:
        """The pieces of a load, and the steps that the next load needs.

        Parameters
        ----------
        load : Load
            The load.
        block : xarray.Dataset
            Its region, read and preprocessed.
        tail : Tail, optional
            What the load before has handed on.
        """
        before = tail if load.carried is not None else None
        joined = _Joined(self.windows, load, block, before, self.buffers)
        pieces = [self._in_memory(piece, joined.cut(piece.region)) for piece in load.pieces]
        if load.keep is None:
            return pieces, None
        region = list(load.region)
        region[load.axis] = (load.keep, region[load.axis][1])
        return pieces, Tail(joined.cut(region), *region[load.axis])

    def _in_memory(self, piece: Piece, data: xr.Dataset) -> PieceInMemory:
        plain = [part for part in self.parts if part.name not in self.transformed]
        views = window_views(self.windows, self.sample_dims, plain, data.variables)
        if not self.transformed:
            return PieceInMemory(piece, views)
        names = {
            name for part in self.parts if part.name in self.transformed for name in part.variables
        }
        labelled = data[[name for name in data.data_vars if name in names]]
        # Windows may reach less far than what was read.
        exact = {
            axis.dim: slice(axis.span(*box)[0] - start, axis.span(*box)[1] - start)
            for axis, box, (start, _) in zip(
                self.windows.axes, piece.box, piece.region, strict=True
            )
        }
        labelled = labelled.isel(exact, missing_dims="ignore")
        return PieceInMemory(
            piece, views, labelled, labelled_generator(self.windows, piece, labelled)
        )


@dataclass(frozen=True, eq=False)
class _Joined:
    """What a load has read behind what the one before has handed on."""

    windows: Windows
    load: Load
    block: xr.Dataset
    tail: Tail | None
    buffers: Buffers

    def cut(self, region: Sequence[tuple[int, int]]) -> xr.Dataset:
        """The data of a region; only what straddles both is copied."""
        axis, dim = self.load.axis, None
        found = self.block
        if self.windows.axes:
            dim = self.windows.axes[axis].dim
        indexers = {
            other.dim: slice(start - origin, stop - origin)
            for place, (other, (start, stop), (origin, _)) in enumerate(
                zip(self.windows.axes, region, self.load.region, strict=True)
            )
            if place != axis
        }
        if dim is not None:
            start, stop = region[axis]
            origin = self.load.region[axis][0]
            own = slice(max(start - origin, 0), max(stop - origin, 0))
            found = self.block.isel({**indexers, dim: own}, missing_dims="ignore")
            if self.tail is not None and start < self.tail.stop:
                begin = self.tail.start
                before = slice(start - begin, min(stop, self.tail.stop) - begin)
                first = self.tail.data.isel({**indexers, dim: before}, missing_dims="ignore")
                found = _concatenated(first, found, dim, self.buffers)
        return found


def _concatenated(
    first: xr.Dataset, second: xr.Dataset, dim: Hashable, buffers: Buffers
) -> xr.Dataset:
    """Two neighbors along a dim; variables without the dim are those of the second."""
    if not any(dim in variable.dims for variable in second.variables.values()):
        return second
    if second.coords:
        return xr.concat(
            [first, second],
            dim=dim,
            data_vars="minimal",
            coords="minimal",
            compat="override",
            join="override",
            combine_attrs="override",
        )
    joined = {}
    for name, variable in second.data_vars.items():
        if dim not in variable.dims:
            joined[name] = variable.variable
            continue
        parts = [first.variables[name].to_numpy(), variable.to_numpy()]
        axis = variable.dims.index(dim)
        shape = list(parts[1].shape)
        shape[axis] += parts[0].shape[axis]
        out = buffers.take(shape, parts[1].dtype)
        joined[name] = xr.Variable(variable.dims, np.concatenate(parts, axis=axis, out=out))
    return xr.Dataset(joined)
