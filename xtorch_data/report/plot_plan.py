"""Chunks, blocks and pools, and which rank and worker reads which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np

from ..common.figures import (
    COLORS,
    Axes,
    axes_or_new,
    ink,
    is_dark,
    listed,
    open_frame,
    paper,
    plain,
)
from ..common.text import number_of
from ..planning.chunks import Layout, merged
from ..planning.intervals import Interval
from ..planning.plan import Plan
from ..planning.stages import BlockRead, Stage
from ..planning.windows import Axis
from ..samples.labels import LabelledWindows
from .plot_windows import as_dims, chunk_edges, label_dim

__all__ = ["plot_plan"]

# What is drawn at most: ranks and workers, blocks in all, numbers, and chunk grids.
MAX_READERS, MAX_READS, MAX_NUMBERS, MAX_GRIDS = 24, 4000, 120, 3
# What a legend names at most.
MAX_NAMED = 16

Box = tuple[Interval, ...]


@dataclass(frozen=True)
class _Read:
    """A block, or the part of it that a worker takes: all of a pool that is cut, less in order.

    Its `box` are window numbers ``[first, last)`` along every axis; where nothing is shuffled,
    the number of its pool is that of the block.
    """

    pool: int
    block: int
    box: Box

    @classmethod
    def of(cls, stage: Stage, load: BlockRead) -> _Read:
        along = zip(*(piece.box for piece in load.pieces), strict=True)
        box = tuple(
            (min(firsts), max(lasts)) for firsts, lasts in (zip(*p, strict=True) for p in along)
        )
        return cls(load.block if stage.shuffle is None else stage.shuffle[2], load.block, box)


@dataclass(frozen=True)
class _Reader:
    """A worker, or a rank without workers, and what it reads in the order of the epoch."""

    name: str
    reads: tuple[_Read, ...]


def _readers(
    plan: Plan, epoch: int, world_size: int, num_workers: int, ranks: int, most: int
) -> Iterator[_Reader]:
    """The workers of the first ranks, each with as many of its blocks as are wanted."""
    workers = max(1, num_workers)
    for rank, worker in itertools.product(range(ranks), range(workers)):
        stages = plan.stages(epoch, plan.intervals(epoch, rank, world_size, worker, workers))
        reads = (_Read.of(stage, load) for stage in stages for load in stage.loads)
        name = f"rank {rank}" + (f", worker {worker}" if num_workers else "")
        yield _Reader(name, tuple(itertools.islice(reads, most)))


def plot_plan(
    labels: LabelledWindows,
    plan: Plan,
    epoch: int,
    world_size: int,
    num_workers: int,
    dims: Hashable | Sequence[Hashable] | None,
    ax: Axes | None,
) -> Axes:
    """Draw the blocks of an epoch: see `PlanPlots.plan`."""
    axes = plan.windows.axes
    counts = plan.grid.shape or (1,) * len(axes)
    cut = [axis for axis, count in zip(axes, counts, strict=True) if count > 1]
    whole = [axis for axis in axes if axis.windowed] or list(axes)
    found_dims = as_dims(dims, plan.windows, cut[-2:] or whole[:1])
    chosen = [axis for axis in found_dims if isinstance(axis, Axis)]
    places = [axes.index(axis) for axis in chosen]
    ranks = max(1, min(world_size, MAX_READERS // max(1, num_workers)))
    most = MAX_READS // (ranks * max(1, num_workers))
    found = list(_readers(plan, epoch, world_size, num_workers, ranks, most))
    shown = [
        replace(each, reads=tuple(read for read in each.reads if _begins(plan, read.block, places)))
        for each in found
    ]
    if len(chosen) == 1:
        grids = _grids(plan, chosen[0])
        ax = axes_or_new(ax, 1.5 + 0.36 * (len(shown) + len(grids)))
        _draw_rows(ax, plan, places[0], shown, grids)
    else:
        ax = axes_or_new(ax, 5.2)
        _draw_plane(ax, plan, places, shown)
    for axis, matplotlib_axis in zip(reversed(chosen), (ax.xaxis, ax.yaxis), strict=False):
        label_dim(matplotlib_axis, axis, labels, (0, axis.length))
    notes = []
    if ranks < world_size:
        notes.append(f"the first {ranks} ranks")
    if any(len(each.reads) == most for each in found):
        notes.append(f"the first {most:,} blocks of each")
    others = [
        plain(axis.dim, 20)
        for place, axis in enumerate(axes)
        if place not in places and counts[place] > 1
    ]
    if others:
        notes.append(f"the first blocks along {listed(others, 4)}")
    topology = number_of(world_size, "rank")
    topology += f" × {number_of(num_workers, 'worker')}" if num_workers else ""
    blocks = number_of(len(plan.grid), "block")
    order = "shuffled" if plan.shuffle else "in order"
    drawn = f"\ndrawn: {'; '.join(notes)}" if notes else _unread(plan, found)
    ax.set_title(f"epoch {epoch}, {order}: {blocks} for {topology}{drawn}", fontsize=10)
    return ax


def _unread(plan: Plan, readers: Sequence[_Reader]) -> str:
    """What is said of blocks that nobody reads, such as those of samples that `uneven` leaves."""
    unread = len(plan.grid) - len({read.block for reader in readers for read in reader.reads})
    return f"\nblank: {number_of(unread, 'block')} without a sample in this epoch" if unread else ""


def _begins(plan: Plan, block: int, places: Sequence[int]) -> bool:
    """Whether a block is the first along all axes but some."""
    at = np.unravel_index(block, plan.grid.shape) if plan.grid.shape else ()
    return all(number == 0 for place, number in enumerate(at) if place not in places)


def _span(plan: Plan, place: int, box: Sequence[Interval]) -> tuple[int, int, int]:
    """Begin of a box along an axis, begin of the next one, and end of its windows."""
    axis = plan.windows.axes[place]
    first, last = box[place]
    start, end = axis.span(first, last)
    return start, min(end, int(axis.starts.at(last))) if last < len(axis) else end, end


def _grids(plan: Plan, axis: Axis) -> list[Layout]:
    """Different chunk grids along a dim, of a few variables."""
    along = [
        Layout(each.name, 1, {axis.dim: each.chunks[axis.dim]})
        for each in plan.layouts
        if axis.dim in each.chunks
    ]
    return merged(each for each in along if each.chunks[axis.dim].in_chunks)[:MAX_GRIDS]


def _draw_rows(
    ax: Axes, plan: Plan, place: int, shown: Sequence[_Reader], grids: Sequence[Layout]
) -> None:
    """A row for each reader, in which the blocks that it reads have the colors of pools."""
    axis = plan.windows.axes[place]
    for row, layout in enumerate(grids):
        edges = chunk_edges(layout.chunks[axis.dim], (0, axis.length))
        boxes = list(zip(edges[:-1] - 0.5, np.diff(edges), strict=True))
        shades = [(ink(0.25), ink(0.12))[number % 2] for number in range(len(boxes))]
        ax.broken_barh(boxes, (row - 0.25, 0.5), facecolors=shades).set_gid("chunks")
    color = _pool_colors(ax, plan, shown)
    pale = 0.55 if is_dark() else 0.35
    written = 0
    for row, reader in enumerate(shown, len(grids)):
        spans = [_span(plan, place, read.box) for read in reader.reads]
        colors = [color(read.pool) for read in reader.reads]
        halos = [(begin - 0.5, end - begin) for _, begin, end in spans]
        ax.broken_barh(halos, (row - 0.15, 0.3), facecolors=colors, alpha=pale, zorder=1)
        # Edges part blocks from each other, or make those wider that are hardly to be seen.
        wide = all((begin - start) * 100 >= axis.length for start, begin, _ in spans)
        blocks = ax.broken_barh(
            [(start - 0.5, begin - start) for start, begin, _ in spans],
            (row - 0.4, 0.8),
            facecolors=colors,
            edgecolors=paper() if wide else colors,
            linewidth=0.6,
            zorder=2,
        )
        blocks.set_gid(reader.name)
        for read, (start, begin, _) in zip(reader.reads, spans, strict=True):
            if (begin - start) * 50 >= len(f"{read.pool}") * axis.length and written < MAX_NUMBERS:
                written += 1
                _write(ax, (start + begin - 1) / 2, row, read.pool, color(read.pool))
    counts = [layout.chunks[axis.dim].count for layout in grids]
    names = [
        f"{number_of(count, 'chunk')} of {plain(layout.name, 16)}"
        for count, layout in zip(counts, grids, strict=True)
    ]
    names += [reader.name for reader in shown]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    open_frame(ax)


def _draw_plane(ax: Axes, plan: Plan, places: Sequence[int], shown: Sequence[_Reader]) -> None:
    """Blocks in the colors of their readers; of one reader alone, in those of pools."""
    collections = import_module("matplotlib.collections")
    patches = import_module("matplotlib.patches")
    y, x = places
    alone = len(shown) == 1
    of_pool = _pool_colors(ax, plan, shown) if alone else None
    sharing: dict[Box, list[int]] = {}
    for number, reader in enumerate(shown):
        for read in reader.reads:
            sharing.setdefault(read.box, []).append(number)
    written: set[Box] = set()
    handles = []
    for number, reader in enumerate(shown):
        color = _reader_color(number, len(shown))
        boxes = []
        for read in reader.reads:
            (left, right, _), (low, high, _) = (_span(plan, at, read.box) for at in (x, y))
            members = list(dict.fromkeys(sharing[read.box]))
            width = (right - left) / len(members)
            begin = left - 0.5 + members.index(number) * width
            end, floor, top = begin + width, low - 0.5, high - 0.5
            boxes.append([(begin, floor), (end, floor), (end, top), (begin, top)])
            wide = (right - left) * 30 >= plan.windows.axes[x].length
            if wide and read.box not in written and len(written) < MAX_NUMBERS:
                written.add(read.box)
                fill = of_pool(read.pool) if of_pool else color
                _write(ax, (begin + end) / 2, (floor + top) / 2, read.pool, fill)
        blocks = collections.PolyCollection(
            boxes,
            facecolors=[of_pool(read.pool) for read in reader.reads] if of_pool else color,
            edgecolors=paper(),
            linewidths=0.6 if len(plan.grid) < 1000 else 0,
            zorder=1,
        )
        blocks.set_gid(reader.name)
        ax.add_collection(blocks)
        handles.append(patches.Patch(color=color, label=reader.name))
    axes = [plan.windows.axes[place] for place in places]

    def dims_in_chunks(layout: Layout) -> int:
        return sum(dim in dims and grid.in_chunks for dim, grid in layout.chunks.items())

    dims = [axis.dim for axis in axes]
    layout = max(plan.layouts, key=dims_in_chunks)
    ys, xs = (chunk_edges(layout.chunks.get(axis.dim), (0, axis.length)) - 0.5 for axis in axes)
    ax.vlines(xs, ys[0], ys[-1], ink(), linewidth=0.7, zorder=2)
    ax.hlines(ys, xs[0], xs[-1], ink(), linewidth=0.7, zorder=2)
    if alone:
        return
    if len(handles) > MAX_NAMED:
        more = patches.Patch(color="none", label=f"and {len(handles) - MAX_NAMED} more")
        handles = [*handles[:MAX_NAMED], more]
    if len(xs) + len(ys) > 4:  # more than the frame
        lines = import_module("matplotlib.lines")
        name = f"chunks of {plain(layout.name, 20)}"
        handles.append(lines.Line2D([], [], color=ink(), linewidth=0.7, label=name))
    ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        frameon=False,
        fontsize="small",
        title="numbers are pools" if plan.shuffle else "numbers are blocks",
        title_fontsize="small",
    )


def _reader_color(number: int, count: int) -> Any:
    colors = import_module("matplotlib.colors")
    if count <= len(COLORS):
        return colors.to_rgba(COLORS[number])
    return _shades()(1 - number / (count - 1))


def _shades() -> Any:
    """Colors from light to dark, on dark paper not as far as it."""
    matplotlib = import_module("matplotlib")
    shades = matplotlib.colormaps["viridis_r"]
    return (
        matplotlib.colors.ListedColormap(shades(np.linspace(0, 0.85, 256))) if is_dark() else shades
    )


def _pool_colors(ax: Axes, plan: Plan, shown: Sequence[_Reader]) -> Callable[[int], Any]:
    """From a pool to its color: light is early, dark is late. Draws what they mean."""
    matplotlib = import_module("matplotlib")
    pools = [read.pool for reader in shown for read in reader.reads] or [0]
    norm = matplotlib.colors.Normalize(min(pools), max(max(pools), min(pools) + 1))
    shades = _shades()
    numbers = np.unique(pools)
    colors = dict(zip(numbers.tolist(), shades(norm(numbers)), strict=True))
    if len(numbers) == 1:
        return colors.__getitem__
    bar = ax.figure.colorbar(
        matplotlib.cm.ScalarMappable(norm, shades), cax=ax.inset_axes((1.015, 0, 0.015, 1))
    )
    bar.set_label("pool, in order" if plan.shuffle else "block, in order")
    bar.locator = matplotlib.ticker.MaxNLocator(4, integer=True)
    bar.update_ticks()
    return colors.__getitem__


def _write(ax: Axes, x: float, y: float, number: int, color: Any) -> None:
    """A number on a color, so that it can be read."""
    light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 0.5
    ax.text(
        x, y, f"{number}", ha="center", va="center", fontsize=8, zorder=3, clip_on=True,
        color="black" if light else "white",
    )  # fmt: skip
