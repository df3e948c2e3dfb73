"""Partial sums of a field: its tiles while samples are added, in memory or in a scratch file."""

from __future__ import annotations

import functools
import itertools
import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..planning.edges import NOTHING
from ..planning.field import Field
from ..planning.index_maps import IntArray
from ..planning.overlap_add import FieldDim

__all__ = ["PartialSums", "Tile", "Values"]

Values = npt.NDArray[Any]
Tile = tuple[int, ...]

# Windows whose places are remembered, along each dim.
REMEMBERED = 2**16
# Samples of no more values are added many at once.
FEW_VALUES = 64
# Samples of so many bytes are weighed one by one, so that they stay in the processor's cache.
LARGE_BYTES = 2**13
# Stands for all samples of a batch, or tiles of one number.
EVERY = slice(None)


class PartialSums:
    """The tiles of a field to which samples are added.

    Made by a `Mosaic` when the first batch comes, which says of what dtype and which other dims
    samples are. The thread that adds touches it.

    Parameters
    ----------
    field : Field
        Where samples lie.
    dropped : sequence of bool
        For each dim of the field, whether samples lack it: they have one step of it.
    lead : tuple of int
        Sizes of the dims that come before those of the field.
    dtype : numpy.dtype
        Of the sums.
    memory : int, optional
        Bytes that tiles may take; those that were not used for the longest time go into a file.
    folder : str, optional
        Where that file is, which has no name and ends with the process.
    """

    def __init__(
        self,
        field: Field,
        dropped: Sequence[bool],
        lead: tuple[int, ...],
        dtype: np.dtype[Any],
        memory: int | None = None,
        folder: str | None = None,
    ) -> None:
        self.field, self.lead, self.dtype, self.memory = field, lead, dtype, memory
        self._dropped, self._folder = tuple(dropped), folder
        self._held: OrderedDict[Tile, Values] = OrderedDict()
        remember = functools.lru_cache(REMEMBERED)
        along = list(zip(field.dims, dropped, strict=True))
        self._pieces = [remember(functools.partial(_pieces_of, *each)) for each in along]
        self._keys = [remember(functools.partial(_key_at, *each)) for each in along]
        self._file: Any = None
        self._slots: dict[Tile, int] = {}
        self._free: list[int] = []
        self.nbytes = 0  # held now
        self.peak = 0
        self.set_aside = 0  # how often a tile went into the file

    # Adding.

    def add(
        self,
        numbers: Sequence[IntArray],
        values: Values,
        weights: Values | None = None,
        skipped: npt.NDArray[np.bool_] | None = None,
        finish: Callable[[Tile], object] | None = None,
        left: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Add samples.

        Parameters
        ----------
        numbers : sequence of ndarray of int64
            For each dim of the field, the windows of the samples.
        values : numpy.ndarray
            Shape ``(sample, *lead, *dims of the field that samples have)``.
        weights : numpy.ndarray, optional
            Of the steps of a sample, where they overlap, of the dtype of the sums.
        skipped : numpy.ndarray of bool, optional
            Tiles that are left out.
        finish : callable, optional
            Called with each tile to which all of its samples were added.
        left : numpy.ndarray of int64, optional
            How many samples each tile still lacks; counted down.
        """
        size = values[0].nbytes // values.itemsize * self.dtype.itemsize
        if weights is not None and size < LARGE_BYTES:
            values, weights = values * weights, None
        values = values.astype(self.dtype, copy=False)
        counted: list[tuple[Tile, int]] = []
        firsts, tiles = self._firsts(numbers)
        for number, samples in _by_number(tiles):
            if number == NOTHING:
                along = [
                    [*map(pieces, each[samples].tolist())]
                    for pieces, each in zip(self._pieces, numbers, strict=True)
                ]
                self._add_pieces(along, values[samples], weights, skipped)
                counted += _touched(along)
                continue
            tile = self._tile(number)
            counted.append((tile, len(values) if samples is EVERY else len(samples)))
            if skipped is None or not skipped[tile]:
                inside = [at if len(at) == 1 else at[samples] for at in firsts]
                self._add_whole(self.tile(tile), inside, values, weights, samples)
        if left is None:
            return
        for tile, count in counted:
            left[tile] -= count
            if not left[tile] and finish is not None and (skipped is None or not skipped[tile]):
                finish(tile)

    def _tile(self, number: int) -> Tile:
        """A tile by its number in C order."""
        found = []
        for count in reversed(self.field.tiles):
            number, at = divmod(number, count)
            found.append(at)
        return tuple(found[::-1])

    # Samples that lie in one piece, in one tile.

    def _firsts(self, numbers: Sequence[IntArray]) -> tuple[list[IntArray], IntArray]:
        """Places in their tiles at which samples begin, and these tiles by number.

        Along dims of one window there is one place. Tiles are `NOTHING` for samples of several
        pieces, and one number is that of all samples.
        """
        found, tiles = [], np.zeros(1, dtype=np.int64)
        for each, windows in zip(self.field.dims, numbers, strict=True):
            at = each.firsts if len(each.starts) == 1 else each.firsts[windows]
            whole = True if each.simple else at >= 0
            if each.tiles > 1:
                inside = at // each.tile
                whole = whole & ((at if each.kept else at + each.reach) // each.tile == inside)
                at = at - inside * each.tile
                tiles = tiles * each.tiles + np.where(tiles < 0, 0, inside)
            if whole is not True:
                tiles = np.where(whole & (tiles >= 0), tiles, NOTHING)
            found.append(at)
        return found, tiles

    def _add_whole(
        self,
        sums: Values,
        firsts: Sequence[IntArray],
        values: Values,
        weights: Values | None,
        samples: Any,
    ) -> None:
        """Add those of some samples that lie in one piece in a tile."""
        if values[0].size <= FEW_VALUES and len(values) > 1:
            self._add_many(sums, firsts, values[samples])
            return
        # NumPy is half as fast with dims of size 1 in front of others.
        lead = tuple(0 if size == 1 else slice(None) for size in self.lead)
        sums, values = sums[lead], values[(slice(None), *lead)]
        chosen = values if samples is EVERY else map(values.__getitem__, samples.tolist())
        columns: list[Any] = []
        if any(lead) or all(self._dropped):  # else no key is of integers alone, which makes a copy
            columns.append(itertools.repeat(...))
        for place, (each, at) in enumerate(zip(self.field.dims, firsts, strict=True)):
            along = [*map(self._keys[place], at.tolist())]
            columns.append(along if len(along) > 1 else itertools.repeat(along[0]))
            if each.kept:
                columns.append(itertools.repeat(0 if self._dropped[place] else each.span))
        keys = zip(*columns, strict=False)
        if not self.field.overlaps:
            for value, key in zip(chosen, keys, strict=False):
                sums[key] = value
        elif weights is not None:
            weighed = np.empty_like(values[0])
            for value, key in zip(chosen, keys, strict=False):
                np.multiply(value, weights, out=weighed)
                view = sums[key]
                view += weighed
        else:
            for value, key in zip(chosen, keys, strict=False):
                view = sums[key]
                view += value

    def _add_many(self, sums: Values, firsts: Sequence[IntArray], values: Values) -> None:
        """Add small samples by the places of their values."""
        strides = [size // sums.itemsize for size in sums.strides]
        along = [np.arange(size) for size in self.lead]
        inside = [step * stride for step, stride in zip(along, strides, strict=False)]
        begins: Any = np.zeros(len(values), dtype=np.int64)
        axis = len(self.lead)
        for each, dropped, at in zip(self.field.dims, self._dropped, firsts, strict=True):
            begins = begins + at * strides[axis]
            axis += each.kept
            if not dropped:
                inside.append(np.arange(each.span.stop)[each.span] * strides[axis])
            axis += 1
        grid = np.zeros((), dtype=np.int64)
        for steps in inside:
            grid = grid[..., None] + steps
        places = (begins[:, None] + grid.ravel()).ravel()
        flat = sums.reshape(-1)
        if self.field.overlaps:
            np.add.at(flat, places, values.reshape(-1))
        else:
            flat[places] = values.reshape(-1)

    # Samples of several pieces.

    def _add_pieces(
        self,
        along: list[list[Any]],
        values: Values,
        weights: Values | None,
        skipped: npt.NDArray[np.bool_] | None,
    ) -> None:
        """Add samples piece by piece; `along` has those along each dim, for each sample."""
        if weights is not None:
            values = values * weights
        for tile, works in self._by_tile(along, skipped):
            sums = self.tile(tile)
            for sample, steps, key in works:
                view = sums[(..., *key)]
                if self.field.overlaps:
                    view += values[(sample, ..., *steps)]
                else:
                    view[...] = values[(sample, ..., *steps)]

    def _by_tile(
        self, along: list[list[Any]], skipped: npt.NDArray[np.bool_] | None
    ) -> Iterator[tuple[Tile, list[Any]]]:
        """What is to be laid, tile by tile, so that each is fetched once."""
        works: dict[Tile, list[Any]] = {}
        for sample, pieces in enumerate(zip(*along, strict=True)):
            for chosen in itertools.product(*pieces):
                tile = tuple(each[0] for each in chosen)
                if skipped is not None and skipped[tile]:
                    continue
                steps = tuple(each[1] for each in chosen if each[1] is not None)
                key = tuple(itertools.chain.from_iterable(each[2] for each in chosen))
                works.setdefault(tile, []).append((sample, steps, key))
        yield from sorted(works.items(), key=lambda each: each[0])

    # Tiles.

    def shape(self, tile: Tile) -> tuple[int, ...]:
        """Sizes of a tile, with the dims before those of the field."""
        return (*self.lead, *self.field.tile_shape(tile))

    def tile(self, tile: Tile) -> Values:
        """The sums of a tile, in memory; what makes them too many goes into the file."""
        sums = self._held.get(tile)
        if sums is not None:
            self._held.move_to_end(tile)
            return sums
        sums = self._fetched(tile)
        if self.memory is not None:
            while self._held and self.nbytes + sums.nbytes > self.memory:
                self._put_aside(*self._held.popitem(last=False))
        self._held[tile] = sums
        self.nbytes += sums.nbytes
        self.peak = max(self.peak, self.nbytes)
        return sums

    def taken(self, tile: Tile) -> Values:
        """The sums of a tile, which is let go."""
        sums = self.tile(tile)
        del self._held[tile]
        self.nbytes -= sums.nbytes
        return sums

    @property
    def tiles(self) -> list[Tile]:
        """Tiles to which something was added, and that are still there."""
        return sorted({*self._held, *self._slots})

    def _fetched(self, tile: Tile) -> Values:
        shape = self.shape(tile)
        if tile in self._slots:
            found = np.empty(shape, self.dtype)
            slot = self._slots.pop(tile)
            self._file.seek(slot * self._slot_nbytes)
            left = _bytes_of(found)
            while left:
                left = left[self._file.readinto(left) :]
            self._free.append(slot)
            return found
        # Where samples do not overlap, what none has is made missing in the end.
        return (np.zeros if self.field.overlaps else np.empty)(shape, self.dtype)

    def _put_aside(self, tile: Tile, sums: Values) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
        slot = self._free.pop() if self._free else len(self._slots)
        self._file.seek(slot * self._slot_nbytes)
        left = _bytes_of(sums)
        while left:
            left = left[self._file.write(left) :]
        self._slots[tile] = slot
        self.nbytes -= sums.nbytes
        self.set_aside += 1

    @property
    def _slot_nbytes(self) -> int:
        whole = math.prod(self.lead) * self.dtype.itemsize
        for each in self.field.dims:
            whole *= math.prod(each.tile_shape(0))
        return whole

    def close(self) -> None:
        """Let go of all, in memory and in the file."""
        self._held.clear()
        self._slots.clear()
        self.nbytes = 0
        if self._file is not None:
            self._file.close()
            self._file = None


def _key_at(each: FieldDim, dropped: bool, first: int) -> int | slice:
    """Where the steps of a window lie that begins at a place and lies in one piece."""
    if each.kept or dropped:
        return first
    return slice(first, first + each.span.stop, each.span.step)


def _pieces_of(each: FieldDim, dropped: bool, number: int) -> list[tuple[int, Any, Any]]:
    """Where a window lies along a dim: tiles, steps of the sample and keys in the tile."""
    if not dropped:
        return [(piece.tile, piece.steps, piece.key) for piece in each.pieces(number)]
    return [
        (piece.tile, None, [key.start if isinstance(key, slice) else key for key in piece.key])
        for piece in each.pieces(number)
    ]


def _touched(along: list[list[Any]]) -> Iterator[tuple[Tile, int]]:
    """The tiles that samples touch, each once for a sample."""
    for pieces in zip(*along, strict=True):
        for tile in itertools.product(*({each[0]: None for each in some} for some in pieces)):
            yield tile, 1


def _by_number(numbers: IntArray) -> Iterator[tuple[int, Any]]:
    """Different numbers, and where each of them stands; `EVERY` if all are one."""
    if len(numbers) == 1 or (numbers == numbers[0]).all():
        yield int(numbers[0]), EVERY
        return
    order = np.argsort(numbers, kind="stable")
    edges = np.flatnonzero(np.diff(numbers[order])) + 1
    for places in np.split(order, edges):
        yield int(numbers[places[0]]), places


def _bytes_of(values: Values) -> memoryview:
    """The memory of an array, as it is made here: of one piece."""
    return memoryview(values.reshape(-1).view(np.uint8).data)


def folder_beside(path: Any) -> str | None:
    """The folder of a local path; None of anything else, for that of temporary files."""
    if isinstance(path, str | os.PathLike) and "://" not in os.fspath(path):
        return os.path.dirname(os.path.abspath(os.path.expanduser(path)))
    return None
