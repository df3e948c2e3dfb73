"""How much more an epoch decodes than it uses, from integers alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import xarray as xr
from dask.utils import format_bytes

from .blocks import decoded_once_nbytes
from .choice import Table
from .chunks import Layout
from .covered import places_covered, wanted_along
from .plan import Plan
from .redact import printable
from .windows import Windows

__all__ = ["amplification_of", "chunks_unsaid", "used_nbytes", "warn_of_chunks"]

# Chunks that make an epoch decode so many times what it uses do not fit the windows.
TOO_MANY_TIMES = 4.0
# What is decoded besides what is used takes a second or less of an epoch if it is no more.
ENOUGH_TO_TELL = 2**28


def used_nbytes(layout: Layout, windows: Windows, where: Table | None = None) -> int:
    """Bytes of a variable that are in a window that is wanted, each counted once.

    Parameters
    ----------
    layout : Layout
        The variable.
    windows : Windows
        The sample space.
    where : Table, optional
        Which windows are wanted; all by default.
    """
    axes = {axis.dim: axis for axis in windows.axes if axis.dim in layout.chunks}
    places = 1
    if where is not None:
        positions = {dim: np.arange(axis.length) for dim, axis in axes.items()}
        table = wanted_along(where, windows, axes)
        dims, wanted = places_covered(table, windows, positions)
        places = int(np.count_nonzero(wanted))
        for dim in dims:
            del axes[dim]
    steps = [
        min(len(axis) * axis.size, int(np.subtract(*axis.stretches[::-1]).sum()))
        for axis in axes.values()
    ]
    return layout.itemsize * places * math.prod(steps)


def amplification_of(plan: Plan, layouts: Sequence[Layout] | None = None) -> float:
    """Bytes that an epoch decodes for one that it uses, about, if no sample is left out.

    Parameters
    ----------
    plan : Plan
        The plan of the epoch.
    layouts : sequence of Layout, optional
        The variables that count, all by default.
    """
    layouts = plan.layouts if layouts is None else layouts
    used = sum(used_nbytes(layout, plan.windows) for layout in layouts)
    return decoded_once_nbytes(plan.windows, layouts) * plan.amplification / used if used else 1.0


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
        each for each in plan.layouts if each.in_chunks and not data[each.name].variable._in_memory
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
