"""The order of scattered windows in blocks: cell by cell of the chunks in which they begin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..common.cached import cached_property
from .chunks import Layout
from .companions import frames_of, order_of_cells
from .index_maps import IntArray
from .selection import SampleTable
from .windows import Windows

__all__ = ["CellOrder"]


@dataclass(frozen=True, eq=False)
class CellOrder:
    """Windows along a first axis that is scattered, in another order than samples are numbered.

    Attributes
    ----------
    windows : Windows
        As samples are numbered.
    numbers : ndarray of int64
        The number of each window along the first axis, as blocks count them.
    """

    windows: Windows
    numbers: IntArray

    @classmethod
    def of(cls, windows: Windows, others: Sequence[Sequence[Layout]]) -> CellOrder | None:
        """The order of the cells of the largest source; None if no axis is scattered."""
        if not len(windows):
            return None
        numbers = order_of_cells(frames_of(windows.space, others), windows.space)
        return None if numbers is None else cls(windows, numbers)

    @cached_property
    def counted(self) -> Windows:
        """The windows as blocks count them."""
        return self.windows.in_order(self.numbers)

    def table(self, table: SampleTable) -> SampleTable:
        """A table of samples for windows as blocks count them."""
        if 0 not in table.axes:
            return table
        return SampleTable(table.axes, table.values.take(self.numbers, axis=0))

    def samples(self, counted: IntArray) -> IntArray:
        """The numbers of samples, from those that windows have in blocks."""
        below = math.prod(self.windows.shape[1:])
        return self.numbers[counted // below] * below + counted % below

    def __getstate__(self) -> dict[str, object]:
        """The fields alone: what was worked out of them is worked out again."""
        return {"windows": self.windows, "numbers": self.numbers}
