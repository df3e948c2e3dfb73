"""Overlap-add along one dim: where the steps that samples predict lie among its places, in tiles.

Pure arithmetic over integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .edges import NOTHING, ExtendedDim
from .index_maps import IndexMap, IntArray
from .intervals import Interval

__all__ = ["Blend", "FieldDim", "FloatArray", "Piece", "slabs", "window_weights"]

Blend = Literal["mean", "hann"]
FloatArray = npt.NDArray[np.float64]

# Steps of windows that are looked at together.
SLAB = 2**20


def window_weights(blend: Blend, size: int) -> FloatArray:
    """Positive weights of the steps of a window; those of windows half a window apart are even.

    Examples
    --------
    >>> weights = window_weights("hann", 4)
    >>> (weights[:2] + weights[2:]).round(12)
    array([1., 1.])
    """
    if blend == "mean":
        return np.ones(size)
    return np.asarray(np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2)


@dataclass(frozen=True)
class Piece:
    """Steps of a sample that lie in one tile, along one dim.

    Attributes
    ----------
    tile : int
        Number of the tile along the dim.
    steps : slice
        Which of the steps that are laid.
    key : tuple of int or slice
        Where they lie in the tile: a key, or along a dim that is kept two.
    """

    tile: int
    steps: slice
    key: tuple[int | slice, ...]


@dataclass(frozen=True, eq=False)
class FieldDim:
    """A dim of a field: the places of the windows along a dim, or those of one that is kept.

    Made by `of`; any thread may ask it.

    Attributes
    ----------
    dim : Hashable
        Its name in the data.
    starts : ndarray of int64
        Where windows begin, by their number along the axis.
    numbers : ndarray of int64
        Those of which there is any sample, ascending.
    steps : ndarray of int64
        Steps of a window that are laid, counted from its first one, in the order of tensors.
    places : ndarray of int64
        For each step as windows count them, that of the data; `NOTHING` where there is none.
    circle : int
        After so many steps windows come back to where they were; more than there are, if never.
    kept : bool
        Whether windows stay apart.
    tile : int
        Places, or windows that stay apart, in a tile.
    first, length : int
        First step of the data in the field, and how many places the field has; of windows that
        stay apart, how many there are.
    """

    dim: Hashable
    starts: IntArray
    numbers: IntArray
    steps: IntArray
    places: IntArray
    circle: int
    kept: bool
    tile: int
    first: int
    length: int

    @classmethod
    def of(
        cls,
        along: IndexMap,
        numbers: IntArray,
        steps: IntArray,
        beyond: ExtendedDim | None,
        kept: bool,
    ) -> FieldDim:
        """A dim of which some windows have samples; `steps` are those that are laid.

        It follows one sample axis, or none where it is whole.
        """
        dim, terms = along.dim, list(along.terms.values())
        starts = along.base + (terms[0].at(np.arange(len(terms[0]))) if terms else np.zeros(1, int))
        steps = steps * along.step
        places = np.arange(along.length) if beyond is None else _inside(beyond)
        turns = beyond is not None and beyond.boundary == "wrap"
        circle = beyond.length if beyond is not None and turns else 2 * len(places)
        if kept:
            count = len(numbers)
            return cls(dim, starts, numbers, steps, places, circle, True, count, 0, count)
        length = int(places.max()) + 1
        laid = cls(dim, starts, numbers, steps, places, circle, False, 1, 0, length)
        covered = np.flatnonzero(laid.times)
        first = int(covered[0]) if len(covered) else 0
        length = int(covered[-1]) + 1 - first if len(covered) else 0
        shifted = np.where(places == NOTHING, NOTHING, places - first)
        return replace(laid, places=shifted, tile=max(1, length), first=first, length=length)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the field: windows and steps where these stay apart."""
        return (self.length, len(self.steps)) if self.kept else (self.length,)

    def at(self, numbers: IntArray) -> IntArray:
        """Places of the steps of windows, ``(window, step)``; `NOTHING` where there is none.

        Where windows stay apart, places are counted over windows and steps.
        """
        found: IntArray = self.places[self.starts[numbers][:, None] + self.steps]
        if self.kept:
            rows = np.searchsorted(self.numbers, numbers)[:, None] * len(self.steps)
            found = np.where(found < 0, NOTHING, rows + np.arange(len(self.steps)))
        return found

    @cached_property
    def times(self) -> FloatArray:
        """How often windows cover each place, of a dim that is not kept."""
        found = np.zeros(self.length)
        for some in slabs(self.numbers, len(self.steps)):
            at = self.at(some)
            np.add.at(found, at[at >= 0], 1.0)
        return found

    @cached_property
    def most(self) -> int:
        """The most windows that cover one place."""
        return 1 if self.kept else int(self.times.max(initial=0))

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Of a dim that is kept: whether each step of each window is one of the data."""
        return np.asarray(self.at(self.numbers) >= 0)

    @property
    def whole(self) -> bool:
        """Whether each place is covered by a window."""
        return bool(self.valid.all() if self.kept else self.times.all())

    @cached_property
    def firsts(self) -> IntArray:
        """By number of a window, the place of its first step, or which one it is that stays apart.

        `NOTHING` for windows whose steps do not lie one like the other, evenly spaced in the data.
        """
        begin, end = (self.places[self.starts + self.steps[at]] for at in (0, -1))
        even = len(self.steps) < 3 or len(np.unique(np.diff(self.steps))) == 1
        simple = (begin >= 0) & (end - begin == self.steps[-1] - self.steps[0]) & even
        if self.kept:
            begin = np.full(len(self.starts), NOTHING)
            begin[self.numbers] = np.arange(self.length)
        found: IntArray = np.where(simple, begin, NOTHING)
        return found

    @cached_property
    def simple(self) -> bool:
        """Whether there is no such window of which there are samples."""
        return bool((self.firsts[self.numbers] >= 0).all())

    @cached_property
    def span(self) -> slice:
        """Steps of a window as places, from its first one on."""
        if self.kept:
            return slice(0, len(self.steps))
        step = int(self.steps[1] - self.steps[0]) if len(self.steps) > 1 else 1
        return slice(0, int(self.steps[-1] - self.steps[0]) + 1, step)

    # Windows that share places.

    def ahead(self, one: IntArray, other: IntArray) -> IntArray:
        """How far other windows begin behind some; more than windows reach if before them."""
        found: IntArray = (self.starts[other] - self.starts[one]) % self.circle
        return found

    @property
    def reach(self) -> int:
        """From the first step of a window to its last one."""
        return int(self.steps[-1] - self.steps[0])

    @cached_property
    def meeting(self) -> npt.NDArray[np.bool_]:
        """By how far another window begins behind one, whether they may share a place."""
        found = np.zeros(self.circle, dtype=bool)
        for step in self.steps.tolist():
            found[(step - self.steps) % self.circle] = True
        return found

    # Tiles.

    def tiled(self, size: int) -> FieldDim:
        """The same, in tiles of so many places."""
        return replace(self, tile=min(size, self.length))

    @property
    def tiles(self) -> int:
        """How many tiles there are along the dim."""
        return -(-self.length // self.tile)

    def extent(self, tile: int) -> Interval:
        """Places ``[start, stop)`` of a tile, or windows that stay apart."""
        return tile * self.tile, min((tile + 1) * self.tile, self.length)

    def tile_shape(self, tile: int) -> tuple[int, ...]:
        """Sizes of a tile."""
        start, stop = self.extent(tile)
        return (stop - start, *self.shape[1:])

    def pieces(self, number: int) -> list[Piece]:
        """The steps that a window predicts, by the tiles in which they lie."""
        at = self.places[self.starts[number] + self.steps]
        if self.kept:
            place = int(np.searchsorted(self.numbers, number))
            tile, inside = divmod(place, self.tile)
            return [Piece(tile, run, (inside, run)) for run in _runs(np.where(at >= 0, 0, NOTHING))]
        there = np.where(at >= 0, at // self.tile, NOTHING)
        found = []
        for run in _runs(there):
            tile, places = int(there[run.start]), at[run]
            places = places - tile * self.tile
            found += [
                Piece(tile, slice(run.start + part.start, run.start + part.stop), (key,))
                for part, key in _slices(places)
            ]
        return found

    @cached_property
    def touches(self) -> tuple[IntArray, IntArray]:
        """Pairs of windows and tiles that they touch, each once; windows ascend."""
        codes = [np.zeros(0, dtype=np.int64)]
        unit = self.tile * (len(self.steps) if self.kept else 1)
        for some in slabs(self.numbers, len(self.steps)):
            at = self.at(some)
            tiles = np.where(at < 0, NOTHING, at // unit)
            new = tiles >= 0
            new[:, 1:] &= tiles[:, 1:] != tiles[:, :-1]
            codes.append(np.unique((some[:, None] * self.tiles + tiles)[new]))
        pairs: IntArray = np.concatenate(codes)
        return pairs // self.tiles, pairs % self.tiles


def slabs(numbers: IntArray, each: int) -> Iterator[IntArray]:
    """Windows in as few stretches as memory allows, of so many places each."""
    count = max(1, SLAB // max(1, each))
    for first in range(0, len(numbers), count):
        yield numbers[first : first + count]


def _inside(beyond: ExtendedDim) -> IntArray:
    """The step of the data at each step as windows count; only a circle goes on at its ends."""
    if beyond.boundary == "wrap":
        return beyond.steps
    at = np.arange(len(beyond)) - beyond.before
    return np.where((at >= 0) & (at < beyond.length), at, NOTHING)


def _runs(values: IntArray) -> list[slice]:
    """Runs of equal values, without those of `NOTHING`."""
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = itertools.pairwise([0, *edges.tolist(), len(values)])
    return [slice(begin, end) for begin, end in bounds if values[begin] != NOTHING]


def _slices(places: IntArray) -> list[tuple[slice, slice]]:
    """Places as slices: which of them, and where these lie."""
    if len(places) == 1:
        return [(slice(0, 1), slice(int(places[0]), int(places[0]) + 1))]
    apart = np.diff(places)
    if (apart == apart[0]).all() and apart[0] > 0:
        step = int(apart[0])
        return [(slice(0, len(places)), slice(int(places[0]), int(places[-1]) + 1, step))]
    edges = np.flatnonzero(apart != 1) + 1
    return [
        (slice(begin, end), slice(int(places[begin]), int(places[end - 1]) + 1))
        for begin, end in itertools.pairwise([0, *edges.tolist(), len(places)])
    ]
