"""Variables kept on disk in cells: a chunk each, decoded, or several small ones.

What is kept are decoded chunks, before `preprocess`. Blocks after it would spare running it again,
but who could tell a function from what it was before an edit, with all that it calls? And blocks
are cut to fit the windows, `memory` and the order, so that any other of these would fetch all
anew. Chunks are the same for all of them: for training, shuffled, and validation, in order, for
`where` and for samples by number; and none is there twice because blocks have a halo. Chunks as
they are stored would be smaller, but only Zarr has them, not NetCDF files or graphs of dask.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.buffers import Buffers
from ..common.redact import redacted, without_secrets
from ..common.user_warnings import warn_user
from ..planning.chunks import Chunks
from ..sources.lazy_arrays import in_memory, must_be_read
from ..sources.source import layout_of
from .chunk_stamps import ChunkStamps
from .digests import Unidentified
from .disk_cache import DiskCache, entry_name
from .identity import identities

__all__ = ["DiskCells", "Found", "OnDisk"]

# Neighboring chunks are one cell up to so many bytes, and a chunk is several beyond so many.
SMALL, LARGE = 2**18, 2**25

# Of the memory, one part in so many holds what waits to be written; or so many bytes, if more.
WAITING_PART, WAITING = 8, 2**20

Region = Mapping[Hashable, slice]
Box = tuple[tuple[int, int], ...]  # positions [start, stop) along every dim
Place = tuple[int, ...]  # numbers of a cell
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Found:
    """The part of a region that was on disk, and the part that was not."""

    box: Box  # the region
    values: Array | None  # filled as far as cells were there; None if none was
    # To be read, to have the rest; None if nothing is missing. It may reach beyond the region, to
    # the ends of cells.
    missing: dict[Hashable, slice] | None
    names: Mapping[Place, str]  # of its cells, before any of it is read


@dataclass(frozen=True, eq=False)
class DiskCells:
    """One variable in cells, some of which are on disk; made for each dataset, for any thread."""

    cache: DiskCache
    identity: bytes  # tells the variable from others, and its cells from those of other grids
    dims: tuple[Hashable, ...]
    dtype: np.dtype[Any]  # as it is read
    grids: tuple[Chunks, ...]  # the cells along each of its dims
    buffers: Buffers  # for what is read
    stamps: ChunkStamps | None = None  # change when the files of a cell are written anew

    @classmethod
    def of(
        cls,
        variable: xr.Variable,
        identity: bytes,
        cache: DiskCache,
        buffers: Buffers,
        stamps: ChunkStamps | None = None,
    ) -> DiskCells | None:
        """The cells of a variable; None if it cannot be kept, such as objects of Python."""
        grids = _grids(variable)
        if grids is None:
            return None
        told = repr([(each.length, each.size, each.offset) for each in grids]).encode()
        edges = [b"" if each.edges is None else each.edges.tobytes() for each in grids]
        own = entry_name(identity, variable.dtype.str.encode(), told, *edges)
        dims, dtype = variable.dims, variable.dtype
        return cls(cache, bytes.fromhex(own), dims, dtype, grids, buffers, stamps)

    def take(self, region: Region) -> Found:
        """A region, as far as it is on disk."""
        box = tuple(
            (region[dim].start, region[dim].stop) if dim in region else (0, grid.length)
            for dim, grid in zip(self.dims, self.grids, strict=True)
        )
        if any(start >= stop for start, stop in box):
            return Found(box, None, None, {})
        names = {place: self._name(place) for place in self._around(box)}
        absent = [place for place, name in names.items() if name not in self.cache]
        if len(absent) == len(names):
            return Found(box, None, self._hull(absent), names)
        out = self.buffers.take(_shape(box), self.dtype)
        # What lies between missing cells is read with them.
        missing = self._hull(absent) if absent else None
        for place, name in names.items():
            cell = self._bounds(place)
            if missing is None or not self._is_inside(cell, missing):
                if not self._read(name, cell, box, out):
                    absent.append(place)
        return Found(box, out, self._hull(absent) if absent else None, names)

    def give(self, found: Found, read: Array) -> Array:
        """A region, of which the missing part has been read; its cells are kept."""
        assert found.missing is not None
        origin = tuple((each.start, each.stop) for each in found.missing.values())
        if type(read) is np.ndarray and read.dtype == self.dtype:
            for place in self._around(origin):
                name = found.names[place]
                # Not what was written while it was read.
                if name not in self.cache and name == self._name(place):
                    self.cache.offer(name, read[_within(self._bounds(place), origin)])
        out = found.values
        if out is None:
            if found.box == origin:
                return read
            out = self.buffers.take(_shape(found.box), read.dtype)
        if out.dtype != read.dtype:  # of more digits than the variable has declared
            out = out.astype(np.result_type(out, read))
        both = _overlap(origin, found.box)
        out[_within(both, found.box)] = read[_within(both, origin)]
        return out

    def _read(self, name: str, cell: Box, box: Box, out: Array) -> bool:
        """Read a cell into its place in a region; without a copy where it is whole there."""
        both = _overlap(cell, box)
        target = out[_within(both, box)]
        if both == cell and target.flags.c_contiguous:
            return self.cache.read(name, target)
        values = self.buffers.take(_shape(cell), self.dtype)
        if not self.cache.read(name, values):
            return False
        target[...] = values[_within(both, cell)]
        return True

    def _around(self, box: Box) -> Iterator[Place]:
        """The cells which a box touches."""
        return itertools.product(
            *(
                range(int(grid.number(start)), int(grid.number(stop - 1)) + 1)
                for grid, (start, stop) in zip(self.grids, box, strict=True)
            )
        )

    def _name(self, place: Place) -> str:
        stamp = b"" if self.stamps is None else self.stamps.within(self._bounds(place))
        return entry_name(self.identity, np.asarray(place, "<i8").tobytes(), stamp)

    def _bounds(self, place: Place) -> Box:
        return tuple(grid.bounds(number) for grid, number in zip(self.grids, place, strict=True))

    def _hull(self, places: Sequence[Place]) -> dict[Hashable, slice]:
        """The least box of whole cells that holds some."""
        along = zip(self.dims, self.grids, zip(*places, strict=True), strict=True)
        return {
            dim: slice(grid.bounds(min(numbers))[0], grid.bounds(max(numbers))[1])
            for dim, grid, numbers in along
        }

    def _is_inside(self, cell: Box, hull: Mapping[Hashable, slice]) -> bool:
        return all(
            hull[dim].start <= start and stop <= hull[dim].stop
            for dim, (start, stop) in zip(self.dims, cell, strict=True)
        )


@dataclass(frozen=True, eq=False)
class OnDisk:
    """The variables of a dataset that are kept on disk; made with it, and sent where it is."""

    cache: DiskCache
    identities: Mapping[Hashable, bytes]  # tell them from any others
    stamps: Mapping[Hashable, ChunkStamps]  # of those in local chunk files

    @classmethod
    def of(
        cls,
        folder: str | None,
        size: int,
        memory: int,
        data: xr.Dataset,
        origin: str,
        retries: int,
    ) -> OnDisk | None:
        """The variables of a dataset that must be read, in a folder; None without a folder.

        Raises ValueError if one of them cannot be told from others surely, or if the folder is a
        file.
        """
        if folder is None:
            return None
        asked = {
            name: variable for name, variable in data.variables.items() if must_be_read(variable)
        }
        every = {name: ChunkStamps.of(variable) for name, variable in asked.items()}
        stamps = {name: each for name, each in every.items() if each is not None}
        told = {}
        for name, found in identities(asked, retries, stamps).items():
            try:
                told[name] = found.result()
            except Unidentified as error:
                raise ValueError(
                    f"cache cannot be a folder for variable {name!r} from {origin}, since "
                    f"something else in the folder could be taken for it: {redacted(str(error))}"
                ) from without_secrets(error)
        if not told:
            warn_user(f"nothing is kept in cache={folder!r}: all variables are in memory")
            return None
        return cls(DiskCache(folder, size, max(WAITING, memory // WAITING_PART)), told, stamps)

    def waiting(self, data: xr.Dataset) -> int:
        """Bytes that wait to be written, at most: copies, beside blocks and what they may take."""
        every, largest = 0, 0
        for variable in map(data.variables.__getitem__, self.identities):
            grids = None if in_memory(variable) else _grids(variable)
            if grids is not None:
                cell = math.prod(grid.largest for grid in grids) * variable.dtype.itemsize
                every, largest = every + variable.nbytes, max(largest, cell)
        return min(every, max(self.cache.waiting, largest))  # one waits, whatever its size

    def cells(self, data: xr.Dataset, buffers: Buffers) -> dict[Hashable, DiskCells]:
        """The variables in cells."""
        found = {}
        for name, own in self.identities.items():
            variable = data.variables.get(name)  # of other parts, none
            if variable is not None and not in_memory(
                variable
            ):  # such as one that is memory-mapped by now
                cells = DiskCells.of(variable, own, self.cache, buffers, self.stamps.get(name))
                if cells is not None:
                    found[name] = cells
        return found


def _grids(variable: xr.Variable) -> tuple[Chunks, ...] | None:
    """The cells of a variable along each of its dims; None if it cannot be kept."""
    dims, dtype = variable.dims, variable.dtype
    if dtype.hasobject or not variable.size or not dtype.itemsize or len(set(dims)) < len(dims):
        return None
    chunks = layout_of(variable, None, dims).chunks
    return _cells([chunks[dim] for dim in dims], dtype.itemsize)


def _cells(chunks: Sequence[Chunks], itemsize: int) -> tuple[Chunks, ...]:
    """The grids of cells: chunks, joined where they are small and cut where they are large."""
    grids = [replace(each, stored=False) for each in chunks]
    nbytes = itemsize * math.prod(grid.largest for grid in grids)
    for place in reversed(range(len(grids))):
        every = min(max(1, SMALL // nbytes), grids[place].count)
        if every > 1:
            grids[place] = grids[place].joined(every)
            nbytes *= every
    for place, grid in enumerate(grids):
        if nbytes > LARGE and grid.largest > 1:
            steps = max(1, grid.largest * LARGE // nbytes)
            nbytes = nbytes // grid.largest * steps
            grids[place] = _cut(grid, steps)
    return tuple(grids)


def _cut(grid: Chunks, steps: int) -> Chunks:
    """A grid whose chunks are cut into so many steps, or fewer at their ends."""

    def edges() -> Iterator[int]:
        for number in range(grid.count):
            start, stop = grid.bounds(number)
            yield from range(start, stop, steps)
        yield grid.length

    return Chunks(grid.length, edges=np.fromiter(edges(), np.int64))


def _shape(box: Box) -> list[int]:
    return [stop - start for start, stop in box]


def _overlap(one: Box, other: Box) -> Box:
    return tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _within(box: Box, origin: Box) -> tuple[Any, ...]:
    """A box as slices of the box around it; of an array without dims, the array itself."""
    cut = (
        slice(start - begin, stop - begin)
        for (start, stop), (begin, _) in zip(box, origin, strict=True)
    )
    return (..., *cut)
