"""Chunks that fit windows, and the regions in which data is copied into them.

Pure arithmetic over integers, no IO.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .blocks import BLOCKS_PER_POOL, ENOUGH_AMPLIFICATION, BlockGrid, plan_shuffled
from .chunks import Chunks, Layout
from .coverage import amplification_of
from .index_maps import Regular
from .plan import Plan
from .windows import Axis, Windows

__all__ = ["DEFAULT_MEMORY", "Fitted", "copied_in", "fitted", "regions", "shards_of"]

Sizes = dict[Hashable, int]

# What copying may take, if nobody says.
DEFAULT_MEMORY = "1 GiB"
# Bytes of a chunk as it is decoded, about, where the memory of the windows' dataset allows it.
CHUNK_BYTES = 2 * 2**20
# Chunks of one variable that may be a file each; more are put into shards.
MANY_FILES = 20_000
# Bytes of a shard as it is decoded, at most.
SHARD_BYTES = 128 * 2**20
# Shapes that are tried: from that of windows (1) to that of the chunks there are (0).
BETWEEN = (1.0, 2 / 3, 1 / 3, 0.0)
# Copies of a region that are held at once: decoded, encoded, compressed.
COPIES = 3


@dataclass(frozen=True)
class Fitted:
    """Chunks that fit the windows of a plan.

    By variable, steps of a chunk along its dims; and the bytes that an epoch then decodes for one
    that it uses, about.
    """

    sizes: Mapping[Hashable, Mapping[Hashable, int]]
    amplification: float


def fitted(
    plan: Plan,
    layouts: Iterable[Layout],
    *,
    memory: int,
    given: Mapping[Hashable, int] | None = None,
) -> Fitted:
    """Chunks for some variables that make the windows of a plan read little more than they use.

    Shapes between that of a window, or of the blocks that would be read if any slice could be, and
    that of the chunks there are: of those that read the least for an epoch, the one into which the
    data is copied with the fewest reads. `layouts` say how variables are stored along each of their
    dims, those of the plan among them; `memory` is the bytes that copying may take; `given` has
    sizes along dims that are not ours to choose.
    """
    layouts = list(layouts)
    # Variables of the same dims are read together: their chunks begin at the same places.
    alike: dict[frozenset[Hashable], Layout] = {}
    for layout in sorted(layouts, key=lambda layout: layout.itemsize):
        alike[frozenset(layout.chunks)] = layout
    axes = {axis.dim: axis for axis in plan.windows.axes}
    most = min(CHUNK_BYTES, plan.memory // (3 * BLOCKS_PER_POOL * max(1, len(plan.layouts))))
    found: list[tuple[float, float, Fitted]] = []
    windows = {axis.dim: axis.size for axis in plan.windows.axes}
    for ideal in (windows, _block_extents(plan)):
        for share in BETWEEN:
            made = {
                dims: _scaled(_between(layout, ideal, share), layout, axes, most, given)
                for dims, layout in alike.items()
            }
            sizes = {layout.name: made[frozenset(layout.chunks)] for layout in layouts}
            if any(sizes == other.sizes for _, _, other in found):
                continue
            after = [_chunked(layout, sizes.get(layout.name, {})) for layout in plan.layouts]
            amplification = amplification_of(plan.over(plan.windows, layouts=after))
            reads = [
                copied_in(layout, sizes[layout.name], memory).amplification
                for layout in layouts
                if layout.chunks
            ]
            found.append((amplification, max(reads, default=1.0), Fitted(sizes, amplification)))
    least = min(amplification for amplification, _, _ in found)
    enough = max(ENOUGH_AMPLIFICATION, 1.05 * least)
    good = [each for each in found if each[0] <= enough]
    return min(good, key=lambda each: (round(each[1], 1), each[0]))[2]


def _block_extents(plan: Plan) -> Sizes:
    """The blocks that would be read if every slice could be read for its own cost."""
    free = [
        Layout(each.name, each.itemsize, {dim: Chunks(g.length) for dim, g in each.chunks.items()})
        for each in plan.layouts
    ]
    other = plan.over(plan.windows, layouts=free)
    return other.frame.sizes(other.frame.region(other.grid.box(len(other.grid) // 2)))


def _between(layout: Layout, ideal: Sizes, share: float) -> dict[Hashable, float]:
    """A shape between an ideal one and that of the chunks there are."""
    found = {}
    for dim, grid in layout.chunks.items():
        goal = min(ideal.get(dim, grid.length), grid.length)
        there = min(grid.largest, grid.length) if grid.in_chunks else goal
        found[dim] = float(goal) ** share * float(there) ** (1 - share)
    return found


def _scaled(
    shape: Mapping[Hashable, float],
    layout: Layout,
    axes: Mapping[Hashable, Axis],
    nbytes: int,
    given: Mapping[Hashable, int] | None,
) -> Sizes:
    """Whole steps of about such a shape and so many bytes, that divide the dims evenly."""
    given = given or {}
    found: Sizes = {}
    for dim, grid in layout.chunks.items():
        axis = axes.get(dim)
        if dim in given:
            found[dim] = min(given[dim], grid.length)
        elif axis is not None and axis.stride >= 2 * axis.size and axis.length == grid.length:
            found[dim] = math.gcd(axis.size, axis.stride)  # no step that is in no window
    room = nbytes / layout.itemsize / math.prod(found.values())
    rest = {dim: size for dim, size in shape.items() if dim not in found}
    lengths = {dim: layout.chunks[dim].length for dim in rest}
    # From the dim along which a chunk is longest: later ones make up for what is rounded.
    for dim in sorted(rest, key=lambda dim: -min(rest[dim], lengths[dim])):
        size = _factor(rest, lengths, room) * rest.pop(dim)
        found[dim] = _rounded(size, lengths.pop(dim), axes.get(dim))
        room /= found[dim]
    return {dim: found[dim] for dim in layout.chunks}


def _factor(shape: Mapping[Hashable, float], lengths: Mapping[Hashable, int], room: float) -> float:
    """By how much a shape is scaled to hold so many values, none longer than its dim."""
    low, high = 1e-12, 1e12
    for _ in range(60):
        middle = math.sqrt(low * high)
        sizes = (min(max(1.0, size * middle), lengths[dim]) for dim, size in shape.items())
        low, high = (low, middle) if math.prod(sizes) > room else (middle, high)
    return low


def _rounded(size: float, length: int, axis: Axis | None) -> int:
    """Whole windows where they lie side by side, else an even part of the dim."""
    size = min(max(1.0, size), length)
    if axis is not None and axis.length == length and 1 < axis.size <= axis.stride:
        return min(length, axis.stride * max(1, round(size / axis.stride)))
    return math.ceil(length / max(1, round(length / size)))


def _chunked(layout: Layout, sizes: Mapping[Hashable, int]) -> Layout:
    grids = {
        dim: Chunks(grid.length, sizes.get(dim, grid.length), stored=True)
        for dim, grid in layout.chunks.items()
    }
    return Layout(layout.name, layout.itemsize, grids)


def shards_of(
    layout: Layout, chunks: Mapping[Hashable, int], memory: int, always: bool = False
) -> Sizes | None:
    """Shards for chunks of which there are too many to be a file each; None if there are not.

    Their shape is made like that of the chunks there are. A shard is written as a whole, so that
    `memory` bounds it. With `always` there are shards however few chunks there are.
    """
    lengths = {dim: grid.length for dim, grid in layout.chunks.items()}
    most = min(SHARD_BYTES, memory // COPIES)
    shards = dict(chunks)

    def files() -> int:
        return math.prod(-(-lengths[dim] // size) for dim, size in shards.items())

    while files() > (1 if always else MANY_FILES):
        wider = [dim for dim, size in shards.items() if size < lengths[dim]]
        if not wider or 2 * math.prod(shards.values()) * layout.itemsize > most:
            break
        dim = max(wider, key=lambda dim: layout.chunks[dim].largest / shards[dim])
        shards[dim] *= 2
    return shards if shards != dict(chunks) else None


# Copying. A chunk, or shard, that is written is a window over what is read.


def copied_in(layout: Layout, unit: Mapping[Hashable, int], memory: int) -> BlockGrid:
    """The blocks of whole units in which a variable is copied with the fewest reads.

    `unit` has the steps of what is written as a whole, `memory` the bytes that copying one block
    may take.
    """
    axes, grids = [], {}
    for dim, grid in layout.chunks.items():
        size = unit[dim]
        padded = -(-grid.length // size) * size  # the last unit may reach beyond the end
        axes.append(Axis(dim, padded, size, Regular(0, padded, size), windowed=True))
        edges = None if grid.edges is None else np.append(grid.edges[:-1], padded)
        grids[dim] = Chunks(padded, grid.size, grid.offset, edges, grid.stored)
    padded_layout = Layout(layout.name, layout.itemsize, grids)
    return plan_shuffled(Windows.of(axes), [padded_layout], max(1, memory // COPIES))


def regions(
    lengths: Mapping[Hashable, int], cuts: Sequence[Sequence[int]]
) -> Iterator[dict[Hashable, slice]]:
    """The regions between cuts along each dim, none beyond the end of the data.

    `cuts` has for each dim where regions begin and the last one ends.
    """
    for place in np.ndindex(*(len(along) - 1 for along in cuts)):
        yield {
            dim: slice(along[number], min(along[number + 1], lengths[dim]))
            for dim, along, number in zip(lengths, cuts, place, strict=True)
        }
