"""A stage whose blocks are in memory: where its samples lie, and how they are gathered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..common.cached import cached_property
from ..common.recorder import Way
from ..planning.stages import WindowBox, as_indices
from ..planning.windows import IntArray, Windows
from ..reading.failures import Failure, hit
from .gatherers import Gatherer, OneWindow, gatherer_of
from .sample_indices import SampleIndices, of_piece
from .views import PieceInMemory, View

__all__ = ["StageInMemory"]


class StageInMemory:
    """The pieces of a stage, as one; lives until its last sample is gathered.

    `order` has, for each sample in turn, its number among those of all pieces one after the other.
    `counted` has the number along the first axis of each window as blocks count them, where these
    have another order.
    """

    def __init__(
        self,
        windows: Windows,
        pieces: Sequence[PieceInMemory],
        order: IntArray | range,
        failures: Sequence[Failure] = (),
        counted: IntArray | None = None,
    ) -> None:
        self.pieces = pieces
        self._counted = counted
        self.beside: tuple[StageInMemory, ...] = ()  # the same samples in other sources
        # Of another source with several pieces beside one of the first: from that one and the
        # number along the first axis to the piece of each sample.
        self.grouped: Callable[[IntArray, IntArray], IntArray] | None = None
        self._failures = failures
        self._windows = windows
        self._order = order
        self._begins = np.cumsum([0, *(each.piece.samples for each in pieces)])[:-1]
        boxes = np.array([each.piece.box for each in pieces], dtype=np.int64)
        boxes = boxes.reshape(len(pieces), len(windows.shape), 2)
        regions = np.array([each.piece.region for each in pieces], dtype=np.int64)
        self._first = boxes[:, :, 0]
        self._shape = boxes[:, :, 1] - boxes[:, :, 0]
        self._origin = regions.reshape(len(pieces), len(windows.axes), 2)[:, :, 0]
        self._views: Mapping[str, Sequence[Gatherer]] = {
            name: [gatherer_of(of_variable, self.axes) for of_variable in variables]
            for name, variables in self.views.items()
        }

    @property
    def axes(self) -> int:
        """How many dims say where a window begins."""
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
        windows = self._windows
        numbers: list[IntArray] = []
        left = order - of_piece(self._begins, pieces)  # numbers inside the pieces
        for axis in reversed(range(len(windows.shape))):
            if axis and windows.shape[axis] > 1:
                left, inside = np.divmod(left, of_piece(self._shape[:, axis], pieces))
            elif axis:
                inside = np.zeros_like(left)
            else:
                inside = left
            numbers.append(inside + of_piece(self._first[:, axis], pieces))
        numbers.reverse()
        if self._counted is not None:
            numbers[0] = self._counted[numbers[0]]
        flat = np.zeros_like(order)
        for number, size in zip(numbers, windows.shape, strict=True):
            flat *= size
            flat += number
        return self._located(flat, pieces, numbers)

    def _located(
        self, flat: IntArray, pieces: IntArray, numbers: Sequence[IntArray]
    ) -> SampleIndices:
        """Where samples lie, from their window numbers along each axis."""
        maps = self._windows.frame.maps
        starts = [np.broadcast_to(each.start(numbers), flat.shape) for each in maps]
        places = (
            start - of_piece(self._origin[:, dim], pieces) for dim, start in enumerate(starts)
        )
        missing = hit(self._failures, self._windows, starts) if self._failures else None
        return SampleIndices(flat, pieces, tuple(places), missing)

    def same(self, indices: SampleIndices) -> SampleIndices:
        """Where samples lie here that were located in a stage of another source, in its pieces."""
        numbers = self._windows.space.numbers(indices.numbers)
        pieces = indices.pieces
        if self.grouped is not None:
            pieces = self.grouped(pieces, numbers[0])
        return self._located(indices.numbers, pieces, numbers)

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
        numbers = self._windows.space.numbers(indices.numbers[0])
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
        found._views = {name: [*map(OneWindow, each)] for name, each in windows.items()}
        return found

    def gather(self, part: str, variable: int, indices: SampleIndices, out: Any) -> Way:
        """Copy windows of a variable of a part without a transform into ``out (sample, *dims)``.

        `out` is a tensor on a device. Returns the way they went.
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
