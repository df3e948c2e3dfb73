"""Numbers and shapes in words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from .redact import printable

__all__ = ["number_of", "shape_of"]


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things, such as ``"1 sample"`` and ``"2,000 samples"``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def shape_of(shape: Sequence[int], dims: Sequence[Hashable]) -> str:
    """Sizes with the names of their dims, where there is one for each."""
    names = [f"{printable(dim)} " for dim in dims] if len(dims) == len(shape) else [""] * len(shape)
    sizes = (f"{name}{size:,}" for name, size in zip(names, shape, strict=True))
    return " × ".join(sizes) or "a number"
