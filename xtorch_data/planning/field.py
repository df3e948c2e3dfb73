"""Fields in which samples lie: what overlaps, which tiles samples touch, and what they weigh there.

A field has the dims of the data. Dims that follow one sample axis together, as those around events
do, are a group; mostly each dim is one by itself. What is counted or weighed is a sum over windows
of products over the dims of a group, and a product over groups.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..common.cached import cached_property
from .index_maps import IntArray
from .overlap_add import FieldDim, FloatArray, slabs

__all__ = ["Field", "Group"]

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Group:
    """The dims of a field that follow one sample axis.

    Made by a `Field`; any thread may ask it.

    Attributes
    ----------
    dims : tuple of FieldDim
        In the order of the field.
    weights : tuple of ndarray of float64
        For each dim, the weights of the steps that are laid.
    count : int
        Number of windows along the axis.
    """

    dims: tuple[FieldDim, ...]
    weights: tuple[FloatArray, ...]
    count: int

    @property
    def overlaps(self) -> bool:
        """Whether windows may share a place: those of one dim do, of several see `met`."""
        return all(each.most > 1 for each in self.dims)

    def met(self) -> tuple[int, int] | None:
        """Two windows that share a place, or None if all lie apart."""
        windows = np.unique(self.touches[0])
        along = min(self.dims, key=lambda each: each.most)
        windows = windows[np.argsort(along.starts[windows] % along.circle, kind="stable")]
        for lag in range(1, len(windows)):
            later = np.roll(windows, -lag)
            near = along.ahead(windows, later) <= along.reach
            if not near.any():
                break
            for each in self.dims:
                near &= each.meeting[each.ahead(windows, later)]
            for pair in zip(windows[near].tolist(), later[near].tolist(), strict=True):
                if all(_share(each, *pair) for each in self.dims):
                    return min(pair), max(pair)
        return None

    # Tiles are counted over all dims of the group.

    @property
    def tiles(self) -> tuple[int, ...]:
        """Number of tiles along each dim."""
        return tuple(each.tiles for each in self.dims)

    @cached_property
    def touches(self) -> tuple[IntArray, IntArray]:
        """Pairs of windows and tiles that they touch, each once; windows ascend."""
        windows, tiles = self.dims[0].touches
        for each in self.dims[1:]:
            others, more = each.touches
            begin, end = (np.searchsorted(others, windows, side) for side in ("left", "right"))
            often = end - begin
            shift = np.repeat(begin - (np.cumsum(often) - often), often)
            windows = np.repeat(windows, often)
            tiles = np.repeat(tiles, often) * each.tiles + more[shift + np.arange(len(windows))]
        return windows, tiles

    @cached_property
    def _by_tile(self) -> tuple[IntArray, IntArray]:
        windows, tiles = self.touches
        order = np.argsort(tiles, kind="stable")
        return windows[order], tiles[order]

    def windows_in(self, tile: Sequence[int]) -> IntArray:
        """Numbers of the windows that touch a tile, ascending."""
        windows, tiles = self._by_tile
        number = int(np.ravel_multi_index(tuple(tile), self.tiles))
        begin, end = (np.searchsorted(tiles, number, side) for side in ("left", "right"))
        found: IntArray = windows[begin:end]
        return found

    # Sums over windows.

    def spread(self, tile: Sequence[int], windows: IntArray, values: FloatArray) -> FloatArray:
        """Sums, at the places of a tile, of values of windows times the weights of their steps.

        `values` has the shape ``(window, …)``; the sums have the dims of the group in place of it.
        """
        along = list(zip(self.dims, self.weights, tile, strict=True))
        shape = tuple(size for each, _, number in along for size in each.tile_shape(number))
        rest = values.shape[1:]
        found = np.zeros((math.prod(shape), *rest))
        steps = math.prod(len(each.steps) for each in self.dims)
        for some in slabs(np.arange(len(windows)), steps * math.prod(rest)):
            places = np.zeros((len(some),), dtype=np.int64)
            there, weight = np.ones((len(some),), dtype=bool), np.ones(())
            for each, weights, number in along:
                at = each.at(windows[some]).reshape(len(some), *[1] * (places.ndim - 1), -1)
                width = math.prod(each.shape[1:])
                start, stop = (end * width for end in each.extent(number))
                there = there[..., None] & (at >= start) & (at < stop)
                places = places[..., None] * (stop - start) + at - start
                weight = weight[..., None] * weights
            which = np.nonzero(there)
            weighed = weight[which[1:]].reshape(-1, *[1] * len(rest)) * values[some[which[0]]]
            np.add.at(found, places[which], weighed)
        return found.reshape(*shape, *rest)

    @cached_property
    def _sums(self) -> FloatArray:
        """Sums of weights at all places, of a group of one dim."""
        (each,) = self.dims
        whole = Group((each.tiled(each.length),), self.weights, self.count)
        return whole.spread((0,), each.numbers, np.ones(len(each.numbers)))

    def sums(self, tile: Sequence[int]) -> FloatArray:
        """Sums of weights at the places of a tile, over all windows that have samples."""
        if len(self.dims) == 1:
            return self._sums[slice(*self.dims[0].extent(tile[0]))]
        windows = self.windows_in(tile)
        return self.spread(tile, windows, np.ones(len(windows)))


def _share(each: FieldDim, one: int, other: int) -> bool:
    """Whether two windows have a place in common along a dim."""
    mine, theirs = each.at(np.array([one, other]))
    return bool(np.isin(mine[mine >= 0], theirs).any())


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
    overlaps : bool
        Whether several samples may predict one place.
    """

    dims: tuple[FieldDim, ...]
    places: tuple[int, ...]
    weights: tuple[FloatArray, ...]
    shape: tuple[int, ...]
    overlaps: bool

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The dims by sample axis."""
        return tuple(
            Group(
                tuple(self.dims[at] for at in inside),
                tuple(self.weights[at] for at in inside),
                count,
            )
            for inside, count in zip(self._members, self.shape, strict=True)
        )

    @cached_property
    def _members(self) -> list[list[int]]:
        """For each sample axis, which dims follow it."""
        return [
            [at for at, own in enumerate(self.places) if own == place]
            for place in range(len(self.shape))
        ]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the field."""
        return tuple(size for each in self.dims for size in each.shape)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Number of tiles along each dim."""
        return tuple(each.tiles for each in self.dims)

    @property
    def whole(self) -> bool:
        """Whether samples cover each place; of a group of several dims that is not asked."""
        return all(len(each.dims) == 1 and each.dims[0].whole for each in self.groups)

    def digest(self, samples: BoolArray | None) -> str:
        """What tells where samples lie in it from others, and which of them there are."""
        found = hashlib.sha256(repr((self.places, self.shape)).encode())
        for each in self.dims:
            found.update(repr((each.dim, each.kept, each.first, each.length)).encode())
            for some in slabs(each.numbers, 1):
                found.update((each.starts[some] - each.starts[each.numbers[0]]).tobytes())
            found.update(each.steps.tobytes())
        if samples is not None:
            found.update(np.packbits(samples).tobytes())
        return found.hexdigest()[:16]

    # Tiles.

    def tiled(self, sizes: Sequence[int]) -> Field:
        """The same, in tiles of some sizes."""
        dims = tuple(each.tiled(size) for each, size in zip(self.dims, sizes, strict=True))
        return Field(dims, self.places, self.weights, self.shape, self.overlaps)

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

    def counts(self, samples: BoolArray | None) -> IntArray:
        """How many samples touch each tile: of all, or of those for which there is True.

        `samples` has a value for each, shape `shape`.
        """
        if samples is None:
            found = np.ones((), dtype=np.int64)
            for each in self.groups:
                along = np.bincount(each.touches[1], minlength=math.prod(each.tiles))
                found = found[..., None] * along
            found = found.reshape([size for each in self.groups for size in each.tiles])
            return found.transpose(np.argsort(self._tile_axes))
        found = samples.astype(np.int64)
        for place in reversed(range(len(self.groups))):
            each = self.groups[place]
            windows, tiles = each.touches
            moved = np.moveaxis(found, place, 0)
            sums = np.zeros((math.prod(each.tiles), *moved.shape[1:]), dtype=np.int64)
            np.add.at(sums, tiles, moved[windows])
            found = _moved_back(sums.reshape(*each.tiles, *moved.shape[1:]), len(each.tiles), place)
        return found.transpose(np.argsort(self._tile_axes))

    def touching(self, chosen: BoolArray) -> BoolArray:
        """Which samples touch any of the tiles for which there is True, shape `shape`."""
        found = chosen.transpose(self._tile_axes)
        for place, each in enumerate(self.groups):
            windows, tiles = each.touches
            within = range(place, place + len(each.tiles))
            moved = np.moveaxis(found, within, range(len(within)))
            rest = moved.shape[len(within) :]
            some = np.zeros((each.count, *rest), dtype=bool)
            np.logical_or.at(some, windows, moved.reshape(-1, *rest)[tiles])
            found = np.moveaxis(some, 0, place)
        return found

    def weights_in(self, tile: Sequence[int], samples: BoolArray | None) -> list[FloatArray]:
        """Factors of the sums of weights at the places of a tile: of all samples, or of some.

        Each has the dims of the tile, and size 1 along some.
        """
        chosen = [tuple(tile[at] for at in inside) for inside in self._members]
        if samples is None:
            shape, axes, factors = self.tile_shape(tile), self._axes, []
            for place, each in enumerate(self.groups):
                own = each.sums(chosen[place])
                here = axes[: own.ndim]
                axes = axes[own.ndim :]
                sizes = [size if axis in here else 1 for axis, size in enumerate(shape)]
                factors.append(own.transpose(np.argsort(here)).reshape(sizes))
            return factors
        windows = [each.windows_in(own) for each, own in zip(self.groups, chosen, strict=True)]
        found = samples[np.ix_(*windows)].astype(np.float64)
        for place in reversed(range(len(self.groups))):
            moved = np.moveaxis(found, place, 0)
            sums = self.groups[place].spread(chosen[place], windows[place], moved)
            found = _moved_back(sums, sums.ndim - moved.ndim + 1, place)
        return [found.transpose(np.argsort(self._axes))]

    @cached_property
    def _tile_axes(self) -> list[int]:
        """Dims in the order of the groups."""
        return _flat(self._members)

    @cached_property
    def _axes(self) -> list[int]:
        """Axes of the field in the order of the groups: a dim that is kept has two."""
        ends = np.cumsum([len(each.shape) for each in self.dims])
        own = [range(end - len(each.shape), end) for each, end in zip(self.dims, ends, strict=True)]
        return _flat(own[at] for at in self._tile_axes)


def _flat(several: Iterable[Iterable[Any]]) -> list[int]:
    return [int(each) for some in several for each in some]


def _moved_back(values: npt.NDArray[Any], count: int, place: int) -> npt.NDArray[Any]:
    """An array whose first axes, so many, are moved behind as many as `place` says."""
    return np.moveaxis(values, range(count), range(place, place + count))
