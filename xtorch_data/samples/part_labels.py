"""Names for the axes of the tensors of parts, and whether tensors have these."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..common.redact import printable
from ..common.text import number_of
from .select import Indexer, Part

__all__ = ["PartLabels", "require_samples", "with_dims"]


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

    def with_dims(
        self, part: str, dims: Sequence[Any], shape: Sequence[int], lead: int
    ) -> PartLabels:
        """Labels of a tensor of a shape with other dims; ``...`` stands for those not named.

        TypeError or ValueError if they do not fit it.
        """
        if isinstance(dims, str) or not isinstance(dims, Sequence):
            raise TypeError(
                f"dims of part {part!r} must be a sequence of names, ('sample', …), not {dims!r}"
            )
        before = ("sample",) * lead + ("variable",) * self.stacked
        names: list[Hashable] = []
        for dim in dims:
            rest = [name for name in (*before, *self.dims) if name not in dims]
            names += rest if dim is ... else [dim]
        own = tuple(names[len(before) :])
        if tuple(names[: len(before)]) != before or len(set(names)) < len(names):
            raise ValueError(
                f"dims of part {part!r} are {tuple(names)}: they must be different, and begin with "
                f"{before}"
            )
        if len(names) != len(shape) or (self.stacked and shape[lead] != len(self.variables)):
            raise ValueError(
                f"part {part!r} has shape {tuple(shape)}, which does not fit dims "
                f"({', '.join(map(printable, names))})"
            )
        return replace(self, dims=own, flattened=0, unflattened=None)

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


def require_samples(part: str, tensor: Any, index: torch.Tensor) -> None:
    """Raise TypeError or ValueError if what is to be a part is no tensor of some samples."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"part {part!r} must be a tensor, not {type(tensor).__name__}")
    if index.ndim and tensor.shape[:1] != index.shape:
        raise ValueError(
            f"part {part!r} must have the {number_of(len(index), 'sample')} of this batch "
            f"along its first dim, but has shape {tuple(tensor.shape)}"
        )


def with_dims(
    labels: Mapping[str, PartLabels],
    dims: Mapping[str, Sequence[Hashable]],
    parts: Mapping[str, torch.Tensor],
    lead: int,
) -> dict[str, PartLabels]:
    """Labels by part, of which some new tensors have other dims; see `PartLabels.with_dims`."""
    found = dict(labels)
    for part, names in dims.items():
        if part not in parts:
            raise ValueError(f"dims name part {part!r}, which is not replaced: {list(parts)}")
        found[part] = found[part].with_dims(part, names, parts[part].shape, lead)
    return found
