"""Cells: the whole chunks in which variables are read when samples are asked for by number."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ..common.buffers import Buffers
from ..planning.chunks import Chunks, Layout
from ..planning.frames import Frame
from ..planning.stages import BlockRead
from ..reading.regions import Reader

__all__ = ["Group", "Place", "Region", "cells_of", "unordered"]

Place = tuple[int, ...]  # numbers of a cell along the dims of its grids
Region = Mapping[Hashable, slice]


def cells_of(
    layouts: Sequence[Layout],
    dims: Sequence[Hashable],
    small: int,
    whole: Container[Hashable] = (),
    apart: Collection[Hashable] = (),
) -> tuple[dict[Hashable, Chunks], int]:
    """The grids of cells for variables that are read together, and the bytes of a cell.

    A cell is a chunk of the largest ones, or several next to each other of fewer bytes than
    `small`, but one along the dims in `apart`; along the dims in `whole`, it has all of the chunks.
    """
    grids: dict[Hashable, Chunks] = {}
    for dim in dims:
        found = [layout.chunks[dim] for layout in layouts if dim in layout.chunks]
        if found:
            grids[dim] = max(found, key=lambda grid: grid.largest)
            if dim in whole:
                grids[dim] = grids[dim].joined(max(1, grids[dim].count))
    nbytes = sum(layout.itemsize for layout in layouts)
    nbytes *= math.prod(grid.largest for grid in grids.values())
    # Of what is not stored in chunks any steps are read for their own cost.
    single = [dim for dim in apart if dim in grids and grids[dim].in_chunks]
    for dim in reversed([dim for dim in grids if dim not in single]):
        every = min(max(1, small // nbytes), grids[dim].count)
        grids[dim] = grids[dim].joined(every)
        nbytes *= every
    return grids, nbytes


def unordered(frame: Frame, scattered: bool) -> set[Hashable]:
    """Dims along which windows do not follow each other, so that they want single chunks.

    All of them, where windows are scattered: whatever lies beside a chunk, another block may want.
    """
    if scattered:
        return {each.dim for each in frame.maps}
    return {
        each.dim
        for each in frame.maps
        if len(each.terms) > 1 or not all(term.ascending for term in each.terms.values())
    }


@dataclass(frozen=True, eq=False)
class Group:
    """Variables that are stored alike, read in cells: one chunk, or several small ones.

    `grids` are the cells along each dim of the sample space that they have, the largest of
    `nbytes`.
    """

    reader: Reader
    grids: Mapping[Hashable, Chunks]
    nbytes: int

    @property
    def names(self) -> list[Hashable]:
        """The variables."""
        return list(self.reader.dataset.data_vars)

    def region(self, place: Sequence[int]) -> dict[Hashable, slice]:
        """Data positions of a cell."""
        return {
            dim: slice(*grid.bounds(number))
            for (dim, grid), number in zip(self.grids.items(), place, strict=True)
        }

    def load(self, place: Sequence[int]) -> BlockRead:
        """What is read for a cell."""
        region = self.region(place)
        box = tuple(
            (region[axis.dim].start, region[axis.dim].stop)
            if axis.dim in region
            else (0, axis.length)
            for axis in self.reader.windows.axes
        )
        shape = [grid.number(grid.length - 1) + 1 for grid in self.grids.values()]
        number = int(np.ravel_multi_index(tuple(place), shape)) if place else 0
        return BlockRead(number, box, self.reader.windows.frame.places, ())

    def around(self, region: Region) -> dict[Hashable, range]:
        """Numbers of the cells which a region touches, along each dim."""
        return {
            dim: range(
                int(grid.number(region[dim].start)), int(grid.number(region[dim].stop - 1)) + 1
            )
            for dim, grid in self.grids.items()
        }

    def joined(
        self,
        region: Region,
        cells: Mapping[Place, xr.Dataset],
        buffers: Buffers,
        copied: bool = False,
    ) -> dict[Hashable, xr.Variable]:
        """The variables over a region; copied where it lies in several cells, or if asked for."""
        inside = {}
        for place in cells:
            cell = self.region(place)
            inside[place] = {
                dim: slice(max(region[dim].start, own.start), min(region[dim].stop, own.stop))
                for dim, own in cell.items()
            }
        joined = {}
        for name in next(iter(cells.values())).data_vars:  # and where they are present
            parts = {}
            for place, within in inside.items():
                cell = self.region(place)
                own = {dim: moved(within[dim], cell[dim].start) for dim in within}
                parts[place] = cells[place].variables[name].isel(own)
            first = next(iter(parts.values()))
            if len(parts) == 1 and not copied:
                joined[name] = first
                continue
            sizes = {**first.sizes, **{dim: cut.stop - cut.start for dim, cut in region.items()}}
            dtype = np.result_type(*(part.dtype for part in parts.values()))
            out = buffers.take([sizes[dim] for dim in first.dims], dtype)
            for place, within in inside.items():
                target = tuple(
                    moved(within[dim], region[dim].start) if dim in within else slice(None)
                    for dim in first.dims
                )
                out[target] = parts[place].to_numpy()
            joined[name] = xr.Variable(first.dims, out, first.attrs)
        return joined

    def combined(self, region: Region, cells: Mapping[Place, xr.Dataset]) -> xr.Dataset:
        """All there is of a region, labels as well, as one."""
        around = self.around(region)
        dims = list(around)

        def nested(place: Place) -> xr.Dataset:
            if len(place) == len(dims):
                return cells[place]
            found = [nested((*place, number)) for number in around[dims[len(place)]]]
            if len(found) == 1:
                return found[0]
            return xr.concat(
                found,
                dim=dims[len(place)],
                data_vars="minimal",
                coords="minimal",
                compat="override",
                join="override",
                combine_attrs="override",
            )

        origin = self.region(tuple(numbers[0] for numbers in around.values()))
        exact = {dim: moved(region[dim], origin[dim].start) for dim in dims}
        return nested(()).isel(exact, missing_dims="ignore")


def moved(cut: slice, origin: int) -> slice:
    """A slice relative to an origin."""
    return slice(cut.start - origin, cut.stop - origin)
