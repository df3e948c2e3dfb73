"""Costs of the other sources of samples, from metadata alone: a dry run of what reads them."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..common import html
from ..common.text import format_bytes
from ..iteration.cells import cells_of, unordered
from ..iteration.companions import cell_nbytes
from ..planning.chunks import Chunks, Layout
from ..planning.companions import blocks_cost, frames_of, nbytes_once, nbytes_used
from ..planning.frames import Frame
from ..planning.intervals import Box, Interval, total
from ..planning.plan import Plan
from ..samples.definition import SampleDefinition
from ..samples.facts import lost_for, rules_of
from ..samples.losses import Loss, losses_of

__all__ = [
    "SourceCosts",
    "chunk_nbytes",
    "costs_of_sources",
    "lost_samples",
    "source_lines",
    "sources_table",
]

# Cells that are looked up one by one to count what is read; of more, it is estimated.
COUNTED_CELLS = 200_000

# Other reasons for which samples are left out.
REASONS = ("halo", "breaks", "where", "uneven", "drop_last")

Kept = Literal["whole", "handed on", "block by block"]


@dataclass(frozen=True)
class SourceCosts:
    """What another source of samples costs in an epoch.

    Attributes
    ----------
    rules : str
        Its steps in a sample, in short.
    kept : str
        ``"whole"``, once per process and for as long as the dataset lives; ``"handed on"`` from
        block to block, in order; or ``"block by block"``, where only chunks that blocks next to
        each other share are decoded once.
    memory : int
        Bytes that each process keeps of it.
    nbytes_once : int
        Bytes that are decoded if each chunk is decoded once.
    nbytes : int
        Bytes that are decoded, over all ranks and workers.
    amplification : float
        Their ratio.
    losses : tuple of Loss
        Windows that are left out, for they lack something of it.
    exact : bool
        Whether reads are counted, not estimated.
    """

    rules: str
    kept: Kept
    memory: int
    nbytes_once: int
    nbytes: int
    amplification: float
    losses: tuple[Loss, ...]
    exact: bool


def source_lines(name: str, found: SourceCosts) -> tuple[str, ...]:
    """What a source costs, and what it leaves out."""
    kept = f"kept {found.kept}" if found.kept == "whole" else found.kept
    return (
        f"{name}: {found.rules}; {kept}, {format_bytes(found.memory)} in each process",
        f"{'' if found.exact else 'about '}{format_bytes(found.nbytes)} decoded of "
        f"{format_bytes(found.nbytes_once)}: {found.amplification:.2f} times",
        *map(str, found.losses),
    )


def sources_table(sources: Mapping[str, SourceCosts]) -> str:
    """Costs and losses of sources, as HTML."""
    names = ("source", "its steps in a sample", "kept", "memory", "decoded", "times", "left out")
    rows = [
        (
            name,
            each.rules,
            each.kept,
            format_bytes(each.memory),
            format_bytes(each.nbytes),
            f"{each.amplification:.2f}",
            "; ".join(map(str, each.losses)),
        )
        for name, each in sources.items()
    ]
    return html.table(names, rows)


def chunk_nbytes(layout: Layout) -> int:
    """Bytes of the largest chunk of a variable."""
    return layout.itemsize * math.prod(grid.largest for grid in layout.chunks.values())


# By variable of a source, in the order of its layouts: chunks that are decoded, and bytes.
Reads = list[tuple[int, int]]


def costs_of_sources(
    samples: SampleDefinition, plan: Plan, epoch: int, parts: Iterable[Sequence[Interval]]
) -> dict[str, tuple[SourceCosts, Reads]]:
    """What each other source costs in processes that walk some parts of an epoch's line."""
    parts = [part for part in parts if total(part)]
    space, losses = (
        plan.grid.windows.space,
        losses_of(samples.losses, samples.breaks.laid, samples.windows),
    )
    found = {}
    for place, (each, frame) in enumerate(
        zip(samples.others, frames_of(space, plan.others), strict=True)
    ):
        whole, once = place in plan.beside.resident, nbytes_used(frame, space)
        memory, exact = nbytes_once(frame, space), True
        kept: Kept = "whole"
        if not len(space):
            reads: Reads = [(0, 0) for _ in frame.layouts]
        elif whole:
            reads = [(n * len(parts), size * len(parts)) for n, size in _once(frame, space.shape)]
        else:
            kept = "block by block" if plan.shuffle else "handed on"
            memory = plan.beside.passing[place]
            reads, exact = _passing(each, frame, plan, epoch, parts, memory)
        decoded = sum(size for _, size in reads)
        costs = SourceCosts(
            rules=rules_of(samples, each),
            kept=kept,
            memory=memory,
            nbytes_once=once,
            nbytes=decoded,
            amplification=decoded / once if once else 1.0,
            losses=tuple(loss for loss in losses if loss.source in lost_for(samples, each)),
            exact=exact,
        )
        found[str(each.source)] = costs, reads
    return found


