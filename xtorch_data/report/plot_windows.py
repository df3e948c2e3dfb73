"""Pictures of samples on the data, and on its chunks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from ..common.figures import COLORS, Axes, axes_or_new, ink, label_steps, listed, plain
from ..planning.chunks import Chunks
from ..planning.plan import Plan
from ..planning.windows import Axis, Windows
from ..samples.labels import LabelledWindows

__all__ = ["as_dims", "chunk_edges", "label_dim", "plot_windows"]

MAX_SAMPLES, NAMED_SAMPLES = 50, 10
# Samples that lie on each other are named together, as many of them.
NAMED_TOGETHER = 4
# Of more chunks along a dim, no lines are drawn: they would hide what is between them.
MAX_LINES = 100
# A window is at least this part of what is shown of a dim.
LEAST_PART = 1 / 80

Interval = tuple[int, int]


def plot_windows(
    labels: LabelledWindows,
    plan: Plan,
    samples: int | Sequence[int],
    dims: Hashable | Sequence[Hashable] | None,
    ax: Axes | None,
) -> Axes:
    """Draw where samples lie on the chunks of a plan: see `WindowPlots.windows`."""
    numbers = [samples] if isinstance(samples, int | np.integer) else list(samples)
    if not numbers:
        raise ValueError("samples is empty: there is nothing to draw")
    numbers = [plan.windows.normalize(number) for number in numbers]
    several = [axis for axis in plan.windows.axes if axis.windowed and len(axis) > 1]
    whole = [axis for axis in plan.windows.axes if axis.windowed]
    chosen = as_dims(dims, plan.windows, (several or whole or plan.windows.axes)[-2:])
    drawn = numbers[:MAX_SAMPLES]
    regions = [_region(labels[number]) for number in drawn]
    high = 1.6 + 0.3 * min(len(drawn), 20) if len(chosen) == 1 else 5.0
    ax = axes_or_new(ax, high)
    views = {axis.dim: _view(axis, [region[axis.dim] for region in regions]) for axis in chosen}
    name, grid = _grid(plan, chosen)
    if len(chosen) == 1:
        _draw_bars(ax, chosen[0], drawn, regions, grid, views)
    else:
        _draw_boxes(ax, chosen, drawn, regions, grid, views)
    for axis, matplotlib_axis in zip(reversed(chosen), (ax.xaxis, ax.yaxis), strict=False):
        label_dim(matplotlib_axis, axis, labels, views[axis.dim])
    ax.set_title(_title(plan, numbers, name, grid, views), fontsize=10)
    return ax


def as_dims(
    dims: Hashable | Sequence[Hashable] | None, windows: Windows, default: Sequence[Axis]
) -> list[Axis]:
    """One or two axes of the sample space."""
    if not windows.axes:
        raise ValueError("the samples have no dim: there is nothing to draw along")
    if dims is None:
        return list(default)
    named = list(dims) if isinstance(dims, (list, tuple)) else [dims]
    if isinstance(dims, tuple) and dims in [axis.dim for axis in windows.axes]:
        named = [dims]
    if not 1 <= len(named) <= 2 or len(set(named)) < len(named):
        raise ValueError(f"dims are one dim or two, (y, x), not {dims!r}")
    return [windows.axis(dim) for dim in named]


def label_dim(matplotlib_axis: Any, axis: Axis, labels: LabelledWindows, view: Interval) -> None:
    """Show a stretch of a dim, with the labels of the data and how much of it is shown."""
    start, stop = view
    part = (
        "" if stop - start == axis.length else f" (steps {start:,} to {stop:,} of {axis.length:,})"
    )
    matplotlib_axis.axes.set(**{f"{matplotlib_axis.axis_name}lim": (start - 0.5, stop - 0.5)})
    matplotlib_axis.set_label_text(f"{plain(axis.dim)}{part}")
    texts = labels.texts(axis.dim)
    label_steps(matplotlib_axis, texts or (lambda at: f"{at:,}"), start, stop)


def chunk_edges(chunks: Chunks | None, view: Interval) -> np.ndarray[Any, Any]:
    """Edges of chunks inside a stretch of a dim, with its ends; the ends alone for too many."""
    start, stop = view
    if chunks is None or not chunks.in_chunks:
        return np.array([start, stop])
    first, last = (int(number) for number in chunks.number([start, stop - 1]))
    if last - first > MAX_LINES:
        return np.array([start, stop])
    begins = [chunks.bounds(number)[0] for number in range(first + 1, last + 1)]
    return np.array([start, *begins, stop])


def _region(window: Mapping[Any, slice | int]) -> dict[Hashable, Interval]:
    return {
        dim: (cut.start, cut.stop) if isinstance(cut, slice) else (cut, cut + 1)
        for dim, cut in window.items()
    }


def _view(axis: Axis, intervals: Sequence[Interval]) -> Interval:
    """Stretch of a dim that is shown: all of it, unless windows would be too small to see."""
    least = min(stop - start for start, stop in intervals)
    low, high = min(start for start, _ in intervals), max(stop for _, stop in intervals)
    if least >= LEAST_PART * axis.length:
        return 0, axis.length
    around = max(4 * least, (high - low) // 10)
    return max(0, low - around), min(axis.length, high + around)


def _grid(plan: Plan, chosen: Sequence[Axis]) -> tuple[Hashable, Mapping[Hashable, Chunks]]:
    """The variable whose chunks are drawn: the one with the most lines along these dims."""
    dims = [axis.dim for axis in chosen]

    def lines(layout: Any) -> int:
        return sum(
            layout.chunks[dim].count
            for dim in dims
            if dim in layout.chunks and layout.chunks[dim].in_chunks
        )

    layout = max(plan.layouts, key=lines)
    return layout.name, layout.chunks


def _touched(chunks: Chunks | None, interval: Interval) -> Interval:
    """The steps of the chunks which an interval touches."""
    start, stop = interval
    if chunks is None or not chunks.in_chunks:
        return interval
    first, last = (int(number) for number in chunks.number([start, stop - 1]))
    return chunks.bounds(first)[0], chunks.bounds(last)[1]


def _draw_bars(
    ax: Axes,
    axis: Axis,
    numbers: Sequence[int],
    regions: Sequence[Mapping[Hashable, Interval]],
    grid: Mapping[Hashable, Chunks],
    views: Mapping[Hashable, Interval],
) -> None:
    chunks = grid.get(axis.dim)
    for row, region in enumerate(regions):
        start, stop = region[axis.dim]
        low, high = _touched(chunks, region[axis.dim])
        ax.broken_barh([(low - 0.5, high - low)], (row - 0.5, 1), color=ink(0.1), zorder=0)
        color = COLORS[row % len(COLORS)]
        ax.broken_barh([(start - 0.5, stop - start)], (row - 0.3, 0.6), color=color, zorder=2)
    ax.vlines(
        chunk_edges(chunks, views[axis.dim]) - 0.5,
        -0.6,
        len(regions) - 0.4,
        ink(0.4),
        linewidth=0.8,
    )
    ax.set_ylim(len(regions) - 0.4, -0.6)
    every = -(-len(numbers) // 20)
    places = range(0, len(numbers), every)
    ax.set_yticks(places, [f"sample {numbers[place]:,}" for place in places])


def _draw_boxes(
    ax: Axes,
    chosen: Sequence[Axis],
    numbers: Sequence[int],
    regions: Sequence[Mapping[Hashable, Interval]],
    grid: Mapping[Hashable, Chunks],
    views: Mapping[Hashable, Interval],
) -> None:
    patches = import_module("matplotlib.patches")
    y, x = (axis.dim for axis in chosen)
    # Samples that differ along other dims alone lie on each other.
    together: dict[tuple[Interval, Interval], list[int]] = {}
    for number, region in zip(numbers, regions, strict=True):
        together.setdefault((region[y], region[x]), []).append(number)
    for place, (box, members) in enumerate(together.items()):
        region = dict(zip((y, x), box, strict=True))
        (left, right), (low, high) = (
            _touched(grid.get(x), region[x]),
            _touched(grid.get(y), region[y]),
        )
        shade = (left - 0.5, low - 0.5), right - left, high - low
        ax.add_patch(patches.Rectangle(*shade, color=ink(0.1), linewidth=0, zorder=0))
        (left, right), (low, high) = region[x], region[y]
        color = COLORS[place % len(COLORS)]
        ax.add_patch(
            patches.Rectangle(
                (left - 0.5, low - 0.5),
                right - left,
                high - low,
                facecolor=(color, 0.35),
                edgecolor=color,
                linewidth=1.8,
                zorder=2,
                label=_names(members, NAMED_TOGETHER) if place < NAMED_SAMPLES else None,
            )
        )
    xs, ys = (chunk_edges(grid.get(dim), views[dim]) - 0.5 for dim in (x, y))
    ax.vlines(xs, ys[0], ys[-1], ink(0.4), linewidth=0.8, zorder=1)
    ax.hlines(ys, xs[0], xs[-1], ink(0.4), linewidth=0.8, zorder=1)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")


def _title(
    plan: Plan,
    numbers: Sequence[int],
    name: Hashable,
    grid: Mapping[Hashable, Chunks],
    views: Mapping[Hashable, Interval],
) -> str:
    hidden = [
        plain(axis.dim, 20) for axis in plan.windows.axes if axis.dim not in views and len(axis) > 1
    ]
    beside = f"; not shown: {listed(hidden, 4)}" if hidden else ""
    shown = f"; the first {MAX_SAMPLES} are drawn" if len(numbers) > MAX_SAMPLES else ""
    sizes = [
        f"{plain(dim, 20)} {grid[dim].largest:,}"
        for dim in views
        if dim in grid and grid[dim].in_chunks
    ]
    lines = any(len(chunk_edges(grid.get(dim), view)) > 2 for dim, view in views.items())
    chunks = f"\n{'lines' if lines else 'shaded'}: chunks of {plain(name, 30)}, "
    chunks = chunks + " × ".join(sizes) if sizes else ""
    return f"{_names(numbers, NAMED_SAMPLES)} of {len(plan.windows):,}{shown}{beside}{chunks}"


def _names(numbers: Sequence[int], most: int) -> str:
    what = "sample" if len(numbers) == 1 else "samples"
    return f"{what} {listed([f'{number:,}' for number in numbers], most)}"
