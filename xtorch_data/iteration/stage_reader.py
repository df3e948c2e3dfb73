"""Stages from the store into memory: blocks read or taken from the cache, halos handed on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from ..common.recorder import Recorder
from ..gathering.destination import Destination
from ..gathering.halo import Halo, HaloJoiner
from ..gathering.stage import StageInMemory
from ..gathering.views import PieceInMemory
from ..planning.stages import BlockRead, Stage, WindowBox
from ..planning.windows import IntArray
from ..reading.concurrency import note_outcome, on_executor
from ..reading.failures import reaching
from ..reading.regions import Reader, Rest
from .budget import BlockCache, StageBudget
from .companions import Beside, Companions
from .read_ahead import PendingStage, settle
from .substitutes import Found, first_that_is_there

__all__ = ["StageReader"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Block:
    """Result of a load: its pieces, and what the next load needs of it."""

    pieces: list[PieceInMemory]
    halo: Halo
    rest: Rest


@dataclass(eq=False)
class StageReader:
    """Reads stages for one iteration, on its event loop."""

    reader: Reader
    joiner: HaloJoiner
    destination: Destination
    cache: BlockCache | None
    budget: StageBudget
    recorder: Recorder
    companions: Companions | None = None
    counted: IntArray | None = None  # of `Plan.order`
    _turns: Mapping[int, asyncio.Lock] = field(  # by the place of another source
        default_factory=lambda: defaultdict(asyncio.Lock), init=False
    )

    async def read(self, pending: PendingStage, before: PendingStage | None) -> StageInMemory:
        """A stage in memory, where batches are made of it."""
        windows, order = self.reader.windows, on_executor(None, pending.stage.order)
        loads = [self._pieces(load, pending, before) for load in pending.stage.loads]
        boxes = [box for load in pending.stage.loads for box in load.pieces]
        beside = asyncio.gather(*self._beside(boxes))
        beside.add_done_callback(note_outcome)
        try:
            pieces = [piece for found in await asyncio.gather(*loads) for piece in found]
            others = await beside
            if self.companions is not None:
                self.companions.report(self.recorder)
        except BaseException:
            beside.cancel()
            with contextlib.suppress(BaseException):  # nobody else asks for its outcome
                await beside
            raise
        regions = [piece.piece.region for piece in pieces]
        failures = reaching(self.reader.source.failures, regions, windows)
        stage = StageInMemory(windows, pieces, await order, failures, self.counted)
        if self.companions is not None:
            stage.beside = self.companions.stages(others, await order)
        del pieces, others
        return await self._sent(stage)

    def _beside(self, boxes: Sequence[WindowBox]) -> list[Coroutine[Any, Any, Beside]]:
        """Reads, not begun, of what each of the other sources has beside some boxes."""
        if self.companions is None:
            return []
        return [self._beside_in(place, boxes) for place in self.companions.places]

    async def _beside_in(self, place: int, boxes: Sequence[WindowBox]) -> Beside:
        assert self.companions is not None
        # One stage after the other, in their order: what a later one needs may take the room of
        # what an earlier one still does.
        async with self._turns[place]:
            return await on_executor(None, self.companions.pieces, place, boxes)

    async def search(self, stages: Callable[[], Iterator[Stage]]) -> Found | None:
        """A sample of some stages that can be read, where batches are made of it."""
        found = await first_that_is_there(stages, self.reader, self.joiner)
        return None if found is None else (await self._sent(found[0]), found[1])

    async def _sent(self, stage: StageInMemory) -> StageInMemory:
        if self.destination.memory is None:
            return stage
        return await on_executor(None, self.destination.send, stage)

    async def _pieces(
        self, load: BlockRead, pending: PendingStage, before: PendingStage | None
    ) -> list[PieceInMemory]:
        block: _Block | None = None if self.cache is None else self.cache.get(load.key)
        if block is not None:
            self.recorder.add(blocks_cached=1)
        else:
            block = await self._read(load, before)
            logger.debug("block %d is read: %s", load.block, load.region)
            # Blocks with damage, or that may hold on to such, are read again in the next epoch.
            if not self.reader.source.failures:
                self.budget.offer(pending, load, block)
        if len(pending.stage.loads) == 1:
            settle(pending.rest, block.rest)
            settle(pending.halo, block.halo)
        return block.pieces

    async def _read(self, load: BlockRead, before: PendingStage | None) -> _Block:
        found = await self.reader.read(load)
        if found.on_disk:
            self.recorder.add(blocks_cached=1)
        else:
            self.recorder.add(blocks_read=1)
        data, rest = found.block, Rest()
        if load.whole_chunks:
            earlier = Rest() if before is None else await asyncio.wrap_future(before.rest)
            data, rest = await self.reader.aligned(load, found, earlier)
        data = await self.reader.preprocessed(load, data)
        halo: Halo = ()
        if load.carried is not None and before is not None:
            halo = await asyncio.wrap_future(before.halo)
        prepared = on_executor(None, self._prepare, load, data, halo)
        return _Block(*await prepared, rest)

    def _prepare(
        self, load: BlockRead, block: xr.Dataset, halo: Halo
    ) -> tuple[list[PieceInMemory], Halo]:
        self.reader.source.require_maps()
        with self.recorder.timed("prepare"):
            return self.joiner.pieces(load, block, halo)
