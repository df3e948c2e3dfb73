"""The memory of one iteration: which stages may be held or read at a time.

The read-ahead asks the budget as it reads; `explain` walks the same budget over a plan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from ..planning.blocks import INDEX_BYTES
from ..planning.plan import Plan
from ..planning.stages import BlockRead, Stage

__all__ = ["BlockCache", "Budget", "Claim", "StageBudget", "StageClaim"]


class BlockCache:
    """Blocks kept for later epochs, as far as they fit; none is thrown out for another.

    Made by an `EpochReader`, and as long there; any thread may ask. An epoch visits every block
    once, so no block is better worth keeping than another, and throwing out what was kept would
    only make work. Copies in other processes begin empty.

    It has `memory` bytes for blocks kept and blocks in use, of which `working` are in use at the
    same time; all blocks are `total` bytes.
    """

    def __init__(self, memory: int, working: int, total: int) -> None:
        self.nbytes = 0
        self._memory, self._working, self._total = memory, working, total
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def of(cls, plan: Plan) -> BlockCache:
        """The cache of a plan that keeps blocks, empty."""
        return cls(plan.memory, plan.working_nbytes, plan.block_nbytes * len(plan.grid))

    def get(self, key: Hashable) -> Any:
        """Value that was kept under a key, or None."""
        return self._kept.get(key)

    def offer(self, key: Hashable, value: Any, nbytes: int) -> bool:
        """Keep a value if that leaves room to work on what is not kept; whether it was kept."""
        with self._lock:
            kept = self.nbytes + nbytes
            if key in self._kept or kept + min(self._working, self._total - kept) > self._memory:
                return False
            self._kept[key] = value
            self.nbytes = kept
            return True

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockCache, (self._memory, self._working, self._total)


@dataclass(eq=False)
class Claim:
    """Memory that is read into, from when that is planned until nobody needs it any more.

    It takes `nbytes` on the host, without what a cache has, and on a device that it is sent to. A
    stage needs steps that the earlier ones in `halo_of` have read; `users` counts the stages that
    need the memory, with this one.
    """

    nbytes: int = field(default=0, kw_only=True)
    on_device: int = field(default=0, kw_only=True)
    halo_of: tuple[StageClaim, ...] = field(default=(), kw_only=True)
    users: int = field(default=1, kw_only=True)
    counts: bool = field(default=False, kw_only=True)  # it was begun and has not ended


@dataclass(eq=False)
class StageClaim(Claim):
    """The memory of one stage."""

    stage: Stage


class Budget:
    """Counts what is held or being read, and says whether more fits.

    Made for samples by number, and as `StageBudget` for one walk along the line. Any thread may
    call it; that what fits is begun before more is asked for is up to who asks.

    `memory` and, where stages are sent to a device, `device_memory` are bytes at most, which a
    claim that is alone may exceed; `most` are claims at a time.
    """

    def __init__(
        self, memory: int, device_memory: int | None = None, most: int | None = None
    ) -> None:
        self._memory, self._device_memory, self._most = memory, device_memory, most
        self._held = self._on_device = 0  # bytes of what was begun
        self._begun = 0  # claims that were begun and have not ended
        self._lock = threading.Lock()

    @property
    def _kept(self) -> int:
        """Bytes that a cache counts."""
        return 0

    def fits(self, claim: Claim) -> bool:
        """Whether it may be begun now."""
        if not self._begun:
            return True
        return (
            self._kept + self._held + claim.nbytes <= self._memory
            and (self._most is None or self._begun < self._most)
            and (
                self._device_memory is None
                or self._on_device + claim.on_device <= self._device_memory
            )
        )

    def begin(self, claim: Claim) -> None:
        """Count what is read from now on."""
        with self._lock:
            claim.counts = True
            self._begun += 1
            self._held += claim.nbytes
            self._on_device += claim.on_device

    def end(self, claim: Claim) -> list[Claim]:
        """Note that a claim has ended; returns those whose memory nobody needs any more."""
        free: list[Claim] = []
        with self._lock:
            if not claim.counts:  # it has ended before
                return free
            claim.counts = False
            self._begun -= 1
            self._on_device -= claim.on_device
            for each in (claim, *claim.halo_of):
                each.users -= 1
                if not each.users:
                    self._held -= each.nbytes
                    free.append(each)
            claim.halo_of = ()
        return free


class StageBudget(Budget):
    """The budget of the stages of one walk along the line, and of the cache of its blocks.

    `nbytes` says what a load takes on the host.
    """

    def __init__(
        self,
        memory: int,
        nbytes: Callable[[BlockRead], int],
        cache: BlockCache | None = None,
        device_memory: int | None = None,
        most: int | None = None,
    ) -> None:
        super().__init__(memory, device_memory, most)
        self._nbytes, self._cache = nbytes, cache
        self._last: StageClaim | None = None

    @property
    def _kept(self) -> int:
        return 0 if self._cache is None else self._cache.nbytes

    def plan(self, claim: StageClaim) -> None:
        """Work out what a stage takes; stages are planned in the order of the line."""
        stage = claim.stage
        claim.nbytes = sum(self._nbytes(load) for load in stage.loads if not self.is_cached(load))
        claim.nbytes += INDEX_BYTES * (stage.stop - stage.start) if stage.shuffle else 0
        if self._device_memory is not None:  # also what is in the cache is sent
            claim.on_device = sum(map(self._nbytes, stage.loads))
        with self._lock:
            claim.halo_of = self._halo_of(stage)
            for each in claim.halo_of:
                each.users += 1
        self._last = claim

    def _halo_of(self, stage: Stage) -> tuple[StageClaim, ...]:
        """Earlier stages that have read what a stage needs, too."""
        carried = stage.loads[0].carried if len(stage.loads) == 1 else None
        if carried is None or self._last is None:
            return ()
        found: tuple[StageClaim, ...] = ()
        for each in (*self._last.halo_of, self._last):
            (load,) = each.stage.loads
            if each.users and load.region[load.axis][1] > carried:
                found += (each,)
        return found

    def is_cached(self, load: BlockRead) -> bool:
        """Whether the cache has what is made of a load."""
        return self._cache is not None and load.key in self._cache

    def offer(self, claim: Claim, load: BlockRead, block: Any) -> bool:
        """Let the cache keep a block of a stage, and count it from now on; whether it does."""
        nbytes = self._nbytes(load)
        if self._cache is None or not self._cache.offer(load.key, block, nbytes):
            return False
        with self._lock:
            claim.nbytes -= nbytes
            self._held -= nbytes
        return True
