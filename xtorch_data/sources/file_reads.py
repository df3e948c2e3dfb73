"""Selections of arrays in files, read through the file.

A file that has been cut is an error here. A memory map of it would end the process.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..common.redact import printable

__all__ = ["StoredArray", "read_array", "reopened", "selected"]

Array = np.ndarray[Any, np.dtype[Any]]
Dims = Sequence[tuple[int, int]]  # of each its size, and the bytes from a place to the next one

# Places that lie so near each other, in bytes, are read with what lies between them: a call for
# each would take longer. At most a piece is read so at once: it stays in a core's cache.
NEAR = 2**14
PIECE = 2**19


@dataclass(frozen=True)
class StoredArray:
    """The place of an array in a file; in any order, and with anything between its values."""

    offset: int  # of its first value, in bytes
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes, as those of an array


def read_array(
    file: io.FileIO, stored: StoredArray, key: Sequence[Any], out: Array | np.dtype[Any]
) -> Array:
    """The selection of a key: for each dim an integer, a slice, or an array of integers.

    The answer is `out` or, if that is a dtype, new and in C order; values are cast. Raises
    ValueError if the file ends before.
    """
    for axis, at in enumerate(key):
        if isinstance(at, np.ndarray):
            return _read_listed(file, stored, key, axis, out)
    begin, kept = stored.offset, list[tuple[int, int]]()
    for size, stride, at in zip(stored.shape, stored.strides, key, strict=True):
        places = range(size)[at]
        if isinstance(places, range):
            kept.append((len(places), stride * places.step))
            places = places.start
        begin += stride * places
    if not isinstance(out, np.ndarray):
        out = np.empty([size for size, _ in kept], out)
    if out.nbytes:
        dims = [each for each in kept if each[0] > 1]
        order = sorted(range(len(dims)), key=lambda axis: -abs(dims[axis][1]))
        target = out[(*(slice(None) if size > 1 else 0 for size, _ in kept), ...)]
        dims = [dims[axis] for axis in order]
        _fill(file, target.transpose(order), stored.dtype, begin, dims)
    return out


def _fill(file: io.FileIO, target: Array, dtype: np.dtype[Any], begin: int, dims: Dims) -> None:
    """Read all of an array, whose dims come as they lie in the file, the coarsest first."""
    # Dims from `inner` on are read at once: straight into the target, or picked from a piece.
    inner, span, straight, rows = len(dims), dtype.itemsize, target.dtype == dtype, 1
    while inner:
        size, step = dims[inner - 1]
        straight_on = straight and target.strides[inner - 1] == step == span
        wider = span + (size - 1) * abs(step)
        near = abs(step) <= max(NEAR, span)
        if not straight_on and (not near or wider > PIECE):
            if near:
                rows = max(1, (PIECE - span) // max(1, abs(step)))
            break
        inner, span, straight = inner - 1, wider, straight_on
    if rows > 1:  # places of the next dim, too
        straight = False
        span += (rows - 1) * abs(dims[inner - 1][1])
    piece = np.empty(0 if straight else span, np.uint8)
    places = [range(size) for size, _ in dims[:inner]]
    if inner:
        places[-1] = places[-1][::rows]
    index: Any
    for index in itertools.product(*places):
        at = begin + sum(place * step for place, (_, step) in zip(index, dims, strict=False))
        if straight:
            _read_into(file, at, target[(*index, ...)].reshape(-1).view(np.uint8))
            continue
        if rows > 1:
            part = target[(*index[:-1], slice(index[-1], index[-1] + rows))]
        else:
            part = target[(*index, ...)]
        steps = [step for _, step in dims[len(dims) - part.ndim :]]
        ends = [(size - 1) * step for size, step in zip(part.shape, steps, strict=True)]
        low = sum(end for end in ends if end < 0)
        nbytes = sum(map(abs, ends)) + dtype.itemsize
        _read_into(file, at + low, piece[:nbytes])
        part[...] = np.ndarray(part.shape, dtype, piece, -low, steps)


def _read_into(file: io.FileIO, begin: int, target: Array) -> None:
    """Fill some bytes in memory with those of a file from a place on."""
    file.seek(begin)
    left = memoryview(target)  # type: ignore[arg-type]  # for Python before 3.12
    while left:
        count = file.readinto(left)
        if not count:
            raise ValueError(
                f"{printable(file.name)} was cut off: {len(left)} bytes are lacking of the "
                f"{len(target)} from {begin} on"
            )
        left = left[count:]


def _read_listed(
    file: io.FileIO,
    stored: StoredArray,
    key: Sequence[Any],
    axis: int,
    out: Array | np.dtype[Any],
) -> Array:
    """The selection of a key that lists positions along an axis."""
    size, step = stored.shape[axis], abs(stored.strides[axis])
    positions = np.where(key[axis] < 0, key[axis] + size, key[axis])
    if len(positions) and not 0 <= positions.min() <= positions.max() < size:
        raise IndexError(f"there are {size} positions along axis {axis}; got {key[axis]}")
    place = sum(not isinstance(at, int | np.integer) for at in key[:axis])

    def read(at: slice, out: Array | np.dtype[Any]) -> Array:
        return read_array(file, stored, [*key[:axis], at, *key[axis + 1 :]], out)

    nothing = read(slice(0, 0), stored.dtype)  # but of the sizes of all other dims
    before, after = nothing.shape[:place], nothing.shape[place + 1 :]
    if not isinstance(out, np.ndarray):
        out = np.empty((*before, len(positions), *after), out)
    others = math.prod([*before, *after]) * out.itemsize
    ahead: tuple[Any, ...] = (slice(None),) * place
    todo = [np.argsort(positions, kind="stable")] if out.size else []
    while todo:
        members = todo.pop()
        low, high = int(positions[members[0]]), int(positions[members[-1]])
        extent = high - low + 1
        near = extent * step <= PIECE and extent * others <= PIECE
        if len(members) > 1 and extent > 2 * len(members) and not near:
            todo += np.array_split(members, 2)
        elif (np.diff(members) == 1).all() and (np.diff(positions[members]) == 1).all():
            read(slice(low, high + 1), out[(*ahead, slice(members[0], members[-1] + 1))])
        else:
            found = read(slice(low, high + 1), out.dtype)
            out[(*ahead, members)] = np.take(found, positions[members] - low, place)
    return out


def reopened(file: Any) -> io.FileIO | None:
    """A file opened by its path once more; None if another one has it by now.

    What has the file open may close it meanwhile.
    """
    try:
        again = open(file.name, "rb", buffering=0)
    except OSError:
        return None
    with contextlib.suppress(ValueError):  # it was closed
        if os.path.sameopenfile(again.fileno(), file.fileno()):
            return again
    again.close()
    return None


def selected(values: Array, key: Sequence[Any]) -> Array:
    """The selection of a key, each dim for itself; a view as far as it has integers and slices."""
    plain = tuple(slice(None) if isinstance(part, np.ndarray) else part for part in key)
    found: Array = values[plain]
    axis = 0
    for part in key:
        if isinstance(part, np.ndarray):
            found = np.take(found, part, axis)
        axis += not isinstance(part, (int, np.integer))
    return found
