"""The plan of an epoch: what is read, in which order, and who gets what. Pure arithmetic, no IO."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ..common import html
from ..common.cached import cached_property
from ..common.text import number_of
from . import resume, states
from .blocks import BlockGrid
from .cell_order import CellOrder
from .chunks import Layout
from .companions import Beside, frames_of, region_nbytes
from .frames import Frame
from .index_maps import IntArray
from .intervals import Interval, Uneven
from .line import Line, run_length
from .memory_use import held_as, memory_use
from .passes import Passes
from .resume import Progress
from .selection import BlockSums, Masked, SampleTable, Weighted, factors
from .shares import Shares
from .stages import BlockRead, Stage
from .tables import plan_facts, plan_sections
from .windows import Windows

__all__ = ["Plan"]


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Shares):
    """Everything that is decided before a byte is read; `Plan.of` decides it.

    The line of an epoch is its samples, in the order of that epoch: every sample once, unless
    `where` leaves some out or `weights` draw them. An interval is a stretch ``[start, stop)`` of
    it. See `xtorch_data.planning.line.Line`.

    Attributes
    ----------
    layouts : tuple of Layout
        How the variables that are read are stored.
    grid : BlockGrid
        The blocks in which they are read.
    shuffle : bool
        Whether the order is random.
    seed : int
        What a random order depends on, besides the epoch.
    batch_size : int or None
        Samples in a batch; None for samples without the batch dimension.
    drop_last : bool
        Whether a rank's last batch is left out if it is smaller.
    uneven : {"drop", "pad", "keep"}
        How samples are shared that cannot be shared equally.
    memory : int
        Bytes that may be taken in all.
    independent : bool
        Whether every block is read whole, handing nothing on to the next.
    cached : bool
        Whether blocks are kept for later epochs.
    pool_blocks : int
        Blocks whose samples are shuffled together.
    budget : int
        Bytes of blocks that are held or read ahead.
    where : SampleTable, optional
        Which samples there are; every one by default.
    weights : SampleTable, optional
        By which the samples of each epoch are drawn, with replacement.
    epoch_size : int, optional
        Samples in an epoch; as many as there are by default.
    labels : states.DimLabels, optional
        What states tell by that data has other labels.
    others : tuple of tuple of Layout
        How the variables of each other source are stored.
    beside : Beside
        What is kept of other sources.
    cells : CellOrder, optional
        Of scattered windows that are shuffled: the order in which blocks count them.
    resumed : tuple of (int, tuple of Progress)
        An epoch, and what all ranks have walked of its line before.
    """

    layouts: tuple[Layout, ...]
    grid: BlockGrid
    shuffle: bool
    seed: int
    batch_size: int | None
    drop_last: bool
    uneven: Uneven
    memory: int
    independent: bool
    cached: bool
    pool_blocks: int
    budget: int
    where: SampleTable | None = None
    weights: SampleTable | None = None
    epoch_size: int | None = None
    labels: states.DimLabels | None = None
    others: tuple[tuple[Layout, ...], ...] = ()
    beside: Beside = Beside()
    cells: CellOrder | None = None
    resumed: tuple[int, tuple[Progress, ...]] = field(default=(0, ()))

    @classmethod
    def of(
        cls,
        windows: Windows,
        layouts: Iterable[Layout],
        *,
        memory: int,
        shuffle: bool = False,
        seed: int = 0,
        batch_size: int | None = 1,
        drop_last: bool = False,
        uneven: Uneven = "keep",
        independent: bool = False,
        cached: bool = False,
        where: SampleTable | None = None,
        weights: SampleTable | None = None,
        epoch_size: int | None = None,
        labels: states.DimLabels | None = None,
        others: Sequence[Sequence[Layout]] = (),
        warn: bool = True,
    ) -> Plan:
        """Decide how the samples of some windows are read, and warn if that exceeds `memory`.

        The other parameters are the attributes of those names.
        """
        layouts = tuple(layouts)
        cells = CellOrder.of(windows, others) if shuffle else None
        use = memory_use(
            cells.counted if cells else windows,
            layouts,
            others,
            memory,
            shuffle=shuffle,
            cached=cached,
            warn=warn,
        )
        plan = cls(
            layouts=layouts,
            grid=use.grid,
            shuffle=shuffle,
            seed=seed,
            batch_size=batch_size,
            drop_last=drop_last,
            uneven=uneven,
            memory=memory,
            independent=independent,
            cached=cached,
            pool_blocks=use.pool_blocks,
            budget=use.budget,
            where=where,
            weights=weights,
            epoch_size=epoch_size,
            labels=labels,
            others=tuple(map(tuple, others)),
            beside=use.beside,
            cells=cells,
        )
        if len(windows):
            plan._require_samples()
        return plan

    def _require_samples(self) -> None:
        if not self.there:
            raise ValueError(f"where leaves none of the {len(self.windows)} samples")
        if self._weights is not None and not self._weights.total > 0:
            raise ValueError("the weights of all samples are 0: there is none to draw")

    def over(
        self,
        windows: Windows,
        memory: int | None = None,
        layouts: Iterable[Layout] | None = None,
        where: SampleTable | None = None,
    ) -> Plan:
        """The plan for other windows, memory, or chunks of the same data, with nothing resumed."""
        return Plan.of(
            windows,
            self.layouts if layouts is None else layouts,
            memory=memory or self.memory,
            shuffle=self.shuffle,
            seed=self.seed,
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            uneven=self.uneven,
            independent=self.independent,
            cached=self.cached,
            where=where or (self.where and self.where.over(self.windows, windows)),
            weights=self.weights and self.weights.over(self.windows, windows),
            epoch_size=self.epoch_size,
            labels=self.labels,
            others=self.others,
            warn=False,  # once is enough, and of other memory nobody has asked
        )

    def held_as(self, layouts: tuple[Layout, ...]) -> Plan:
        """The same order of the same samples, whose values take other memory: packed ones."""
        if layouts is self.layouts:  # with what has been worked out
            return self
        return replace(self, layouts=layouts, grid=held_as(self.grid, self.frame, layouts))

    def reading(self, windows: Windows) -> Plan:
        """The same order of the same samples, of which windows read fewer steps."""
        if self.cells is not None or windows.space is self.windows.space:
            return self
        ends = (
            None if stops is None else np.minimum(stops, axis.span(0, len(axis))[1])
            for stops, axis in zip(self.grid.stops, windows.axes, strict=True)
        )
        return replace(self, grid=replace(self.grid, windows=windows, stops=tuple(ends)))

    # What there is, and what it takes.

    @property
    def windows(self) -> Windows:
        """The sample space."""
        return self.cells.windows if self.cells else self.grid.windows

    @cached_property
    def frame(self) -> Frame:
        """Where windows lie in the data, and how it is stored."""
        return replace(self.windows.frame, layouts=self.layouts)

    @cached_property
    def passing(self) -> tuple[Frame, ...]:
        """The other sources that are read block by block."""
        frames = frames_of(self.grid.windows.space, self.others)
        kept = self.beside.resident
        return tuple(each for place, each in enumerate(frames) if place not in kept)

    @property
    def there(self) -> int:
        """Number of samples that there are."""
        return len(self.windows) if self.kept is None else self.kept.total

    @property
    def samples(self) -> int:
        """Number of samples in an epoch."""
        return self.there if self.epoch_size is None else self.epoch_size

    @property
    def left_out(self) -> int:
        """Number of samples that `where` leaves out."""
        return len(self.windows) - self.there

    @property
    def amplification(self) -> float:
        """Bytes decoded in an epoch over those decoded if each chunk is decoded once, about."""
        return self.grid.amplification

    @property
    def block_nbytes(self) -> int:
        """Bytes of the largest block."""
        return max(1, self.grid.nbytes)

    @property
    def stage_nbytes(self) -> int:
        """Bytes of what is gathered from at the same time: a pool, or a block in order."""
        return self.block_nbytes * (self.pool_blocks if self.shuffle else 1)

    @property
    def working_nbytes(self) -> int:
        """Bytes of blocks in use at the same time: one pool that is gathered, one that is read."""
        return 2 * self.stage_nbytes

    def nbytes(self, load: BlockRead, joins: bool = False) -> int:
        """Bytes that a load takes in memory; with what is joined of it with the one before."""
        beside = region_nbytes(self.passing, load.box)
        if not load.region:
            return self.frame.nbytes(()) + beside
        along, region = load.axis, [*load.region]
        begin, stop = region[along]
        # Read, perhaps beyond the region; and pieces that straddle what was handed on.
        stop = max([stop, *(end for _, end in load.whole_chunks.values())])
        if joins and load.carried is not None:
            stop += sum(piece.region[along][1] - load.carried for piece in load.pieces[:1])
        region[along] = begin, stop
        return self.frame.nbytes(region) + beside

    @cached_property
    def filled_blocks(self) -> tuple[int, IntArray]:
        """How many blocks there are samples of, and how many samples in some of them, or in all.

        Of very many blocks some are looked at, and the number is an estimate. With weights, it is
        that of the draw of epoch 0.
        """
        return self.line(0).filled_blocks()

    # What is read for it.

    def line(self, epoch: int) -> Line:
        """The order of an epoch or, of epochs of another size, of a pass over the samples."""
        choice: Masked | Weighted | None = self.kept
        if self.where is not None and self.cells is not None:
            choice = Masked(BlockSums([self.cells.table(self.where)], self.grid))
        if self._weights is not None:
            choice = Weighted(self._weights, self.samples, self.seed, epoch, run_length(self.grid))
        return Line(self.grid, self.shuffle, self.seed, epoch, self.pool_blocks, choice)

    @cached_property
    def kept(self) -> Masked | None:
        """The samples that `where` keeps; None if that is every one."""
        return None if self.where is None else Masked(BlockSums([self.where], self.grid))

    @property
    def order(self) -> IntArray | None:
        """The number of each window along the first axis, as blocks count them, if that differs."""
        return None if self.cells is None else self.cells.numbers

    def numbers(self, stage: Stage) -> IntArray:
        """Sample number at each wanted position of a stage."""
        numbers = stage.numbers(self.grid.windows)
        return numbers if self.cells is None else self.cells.samples(numbers)

    @cached_property
    def _weights(self) -> BlockSums | None:
        if self.weights is None:
            return None
        tables = factors(self.weights, self.where, self.windows.shape)
        if self.cells is not None:
            tables = tuple(map(self.cells.table, tables))
        return BlockSums(tables, self.grid)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was worked out of them is larger, and worked out again."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def lines(
        self, epoch: int, intervals: Sequence[Interval]
    ) -> Iterator[tuple[int, Sequence[Interval]]]:
        """Numbers of the lines on which intervals of an epoch lie, and where they lie there."""
        if self.epoch_size is None or self.weights is not None:
            return iter([(epoch, intervals)])
        return Passes(self.epoch_size, self.there, self.shuffle).parts(epoch, intervals)

    def stages(self, epoch: int, intervals: Sequence[Interval]) -> Iterator[Stage]:
        """What to load, in order, to walk over intervals of an epoch."""
        for number, inside in self.lines(epoch, intervals):
            yield from self.line(number).stages(inside, self.independent)

    # As a reader sees it.

    def facts(self) -> Iterator[tuple[str, str]]:
        """What is read, as far as it takes no time to know."""
        return plan_facts(self.grid, self.layouts, self.pool_blocks if self.shuffle else 0)

    def _repr_html_(self) -> str:
        parts = [html.facts(self.facts()), *plan_sections(self.windows, self.layouts)]
        return html.page("xtorch_data.Plan", number_of(self.samples, "sample"), parts, repr(self))

    def __repr__(self) -> str:
        facts = "".join(f"\n  {name:<9} {value}" for name, value in self.facts())
        return f"<xtorch_data.Plan of {number_of(self.samples, 'sample')}{facts}>"

    # Stopping and going on.

    def fingerprint(self) -> dict[str, Any]:
        """What the order depends on, but for the epoch: equal for plans with equal lines."""
        return dict(self._fingerprint)

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        found = states.fingerprint(self.line(0))
        tables = {"where": self.where, "weights": self.weights}
        if self.windows.space.axes and self.windows.space.axes[0].scattered:
            found["windows"] = states.digest_of(self.windows.space.frames[:2])
        if self.cells is not None:
            found["cells"] = states.digest(self.cells.numbers.tobytes())
        if self.labels is not None:
            found["labels"] = self.labels.found
        if self.epoch_size is not None:
            found["epoch size"] = self.epoch_size
        return found | {name: table.digest() for name, table in tables.items() if table is not None}

    def state_after(
        self, epoch: int, batches: int, world_size: int, num_workers: int = 1
    ) -> dict[str, Any]:
        """A JSON-able state, after every rank has yielded so many batches of an epoch."""
        walked = self.walked(epoch)
        if batches and batches >= max(
            self.batches(epoch, rank, world_size) for rank in (0, world_size - 1)
        ):
            epoch, walked = epoch + 1, ()
        elif batches:
            walk = self._walk(world_size, num_workers, batches)
            if walked and walked[-1].goes_on(walk):
                walk = replace(walk, batches=walked[-1].batches + batches)
                walked = walked[:-1]
            walked = (*walked, walk)
        return states.as_state(epoch, walked, self.fingerprint())

    def resume(self, state: Mapping[str, Any], strict: bool = True) -> Plan:
        """The plan that goes on where a state of `state_after` was taken.

        ValueError, saying what differs, if it is no state or, if `strict`, of a plan whose line is
        another.
        """
        epoch, walks = states.from_state(state, self.fingerprint(), strict)
        if strict:
            resume.require_possible(self.samples, walks)
        return replace(self, resumed=(epoch, tuple(walks)))

    def at(self, epoch: int) -> Plan:
        """The plan of an epoch: with what is resumed, if that is this one."""
        return self if self.resumed[0] == epoch else self.afresh()

    def afresh(self) -> Plan:
        """The plan with nothing resumed."""
        return replace(self, resumed=(0, ())) if self.resumed[1] else self
