"""The chunk grids of Zarr arrays, and the chunks that hold parts of a lazy variable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store

from ..planning.windows import IntArray
from .lazy_arrays import stored_positions, zarr_array

__all__ = ["StoredChunks", "sizes_of_chunks"]


def sizes_of_chunks(array: zarr.Array[Any], stored: bool = False) -> Sequence[int | Sequence[int]]:
    """Sizes of the chunks of a Zarr array, along its dims; those of each in a rectilinear grid.

    Those of its shards, if they are `stored`.
    """
    is_v3 = array.metadata.zarr_format == 3
    grid: Any = array.metadata.chunk_grid if is_v3 else None
    if grid is None or grid.to_dict()["name"] == "regular":
        return (array.shards if stored else None) or array.chunks
    own: Any = array  # of zarr 3.3 and later
    sizes: Sequence[Sequence[int]] = own.write_chunk_sizes if stored else own.read_chunk_sizes
    return sizes


@dataclass(frozen=True, eq=False)
class StoredChunks:
    """The chunks, or shards, in which a lazy variable is stored; it may be sent to processes."""

    store: Store
    prefix: str  # of keys of the array
    key_of: Callable[[tuple[int, ...]], str]  # from numbers along all axes of the stored array
    # Positions along each of these axes; an integer where the variable has no dim for it.
    positions: tuple[range | IntArray | int, ...]
    sizes: tuple[int | Sequence[int], ...]  # steps of a chunk, or those of each one

    @classmethod
    def of(cls, variable: xr.Variable) -> StoredChunks | None:
        """The chunks of a variable; None if it is no lazy one of a Zarr array.

        Dask does not say where a graph reads.
        """
        array, positions = zarr_array(variable), stored_positions(variable)
        if array is None or positions is None:
            return None
        prefix = f"{array.path}/" if array.path else ""
        sizes = tuple(sizes_of_chunks(array, stored=True))
        return cls(array.store, prefix, array.metadata.encode_chunk_key, tuple(positions), sizes)

    def ends(self) -> list[str]:
        """Keys of the first and the last chunk; one if that is the same, none if it is empty."""
        numbers = []
        for along, size in zip(self.positions, self.sizes, strict=True):
            part: Any = [along] if isinstance(along, int) else along
            if not len(part):
                return []
            if isinstance(part, range):  # all between its ends
                part = part[0], part[-1]
            numbers.append(_numbers([np.min(part), np.max(part)], size).tolist())
        places = zip(*numbers, strict=True) if numbers else [()]
        return [self._key(place) for place in dict.fromkeys(places)]

    def within(self, box: Sequence[tuple[int, int]]) -> Iterator[str]:
        """Keys of the chunks that hold a box, given as positions along each dim of the variable."""
        bounds = iter(box)
        numbers: list[Sequence[int]] = []
        for along, size in zip(self.positions, self.sizes, strict=True):
            part = along if isinstance(along, int) else along[slice(*next(bounds))]
            if isinstance(part, range):  # all between its ends
                first, last = sorted(_numbers((part[0], part[-1]), size).tolist())
                numbers.append(range(first, last + 1))
            else:
                numbers.append(np.unique(_numbers(part, size)).tolist())
        return map(self._key, itertools.product(*numbers))

    def _key(self, place: tuple[int, ...]) -> str:
        return self.prefix + self.key_of(place)


def _numbers(positions: Any, size: int | Sequence[int]) -> IntArray:
    """In which chunks along a dim positions lie."""
    if isinstance(size, Sequence):
        return np.asarray(np.searchsorted(np.cumsum(size), positions, side="right"))
    return np.asarray(np.asarray(positions) // size)
