"""Chunks and shards of a mosaic: those of the source, as far as memory allows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from ..sources.lazy_arrays import in_memory, stored_positions, zarr_array
from .mosaic_layout import MosaicLayout

__all__ = ["chunks_of", "shards_of"]

# Bytes of a chunk, about, where the source has none.
CHUNK_BYTES = 8 * 2**20
# Tiles that there is room for at least.
TILES = 4


def chunks_of(
    layout: MosaicLayout, name: Hashable, given: Sequence[int] | None, itemsize: int, memory: int
) -> tuple[int, ...]:
    """Steps of a chunk along each dim of the field: those of the source, or what is given.

    Of chunks of the source that are too large for several in memory, a part.
    """
    sizes = list(layout.field.sizes)
    if given is not None:
        return tuple(min(int(size), most) for size, most in zip(given, sizes, strict=True))
    layouts = {each.name: each for each in layout.definition.layouts}
    own = layouts.get(name) or next(iter(layouts.values()), None)
    stored = own is not None and bool(own.chunks) and own.in_chunks
    variable = layout.definition.data.variables.get(name)
    stored = stored and (variable is None or not in_memory(variable))
    most = max(1, memory // TILES) if stored else min(CHUNK_BYTES, max(1, memory // TILES))
    if stored:
        assert own is not None
        at = 0
        for each in layout.field.dims:
            grid = own.chunks.get(each.dim)
            if grid is not None and grid.in_chunks:
                size = grid.largest // len(each.steps) if each.kept else grid.largest
                sizes[at] = min(sizes[at], max(1, size))
            at += len(each.shape)
    for at in range(len(sizes)):
        rest = math.prod(sizes) // sizes[at] * itemsize
        if sizes[at] * rest > most:
            sizes[at] = max(1, most // rest)
    return tuple(sizes)


def shards_of(
    layout: MosaicLayout, name: Hashable, chunks: Sequence[int], itemsize: int, memory: int
) -> tuple[int, ...] | None:
    """Steps of a shard along each dim of the field: as many chunks as in one of the source.

    None if the source has no shards, or memory has no room for several of them.
    """
    variable = layout.definition.data.variables.get(name)
    array = None if variable is None else zarr_array(variable)
    positions = None if variable is None else stored_positions(variable)
    if variable is None or array is None or array.shards is None or positions is None:
        return None
    ratios = [
        shard // chunk
        for shard, chunk, along in zip(array.shards, array.chunks, positions, strict=True)
        if not isinstance(along, int)
    ]
    of_dims = dict(zip(variable.dims, ratios, strict=True))
    many = [
        ratio
        for each in layout.field.dims
        for ratio in (of_dims.get(each.dim, 1), *[1] * (len(each.shape) - 1))
    ]
    sizes = zip(chunks, many, layout.field.sizes, strict=True)
    found = tuple(chunk * min(ratio, -(-size // chunk)) for chunk, ratio, size in sizes)
    if found == tuple(chunks) or math.prod(found) * itemsize > memory // TILES:
        return None
    return found
