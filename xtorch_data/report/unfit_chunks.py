"""A warning where the chunks of a store do not fit the windows."""

from __future__ import annotations

import xarray as xr

from ..common.text import format_bytes, sizes_of
from ..common.user_warnings import warn_user
from ..planning.chunks import Layout
from ..planning.coverage import amplification_of, used_nbytes
from ..planning.plan import Plan
from ..sources.lazy_arrays import in_memory

__all__ = ["stored", "warn_of_chunks"]

# Chunks that make an epoch decode so many times what it uses do not fit the windows.
TOO_MANY_TIMES = 4.0
# What is decoded besides what is used takes a second or less of an epoch if it is no more.
ENOUGH_TO_TELL = 2**28


def stored(plan: Plan, data: xr.Dataset) -> list[Layout]:
    """Variables that are read chunk by chunk: neither in memory, nor without chunks."""
    layouts = (each for each in plan.layouts if each.in_chunks)
    return [each for each in layouts if not in_memory(data[each.name].variable)]


def warn_of_chunks(plan: Plan, data: xr.Dataset) -> None:
    """Warn if the chunks of a store make an epoch decode many times what it uses.

    Data in memory, or not chunked, does not count.
    """
    layouts = stored(plan, data)
    if not layouts or not len(plan.windows):
        return
    if plan.cached and plan.block_nbytes * len(plan.grid) <= plan.memory:
        return  # decoded in the first epoch alone
    times = amplification_of(plan, layouts)
    used = sum(used_nbytes(layout, plan.windows) for layout in layouts)
    if times < TOO_MANY_TIMES or (times - 1) * used < ENOUGH_TO_TELL:
        return
    chunks = max(layouts, key=lambda layout: layout.itemsize)
    dims = [dim for dim in data[chunks.name].dims if dim in chunks.chunks]
    sizes = sizes_of((dim, chunks.chunks[dim].largest) for dim in dims)
    warn_user(
        f"an epoch decodes {format_bytes(int(times * used))} of the store to use "
        f"{format_bytes(used)}, {times:.1f} times as much: chunks such as those of "
        f"{chunks.name!r}, {sizes}, do not fit these windows with memory="
        f"{format_bytes(plan.memory)!r}. More memory, other windows, or a copy of the data by "
        "xtorch_data.rechunk(ds, dataset, path) read less; dataset.explain() says how much"
    )
