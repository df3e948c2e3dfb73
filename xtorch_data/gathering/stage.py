"""A stage whose blocks are in memory: where its samples lie, and how they are gathered."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from ..common.cached import cached_property
from ..common.recorder import Way
from ..planning.stages import WindowBox, as_indices
from ..planning.windows import IntArray, Windows
from ..reading.failures import Failure, hit
from .sample_indices import Offsets, SampleIndices, of_piece
from .views import Array, PieceInMemory, SplitView, View, is_small

__all__ = ["Gatherer", "StageInMemory", "as_integers"]

# Torch starts threads of its own for more values than these, which would be in the way of ours.
SERIAL_VALUES = 2**15


class StageInMemory:
    """The pieces of a stage, as one; lives until its last sample is gathered.

    `order` has, for each sample in turn, its number among those of all pieces one after the other.
    """

    def __init__(
        self,
        windows: Windows,
        pieces: Sequence[PieceInMemory],
        order: IntArray | range,
        failures: Sequence[Failure] = (),
    ) -> None:
        self.pieces = pieces
        self._failures = failures
        self._windows = windows
        self._order = order
        self._begins = np.cumsum([0, *(each.piece.samples for each in pieces)])[:-1]
        boxes = np.array([each.piece.box for each in pieces], dtype=np.int64)
        boxes = boxes.reshape(len(pieces), len(windows.axes), 2)
        regions = np.array([each.piece.region for each in pieces], dtype=np.int64)
        self._first = boxes[:, :, 0]
        self._shape = boxes[:, :, 1] - boxes[:, :, 0]
        self._origin = regions.reshape(boxes.shape)[:, :, 0]
        self._views: Mapping[str, Sequence[Gatherer]] = {
            name: [_view(of_variable, self.axes) for of_variable in variables]
            for name, variables in self.views.items()
        }

    @property
    def axes(self) -> int:
        """How many axes say where a window begins."""
        return len(self._windows.axes)

    @property
    def views(self) -> dict[str, list[list[View]]]:
        """Every window in memory: by part, variable and piece."""
        return {
            name: [[each.views[name][place] for each in self.pieces] for place in range(len(views))]
            for name, views in self.pieces[0].views.items()
        }

    def elsewhere(self, views: Mapping[str, Sequence[Gatherer]]) -> StageInMemory:
        """The same samples, gathered from other memory; without the memory of this one."""
        found = copy.copy(self)
        found.pieces = [PieceInMemory(each.piece, {}) for each in self.pieces]
        found._views = views
        return found

    def locate(self, start: int, stop: int) -> SampleIndices:
        """Where the samples from one place of the order to another lie."""
        order = as_indices(self._order[start:stop])
        pieces = self._pieces_of(order)
        local = order - of_piece(self._begins, pieces)
        windows = self._windows
        numbers, places, starts = [], [], []
        left = local
        for axis in reversed(range(len(windows.axes))):
            if axis and windows.shape[axis] > 1:
                left, inside = np.divmod(left, of_piece(self._shape[:, axis], pieces))
            elif axis:
                inside = np.zeros_like(left)
            else:
                inside = left
            number = inside + of_piece(self._first[:, axis], pieces)
            numbers.append(number)
            starts.append(windows.axes[axis].start(number))
            places.append(starts[-1] - of_piece(self._origin[:, axis], pieces))
        flat = np.zeros_like(local)
        for number, size in zip(reversed(numbers), windows.shape, strict=True):
            flat *= size
            flat += number
        missing = hit(self._failures, windows, starts[::-1]) if self._failures else None
        return SampleIndices(flat, pieces, local, tuple(reversed(places)), missing)

    def one_that_is_there(self) -> SampleIndices | None:
        """The first sample that could be read."""
        place = self._first_there
        return None if place is None else self.locate(place, place + 1)

    @cached_property
    def _first_there(self) -> int | None:
        """Its place in the order; where nothing could be read, every batch asks for it."""
        for start in range(0, len(self._order), 1024):
            missing = self.locate(start, min(start + 1024, len(self._order))).missing
            if missing is None or not missing.all():
                return start if missing is None else start + int(missing.argmin())
        return None

    def alone(self, indices: SampleIndices, windows: Mapping[str, Sequence[Any]]) -> StageInMemory:
        """One sample, of the windows that `gather` has filled; without the memory of this stage."""
        axes = self._windows.axes
        numbers = np.unravel_index(int(indices.numbers[0]), self._windows.shape) if axes else ()
        box = tuple((int(number), int(number) + 1) for number in numbers)
        data = self.pieces[int(indices.pieces[0])].data
        if data is not None:
            begins = [int(at[0]) for at in indices.places]
            cut = {
                axis.dim: slice(begin, begin + axis.size)
                for axis, begin in zip(axes, begins, strict=True)
            }
            data = data.isel(cut, missing_dims="ignore").copy(deep=True)
        found = StageInMemory(
            self._windows, [PieceInMemory(WindowBox(box, self._windows.frame), {}, data)], range(1)
        )
        found._views = {name: [*map(_Alone, each)] for name, each in windows.items()}
        return found

    def gather(self, part: str, variable: int, indices: SampleIndices, out: Any) -> Way:
        """Copy windows of a variable of a part without a transform into ``out (sample, *dims)``.

        `out` is a tensor of integers on a device. Returns the way they went.
        """
        return self._views[part][variable].copy((part, variable), indices, out)

    def _pieces_of(self, order: IntArray) -> IntArray:
        begins = self._begins
        if len(begins) > 32:
            return np.searchsorted(begins, order, side="right") - 1
        # Many times faster than a search for few pieces in random order.
        found = np.zeros(len(order), dtype=np.int64)
        for begin in begins[1:]:
            found += order >= begin
        return found


class Gatherer(Protocol):
    """The windows of one variable in all pieces."""

    def copy(self, key: Hashable, indices: SampleIndices, out: Any) -> Way:
        """Copy those of some samples, as `StageInMemory.gather` does."""
        ...


class _Alone:
    """The window of one variable in the only sample, here or on a device."""

    def __init__(self, window: Any) -> None:
        self._window = window

    def copy(self, key: Hashable, indices: SampleIndices, out: Any) -> Way:
        out[...] = self._window
        return Way.COPIED


class _View:
    """The windows of one variable in all pieces."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views

    def copy(self, key: Hashable, indices: SampleIndices, out: Array) -> Way:
        views, places = self._views, indices.places
        if not places:
            out[...] = views[0]
            return Way.INDEXED
        if is_small(out.shape[1:], out.dtype) and not isinstance(views[0], SplitView):
            for piece in np.unique(indices.pieces).tolist():
                rows = np.flatnonzero(indices.pieces == piece)
                out[rows] = views[piece][tuple(at[rows] for at in places)]
            return Way.INDEXED
        # One wide copy for each window; it releases the GIL.
        way = Way.COPIED
        where = zip(indices.pieces.tolist(), *(at.tolist() for at in places), strict=True)
        for row, (piece, *place) in enumerate(where):
            view = views[piece]
            if isinstance(view, SplitView):
                view.copy_window(out[row, ...], place)
                way = Way.SPLIT
            else:
                np.copyto(out[row, ...], view[tuple(place)])
        return way


