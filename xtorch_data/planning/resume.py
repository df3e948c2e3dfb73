"""The place where an epoch was left: a few integers, valid on any other topology."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from .intervals import Interval, Uneven, cut, share, share_total, sharing, total, worker_share
from .intervals import batches as count_batches
from .intervals import repeated as count_repeated

__all__ = [
    "Position",
    "Progress",
    "WorkerProgress",
    "remaining",
    "require_batches",
    "require_possible",
    "require_shares",
    "samples_left",
    "without",
]

T = TypeVar("T")


class Position:
    """Number of batches of an epoch that the latest iteration in this process has handed out."""

    def __init__(self) -> None:
        self.reached: tuple[int, int] | None = None

    def begin(self, epoch: int, taken: int = 0) -> None:
        """Note that an epoch has begun, or goes on after so many batches."""
        self.reached = epoch, taken

    def counted(self, epoch: int, batches: Iterable[T], taken: int = 0) -> Generator[T, None, None]:
        """Batches, counted as they are handed out, not as they are loaded ahead."""
        try:
            for batch in batches:
                taken += 1
                self.reached = epoch, taken
                yield batch
                del batch
        finally:
            if isinstance(batches, Generator):
                batches.close()


@dataclass(frozen=True)
class Progress:
    """The way that all ranks together have walked along what was left of an epoch.

    `num_workers` is 1 for none; `batches` is how many every rank has yielded.
    """

    world_size: int
    num_workers: int
    batch_size: int
    uneven: Uneven
    drop_last: bool
    batches: int

    def parts(self, left: Sequence[Interval], rank: int) -> list[list[Interval]]:
        """What each worker of a rank gets of what is left."""
        return self._cut(share(left, rank, self.world_size, self.sharing(total(left))))

    def _cut(self, mine: Sequence[Interval]) -> list[list[Interval]]:
        """What each worker gets of its rank's share."""
        return [
            worker_share(mine, worker, self.num_workers, self.batch_size, self.drop_last)
            for worker in range(self.num_workers)
        ]

    def sharing(self, count: int) -> Uneven:
        """How ranks share so many samples in fact."""
        return sharing(count, self.world_size, self.uneven, self.batch_size, self.drop_last)

    def done(self, left: Sequence[Interval]) -> list[Interval]:
        """What all ranks have yielded of what was left.

        Without what was marked as repeated: the rank that has it as its own may not have come to
        it, and it is to come once without that mark.
        """
        found: list[Interval] = []
        count = total(left)
        for rank in range(self.world_size):
            repeated = self._repeated(count, rank)
            for (part, taken), last in zip(self._taken(left, rank), repeated, strict=True):
                found += cut(part, 0, min(taken, total(part) - last))
        return found

    def yielded(self, left: Sequence[Interval]) -> int:
        """How many samples all ranks have yielded of what was left, repeated ones counted."""
        return sum(
            min(taken, total(part))
            for rank in range(self.world_size)
            for part, taken in self._taken(left, rank)
        )

    def rest(self, left: Sequence[Interval], rank: int) -> list[list[Interval]]:
        """What each worker of a rank gets if the walk goes on as it was, with the next batch.

        The worker whose turn it is comes first, because a loader begins with the first.
        """
        return self._in_turn(
            [cut(part, taken, total(part)) for part, taken in self._taken(left, rank)]
        )

    def repeated(self, left: Sequence[Interval], rank: int) -> list[int]:
        """How many samples, the last ones, are repeated of what `rest` gives each worker."""
        rest = [max(0, total(part) - taken) for part, taken in self._taken(left, rank)]
        return self._in_turn(list(map(min, rest, self._repeated(total(left), rank))))

    def _repeated(self, count: int, rank: int) -> list[int]:
        """How many samples, the last ones, are repeated of what each worker of a rank gets."""
        uneven = self.sharing(count)
        last = count_repeated(count, rank, self.world_size, uneven)
        if not last:
            return [0] * self.num_workers
        mine = share_total(count, rank, self.world_size, uneven)
        own = mine - last
        return [
            sum(max(0, stop - max(start, own)) for start, stop in part)
            for part in self._cut([(0, mine)])
        ]

    def left_out(self, count: int) -> int:
        """How many of so many samples no rank gets as its own."""
        uneven, own = self.sharing(count), 0
        for rank in range(self.world_size):
            mine = share_total(count, rank, self.world_size, uneven)
            if self.drop_last:
                mine = mine // self.batch_size * self.batch_size
            own += max(0, mine - count_repeated(count, rank, self.world_size, uneven))
        return count - own

    def _in_turn(self, of_workers: list[T]) -> list[T]:
        """What is for each worker, in the order of their turns."""
        turn = self.batches % self.num_workers
        return of_workers[turn:] + of_workers[:turn]

    def goes_on(self, other: Progress) -> bool:
        """Whether another walk is on the same topology, with the same batches."""
        return replace(self, batches=0) == replace(other, batches=0)

    def _taken(self, left: Sequence[Interval], rank: int) -> list[tuple[list[Interval], int]]:
        """What each worker of a rank gets, and how many samples of it were yielded."""
        parts = self.parts(left, rank)
        counts = [-(-total(part) // self.batch_size) for part in parts]
        taken = _round_robin(counts, self.batches)
        return [(part, each * self.batch_size) for part, each in zip(parts, taken, strict=True)]


@dataclass(frozen=True)
class WorkerProgress:
    """The progress of one loader worker of one rank, for a loader that asks each of its workers.

    `batches` is how many this worker has yielded.
    """

    rank: int
    world_size: int
    worker: int
    num_workers: int
    batch_size: int
    uneven: Uneven
    drop_last: bool
    batches: int = 0


def _round_robin(counts: Sequence[int], taken: int) -> list[int]:
    """Batches that come from each worker, as torch takes them in turns.

    Workers have equally many, or one more than others.
    """
    workers, common = len(counts), min(counts)
    if taken <= common * workers:
        return [max(0, -(-(taken - worker) // workers)) for worker in range(workers)]
    extra = taken - common * workers
    found = []
    for count in counts:
        more = min(count - common, max(extra, 0))
        found.append(common + more)
        extra -= more
    return found


# Kept: states are taken at every batch, and thousands of workers leave thousands of intervals.
@lru_cache(maxsize=8)
def remaining(samples: int, walks: tuple[Progress, ...]) -> tuple[Interval, ...]:
    """Stretches of the line that are left after some walks, one after the other."""
    left: tuple[Interval, ...] = ((0, samples),)
    for walk in walks:
        left = tuple(without(left, walk.done(left)))
    return left


@lru_cache(maxsize=8)
def samples_left(samples: int, walks: tuple[Progress, ...]) -> int:
    """Number of samples that are left after some walks."""
    return total(remaining(samples, walks))


def without(intervals: Iterable[Interval], done: Iterable[Interval]) -> Iterator[Interval]:
    """Intervals, ascending and apart, less others."""
    out = deque(sorted(done))
    for start, stop in intervals:
        while out and out[0][0] < stop:
            if start < out[0][0]:
                yield start, out[0][0]
            start = max(start, out[0][1])
            if out[0][1] > stop:  # it may reach into the next one
                break
            out.popleft()
        if start < stop:
            yield start, stop


def require_batches(samples: int, part: WorkerProgress) -> None:
    """Raise ValueError if a worker has yielded more batches than so many samples make."""
    most = count_batches(samples, part.batch_size, part.drop_last)
    if part.batches > most:
        raise ValueError(
            f"batches is {part.batches} in the state, but worker {part.worker} of rank {part.rank} "
            f"has {most}"
        )


def require_shares(samples: int, world_size: int, uneven: Uneven) -> None:
    """Raise ValueError if there are fewer samples than ranks, so that all would get none."""
    if uneven == "drop" and samples < world_size:
        raise ValueError(
            f"{samples} samples cannot be shared by {world_size} ranks with "
            "uneven='drop': every rank would get none"
        )


def require_possible(samples: int, walks: Iterable[Progress]) -> None:
    """Raise ValueError if more batches were walked than there were."""
    before: list[Progress] = []
    for walk in walks:
        left = samples_left(samples, tuple(before))
        most = max(
            count_batches(
                share_total(left, rank, walk.world_size, walk.uneven),
                walk.batch_size,
                walk.drop_last,
            )
            for rank in (0, walk.world_size - 1)
        )
        if walk.batches > most:
            raise ValueError(
                f"batches is {walk.batches} in the state, but {left} samples on {walk.world_size} "
                f"ranks make {most} batches of {walk.batch_size}"
            )
        before.append(walk)
