"""How much more an epoch decodes than it uses, from integers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .blocks import decoded_once_nbytes
from .chunks import Layout
from .coverage import places_covered, wanted_along
from .plan import Plan
from .selection import Table
from .windows import Windows

__all__ = ["amplification_of", "used_nbytes"]


def used_nbytes(layout: Layout, windows: Windows, where: Table | None = None) -> int:
    """Bytes of a variable that are in a window, or one that `where` wants, each counted once."""
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
    """Bytes that an epoch decodes for one that it uses, about, if no sample is left out."""
    layouts = plan.layouts if layouts is None else layouts
    used = sum(used_nbytes(layout, plan.windows) for layout in layouts)
    return decoded_once_nbytes(plan.windows, layouts) * plan.amplification / used if used else 1.0