class _Small(_View):
    """Windows so small that torch selects many by one call, which takes a tenth of numpy's time.

    The call takes a single tensor. So it is one over all the memory from the first value of any
    piece to the last, of which nothing but the windows is touched. Values are moved as integers:
    every dtype goes this way bit for bit.
    """

    def __init__(self, views: Sequence[Array], axes: int) -> None:
        super().__init__(views)
        view, itemsize = views[0], views[0].itemsize
        self._dtype = view.dtype
        begins = np.array([each.__array_interface__["data"][0] for each in views])
        steps = np.array([each.strides[:axes] for each in views], dtype=np.int64)
        last = np.array([each.shape[:axes] for each in views], dtype=np.int64) - 1
        self._offsets = Offsets((begins - begins.min()) // itemsize, steps // itemsize)
        windows = int((self._offsets.begins + (last * steps // itemsize).sum(axis=1)).max()) + 1
        self._windows = as_integers(
            views,
            int(begins.min()),
            (windows, *view.shape[axes:]),
            (itemsize, *view.strides[axes:]),
            itemsize,
        )
        self._at_once = max(1, SERIAL_VALUES // max(1, math.prod(view.shape[axes:])))

    @staticmethod
    def can_hold(views: Sequence[Array], axes: int) -> bool:
        """Whether views can be gathered so: torch knows no steps backwards."""
        if not axes or not all(view.size for view in views):
            return False
        itemsize = views[0].itemsize
        return (
            is_small(views[0].shape[axes:], views[0].dtype)
            and itemsize in (1, 2, 4, 8)
            and len({view.dtype for view in views}) == 1
            and len({view.strides[axes:] for view in views}) == 1
            and all(step >= 0 and step % itemsize == 0 for view in views for step in view.strides)
            and len({view.__array_interface__["data"][0] % itemsize for view in views}) == 1
        )

    def copy(self, key: Hashable, indices: SampleIndices, out: Array) -> Way:
        if out.dtype != self._dtype:  # values are cast
            return super().copy(key, indices, out)
        index = torch.from_numpy(indices.offsets(key, self._offsets.of))
        address = out.__array_interface__["data"][0]
        target = as_integers(out, address, out.shape, out.strides, out.itemsize)
        for start in range(0, len(index), self._at_once):
            rows = slice(start, start + self._at_once)
            torch.index_select(self._windows, 0, index[rows], out=target[rows])
        return Way.SELECTED


def _view(views: Sequence[View], axes: int) -> _View:
    arrays = [view for view in views if not isinstance(view, SplitView)]
    if len(arrays) == len(views) and _Small.can_hold(arrays, axes):
        return _Small(arrays, axes)
    return _View(views)


def as_integers(
    owner: Any, address: int, shape: Sequence[int], strides: Sequence[int], itemsize: int
) -> torch.Tensor:
    """Memory from an address on as a tensor of integers, whatever it holds; it may be written.

    Strides are in bytes. The tensor holds on to `owner`, whose memory it is.
    """
    return torch.from_numpy(np.asarray(_Memory(owner, address, shape, strides, itemsize)))


class _Memory:
    """Memory as integers, of which numpy makes an array."""

    def __init__(
        self,
        owner: Any,
        address: int,
        shape: Sequence[int],
        strides: Sequence[int],
        itemsize: int,
    ) -> None:
        self.owner = owner  # held as long as the array
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "typestr": np.dtype(f"i{itemsize}").str,
            "shape": tuple(shape),
            "strides": tuple(strides),
        }
