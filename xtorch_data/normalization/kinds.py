"""Kinds of normalization: two statistics each, of which an offset and a scale are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .moments import Extremes, Moments, Tally

__all__ = ["KINDS", "Kind", "KindName", "kind_of"]

KindName = Literal["std", "minmax"]


@dataclass(frozen=True)
class Kind:
    """Two statistics, how they are counted, and what they make of a value.

    A value becomes ``(value - offset) / scale``, with a scale of 1 where it would be 0.

    Attributes
    ----------
    name : str
        Name of the kind, for users.
    statistics : tuple of str
        Names of the two.
    tally : type of Tally
        What counts them.
    scaling : callable
        From the two, as arrays, to offset and scale.
    formula : str
        What becomes of a value.
    """

    name: KindName
    statistics: tuple[str, str]
    tally: type[Tally]
    scaling: Callable[[Any, Any], tuple[Any, Any]]
    formula: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "std",
            ("mean", "std"),
            Moments,
            lambda mean, std: (mean, std),
            "(value - mean) / std",
        ),
        Kind(
            "minmax",
            ("min", "max"),
            Extremes,
            lambda least, most: (least, most - least),
            "(value - min) / (max - min)",
        ),
    )
}


def kind_of(name: Any) -> Kind:
    """The kind of a name; ValueError if there is none."""
    if name not in get_args(KindName):
        raise ValueError(f"kind must be 'std' or 'minmax', not {name!r}")
    return KINDS[name]
