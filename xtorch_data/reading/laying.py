"""Values that were read once, laid out as windows count them: also beyond the ends of the data."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..common.buffers import Buffers
from ..planning.windows import IntArray

__all__ = ["laid_out"]


def laid_out(read: xr.Variable, wanted: Mapping[Hashable, IntArray], buffers: Buffers) -> Any:
    """The values of a variable in memory at some steps of it, by dim, in memory of `buffers`.

    Most of them lie side by side and are copied at once; those at the ends then come from these.
    """
    values = read.data
    bodies = {read.dims.index(dim): _longest_run(steps) for dim, steps in wanted.items()}
    covers = all(
        steps[begin] == 0 and end - begin == read.sizes[dim]
        for (begin, end), (dim, steps) in zip(bodies.values(), wanted.items(), strict=True)
    )
    if not wanted or not covers or not isinstance(values, np.ndarray) or values.dtype.hasobject:
        return read.isel(wanted).data
    shape = [len(wanted.get(dim, range(size))) for dim, size in read.sizes.items()]
    out = buffers.take(shape, values.dtype)
    filled: list[slice] = [slice(None)] * values.ndim
    for axis, body in bodies.items():
        filled[axis] = slice(*body)
    out[tuple(filled)] = values
    for (axis, (begin, end)), steps in zip(bodies.items(), wanted.values(), strict=True):
        for ends in (slice(0, begin), slice(end, None)):
            if len(steps[ends]):
                inside = out[tuple(filled)]
                filled[axis] = ends
                out[tuple(filled)] = inside.take(steps[ends], axis=axis)
                filled[axis] = slice(begin, end)
        filled[axis] = slice(None)
    return out


def _longest_run(steps: IntArray) -> tuple[int, int]:
    """Places ``[begin, end)`` of the most steps that follow each other."""
    edges = np.flatnonzero(np.diff(steps) != 1) + 1
    edges = np.concatenate([[0], edges, [len(steps)]])
    longest = int(np.diff(edges).argmax())
    return int(edges[longest]), int(edges[longest + 1])
