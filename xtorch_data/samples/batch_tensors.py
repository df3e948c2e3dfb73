"""Tensors of some samples, by name."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..common import html
from ..common.redact import printable
from ..common.text import number_of
from .batch_page import batch_sections
from .labels import Labels
from .part_labels import PartLabels

__all__ = ["Tensors"]


class Tensors:
    """What a batch has of its tensors: by name, as attributes, in their order, and as a page."""

    _parts: dict[str, torch.Tensor]
    _part_labels: dict[str, PartLabels]
    _labels: Labels | None
    index: torch.Tensor
    skipped: tuple[int, ...]

    def __getattr__(self, name: str) -> torch.Tensor:
        parts = self.__dict__.get("_parts", {})
        if name in parts:
            return parts[name]  # type: ignore[no-any-return]
        raise AttributeError(f"this batch has no part {name!r}; its parts are {list(parts)}")

    def __getitem__(self, name: str) -> torch.Tensor:
        try:
            return self._parts[name]
        except (KeyError, TypeError):
            first = next(iter(self._parts), "x")
            samples = isinstance(name, int) and self.index.ndim
            raise KeyError(
                f"this batch has no part {name!r}; its parts are {list(self._parts)}: "
                f"batch.{first} or batch[{first!r}]"
                + (f", and of one sample batch.{first}[{name}]" if samples else "")
            ) from None

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._parts.values())

    def __len__(self) -> int:
        if self.index.ndim == 0:
            raise TypeError("a single sample has no length: the dataset has batch_size=None")
        return len(self.index)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._parts]

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{printable(name)}: {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            + (f" on {tensor.device}" if tensor.device.type != "cpu" else "")
            for name, tensor in self._parts.items()
        )
        return f"<Batch of {self._what} ({parts})>"

    @property
    def _what(self) -> str:
        what = "one sample" if self.index.ndim == 0 else number_of(len(self), "sample")
        return what if self.origin is None else f"{what} of {self.origin!r}"

    def _repr_html_(self) -> str:
        sections = batch_sections(
            self._parts, self._part_labels, self.index, self.skipped, self._labels
        )
        return html.page("xtorch_data.Batch", self._what, sections, repr(self))
