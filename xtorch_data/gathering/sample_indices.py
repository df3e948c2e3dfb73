"""Samples of a stage, and where in memory their windows lie."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..planning.windows import IntArray

__all__ = ["SampleIndices", "of_piece"]


@dataclass(frozen=True, eq=False)
class SampleIndices:
    """Samples of a stage, and where they lie.

    Attributes
    ----------
    numbers : ndarray of int64
        Their numbers in the sample space.
    pieces : ndarray of int64
        The piece that holds each.
    places : tuple of ndarray of int64
        Per axis, where they begin in the arrays of the piece.
    missing : ndarray of bool, optional
        Which of them touch what could not be read, if there is any such thing.
    """

    numbers: IntArray
    pieces: IntArray
    places: tuple[IntArray, ...]
    missing: npt.NDArray[np.bool_] | None = None
    _of: tuple[SampleIndices, slice | IntArray] | None = None
    _offsets: dict[Hashable, IntArray] = field(default_factory=dict)

    def part(self, start: int, stop: int) -> SampleIndices:
        """The samples from one place to another."""
        return self._rows(slice(start, stop))

    def there(self) -> SampleIndices:
        """The samples that could be read."""
        return self if self.missing is None else self._rows(np.flatnonzero(~self.missing))

    def not_there(self) -> list[int]:
        """Numbers of the others."""
        return [] if self.missing is None else self.numbers[self.missing].tolist()

    def _rows(self, rows: slice | IntArray) -> SampleIndices:
        places = tuple(at[rows] for at in self.places)
        missing = None if self.missing is None else self.missing[rows]
        return SampleIndices(self.numbers[rows], self.pieces[rows], places, missing, (self, rows))

    def offsets(self, key: Hashable, compute: Callable[[SampleIndices], IntArray]) -> IntArray:
        """What is worked out once for all samples of which these are a part."""
        if self._of is not None:
            whole, rows = self._of
            return whole.offsets(key, compute)[rows]
        if key not in self._offsets:
            self._offsets[key] = compute(self)
        return self._offsets[key]


def of_piece(table: IntArray, pieces: IntArray) -> Any:
    """What a table says of the piece of each sample."""
    return table[0] if len(table) == 1 else table[pieces]
