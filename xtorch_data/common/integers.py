"""Integers among arguments, checked in one way."""

from __future__ import annotations

import operator
from typing import Any

__all__ = ["as_integer"]


def as_integer(value: Any, name: str, or_none: str = "") -> int:
    """An integer of Python or numpy; TypeError for a bool and whatever else."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer{or_none}, not {value!r}") from None