def lost_samples(
    samples: SampleDefinition, along: Mapping[Hashable, int]
) -> tuple[dict[str, int], int]:
    """Samples that each source leaves out, and those of them that are left out one by one.

    `along` are the windows along each dim before any was left out. A source loses what the ones
    before it have left.
    """
    found: dict[str, int] = {}
    left, losses = dict(along), losses_of(samples.losses, samples.breaks.laid, samples.windows)
    for each in losses:
        before = math.prod(left.values())
        if len(each.starts):
            left[each.dim] -= each.count
        name = _key(each.source)
        found[name] = found.get(name, 0) + before - math.prod(left.values())
    if samples.whole is None:
        return found, 0
    lacking = samples.whole.values.size - int(samples.whole.values.sum())
    others = (n for at, n in enumerate(samples.windows.shape) if at not in samples.whole.axes)
    lost = lacking * math.prod(others)
    names = dict.fromkeys(_key(each.source) for each in losses if not len(each.starts))
    together = " and ".join(names)
    found[together] = found.get(together, 0) + lost
    return found, lost


def _key(source: str) -> str:
    """The name of a source among other reasons."""
    return f"source {source}" if source in REASONS else source


def _once(frame: Frame, shape: Sequence[int]) -> Reads:
    """What is decoded if everything is, once."""
    region = frame.named(frame.region(tuple((0, count) for count in shape)))
    found = [(each, frame.decoded(each, region)) for each in frame.layouts]
    return [(chunks, each.itemsize * places) for each, (chunks, places) in found]


def _passing(
    samples: SampleDefinition,
    frame: Frame,
    plan: Plan,
    epoch: int,
    parts: Sequence[Sequence[Interval]],
    memory: int,
) -> tuple[Reads, bool]:
    """What is decoded of a source that is read beside blocks, and whether it was counted."""
    middle = plan.grid.box(len(plan.grid) // 2)
    held = _Held(samples, frame, memory)
    if held.cells(middle) * (len(plan.grid) + len(parts)) > COUNTED_CELLS:
        nbytes, _ = blocks_cost(frame, plan.grid.windows.space, plan.grid.cuts)
        reads = _once(frame, plan.windows.space.shape)
        times = nbytes / max(1, sum(size for _, size in reads))
        return [(int(n * times), int(size * times)) for n, size in reads], False
    for part in parts:  # each in a process that has read nothing yet
        held.forget()
        for stage in plan.stages(epoch, part):
            for load in stage.loads:
                for piece in load.pieces:
                    held.read(piece.box)
    return [(held.chunks[each.name], held.nbytes[each.name]) for each in frame.layouts], True


@dataclass(eq=False)
class _Held:
    """A dry run of what reads a source by number: which cells it holds, and what it decodes."""

    samples: SampleDefinition
    frame: Frame
    memory: int
    groups: list[tuple[list[Layout], dict[Hashable, Chunks], int]] = field(init=False)
    held: OrderedDict[tuple[int, tuple[int, ...]], int] = field(default_factory=OrderedDict)
    taken: int = 0
    chunks: dict[Hashable, int] = field(init=False)
    nbytes: dict[Hashable, int] = field(init=False)

    def __post_init__(self) -> None:
        prepared = self.samples.preprocess is not None
        alike: dict[Hashable, list[Layout]] = {}
        for each in self.frame.layouts:
            key = None if prepared else tuple((d, grid.key) for d, grid in each.chunks.items())
            alike.setdefault(key, []).append(each)
        small = cell_nbytes(self.memory)
        axes = self.samples.windows.axes
        dims = [axis.dim for axis in axes]
        whole = {axis.dim for axis in axes if axis.whole and prepared}
        scattered = any(axis.scattered for axis in self.samples.windows.space.axes)
        apart = unordered(self.frame, scattered)
        self.groups = [
            (layouts, *cells_of(layouts, dims, small, whole, apart)) for layouts in alike.values()
        ]
        self.chunks = dict.fromkeys((each.name for each in self.frame.layouts), 0)
        self.nbytes = dict(self.chunks)

    def _wanted(
        self, region: Mapping[Hashable, Interval], grids: Mapping[Hashable, Chunks]
    ) -> list[range]:
        return [
            range(int(grid.number(region[dim][0])), int(grid.number(region[dim][1] - 1)) + 1)
            for dim, grid in grids.items()
        ]

    def cells(self, box: Box) -> int:
        """How many cells the samples of a box lie in."""
        return sum(
            math.prod(map(len, self._wanted(region, grids)))
            for region in self.frame.regions(box)
            for _, grids, _ in self.groups
        )

    def forget(self) -> None:
        """Hold nothing."""
        self.held.clear()
        self.taken = 0

    def read(self, box: Box) -> None:
        """Count what is decoded for the samples of a box, as the reader does: in its order."""
        for region in self.frame.regions(box):
            self._read(region)

    def _read(self, region: Mapping[Hashable, Interval]) -> None:
        wanted = [
            (number, cell)
            for number, (_, grids, _) in enumerate(self.groups)
            for cell in itertools.product(*self._wanted(region, grids))
        ]
        for key in wanted:
            if key in self.held:
                self.held.move_to_end(key)
        missing = [key for key in wanted if key not in self.held]
        for key in missing:
            layouts, grids, nbytes = self.groups[key[0]]
            while self.held and self.taken + nbytes > self.memory:
                self.taken -= self.held.popitem(last=False)[1]
            self.held[key] = nbytes
            self.taken += nbytes
            for each in layouts:
                self._decode(each, dict(zip(grids, key[1], strict=True)), grids)

    def _decode(
        self, layout: Layout, cell: Mapping[Hashable, int], grids: Mapping[Hashable, Chunks]
    ) -> None:
        region = {dim: grids[dim].bounds(number) for dim, number in cell.items()}
        chunks, places = self.frame.decoded(layout, region)
        self.chunks[layout.name] += chunks
        self.nbytes[layout.name] += layout.itemsize * places
