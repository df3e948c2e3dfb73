"""Passes over the samples, end to end: where epochs of a fixed number of samples lie on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .intervals import Interval, cut

__all__ = ["Passes"]


@dataclass(frozen=True)
class Passes:
    """Passes over all samples, each along a line of its own, of which epochs take `size` samples.

    Shuffled, an epoch goes on where the one before has ended, so that every sample comes before any
    comes again. In order, every epoch begins with the first sample.

    Attributes
    ----------
    size : int
        Samples in an epoch.
    samples : int
        Samples in a pass: all that there are.
    shuffle : bool
        Whether the order is random, another one in each pass.
    """

    size: int
    samples: int
    shuffle: bool

    def begin(self, epoch: int) -> int:
        """How many samples of all passes come before an epoch."""
        return epoch * self.size if self.shuffle else 0

    def parts(
        self, epoch: int, intervals: Iterable[Interval]
    ) -> Iterator[tuple[int, list[Interval]]]:
        """Stretches of an epoch as numbers of passes and stretches of their lines."""
        before = self.begin(epoch)
        for start, stop in intervals:
            begin, end = before + start, before + stop
            for number in range(begin // self.samples, -(-end // self.samples)):
                first = number * self.samples
                inside = cut([(0, self.samples)], max(0, begin - first), end - first)
                yield number, inside
