"""Memory that a variable takes, from the chunk as it is stored to the copies that stay."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import xarray as xr

from ..planning.chunks import Layout
from ..planning.intervals import Interval
from ..planning.plan import Plan
from ..planning.windows import Windows
from ..reading.concurrency import FEWEST_FETCHED, fetched_bytes
from ..reading.recycled import is_fetched, read_path
from ..reading.shards import MOST_BYTES, MOST_FILE_BYTES
from ..samples.definition import SampleDefinition
from ..sources.lazy_arrays import in_memory, is_computed, is_lazy, stored_dtype

__all__ = ["Footprint", "alike", "values_in"]


@dataclass(frozen=True)
class Footprint:
    """Memory of a variable, in bytes of one value, or of all places outside the sample space.

    Attributes
    ----------
    layout : Layout
        How it is stored.
    read : int
        As it is read; 0 where that is a view of memory that was there before.
    cast : int
        Of copies in the dtypes of parts.
    lasts : bool
        Whether what is read is needed beside the copies.
    stored : int
        As it comes from the store, before it is decoded to what is read; 0 if it is not decoded.
    recycled : bool
        Whether what it is read into is used again.
    graph : bool
        Whether dask puts it together from chunks.
    scratch : int
        Bytes of a chunk, or two, that each thread needs to decode one.
    fetched : int
        As it comes from a store that is asked for each chunk; 0 for others.
    room : int
        Bytes, not of one value, that may be fetched and not decoded at a time.
    """

    layout: Layout
    read: int
    cast: int
    lasts: bool
    stored: int
    recycled: bool
    graph: bool
    scratch: int
    fetched: int = 0
    room: int = 0

    @classmethod
    def of(
        cls, layout: Layout, variable: xr.Variable, samples: SampleDefinition, plan: Plan
    ) -> Footprint:
        """What a variable takes."""
        outside = math.prod(
            size for dim, size in variable.sizes.items() if dim not in layout.chunks
        )
        recipe = samples
        wanted = [part for part in recipe.parts if layout.name in part.variables]
        labelled = any(part.name in recipe.transforms for part in wanted)
        dtypes = {part.dtype for part in wanted if part.name not in recipe.transforms}
        lazy = is_lazy(variable)
        # Copied, unless values are and lie as windows want them.
        as_is = set() if _is_reordered(variable, plan.windows) else {variable.dtype}
        cast = sum(dtype.itemsize for dtype in dtypes - as_is)
        path = read_path(variable) if lazy else ""
        stored = stored_dtype(variable) if lazy else None
        chunk = math.prod(grid.largest for grid in layout.chunks.values()) * outside
        shards, requested = variable.encoding.get("shards"), lazy and is_fetched(variable)
        scratch = 0
        if path in ("directly", "by zarr"):
            # The chunk as it is stored, and decoded where only part of it is wanted.
            copies = 2 if plan.shuffle or not _in_rows(layout) else 1
            encoded = (stored or variable.dtype).itemsize
            scratch = 0 if _needs_no_scratch(variable, layout) else copies * chunk * encoded
            if shards and not requested:  # files, of which chunks are read together
                together = min(MOST_FILE_BYTES, math.prod(shards) * encoded)
                scratch += max(0, together - chunk * encoded)
        fetched = (stored or variable.dtype).itemsize if requested else 0
        most = chunk * fetched
        if shards:  # of which chunks are fetched together
            most = max(most, MOST_BYTES)
        return cls(
            layout=layout,
            read=0 if in_memory(variable) else variable.dtype.itemsize * outside,
            cast=cast * outside,
            lasts=labelled or not cast or not dtypes.isdisjoint(as_is),
            stored=0 if stored is None else stored.itemsize * outside,
            recycled=path in ("directly", "by zarr") or stored is not None,
            graph=is_computed(variable),
            scratch=scratch,
            fetched=fetched * outside,
            room=max(fetched_bytes(plan.memory), FEWEST_FETCHED * most) if fetched else 0,
        )

    @property
    def handed_on(self) -> int:
        """What it takes in the load after the one that reads it, or in later epochs."""
        return self.read + self.cast

    @property
    def kept(self) -> int:
        """What it takes as long as windows are gathered."""
        return self.cast + (self.read if self.lasts else 0)


def alike(variables: Iterable[Footprint]) -> list[Footprint]:
    """Variables that are stored and held alike as one, as large as all of them."""
    found: dict[Hashable, Footprint] = {}
    for each in variables:
        grids = tuple((dim, grid.key) for dim, grid in each.layout.chunks.items())
        key = grids, each.lasts, each.recycled, each.graph, bool(each.stored), bool(each.cast)
        before = found.get(key)
        if before is not None:
            each = replace(
                each,
                read=before.read + each.read,
                cast=before.cast + each.cast,
                stored=before.stored + each.stored,
                scratch=max(before.scratch, each.scratch),
                fetched=before.fetched + each.fetched,
                room=max(before.room, each.room),
            )
        found[key] = each
    return list(found.values())


def _is_reordered(variable: xr.Variable, windows: Windows) -> bool:
    """Tell whether values lie in another order than they are gathered in."""
    dims = [dim for dim in windows.order_in_memory if variable.sizes.get(dim, 1) > 1]
    return dims != [dim for dim in variable.dims if dim in dims]


def _in_rows(layout: Layout) -> bool:
    """Whether chunks follow each other along the first dim alone."""
    return all(grid.count == 1 for grid in islice(layout.chunks.values(), 1, None))


def _needs_no_scratch(variable: xr.Variable, layout: Layout) -> bool:
    """Whether chunks are read straight to where they belong."""
    codecs = variable.encoding.get("compressors", variable.encoding.get("compressor"))
    return not codecs and _in_rows(layout)


def values_in(layout: Layout, extents: Mapping[Hashable, Interval], decoded: bool = False) -> int:
    """Values of a variable in a region, or in the chunks that it touches."""
    return math.prod(
        int(grid.decoded(*extents[dim])) if decoded else extents[dim][1] - extents[dim][0]
        for dim, grid in layout.chunks.items()
    )
