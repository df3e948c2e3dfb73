"""Turns of several datasets at given rates: whose batch comes when. Pure arithmetic, no IO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from ..common.cached import cached_property
from .index_maps import IntArray

__all__ = ["MixedEpoch", "Turns"]

# Turns of a period at most: its counts are listed.
MAX_PERIOD = 2**16


@dataclass(frozen=True)
class Turns:
    """Turns of some datasets, by exact rates: a period that is repeated.

    After any number of turns, each has had less than one more or less than its rate says: the turn
    goes to the one that would fall behind first, of those that are not ahead (R. Tijdeman, The
    chairman assignment problem, Discrete Mathematics 32, 1980).

    Attributes
    ----------
    rates : tuple of int
        Turns of each in a period; they have no common divisor.
    """

    rates: tuple[int, ...]

    @classmethod
    def of(cls, rates: Sequence[Fraction]) -> Turns:
        """Turns by rates that are greater than 0; ValueError if their period is too long."""
        whole = math.lcm(*(each.denominator for each in rates))
        numbers = [int(each * whole) for each in rates]
        common = math.gcd(*numbers)
        found = cls(tuple(each // common for each in numbers))
        if found.period > MAX_PERIOD:
            raise ValueError(
                f"rates are repeated after {found.period:,} batches only, more than "
                f"{MAX_PERIOD:,}: give rounder ones"
            )
        return found

    @property
    def period(self) -> int:
        """Turns after which all is repeated."""
        return sum(self.rates)

    @cached_property
    def _order(self) -> IntArray:
        """Whose turn it is, in a period."""
        count, period = len(self.rates), self.period
        if count == 1:
            return np.zeros(period, dtype=np.int64)
        # All in units of 1 / (period * slack): integers, so that nothing is rounded.
        slack = 2 * count - 2
        rates = np.array(self.rates, dtype=np.int64)
        taken = np.zeros(count, dtype=np.int64)
        found = np.empty(period, dtype=np.int64)
        for turn in range(1, period + 1):
            behind = slack * (turn * rates - taken * period)
            room = (slack - 1) * period - behind  # until it would be too far behind
            # The one with the least room / rate, of those that are as far behind as period.
            there = np.flatnonzero(behind >= period)
            best = there[0]
            for each in there[1:]:
                if room[each] * rates[best] < room[best] * rates[each]:
                    best = each
            found[turn - 1] = best
            taken[best] += 1
        return found

    @cached_property
    def _counts(self) -> IntArray:
        """Turns that each has had before each turn of a period, and after it."""
        turns = self._order[:, None] == np.arange(len(self.rates))
        return np.concatenate([np.zeros_like(turns[:1], dtype=np.int64), np.cumsum(turns, axis=0)])

    def at(self, turn: int) -> int:
        """Whose turn it is."""
        return int(self._order[turn % self.period])

    def counts(self, turn: int) -> tuple[int, ...]:
        """How many turns each has had before a turn, in no time however many there were."""
        laps, place = divmod(turn, self.period)
        here = self._counts[place].tolist()
        return tuple(laps * rate + own for rate, own in zip(self.rates, here, strict=True))

    def turn_of(self, place: int, number: int) -> int:
        """The turn in which one of them has its turn of a number, counted from 0."""
        laps, rest = divmod(number, self.rates[place])
        inside = int(np.searchsorted(self._counts[:, place], rest, side="right")) - 1
        return laps * self.period + inside

    def until_first(self, turn: int, left: Sequence[int]) -> int:
        """The turn, from one on, of the first that would have no more of what is `left`."""
        had = self.counts(turn)
        return min(self.turn_of(place, had[place] + each) for place, each in enumerate(left))

    def until_all(self, turn: int, left: Sequence[int]) -> int:
        """The turn, from one on, before which all had what was `left` of each."""
        had = self.counts(turn)
        last = (
            self.turn_of(place, had[place] + each - 1) + 1
            for place, each in enumerate(left)
            if each
        )
        return max(last, default=turn)


@dataclass(frozen=True)
class MixedEpoch:
    """An epoch of several datasets in turns, or the rest of one, on one topology.

    Attributes
    ----------
    turns : Turns
        Whose batch comes when.
    stop : {"first", "all"}
        Whether it ends when the first of them has no more batches, or when all have had all.
    left : tuple of int
        Batches of a rank that each still has of the pass over its samples that it is in.
    whole : tuple of int
        Batches of a rank in a pass.
    begin : int
        The turn at which it begins: 0, or where it was left.
    passes : tuple of int
        Passes that each has behind it in this epoch.
    """

    turns: Turns
    stop: Literal["first", "all"]
    left: tuple[int, ...]
    whole: tuple[int, ...]
    begin: int
    passes: tuple[int, ...]

    @cached_property
    def end(self) -> int:
        """The turn before which it ends."""
        needed = [0 if had else left for had, left in zip(self.passes, self.left, strict=True)]
        if self.stop == "first":
            return self.turns.until_first(self.begin, needed)
        return self.turns.until_all(self.begin, needed)

    def counts(self, turn: int) -> list[int]:
        """Batches that each has had in the epoch, or the rest of it, before a turn."""
        both = zip(self.turns.counts(turn), self.turns.counts(self.begin), strict=True)
        return [now - before for now, before in both]

    def place(self, dataset: int, number: int) -> tuple[int, int]:
        """The pass in which a batch of one of them lies, and how many come before it there.

        In the pass that is resumed, before it in the rest of that pass.
        """
        rest = number - self.left[dataset]
        if rest < 0:
            return self.passes[dataset], number
        more, inside = divmod(rest, self.whole[dataset])
        return self.passes[dataset] + 1 + more, inside

    def size(self, dataset: int, number: int) -> int:
        """Batches of a pass, or of the rest of the one that is resumed."""
        return (self.left if number == self.passes[dataset] else self.whole)[dataset]

    def shares(self, workers: int) -> list[list[int]]:
        """For each worker that takes turns one after the other, batches of each dataset."""
        count, turns = len(self.turns.rates), self.end - self.begin
        lap = math.lcm(self.turns.period, workers)

        def listed(stop: int) -> IntArray:
            places = np.arange(stop)
            owners = self.turns._order[(self.begin + places) % self.turns.period]
            found = np.zeros((workers, count), dtype=np.int64)
            np.add.at(found, (places % workers, owners), 1)
            return found

        laps, rest = divmod(turns, lap)
        found: list[list[int]] = ((laps * listed(lap) if laps else 0) + listed(rest)).tolist()
        return found
