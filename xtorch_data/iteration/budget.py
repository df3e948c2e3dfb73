"""The memory of one iteration: which stages may be held or read at a time.

The read-ahead asks the budget as it reads; `explain` walks the same budget over a plan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from ..planning.blocks import INDEX_BYTES
from ..planning.line import Load, Stage

__all__ = ["BlockCache", "Budget", "Claim"]


class BlockCache:
    """Blocks kept for later epochs, as far as they fit; none is thrown out for another.

    Lives as long as the `EpochReader` that makes it; any thread may ask. An epoch visits every
    block once, so no block is better worth keeping than another, and throwing out what was kept
    would only make work. Copies in other processes begin empty.

    Parameters
    ----------
    memory : int
        Bytes for blocks kept and blocks in use.
    working : int
        Bytes of blocks in use at the same time.
    total : int
        Bytes of all blocks.
    """

    def __init__(self, memory: int, working: int, total: int) -> None:
        self.nbytes = 0
        self._memory, self._working, self._total = memory, working, total
        self._kept: dict[Hashable, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """What was kept under a key, or None."""
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
    """The memory of one stage, from its planning until no stage needs it any more.

    Attributes
    ----------
    stage : Stage
        What is read.
    nbytes : int
        Bytes on the host, without what a cache has.
    on_device : int
        Bytes on a device that stages are sent to.
    halo_of : tuple of Claim
        Earlier stages, of which this one needs steps that they have read.
    users : int
        How many stages need its memory, with itself.
    """

    stage: Stage
    nbytes: int = 0
    on_device: int = 0
    halo_of: tuple[Claim, ...] = ()
    users: int = 1

    def free(self) -> None:
        """Let go of the memory, which no stage needs any more."""


class Budget:
    """Counts what stages take that are held or being read, and says whether another one fits.

    Made for one walk along the line. Any thread may call it; that a stage which fits is begun
    before another one is asked for is up to who asks.

    Parameters
    ----------
    memory : int
        Bytes of all stages, and of the cache, at most; a stage that is alone may exceed it.
    nbytes : callable
        Bytes that a load takes on the host.
    cache : BlockCache, optional
        Where blocks are kept for later epochs.
    device_memory : int, optional
        Bytes of all stages on a device that they are sent to; None if they are not.
    most : int, optional
        Stages at a time, at most.
    """

    def __init__(
        self,
        memory: int,
        nbytes: Callable[[Load], int],
        cache: BlockCache | None = None,
        device_memory: int | None = None,
        most: int | None = None,
    ) -> None:
        self.held = self.on_device = 0  # bytes of stages that were begun
        self.begun = 0  # stages that were begun and have not ended
        self._memory, self._device_memory, self._most = memory, device_memory, most
        self._nbytes, self._cache = nbytes, cache
        self._last: Claim | None = None
        self._lock = threading.Lock()

    def plan(self, claim: Claim) -> None:
        """Work out what a stage takes; stages are planned in the order of the line."""
        stage = claim.stage
        claim.nbytes = sum(
            self._nbytes(load)
            for load in stage.loads
            if self._cache is None or load.key not in self._cache
        )
        claim.nbytes += INDEX_BYTES * (stage.stop - stage.start) if stage.shuffle else 0
        if self._device_memory is not None:  # also what is in the cache is sent
            claim.on_device = sum(map(self._nbytes, stage.loads))
        with self._lock:
            claim.halo_of = self._halo_of(stage)
            for each in claim.halo_of:
                each.users += 1
        self._last = claim

    def _halo_of(self, stage: Stage) -> tuple[Claim, ...]:
        """Earlier stages that have read what a stage needs, too."""
        carried = stage.loads[0].carried if len(stage.loads) == 1 else None
        if carried is None or self._last is None:
            return ()
        found: tuple[Claim, ...] = ()
        for each in (*self._last.halo_of, self._last):
            (load,) = each.stage.loads
            if each.users and load.region[load.axis][1] > carried:
                found += (each,)
        return found

    def fits(self, claim: Claim) -> bool:
        """Whether a stage may be begun now."""
        if not self.begun:
            return True
        cached = 0 if self._cache is None else self._cache.nbytes
        return (
            cached + self.held + claim.nbytes <= self._memory
            and (self._most is None or self.begun < self._most)
            and (
                self._device_memory is None
                or self.on_device + claim.on_device <= self._device_memory
            )
        )

    def begin(self, claim: Claim) -> None:
        """Count a stage that is read from now on."""
        with self._lock:
            self.begun += 1
            self.held += claim.nbytes
            self.on_device += claim.on_device

    def offer(self, claim: Claim, load: Load, block: Any) -> bool:
        """Let the cache keep a block of a stage, and count it from now on; whether it does."""
        nbytes = self._nbytes(load)
        if self._cache is None or not self._cache.offer(load.key, block, nbytes):
            return False
        with self._lock:
            claim.nbytes -= nbytes
            self.held -= nbytes
        return True

    def end(self, claim: Claim) -> None:
        """Note that the last sample of a stage was gathered, and free what no stage needs."""
        free: list[Claim] = []
        with self._lock:
            self.begun -= 1
            self.on_device -= claim.on_device
            for each in (claim, *claim.halo_of):
                each.users -= 1
                if not each.users:
                    self.held -= each.nbytes
                    free.append(each)
            claim.halo_of = ()
        for each in free:
            each.free()
