"""Partial sums of a field: its tiles while samples are added, in memory or in a scratch file."""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..planning.field import Field
from ..planning.index_maps import IntArray

__all__ = ["PartialSums", "Tile", "Values"]

Values = npt.NDArray[Any]
Tile = tuple[int, ...]

# Places of windows that are remembered, along each dim.
REMEMBERED = 2**16
# Samples of no more values are added many at once.
FEW_VALUES = 64
# Samples of so many bytes are weighed one by one, so that they stay in the processor's cache.
LARGE_BYTES = 2**13


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
        self._memo: list[dict[int, Any]] = [{} for _ in field.dims]
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
        if left is None and math.prod(self.field.tiles) == 1:
            dims = zip(self.field.dims, numbers, strict=True)
            firsts = [each.firsts[windows] for each, windows in dims]
            if all((each >= 0).all() for each in firsts):
                self._add_simple(firsts, values, weights)
                return
        if weights is not None:
            values = values * weights
        values = values.astype(self.dtype, copy=False)
        along = [self._pieces(at, each) for at, each in enumerate(numbers)]
        for tile, works in self._by_tile(along, skipped):
            sums = self.tile(tile)
            for sample, steps, key in works:
                self._lay(sums, (..., *key), values[(sample, ..., *steps)])
        if left is None:
            return
        for pieces in zip(*along, strict=True):
            for tile in itertools.product(*({each[0]: None for each in some} for some in pieces)):
                left[tile] -= 1
                if (
                    not left[tile]
                    and finish is not None
                    and not (skipped is not None and skipped[tile])
                ):
                    finish(tile)

    def _lay(self, sums: Values, key: tuple[Any, ...], values: Values) -> None:
        if self.field.overlaps:
            view = sums[key]
            view += values
        else:
            sums[key] = values

    def _add_simple(
        self, firsts: Sequence[IntArray], values: Values, weights: Values | None
    ) -> None:
        """Add samples each of which lies in one piece in the only tile."""
        sums = self.tile((0,) * len(self.field.dims))
        size = values[0].size
        large = weights is not None and size * self.dtype.itemsize >= LARGE_BYTES
        if weights is not None and not large:
            values = values * weights
        values = values.astype(self.dtype, copy=False)
        if size <= FEW_VALUES and len(values) > 1:
            self._add_many(sums, firsts, values)
            return
        # NumPy is half as fast with dims of size 1 in front of others.
        lead = tuple(0 if size == 1 else slice(None) for size in self.lead)
        sums, values = sums[lead], values[(slice(None), *lead)]
        columns: list[Any] = []
        if any(lead) or all(self._dropped):  # else no key is of integers alone, which makes a copy
            columns.append(itertools.repeat(...))
        for each, dropped, at in zip(self.field.dims, self._dropped, firsts, strict=True):
            stop, step = each.span.stop, each.span.step
            starts = at.tolist()
            if each.kept:
                columns += [starts, itertools.repeat(0 if dropped else each.span)]
            else:
                columns.append(
                    starts if dropped else [slice(start, start + stop, step) for start in starts]
                )
        keys = zip(*columns, strict=False)
        if not self.field.overlaps:
            for key, value in zip(keys, values, strict=False):
                sums[key] = value
        elif large and weights is not None:
            weighed = np.empty_like(values[0])
            for key, value in zip(keys, values, strict=False):
                np.multiply(value, weights, out=weighed)
                view = sums[key]
                view += weighed
        else:
            for key, value in zip(keys, values, strict=False):
                view = sums[key]
                view += value

    def _add_many(self, sums: Values, firsts: Sequence[IntArray], values: Values) -> None:
        """Add small samples by the places of their values."""
        strides = [size // sums.itemsize for size in sums.strides]
        along = [np.arange(size) for size in self.lead]
        inside = [step * stride for step, stride in zip(along, strides, strict=False)]
        begins: Any = 0
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

    def _pieces(self, at: int, numbers: IntArray) -> list[Any]:
        """For each sample, where it lies along a dim: tile, steps of the sample, keys."""
        memo, found = self._memo[at], []
        if len(memo) > REMEMBERED:
            memo.clear()
        for number in numbers.tolist():
            pieces = memo.get(number)
            if pieces is None:
                pieces = memo[number] = list(self._of_window(at, number))
            found.append(pieces)
        return found

    def _of_window(self, at: int, number: int) -> Iterator[tuple[int, Any, tuple[Any, ...]]]:
        for piece in self.field.dims[at].pieces(number):
            if not self._dropped[at]:
                yield piece.tile, piece.steps, piece.key
                continue
            key = tuple(each.start if isinstance(each, slice) else each for each in piece.key)
            yield piece.tile, None, key

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


def _bytes_of(values: Values) -> memoryview:
    """The memory of an array, as it is made here: of one piece."""
    return memoryview(values.reshape(-1).view(np.uint8).data)


def folder_beside(path: Any) -> str | None:
    """The folder of a local path; None of anything else, for that of temporary files."""
    if isinstance(path, str | os.PathLike) and "://" not in os.fspath(path):
        return os.path.dirname(os.path.abspath(os.path.expanduser(path)))
    return None
