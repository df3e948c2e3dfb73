"""A warning where the chunks of a store do not fit the windows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import xarray as xr

from ..common.redact import printable
from ..common.text import format_bytes
from ..planning.amplification import amplification_of, used_nbytes
from ..planning.plan import Plan
from ..sources.lazy_arrays import in_memory

__all__ = ["chunks_unsaid", "warn_of_chunks"]

# Chunks that make an epoch decode so many times what it uses do not fit the windows.
TOO_MANY_TIMES = 4.0
# What is decoded besides what is used takes a second or less of an epoch if it is no more.
ENOUGH_TO_TELL = 2**28


def warn_of_chunks(plan: Plan, data: xr.Dataset, stacklevel: int = 3) -> None:
    """Warn if the chunks of a store make an epoch decode many times what it uses.

    Parameters
    ----------
    plan : Plan
        The plan of its epochs.
    data : xarray.Dataset
        What is read. What is in memory, or not chunked, does not count.
    stacklevel : int
        How many calls above is the line that is to blame.
    """
    stored = [
        each for each in plan.layouts if each.in_chunks and not in_memory(data[each.name].variable)
    ]
    if not stored or not len(plan.windows):
        return
    if plan.cached and plan.block_nbytes * len(plan.grid) <= plan.memory:
        return  # decoded in the first epoch alone
    times = amplification_of(plan, stored)
    used = sum(used_nbytes(layout, plan.windows) for layout in stored)
    if times < TOO_MANY_TIMES or (times - 1) * used < ENOUGH_TO_TELL:
        return
    chunks = max(stored, key=lambda layout: layout.itemsize)
    dims = [dim for dim in data[chunks.name].dims if dim in chunks.chunks]
    sizes = " × ".join(f"{printable(dim)} {chunks.chunks[dim].largest}" for dim in dims)
    warnings.warn(
        f"an epoch decodes {format_bytes(int(times * used))} of the store to use "
        f"{format_bytes(used)}, {times:.1f} times as much: chunks such as those of "
        f"{chunks.name!r}, {sizes}, do not fit these windows with memory="
        f"{format_bytes(plan.memory)!r}. More memory, other windows, or a copy of the data by "
        "xtorch_data.rechunk(ds, dataset, path) read less; dataset.explain() says how much",
        stacklevel=stacklevel,
    )


@contextmanager
def chunks_unsaid() -> Iterator[None]:
    """Nothing is said of chunks and bounds: of datasets that are made for something else."""
    with warnings.catch_warnings():
        for message in ("an epoch decodes", "there are .* samples of each window"):
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield
