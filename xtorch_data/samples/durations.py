"""Sizes and overlaps of windows that are given as durations, in steps of the data."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..common.cached import cached_property
from ..common.spelling import spelled
from ..common.text import duration_of, number_of
from ..sources.label_steps import TELLING, LabelSteps

__all__ = ["Length", "in_steps", "seconds_of"]

# Size or overlap of windows along a dim: steps, or a duration.
Length = int | str | timedelta | np.timedelta64

# Steps are regular if they are within this share of each other: times that were decoded from
# floats are off by some microseconds.
TOLERANCE = 1e-6
# And a duration is so many steps if it is within this share of one step of them, however long.
MOST_OFF = 0.01

# Months and years where they are counted: pandas takes "1MS" for milliseconds, "P1M" for a minute.
_CALENDAR = re.compile(r"M[SE]?(?![A-Za-z])")


def in_steps(
    input_dims: Mapping[Any, Any],
    input_overlap: Mapping[Any, Any] | None,
    data: xr.Dataset,
    breaks: Any,
) -> tuple[Mapping[Any, Any], Mapping[Any, Any] | None]:
    """Sizes and overlaps of windows in steps; labels are read of dims alone that have durations.

    Parameters
    ----------
    input_dims, input_overlap : mapping of Hashable to int or duration
        As a user gives them; what is no duration stays as it is, to be checked by others.
    data : xarray.Dataset
        The data with its coordinates.
    breaks : {"split", "raise", "ignore"}, mapping or None
        What the user says is to become of breaks.

    Returns
    -------
    input_dims : mapping of Hashable to int
        Sizes in steps.
    input_overlap : mapping of Hashable to int or None
        Overlaps in steps.

    Raises
    ------
    ValueError
        If what is given is no fixed duration or not so many whole steps, or the labels are not
        times one step apart.
    """
    sizes, overlaps = dict(input_dims), dict(input_overlap or {})
    for dim, size in input_dims.items():
        overlap = overlaps.get(dim)
        if dim not in data.dims or not (_is_duration(size) or _is_duration(overlap)):
            continue
        rule = breaks.get(dim) if isinstance(breaks, Mapping) else breaks
        spacing = _Spacing(dim, data.sizes[dim], LabelSteps.of(data, dim), rule)
        if _is_duration(size):
            sizes[dim] = spacing.size(size, spelled("input_dims", dim))
        if _is_duration(overlap):
            overlaps[dim] = spacing.overlap(overlap, spelled("input_overlap", dim))
    return sizes, None if input_overlap is None else overlaps


def seconds_of(duration: Any) -> float | None:
    """Seconds of a fixed duration; None for calendar units, and what is no duration at all.

    Examples
    --------
    >>> seconds_of("1 day 6h"), seconds_of(np.timedelta64(90, "m"))
    (108000.0, 5400.0)
    >>> seconds_of("1MS"), seconds_of("48")
    (None, None)
    """
    if isinstance(duration, np.timedelta64):
        unit, _ = np.datetime_data(duration)
        if unit in ("Y", "M", "generic"):
            return None
        found = float(duration / np.timedelta64(1, "s"))
    else:
        if isinstance(duration, str) and not _is_fixed(duration):
            return None
        try:
            found = float(pd.Timedelta(duration).total_seconds())
        except (ValueError, OverflowError):
            return None
    return None if math.isnan(found) else found


def _is_fixed(text: str) -> bool:
    """Whether a text has units, and none that pandas reads as something else.

    It takes numbers for nanoseconds, and leaves out commas.
    """
    date = text.partition("T")[0]  # in ISO 8601, minutes come behind the T
    has_units = re.search(r"[A-Za-z:]", text) is not None
    return has_units and "," not in text and _CALENDAR.search(date) is None


def _is_duration(length: Any) -> bool:
    return isinstance(length, str | timedelta | np.timedelta64 | pd.offsets.BaseOffset)


@dataclass(frozen=True, eq=False)
class _Spacing:
    """How far labels of a dim are apart."""

    dim: Hashable
    length: int  # of the dim
    steps: LabelSteps | None
    rule: str | None  # what is to become of breaks

    @cached_property
    def _regular(self) -> Any:
        """Steps that are to be alike: where breaks can be told, all others."""
        assert self.steps is not None
        values = self.steps.values
        return values[self.steps.regular] if self.steps.share >= TELLING else values

    @cached_property
    def step(self) -> float | None:
        """Seconds from each label to the next; None if they differ."""
        if self.steps is None or not self.steps.times:
            return None
        step = abs(self.steps.step)
        alike = np.abs(self._regular - self.steps.step) <= TOLERANCE * step  # not if one is NaN
        return step if step > 0 and alike.all() else None

    @property
    def text(self) -> str:
        """How far apart they are, as part of a sentence."""
        if self.steps is None or not self.steps.times:
            return f"dim {self.dim!r} has no labels that are times"
        if self.length == 1:
            return f"there is one label along {self.dim!r}"
        if self.step is not None:
            return f"labels along {self.dim!r} are {duration_of(self.step)} apart"
        known = self._regular[~np.isnan(self._regular)]
        ends = dict.fromkeys(map(duration_of, (known.min(), known.max()))) if len(known) else {}
        return f"labels along {self.dim!r} are not evenly spaced: {' to '.join(ends)} apart"

    def count(self, duration: Any, name: str) -> int:
        """Steps that a duration is; what is `name` in messages is given as it."""
        given = f"{name} is {_shown(duration)}"
        seconds = seconds_of(duration)
        if seconds is None:
            raise ValueError(
                f"{given}, which is no fixed duration such as '48h' or '7D', as pandas reads them "
                f"(months and years differ in length): give one, or a number of steps; {self.text}"
            )
        if self.step is None:
            raise ValueError(f"{given}, but {self.text}; give a number of steps")
        ratio = seconds / self.step
        count = round(ratio)
        if abs(ratio - count) > min(TOLERANCE * max(1, abs(ratio)), MOST_OFF):
            least = math.floor(ratio)
            some, more = (duration_of(steps * self.step) for steps in (least, least + 1))
            raise ValueError(
                f"{given}, which is no whole number of steps: {self.text}, so that "
                f"{number_of(least, 'step')} {'is' if least == 1 else 'are'} {some}, and "
                f"{least + 1:,} {'is' if least == 0 else 'are'} {more}"
            )
        return count

    def size(self, duration: Any, name: str) -> int:
        """Steps of a window that is a duration long."""
        count = self.count(duration, name)
        given = f"{name} is {_shown(duration)}"
        if count < 1:
            raise ValueError(f"{given}, but a window has 1 step or more; {self.text}")
        if count > self.length:
            raise ValueError(
                f"{given}, which is {number_of(count, 'step')}; {self.text}, and the dim has "
                f"{self.length}: there is no sample"
            )
        self._require_one_stretch(given, count)
        return count

    def overlap(self, duration: Any, name: str) -> int:
        """Steps that neighboring windows share; a negative duration is left out between them."""
        count = self.count(duration, name)
        self._require_one_stretch(f"{name} is {_shown(duration)}", count)
        return count

    def _require_one_stretch(self, given: str, count: int) -> None:
        """Raise ValueError if windows go across breaks, and are not as long as was asked for.

        So do those of all steps, which breaks do not part.
        """
        assert self.steps is not None
        by_position = self.rule == "ignore" or count == self.length
        if count in (0, 1) or not by_position or self.steps.breaks() is None:
            return
        raise ValueError(
            f"{given}, but windows that go across a break in the labels along {self.dim!r} are of "
            f"another length. {number_of(count, 'step')}, given as a number, are counted by "
            "position; breaks='split' lets no window cross a break"
        )


def _shown(duration: Any) -> str:
    """A duration as it was given."""
    return repr(duration) if isinstance(duration, str) else str(duration)
