"""Numbers and shapes in words."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .redact import printable

__all__ = [
    "Fact", "duration_of", "fact_lines", "format_bytes", "jsonable", "lines_of", "number_of",
    "shape_of", "sizes_of",
]  # fmt: skip

# A name and what there is to say, as lines where it is long: a line of a text, or of a page by
# `html.facts`.
Fact = tuple[str, Any]


def lines_of(value: Any) -> tuple[Any, ...]:
    """Lines of the value of a fact."""
    return value if isinstance(value, tuple) else (value,)


def fact_lines(facts: Iterable[Fact]) -> Iterator[str]:
    """Facts as lines of a text, names in a column of their own."""
    for name, value in facts:
        first, *more = lines_of(value)
        yield f"  {name:<9} {first}"
        yield from (f"  {'':<9} {line}" for line in more)


def jsonable(value: Any) -> Any:
    """A value as JSON has it: names as text, tuples as lists."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(each) for each in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """A number of things, such as ``"1 sample"`` and ``"2,000 samples"``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def shape_of(shape: Sequence[int], dims: Sequence[Hashable]) -> str:
    """Sizes with the names of their dims, where there is one for each."""
    names = [f"{printable(dim)} " for dim in dims] if len(dims) == len(shape) else [""] * len(shape)
    sizes = (f"{name}{size:,}" for name, size in zip(names, shape, strict=True))
    return " × ".join(sizes) or "a number"


def sizes_of(sizes: Iterable[tuple[Hashable, int]]) -> str:
    """Sizes along dims, such as ``"time 10 × x 4"``."""
    return " × ".join(f"{printable(dim)} {size}" for dim, size in sizes)


def format_bytes(nbytes: int) -> str:
    """A number of bytes as dask writes it, such as ``"1.21 kiB"``."""
    for prefix, unit in ("Pi", 2**50), ("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("ki", 2**10):
        if nbytes >= 0.9 * unit:
            return f"{nbytes / unit:.2f} {prefix}B"
    return f"{nbytes} B"


def duration_of(seconds: float) -> str:
    """A duration in the largest unit that it has one of, such as ``"6 hours"``, ``"-1.5 days"``."""
    units = ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)
    unit, length = next((each for each in units if abs(seconds) >= each[1]), units[-1])
    count = seconds / length
    return f"{count:,.6g} {unit}{'' if count == 1 else 's'}"
