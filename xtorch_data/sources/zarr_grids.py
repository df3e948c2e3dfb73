"""The chunk grids of Zarr arrays, those of chunks of different sizes included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr

from ..planning.windows import IntArray

__all__ = ["numbers_of_chunks", "sizes_of_chunks"]


def sizes_of_chunks(array: zarr.Array[Any], stored: bool = False) -> Sequence[int | Sequence[int]]:
    """Sizes of the chunks of a Zarr array, along its dims; those of each in a rectilinear grid.

    Parameters
    ----------
    array : zarr.Array
        Any array.
    stored : bool
        Whether those of the shards are meant, if it has some.
    """
    is_v3 = array.metadata.zarr_format == 3
    grid: Any = array.metadata.chunk_grid if is_v3 else None
    if grid is None or grid.to_dict()["name"] == "regular":
        return (array.shards if stored else None) or array.chunks
    own: Any = array  # of zarr 3.3 and later
    sizes: Sequence[Sequence[int]] = own.write_chunk_sizes if stored else own.read_chunk_sizes
    return sizes


def numbers_of_chunks(positions: Any, size: int | Sequence[int]) -> IntArray:
    """In which chunks along a dim positions lie.

    Parameters
    ----------
    positions : array_like of int
        Positions along the dim.
    size : int or sequence of int
        Of `sizes_of_chunks`.
    """
    if isinstance(size, Sequence):
        return np.asarray(np.searchsorted(np.cumsum(size), positions, side="right"))
    return np.asarray(np.asarray(positions) // size)
