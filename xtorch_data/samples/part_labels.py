"""What the axes of the tensor of a part stand for."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from ..common.redact import printable
from .select import Indexer, Part

__all__ = ["PartLabels"]


@dataclass(frozen=True)
class PartLabels:
    """Names for the axes of one part's tensor; a batch takes it along to any process."""

    variables: tuple[Hashable, ...]
    stacked: bool  # whether there is a ``variable`` axis
    dims: tuple[Hashable, ...]  # of one sample
    indexers: Mapping[Hashable, Indexer]  # how the window was cut
    flattened: int = 0  # so many of `dims`, from the first on, are one axis of the tensor
    unflattened: tuple[int, ...] | None = None  # sizes of `dims`, where some are one axis
    source: str | None = None  # name of the source, of others than the first
    present: bool = False  # whether values are those that say where the variables are present

    @classmethod
    def of(cls, part: Part) -> PartLabels:
        """Those of a part before any transform."""
        present = part.takes != "values"
        return cls(part.variables, part.stacked, part.dims, part.indexers, present=present)

    @property
    def axes(self) -> int:
        """Axes of the tensor of one sample, but for ``variable``."""
        return len(self.dims) - max(0, self.flattened - 1)

    def names(self, lead: int) -> tuple[Hashable, ...]:
        """Name of each axis of a tensor: of one that several dims share, a tuple of theirs.

        `lead` is 1 for tensors with the axis ``sample``, else 0.
        """
        before = ("sample",) * lead + ("variable",) * self.stacked
        if self.flattened < 2:
            return (*before, *self.dims)
        return (*before, self.dims[: self.flattened], *self.dims[self.flattened :])

    def fit(self, shape: Sequence[int], index: Sequence[int]) -> bool:
        """Whether a tensor of a shape has these axes, with `index` the shape of its samples."""
        lead = len(index)
        axes = shape[lead + self.stacked :]
        return (
            len(axes) == self.axes
            and tuple(shape[:lead]) == tuple(index)
            and (not self.stacked or shape[lead] == len(self.variables))
            and (self.unflattened is None or math.prod(self.unflattened) == math.prod(axes))
        )

    def require_fit(self, part: str, shape: Sequence[int], index: Sequence[int]) -> None:
        """Raise ValueError if the tensor of a part does not `fit`."""
        if not self.fit(shape, index):
            sizes = ["sample"] * len(index) + [f"{len(self.variables)} variables"] * self.stacked
            raise ValueError(
                f"part {part!r} has shape {tuple(shape)}, which does not fit its labels "
                f"({', '.join([*sizes, *map(printable, self.dims)])})"
            )
