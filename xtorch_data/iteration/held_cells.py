"""Cells of samples by number: read when they are wanted, and held while memory lasts."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from .budget import Budget, Claim
from .cells import Group, Place
from .threads import Threads, note_interrupt, waited

__all__ = ["Cell", "HeldCells"]

ENDED = "nothing can be read any more, because the interpreter ends"

Cell = tuple[int, Place]  # number of a group, and place in its grid


@dataclass(eq=False)
class _HeldCell(Claim):
    """A cell that is held or being read."""

    read: Future[xr.Dataset] = field(init=False)


class HeldCells:
    """Cells that are held or being read.

    Made by a `Fetcher`, and lives as long. Any thread may ask, and several at a time. The cells of
    `groups`, to which more may be added, take `memory` bytes; those that were used last are held.
    """

    def __init__(self, groups: Sequence[Group], memory: int, threads: Threads) -> None:
        self._groups, self._threads = groups, threads
        # The one used last at the end.
        self._held: OrderedDict[Cell, _HeldCell] = OrderedDict()
        self._budget = Budget(memory)
        self._lock = threading.Lock()

    def cells(self, wanted: Iterable[Cell]) -> dict[Cell, xr.Dataset]:
        """Some cells, read together if they are not held."""
        wanted = sorted(wanted)
        with self._lock:
            known = {cell: self._held[cell] for cell in wanted if cell in self._held}
            for cell in known:
                self._held.move_to_end(cell)
            futures = {
                cell: (known[cell] if cell in known else self._begin(cell)).read for cell in wanted
            }
        found = {}
        try:
            for cell in wanted:
                found[cell] = waited(futures[cell])
            return found
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                note_interrupt()
            with self._lock:
                for cell in [cell for cell, future in futures.items() if _failed(future)]:
                    self._drop(cell)
            if isinstance(error, CancelledError):
                raise RuntimeError(ENDED) from error
            raise
        finally:  # futures have the error, whose traceback has this frame, and that what was read
            del futures, known

    def drop(self, cells: Iterable[Cell] | None = None) -> None:
        """Let go of some cells, or of all."""
        with self._lock:
            for cell in list(self._held if cells is None else cells):
                self._drop(cell)

    def _begin(self, cell: Cell) -> _HeldCell:
        held = _HeldCell(nbytes=self._groups[cell[0]].nbytes)
        while self._held and not self._budget.fits(held):
            self._drop(next(iter(self._held)))
        try:
            held.read = self._threads.start(self._read(cell))
        except CancelledError as error:
            raise RuntimeError(ENDED) from error
        self._held[cell] = held  # before it counts, as an interrupt may come between
        self._budget.begin(held)
        return held

    def _drop(self, cell: Cell) -> None:
        held = self._held.pop(cell, None)
        if held is not None:
            self._budget.end(held)

    async def _read(self, cell: Cell) -> xr.Dataset:
        group = self._groups[cell[0]]
        load = group.load(cell[1])
        found = await group.reader.read(load)
        return await group.reader.preprocessed(load, found.block)


def _failed(future: Future[Any]) -> bool:
    return not future.done() or future.cancelled() or future.exception() is not None
