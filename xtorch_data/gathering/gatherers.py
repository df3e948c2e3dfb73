"""Windows of one variable, from the memory of all pieces of a stage into rows of a batch."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import torch

from ..common.recorder import Way
from ..planning.windows import IntArray
from .sample_indices import SampleIndices, of_piece
from .torch_threads import one_thread
from .views import Array, SplitView, View

__all__ = ["Gatherer", "OneWindow", "WindowRows", "bytes_between", "gatherer_of"]

# Windows of more bytes are copied one by one: nothing copies them faster. Of fewer, many are taken
# by one call: after each, threads wait for each other.
SELECTED_BYTES = 2**16
# What is selected at once to be cast or put in rows apart: it stays in the cache in between.
CACHED_BYTES = 2**20
# Of fewer values torch gathers on one thread anyway.
SERIAL_VALUES = 2**15
# What values are moved as, by bytes: every dtype goes this way bit for bit.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Gatherer(Protocol):
    """The windows of one variable in all pieces."""

    def copy(self, key: Hashable, indices: SampleIndices, out: Any) -> Way:
        """Copy those of some samples into ``out (sample, *dims)``; the way they went.

        `out` is an array on the host, and on a device a tensor. What is worked out for the samples
        is kept under the key, which others do not have.
        """
        ...


def gatherer_of(views: Sequence[View], axes: int) -> Gatherer:
    """What gathers windows on the host: small ones many at once, large ones one by one."""
    arrays = [view for view in views if not isinstance(view, SplitView)]
    if len(arrays) == len(views) and _SelectedWindows.can_hold(arrays, axes):
        return _SelectedWindows(arrays, axes)
    return _CopiedWindows(views)


class OneWindow:
    """The window of one variable in the only sample, on the host or on a device."""

    def __init__(self, window: Any) -> None:
        self._window = window

    def copy(self, key: Hashable, indices: SampleIndices, out: Any) -> Way:
        """Copy it."""
        out[...] = self._window
        return Way.COPIED


class _CopiedWindows:
    """Windows that are copied one by one. Some may lie in several arrays."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views

    def copy(self, key: Hashable, indices: SampleIndices, out: Any) -> Way:
        """Copy those of some samples."""
        way = Way.COPIED
        where = zip(indices.pieces.tolist(), *(at.tolist() for at in indices.places), strict=True)
        for row, (piece, *place) in enumerate(where):
            view = self._views[piece]
            if isinstance(view, SplitView):
                view.copy_window(out[row, ...], place)
                way = Way.SPLIT
            else:
                np.copyto(out[row, ...], view[tuple(place)])
        return way


