"""Pictures of samples on the data, and on its chunks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ..common.figures import COLORS, Axes, axes_or_new, ink, is_dark, label_steps, listed, plain
from ..planning.chunks import Chunks, Layout
from ..planning.intervals import Interval
from ..planning.plan import Plan
from ..planning.windows import Axis, SourceWindows, WindowDim
from ..samples.definition import SampleDefinition
from ..samples.labels import LabelledWindows
from ..sources.label_steps import Breaks
from .plot_breaks import mark_breaks

__all__ = ["as_dims", "chunk_edges", "label_dim", "plot_windows"]

MAX_SAMPLES, NAMED_SAMPLES = 50, 10
# Samples that lie on each other are named together, as many of them.
NAMED_TOGETHER = 4
# Of more chunks along a dim, no lines are drawn: they would hide what is between them.
MAX_LINES = 100
# A window is at least this part of what is shown of a dim.
LEAST_PART = 1 / 80


@dataclass(frozen=True)
class _Dim:
    """A dim that is drawn: the steps of each sample, the chunks, and the stretch that is shown."""

    axis: WindowDim
    chunks: Chunks | None
    spans: list[Interval]
    view: Interval

    @classmethod
    def of(cls, axis: WindowDim, chunks: Chunks | None, cuts: Sequence[slice | int]) -> _Dim:
        spans = [
            (cut.start, cut.stop) if isinstance(cut, slice) else (cut, cut + 1) for cut in cuts
        ]
        return cls(axis, chunks, spans, _view(axis, spans))

    @property
    def edges(self) -> np.ndarray[Any, Any]:
        """Places of the lines between chunks, and of the ends."""
        return chunk_edges(self.chunks, self.view) - 0.5

    def touched(self, span: Interval) -> Interval:
        """Steps of the chunks that some steps touch."""
        if self.chunks is None or not self.chunks.in_chunks:
            return span
        first, last = (int(number) for number in self.chunks.number([span[0], span[1] - 1]))
        return self.chunks.bounds(first)[0], self.chunks.bounds(last)[1]


def plot_windows(
    definition: SampleDefinition,
    plan: Plan,
    samples: int | Sequence[int],
    dims: Hashable | Sequence[Hashable] | None,
    ax: Axes | None,
    breaks: Mapping[Hashable, Breaks],
) -> Axes:
    """Draw where samples lie on the chunks of a plan: see `WindowPlots.windows`."""
    numbers = [samples] if isinstance(samples, int | np.integer) else list(samples)
    if not numbers:
        raise ValueError("samples is empty: there is nothing to draw")
    numbers = [plan.windows.normalize(number) for number in numbers]
    labels, axes = definition.labelled, definition.primary.windows.axes
    several = [axis for axis in axes if axis.windowed and _several(axis)]
    whole = [axis for axis in axes if axis.windowed]
    chosen = as_dims(dims, definition.primary.windows, (several or whole or axes)[-2:])
    drawn = numbers[:MAX_SAMPLES]
    windows = [labels.laid(number) for number in drawn]
    layout = _with_most_lines(
        plan.layouts or definition.primary.layouts, [axis.dim for axis in chosen]
    )
    shown = [
        _Dim.of(axis, layout.chunks.get(axis.dim), [window[axis.dim] for window in windows])
        for axis in chosen
    ]
    if len(shown) == 1:
        ax = axes_or_new(ax, 1.6 + 0.3 * min(len(drawn), 20))
        _draw_bars(ax, shown[0], drawn)
    else:
        ax = axes_or_new(ax, 5.0)
        y, x = shown
        _draw_boxes(ax, y, x, drawn)
    for dim, matplotlib_axis in zip(reversed(shown), (ax.xaxis, ax.yaxis), strict=False):
        label_dim(matplotlib_axis, dim.axis, labels, dim.view)
    outside = []
    for dim, span in zip(reversed(shown), (ax.axvspan, ax.axhspan), strict=False):
        beyond = labels.beyond(dim.axis.dim)
        if beyond is not None:
            outside.append(f"{plain(dim.axis.dim, 20)} ({beyond.boundary})")
            (first, last), (start, stop) = beyond.inside, dim.view
            for low, high in ((start, first), (last, stop)):
                if low < high:
                    span(low - 0.5, high - 0.5, fill=False, hatch="///", edgecolor=ink(0.25), lw=0)
    marked: dict[str, str] = {}
    for dim, along in zip(reversed(shown), "xy", strict=False):
        if dim.axis.dim in breaks:
            text, name = labels.texts(dim.axis.dim), plain(dim.axis.dim, 20)
            found = mark_breaks(ax, along, breaks[dim.axis.dim], text, dim.view)
            marked |= {along: f"{found} along {name}"} if found else {}
    title = _title(plan, numbers, layout.name, shown)
    title += f"\nhatched: beyond the data along {', '.join(outside)}" if outside else ""
    title += f"\ndashed: {', '.join(marked.values())}" if marked else ""
    ax.set_title(title, fontsize=10, pad=18 if "x" in marked else None)
    return ax


def as_dims(
    dims: Hashable | Sequence[Hashable] | None,
    windows: SourceWindows,
    default: Sequence[WindowDim],
) -> list[WindowDim]:
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


def label_dim(
    matplotlib_axis: Any, axis: WindowDim, labels: LabelledWindows, view: Interval
) -> None:
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


def _view(axis: WindowDim, spans: Sequence[Interval]) -> Interval:
    """Stretch of a dim that is shown: all of it, unless windows would be too small to see."""
    least = min(stop - start for start, stop in spans)
    low, high = min(start for start, _ in spans), max(stop for _, stop in spans)
    if least >= LEAST_PART * axis.length:
        return 0, axis.length
    around = max(4 * least, (high - low) // 10)
    return max(0, low - around), min(axis.length, high + around)


def _several(axis: WindowDim) -> bool:
    """Whether there are windows at several places of a dim; events may be anywhere."""
    return len(axis) > 1 if isinstance(axis, Axis) else axis.size < axis.length


def _with_most_lines(layouts: Sequence[Layout], dims: Sequence[Hashable]) -> Layout:
    """The variable whose chunks are drawn: the one with the most of them along some dims."""

    def lines(layout: Layout) -> int:
        grids = (layout.chunks[dim] for dim in dims if dim in layout.chunks)
        return sum(grid.count for grid in grids if grid.in_chunks)

    return max(layouts, key=lines)


def _draw_bars(ax: Axes, dim: _Dim, numbers: Sequence[int]) -> None:
    """A row for each sample."""
    rows = len(numbers)
    for row, (start, stop) in enumerate(dim.spans):
        low, high = dim.touched((start, stop))
        ax.broken_barh([(low - 0.5, high - low)], (row - 0.5, 1), color=_shade(), zorder=0)
        color = COLORS[row % len(COLORS)]
        ax.broken_barh([(start - 0.5, stop - start)], (row - 0.3, 0.6), color=color, zorder=2)
    ax.vlines(dim.edges, -0.6, rows - 0.4, ink(0.4), linewidth=0.8)
    ax.set_ylim(rows - 0.4, -0.6)
    places = range(0, rows, -(-rows // 20))
    ax.set_yticks(places, [f"sample {numbers[place]:,}" for place in places])


def _draw_boxes(ax: Axes, y: _Dim, x: _Dim, numbers: Sequence[int]) -> None:
    """A rectangle for each sample."""
    rectangle = import_module("matplotlib.patches").Rectangle

    def box(rows: Interval, columns: Interval, **how: Any) -> None:
        (low, high), (left, right) = rows, columns
        ax.add_patch(rectangle((left - 0.5, low - 0.5), right - left, high - low, **how))

    # Samples that differ along other dims alone lie on each other.
    together: dict[tuple[Interval, Interval], list[int]] = {}
    for number, place in zip(numbers, zip(y.spans, x.spans, strict=True), strict=True):
        together.setdefault(place, []).append(number)
    for at, ((rows, columns), members) in enumerate(together.items()):
        box(y.touched(rows), x.touched(columns), color=_shade(), linewidth=0, zorder=0)
        color = COLORS[at % len(COLORS)]
        label = _names(members, NAMED_TOGETHER) if at < NAMED_SAMPLES else None
        look = {
            "facecolor": (color, 0.5 if is_dark() else 0.35),
            "edgecolor": color,
            "linewidth": 1.8,
            "zorder": 2,
        }
        box(rows, columns, label=label, **look)
    ys, xs = y.edges, x.edges
    ax.vlines(xs, ys[0], ys[-1], ink(0.4), linewidth=0.8, zorder=1)
    ax.hlines(ys, xs[0], xs[-1], ink(0.4), linewidth=0.8, zorder=1)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")


def _shade() -> Any:
    """The color of chunks that are touched."""
    return ink(0.22 if is_dark() else 0.1)


def _title(plan: Plan, numbers: Sequence[int], name: Hashable, shown: Sequence[_Dim]) -> str:
    dims = [each.axis.dim for each in shown]
    hidden = [
        plain(axis.dim, 20) for axis in plan.windows.axes if axis.dim not in dims and len(axis) > 1
    ]
    beside = f"; not shown: {listed(hidden, 4)}" if hidden else ""
    cut = f"; the first {MAX_SAMPLES} are drawn" if len(numbers) > MAX_SAMPLES else ""
    sizes = [
        f"{plain(each.axis.dim, 20)} {each.chunks.largest:,}"
        for each in shown
        if each.chunks is not None and each.chunks.in_chunks
    ]
    drawn_as = "lines" if any(len(each.edges) > 2 for each in shown) else "shaded"
    chunks = f"\n{drawn_as}: chunks of {plain(name, 30)}, {' × '.join(sizes)}" if sizes else ""
    return f"{_names(numbers, NAMED_SAMPLES)} of {len(plan.windows):,}{cut}{beside}{chunks}"


def _names(numbers: Sequence[int], most: int) -> str:
    what = "sample" if len(numbers) == 1 else "samples"
    return f"{what} {listed([f'{number:,}' for number in numbers], most)}"
