"""Overlap-add: where the targets of samples lie in a field, and how much each of them weighs there.

A field has the dims of the data. Along each of them, the steps that a sample predicts lie at some
of its places; all that is counted or weighed is a product over dims. Pure arithmetic over integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .edges import NOTHING, ExtendedDim
from .index_maps import IndexMap, IntArray
from .intervals import Interval

__all__ = ["Blend", "Field", "FieldDim", "Piece", "window_weights"]

Blend = Literal["mean", "hann"]
FloatArray = npt.NDArray[np.float64]


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
    """A dim of the data in a field, or the two dims that stand in the place of one that is kept.

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
        if kept:
            return cls(dim, starts, numbers, steps, places, True, len(numbers), 0, len(numbers))
        laid = cls(dim, starts, numbers, steps, places, False, 1, 0, int(places.max()) + 1)
        covered = np.flatnonzero(laid.times)
        first = int(covered[0]) if len(covered) else 0
        length = int(covered[-1]) + 1 - first if len(covered) else 0
        shifted = np.where(places == NOTHING, NOTHING, places - first)
        return cls(dim, starts, numbers, steps, shifted, False, max(1, length), first, length)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the field: windows and steps where these stay apart."""
        return (self.length, len(self.steps)) if self.kept else (self.length,)

    def summed(self, weights: FloatArray) -> FloatArray:
        """Sums of the weights of steps at each place, over all windows that have samples."""
        found = np.zeros(self.length)
        for numbers, steps in self._pairs():
            at = self.places[self.starts[numbers] + self.steps[steps]]
            there = (at >= 0) & (at < self.length)
            np.add.at(found, at[there], np.broadcast_to(weights[steps], at.shape)[there])
        return found

    @cached_property
    def times(self) -> FloatArray:
        """How often windows cover each place, of a dim that is not kept."""
        return self.summed(np.ones(len(self.steps)))

    @cached_property
    def most(self) -> int:
        """The most windows that cover one place."""
        return 1 if self.kept else int(self.times.max(initial=0))

    @cached_property
    def valid(self) -> npt.NDArray[np.bool_]:
        """Of a dim that is kept: whether each step of each window is one of the data."""
        return np.asarray(self.places[self.starts[self.numbers][:, None] + self.steps] >= 0)

    @property
    def whole(self) -> bool:
        """Whether each place is covered by a window."""
        return bool(self.valid.all() if self.kept else self.times.all())

    def _pairs(self) -> Iterator[tuple[Any, Any]]:
        """Windows and steps that are looked at together: in as few turns as possible."""
        if len(self.numbers) < len(self.steps):
            every = np.arange(len(self.steps))
            return ((number, every) for number in self.numbers.tolist())
        return ((self.numbers, step) for step in range(len(self.steps)))

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

    @property
    def span(self) -> slice:
        """Steps of a window as places, from its first one on."""
        if self.kept:
            return slice(0, len(self.steps))
        step = int(self.steps[1] - self.steps[0]) if len(self.steps) > 1 else 1
        return slice(0, int(self.steps[-1] - self.steps[0]) + 1, step)

    # Tiles.

    def tiled(self, size: int) -> FieldDim:
        """The same, in tiles of so many places."""
        size = min(size, self.length)
        return FieldDim(
            self.dim, self.starts, self.numbers, self.steps, self.places, self.kept, size,
            self.first, self.length,
        )  # fmt: skip

    @property
    def tiles(self) -> int:
        """How many tiles there are along the dim."""
        return -(-self.length // self.tile)

    def extent(self, tile: int) -> Interval:
        """Places ``[start, stop)`` of a tile."""
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
        """Pairs of windows and tiles that they touch, each once."""
        if self.kept:
            some = np.flatnonzero(self.valid.any(axis=1))
            return self.numbers[some], some // self.tile
        codes = []
        before: Any = None
        if len(self.numbers) < len(self.steps):
            for number in self.numbers.tolist():
                at = self.places[self.starts[number] + self.steps]
                codes.append(number * self.tiles + np.unique(at[at >= 0] // self.tile))
        else:
            for step in self.steps.tolist():
                at = self.places[self.starts[self.numbers] + step]
                tiles = np.where(at >= 0, at // self.tile, NOTHING)
                new = tiles >= 0
                if before is not None:
                    new = new & (tiles != before)
                before = tiles
                codes.append(self.numbers[new] * self.tiles + tiles[new])
        pairs: IntArray = np.unique(np.concatenate(codes))
        return pairs // self.tiles, pairs % self.tiles

    def windows_in(self, tile: int) -> IntArray:
        """Numbers of the windows that touch a tile."""
        windows, tiles = self.touches
        found: IntArray = windows[tiles == tile]
        return found

    def spread(self, values: FloatArray, along: int, tile: int, weights: FloatArray) -> FloatArray:
        """From a value of each window that touches a tile, along an axis, to sums at its places.

        Windows count as `windows_in` has them; along a dim that is kept, an axis of steps follows.
        """
        windows = self.windows_in(tile)
        start, stop = self.extent(tile)
        moved = np.moveaxis(values, along, 0)
        if self.kept:
            rows = np.searchsorted(self.numbers, windows)
            valid = self.valid[rows] * weights
            apart = np.zeros((stop - start, len(self.steps), *moved.shape[1:]))
            apart[rows - start] = moved[:, None] * valid.reshape(
                *valid.shape, *[1] * (moved.ndim - 1)
            )
            return np.moveaxis(apart, (0, 1), (along, along + 1))
        found = np.zeros((stop - start, *moved.shape[1:]))
        for step, weight in zip(self.steps.tolist(), weights.tolist(), strict=True):
            at = self.places[self.starts[windows] + step]
            there = (at >= start) & (at < stop)
            np.add.at(found, at[there] - start, weight * moved[there])
        return np.moveaxis(found, 0, along)


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


@dataclass(frozen=True, eq=False)
class Field:
    """A field of several dims, in tiles, and what samples weigh in it.

    Attributes
    ----------
    dims : tuple of FieldDim
        In the order of the field.
    places : tuple of int
        The sample axis of each of them.
    weights : tuple of ndarray of float64
        For each dim, the weights of the steps that are laid.
    shape : tuple of int
        Number of windows along each sample axis, 1 for what stands in the place of none.
    """

    dims: tuple[FieldDim, ...]
    places: tuple[int, ...]
    weights: tuple[FloatArray, ...]
    shape: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the field."""
        return tuple(size for each in self.dims for size in each.shape)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Number of tiles along each dim."""
        return tuple(each.tiles for each in self.dims)

    @property
    def overlaps(self) -> bool:
        """Whether there are places that several samples predict."""
        return any(each.most > 1 for each in self.dims)

    @cached_property
    def sums(self) -> tuple[FloatArray, ...]:
        """For each dim, the sums of weights at its places, over all windows that have samples."""
        along = zip(self.dims, self.weights, strict=True)
        return tuple(
            each.valid * weights if each.kept else each.summed(weights) for each, weights in along
        )

    def tiled(self, sizes: Sequence[int]) -> Field:
        """The same, in tiles of some sizes."""
        dims = tuple(each.tiled(size) for each, size in zip(self.dims, sizes, strict=True))
        return Field(dims, self.places, self.weights, self.shape)

    def tile_shape(self, tile: Sequence[int]) -> tuple[int, ...]:
        """Sizes of a tile."""
        along = zip(self.dims, tile, strict=True)
        return tuple(size for each, number in along for size in each.tile_shape(number))

    def region(self, tile: Sequence[int]) -> tuple[slice, ...]:
        """Where a tile lies in the field."""
        found: list[slice] = []
        for each, number in zip(self.dims, tile, strict=True):
            found.append(slice(*each.extent(number)))
            found += [slice(0, size) for size in each.shape[1:]]
        return tuple(found)

    def counts(self, samples: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
        """How many samples touch each tile: of all, or of those for which there is True.

        `samples` has a value for each, shape `shape`.
        """
        if samples is None:
            along = [np.bincount(each.touches[1], minlength=each.tiles) for each in self.dims]
            return np.asarray(_outer(along), dtype=np.int64).reshape(self.tiles)
        found = samples.transpose(self.places).astype(np.int64)
        for at, each in enumerate(self.dims):
            windows, tiles = each.touches
            moved = np.moveaxis(found, at, 0)
            sums = np.zeros((each.tiles, *moved.shape[1:]), dtype=np.int64)
            np.add.at(sums, tiles, moved[windows])
            found = np.moveaxis(sums, 0, at)
        return found

    def weights_in(
        self, tile: Sequence[int], samples: npt.NDArray[np.bool_] | None
    ) -> FloatArray | list[FloatArray]:
        """Sums of weights at the places of a tile: of all samples, or of some.

        Of all it is an outer product, of which the factors come, one for each dim.
        """
        every = list(zip(self.dims, tile, self.weights, strict=True))
        if samples is None:
            inside = [slice(*each.extent(number)) for each, number, _ in every]
            return [sums[along] for sums, along in zip(self.sums, inside, strict=True)]
        chosen = [each.windows_in(number) for each, number, _ in every]
        found = samples.transpose(self.places)[np.ix_(*chosen)].astype(np.float64)
        at = 0
        for each, number, weights in every:
            found = each.spread(found, at, number, weights)
            at += len(each.shape)
        return found


def _outer(factors: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The outer product of some arrays, one axis after the other."""
    found: npt.NDArray[Any] = np.ones((), dtype=np.result_type(*factors) if factors else np.int64)
    for each in factors:
        found = found[(...,) + (None,) * each.ndim] * each
    return found
