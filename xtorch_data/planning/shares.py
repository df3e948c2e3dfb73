"""Who gets what of an epoch: its line, cut for ranks and workers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

from . import intervals as stretches
from . import resume
from .intervals import Interval, Uneven
from .resume import Progress

__all__ = ["Shares"]


class Shares:
    """The part of a plan that cuts the line of an epoch for ranks and workers.

    Attributes
    ----------
    batch_size : int or None
        Samples in a batch; None for samples without the batch dimension.
    drop_last : bool
        Whether a rank's last batch is left out if it is smaller.
    uneven : {"drop", "pad", "keep"}
        How samples are shared that cannot be shared equally.
    resumed : tuple of (int, tuple of Progress)
        An epoch, and what all ranks have walked of its line before.
    """

    batch_size: int | None
    drop_last: bool
    uneven: Uneven
    resumed: tuple[int, tuple[Progress, ...]]

    @property
    @abstractmethod
    def samples(self) -> int:
        """Number of samples in an epoch."""

    def left(self, epoch: int) -> Sequence[Interval]:
        """What is still to be walked of an epoch's line."""
        return resume.remaining(self.samples, self.walked(epoch))

    def walked(self, epoch: int) -> tuple[Progress, ...]:
        """What was walked of an epoch's line before it was resumed."""
        return self.resumed[1] if self.resumed[0] == epoch else ()

    def _walk(self, world_size: int, num_workers: int, batches: int = 0) -> Progress:
        """A walk on a topology, after so many batches."""
        size = self.batch_size or 1
        return Progress(world_size, num_workers, size, self.uneven, self.drop_last, batches)

    def intervals(
        self, epoch: int, rank: int, world_size: int, worker: int = 0, num_workers: int = 1
    ) -> list[Interval]:
        """What one worker of one rank yields of an epoch's line."""
        walk, left = self.walk(epoch, world_size, num_workers)
        return walk.rest(left, rank)[worker]

    def repeated(
        self, epoch: int, rank: int, world_size: int, worker: int = 0, num_workers: int = 1
    ) -> int:
        """How many samples, the last ones of `intervals`, come for the sake of equal shares."""
        walk, left = self.walk(epoch, world_size, num_workers)
        return walk.repeated(left, rank)[worker]

    def walk(
        self, epoch: int, world_size: int, num_workers: int
    ) -> tuple[Progress, Sequence[Interval]]:
        """The walk along an epoch's line on a topology, and what was left where it began."""
        walk = self._walk(world_size, num_workers)
        *before, latest = self.walked(epoch) or [walk]
        if latest.goes_on(walk):  # exactly the batches that would have come next
            return latest, resume.remaining(self.samples, tuple(before))
        return walk, self.left(epoch)

    def shares(self, epoch: int, world_size: int, num_workers: int) -> list[list[list[Interval]]]:
        """What each worker of each rank yields of an epoch's line: ``[rank][worker]``.

        Without workers there is one list in each rank's place.
        """
        workers = max(1, num_workers)
        return [
            [self.intervals(epoch, rank, world_size, worker, workers) for worker in range(workers)]
            for rank in range(world_size)
        ]

    def batches_per_rank(self, shares: Iterable[Iterable[Sequence[Interval]]]) -> tuple[int, ...]:
        """Number of batches that the workers of each rank make of their shares."""
        size = self.batch_size or 1
        return tuple(
            sum(stretches.batches(stretches.total(part), size, drop_last=False) for part in rank)
            for rank in shares
        )

    def batches(self, epoch: int, rank: int, world_size: int) -> int:
        """Number of batches that one rank yields, however many workers it has."""
        left = resume.samples_left(self.samples, self.walked(epoch))
        mine = stretches.share_total(left, rank, world_size, self.uneven)
        return stretches.batches(mine, self.batch_size or 1, self.drop_last)

    def batch_sizes(self, intervals: Sequence[Interval]) -> Iterator[int]:
        """Number of samples in each batch that one worker makes of what it yields."""
        samples, size = stretches.total(intervals), self.batch_size or 1
        return (min(size, samples - start) for start in range(0, samples, size))

    def require_shares(self, world_size: int) -> None:
        """Raise ValueError if there are fewer samples than ranks, so that all would get none."""
        resume.require_shares(self.samples, world_size, self.uneven)
