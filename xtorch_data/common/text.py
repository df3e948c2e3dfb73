"""Numbers and shapes in words."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from .redact import printable

__all__ = ["format_bytes", "number_of", "shape_of"]


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things, such as ``"1 sample"`` and ``"2,000 samples"``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def shape_of(shape: Sequence[int], dims: Sequence[Hashable]) -> str:
    """Sizes with the names of their dims, where there is one for each."""
    names = [f"{printable(dim)} " for dim in dims] if len(dims) == len(shape) else [""] * len(shape)
    sizes = (f"{name}{size:,}" for name, size in zip(names, shape, strict=True))
    return " × ".join(sizes) or "a number"


def format_bytes(nbytes: int) -> str:
    """A number of bytes as dask writes it, such as ``"1.21 kiB"``."""
    for prefix, unit in ("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("ki", 2**10):
        if nbytes >= 0.9 * unit:
            return f"{nbytes / unit:.2f} {prefix}B"
    return f"{nbytes} B"