class WindowRows:
    """Windows that torch selects, many by one call.

    Windows that step through memory alike, mostly those of all pieces, are rows of one strided
    tensor over all of it, of which nothing but the windows is touched. `memory` are the bytes in
    which all views lie, `place_of` says where in them an address is.
    """

    def __init__(
        self,
        views: Sequence[Array],
        axes: int,
        memory: torch.Tensor,
        place_of: Callable[[int], int],
    ) -> None:
        itemsize, shape = views[0].itemsize, views[0].shape[axes:]
        begins = [
            place_of(view.__array_interface__["data"][0]) if view.size else 0 for view in views
        ]
        strides = [view.strides for view in views]
        # Values may lie at any byte; then they are moved in parts.
        size = math.gcd(8, itemsize, *begins, *itertools.chain.from_iterable(strides))
        self._integers = _INTEGERS[size]
        self._begins = np.array(begins, dtype=np.int64) // size
        steps = [each[:axes] for each in strides]
        self._steps = np.array(steps, dtype=np.int64).reshape(len(views), axes) // size
        alike: dict[tuple[int, ...], list[int]] = {}
        for piece, each in enumerate(strides):
            # How a piece steps where windows have one step does not tell it from others.
            own = (step * (count > 1) for step, count in zip(each[axes:], shape, strict=True))
            alike.setdefault(tuple(own), []).append(piece)
        values = memory.view(self._integers)
        self._alike: list[tuple[list[int], torch.Tensor, tuple[int, ...]]] = []
        for inside, pieces in alike.items():
            row = (*shape, itemsize // size)
            # Torch steps forward alone: rows begin at the lowest place, and are turned around.
            turned = tuple(axis for axis, step in enumerate(inside) if step < 0)
            self._begins[pieces] += sum((shape[at] - 1) * (inside[at] // size) for at in turned)
            within = (*(abs(step) // size for step in inside), 1)
            reach = sum((count - 1) * step for count, step in zip(row, within, strict=True))
            rows = values.as_strided((max(0, values.numel() - reach), *row), (1, *within))
            self._alike.append((pieces, rows, tuple(axis + 1 for axis in turned)))

    def _chosen(
        self, key: Hashable, indices: SampleIndices
    ) -> Iterator[tuple[torch.Tensor, IntArray, IntArray | None, tuple[int, ...]]]:
        """Rows, which of them, for which of the samples (None for all), and axes to be turned."""
        begins = indices.offsets(key, self._offsets)
        if len(self._alike) == 1:
            yield self._alike[0][1], begins, None, self._alike[0][2]
            return
        for pieces, rows, turned in self._alike:
            samples = np.flatnonzero(np.isin(indices.pieces, pieces))
            if len(samples):
                yield rows, begins[samples], samples, turned

    def _offsets(self, indices: SampleIndices) -> IntArray:
        """Where the windows of some samples begin."""
        found = np.zeros(len(indices.numbers), dtype=np.int64)
        found += of_piece(self._begins, indices.pieces)
        for axis, at in enumerate(indices.places):
            found += at * of_piece(self._steps[:, axis], indices.pieces)
        return found


class _SelectedWindows(WindowRows):
    """Windows on the host that are selected, many by one call, which releases the GIL once."""

    def __init__(self, views: Sequence[Array], axes: int) -> None:
        bounds = [np.lib.array_utils.byte_bounds(view) for view in views if view.size]
        begin = min(start for start, _ in bounds) // 8 * 8  # so that places are as aligned
        stop = -(-max(stop for _, stop in bounds) // 8) * 8
        memory = bytes_between(views, begin, stop)
        super().__init__(views, axes, memory, lambda address: address - begin)
        self._dtype, self._as_integers = views[0].dtype, np.dtype(f"i{self._integers.itemsize}")
        self._nbytes = _window_nbytes(views[0], axes)

    @staticmethod
    def can_hold(views: Sequence[Array], axes: int) -> bool:
        """Whether views can be gathered so: torch knows no steps backwards."""
        return (
            _window_nbytes(views[0], axes) <= SELECTED_BYTES
            and any(view.size for view in views)
            and len({view.dtype for view in views}) == 1
            and all(step >= 0 for view in views for step in view.strides)
        )

    def copy(self, key: Hashable, indices: SampleIndices, out: Any) -> Way:
        """Copy those of some samples."""
        for rows, chosen, samples, _ in self._chosen(key, indices):
            if samples is None and out.dtype == self._dtype:
                _select(rows, chosen, out[..., np.newaxis].view(self._as_integers))
                continue
            at_once = max(1, CACHED_BYTES // max(1, self._nbytes))
            for start in range(0, len(chosen), at_once):
                some = slice(start, start + at_once)
                found = np.empty((len(chosen[some]), *rows.shape[1:]), self._as_integers)
                _select(rows, chosen[some], found)
                out[some if samples is None else samples[some]] = found.view(self._dtype)[..., 0]
        return Way.SELECTED


def _window_nbytes(view: Array, axes: int) -> int:
    return math.prod(view.shape[axes:]) * view.itemsize


def _select(rows: torch.Tensor, chosen: IntArray, out: Array) -> None:
    """Select rows on this thread alone."""
    with one_thread() if out.size > SERIAL_VALUES else contextlib.nullcontext():
        torch.index_select(rows, 0, torch.from_numpy(chosen), out=torch.from_numpy(out))


def bytes_between(owner: Any, begin: int, stop: int) -> torch.Tensor:
    """Memory between two addresses as a tensor of bytes, which holds on to `owner`."""
    interface = {"version": 3, "data": (begin, False), "typestr": "|i1", "shape": (stop - begin,)}
    memory = np.asarray(SimpleNamespace(owner=owner, __array_interface__=interface))
    return torch.from_numpy(memory)
