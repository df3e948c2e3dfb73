"""Windows and shapes in words, as tables and reprs show them. No IO."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from . import html
from .redact import printable
from .windows import Windows

__all__ = ["number_of", "shape_of", "windows_table"]


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things, such as ``"1 sample"`` and ``"2,000 samples"``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def windows_table(windows: Windows, labels: Mapping[Hashable, str] | None = None) -> str:
    """How windows lie along every dim; `labels` say from where to where, where they are known."""
    labels = labels or {}
    rows = [
        (
            axis.dim,
            f"{axis.size:,}" if axis.windowed else "each place",
            f"{axis.size - axis.stride:,}" if axis.windowed else "",
            f"{len(axis):,}",
            f"{axis.length:,}",
            labels.get(axis.dim, ""),
        )
        for axis in windows.axes
    ]
    names = ("dim", "window", "overlap", "windows", "steps", "labels")
    used = len(names) if labels else len(names) - 1
    return html.table(names[:used], [row[:used] for row in rows])


def shape_of(shape: Sequence[int], dims: Sequence[Hashable]) -> str:
    """Sizes with the names of their dims, where there is one for each."""
    names = [f"{printable(dim)} " for dim in dims] if len(dims) == len(shape) else [""] * len(shape)
    sizes = (f"{name}{size:,}" for name, size in zip(names, shape, strict=True))
    return " × ".join(sizes) or "a number"
