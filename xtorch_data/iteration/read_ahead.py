"""The read-ahead: stages are planned, read and held in order, within the budget."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

from ..gathering.halo import Halo
from ..planning.stages import Stage
from ..reading.regions import Rest
from .budget import StageBudget, StageClaim
from .substitutes import Substitute, Substitutes
from .threads import Threads

__all__ = ["BatchSlice", "PendingStage", "ReadAhead", "settle"]


@dataclass(eq=False)
class PendingStage(StageClaim):
    """A stage from its planning to its last sample; made by `ReadAhead`.

    Attributes
    ----------
    left : int
        Samples that are still to be gathered.
    loaded : Future
        What was made of it in memory.
    rest, halo : Future
        What the next stage needs of this one, before and after preprocess.
    substitute : Substitute, optional
        Where what cannot be read is skipped.
    """

    left: int = 0
    loaded: Future[Any] = field(default_factory=Future)
    rest: Future[Rest] = field(default_factory=Future)
    halo: Future[Halo] = field(default_factory=Future)
    substitute: Substitute | None = None

    def fail(self, error: BaseException) -> None:
        """Give the error to whoever waits."""
        for each in (self.rest, self.halo, self.loaded):
            settle(each, error)

    def cancel(self) -> None:
        """Wake whoever waits."""
        for each in (self.rest, self.halo, self.loaded):
            each.cancel()

    def drop(self) -> None:
        """Let go of what was made of it."""
        self.loaded = Future()
        self.loaded.cancel()

    def handed_on(self) -> None:
        """Let go of what the next stage has taken, some of which earlier ones had read."""
        self.rest, self.halo = Future(), Future()
        self.rest.cancel()
        self.halo.cancel()


@dataclass(eq=False)
class BatchSlice:
    """Samples of one stage that go into one batch."""

    pending: PendingStage
    start: int
    stop: int


# Makes of a stage, and the one begun before it, what samples are gathered from.
Read = Callable[[PendingStage, PendingStage | None], Coroutine[Any, Any, Any]]


class ReadAhead:
    """The stages that are planned, being read or held, within a budget.

    Made for one walk along the line, and closed with it; any thread may call it. A stage is begun
    when it fits, one after the other, and held until its last sample is gathered. What goes wrong
    with a stage comes to those who take samples of it.

    The budget belongs to it. `read` makes of a stage, on the event loop, what samples are gathered
    from. There are substitutes where what cannot be read is skipped.
    """

    def __init__(
        self,
        stages: Iterator[Stage],
        budget: StageBudget,
        read: Read,
        threads: Threads,
        substitutes: Substitutes | None = None,
    ) -> None:
        self._stages, self._budget = stages, budget
        self._read, self._threads = read, threads
        self._substitutes = substitutes
        self._context = contextvars.copy_context()
        # The garbage collector may close an iteration in the middle of a locked stretch.
        self._lock = threading.RLock()
        self._untaken: deque[PendingStage] = deque()  # planned, no batch takes from them yet
        self._unread: deque[PendingStage] = deque()  # planned, reading has not begun
        self._live: set[PendingStage] = set()
        self._before: PendingStage | None = None  # the one that was last begun
        self._closed = False

    def __iter__(self) -> Iterator[PendingStage]:
        """The stages, in order; each counts until `done` has had all of its samples."""
        while True:
            with self._lock:
                if not self._untaken and not self._plan():
                    return
                self._begin_what_fits()
                pending = self._untaken.popleft()
            yield pending

    def slices(self, batches: Iterator[int]) -> Iterator[list[BatchSlice]]:
        """What each batch of so many samples takes from which stages."""
        stages = iter(self)
        pending: PendingStage | None = None
        position = 0
        for size in batches:
            taken: list[BatchSlice] = []
            while size > 0:
                if pending is None:
                    pending, position = next(stages), 0
                samples = pending.stage.stop - pending.stage.start
                stop = min(position + size, samples)
                taken.append(BatchSlice(pending, position, stop))
                size -= stop - position
                position = stop
                if position == samples:
                    pending = None
            yield taken

    def done(self, pending: PendingStage, samples: int) -> None:
        """Note that samples of a stage have been gathered; free it if these were the last."""
        with self._lock:
            pending.left -= samples
            if pending.left:
                return
        if pending.substitute is not None:
            pending.substitute.end()
        with self._lock:
            self._live.discard(pending)
            pending.drop()  # before the next one takes memory
            self._budget.end(pending)
            self._begin_what_fits()

    def close(self) -> None:
        """Read nothing more and wake whoever waits for a stage."""
        with self._lock:
            self._closed = True
            for pending in list(self._live):
                pending.cancel()

    # With the lock held:

    def _plan(self) -> bool:
        stage = next(self._stages, None)
        if stage is None:
            return False
        pending = PendingStage(stage, left=stage.stop - stage.start)
        self._budget.plan(pending)
        if self._substitutes is not None:
            pending.substitute = self._substitutes.of(pending.loaded)
        self._live.add(pending)
        self._untaken.append(pending)
        self._unread.append(pending)
        return True

    def _begin_what_fits(self) -> None:
        while not self._closed and (self._unread or self._plan()):
            pending = self._unread[0]
            if not self._budget.fits(pending):
                return
            self._unread.popleft()
            self._budget.begin(pending)
            before, self._before = self._before, pending
            # Reads go on on several threads, but all of them as that of the consumer would.
            self._context.copy().run(self._threads.start, self._load(pending, before))

    # On the event loop:

    async def _load(self, pending: PendingStage, before: PendingStage | None) -> None:
        try:
            settle(pending.loaded, await self._read(pending, before))
        except BaseException as error:
            pending.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            if before is not None:
                before.handed_on()


def settle(future: Future[Any], outcome: Any) -> None:
    """Give a future its outcome, unless it has one or has been given up."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, asyncio.CancelledError):
            future.cancel()
        elif isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
