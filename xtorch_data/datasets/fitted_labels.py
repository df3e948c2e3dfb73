"""Labels that statistics were fitted on, and a warning where they are tested on the same."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from ..common.redact import printable
from ..common.text import number_of
from ..common.user_warnings import warn_user
from ..planning.coverage import covered
from ..samples.definition import SampleDefinition
from .split_parts import Stretches

__all__ = ["FittedLabels", "FittedRanges", "fitted_labels", "warn_of_statistics"]


@dataclass(frozen=True)
class FittedRanges:
    """Ranges of the labels of a dim, as numbers or text that compare as the labels do.

    Attributes
    ----------
    kind : str
        What the labels are: ``"datetime64"``, the calendar of others, ``"timedelta64"`` in
        nanoseconds, ``"number"`` or ``"text"``. Only those of one kind compare.
    ranges : tuple of pair
        First and last label of each range, ascending, both included.
    is_part : bool
        Whether a split has left these.
    """

    kind: str
    ranges: tuple[tuple[Any, Any], ...]
    is_part: bool = False

    @classmethod
    def of(cls, kind: Any, ranges: Any, is_part: Any) -> FittedRanges:
        """Check what was read from a file; TypeError or ValueError if it is nothing of the kind."""
        ends = [end for first, last in ranges for end in (first, last)]
        text = kind not in ("number", "timedelta64")
        right = all(isinstance(end, str if text else int | float) for end in ends)
        if not isinstance(kind, str) or not ends or not right or ends != sorted(ends):
            raise ValueError(f"ranges of labels of kind {kind!r} are not {printable(str(ranges))}")
        return cls(kind, tuple((first, last) for first, last in ranges), bool(is_part))

    def __str__(self) -> str:
        first, last = (_shown(self.kind, each) for each in (self.ranges[0][0], self.ranges[-1][1]))
        holes = f", in {number_of(len(self.ranges), 'stretch', 'stretches')}"
        return f"{first} to {last}{holes if len(self.ranges) > 1 else ''}"

    def same_as(self, other: FittedRanges) -> bool:
        """Whether these are the same labels."""
        return (self.kind, self.ranges) == (other.kind, other.ranges)

    def overlaps(self, other: FittedRanges) -> bool:
        """Whether any label may be in both."""
        if self.kind != other.kind:
            return False
        begins = [first for first, _ in other.ranges]
        for first, last in self.ranges:
            # The last of the other ranges that begin before this one ends.
            place = bisect.bisect_right(begins, last) - 1
            if place >= 0 and other.ranges[place][1] >= first:
                return True
        return False


# By dim, or coordinate that was split.
FittedLabels: TypeAlias = Mapping[str, FittedRanges]


def fitted_labels(
    samples: SampleDefinition, parts: Iterable[Stretches] = ()
) -> dict[str, FittedRanges]:
    """Labels that the samples of a part of the data have, of the first source.

    Of what splits were along, those that they have left; of other dims from the first to the last.
    Dims without labels, or with such as cannot be told in a file, are left out.
    """
    found: dict[str, FittedRanges] = {}
    for part in parts:
        if isinstance(part.along, str) and part.index is not None:
            ends = [(part.index[start], part.index[stop - 1]) for start, stop in part.intervals]
            _take(found, part.along, ends, is_part=True)
    if samples.centers is not None or samples.items is not None:
        return found
    for axis in samples.windows.axes:
        if not isinstance(axis.dim, str) or axis.dim in found or not len(axis):
            continue
        index = samples.labelled.index(axis.dim)
        if index is None or isinstance(index, pd.MultiIndex):
            continue
        bounds = covered(axis, samples.beyond.get(axis.dim)).starts.bounds
        first, last = int(bounds[0].min()), int(bounds[1].max())
        if index.is_monotonic_increasing or index.is_monotonic_decreasing:
            _take(found, axis.dim, [(index[first], index[last])])
    return found


def warn_of_statistics(samples: SampleDefinition, parts: Sequence[Stretches]) -> None:
    """Warn if a function of samples was fitted on labels that they were split off to be tested on.

    The first part of a split is taken for what is trained on, and so is the one that statistics
    were fitted on. Statistics that share none of the labels along any dim are no matter.
    """
    if not any(part.number for part in parts):
        return
    fitted = [
        labels
        for function in samples.functions()
        if (labels := getattr(function.function, "_fitted_on", None))
    ]
    if not fitted:
        return
    own = fitted_labels(samples, parts)
    for labels in fitted:
        if any(name in own and not own[name].overlaps(labels[name]) for name in labels):
            continue
        for part in parts:
            ranges = fitted_labels(samples, [part]).get(str(part.along))
            known = labels.get(str(part.along))
            if part.number and ranges and known and not ranges.same_as(known):
                name = printable(part.along)
                warn_user(
                    f"Normalize was fitted on labels that this part of a split has too: on "
                    f"{name} {known}, and the part has {ranges}. What is validated or tested "
                    "on then enters the training. Fit statistics on the training part: "
                    "xtorch_data.Normalize.fit(train)",
                    key=("statistics", name, str(known)),
                )
                return


def _take(
    found: dict[str, FittedRanges],
    name: str,
    ends: Sequence[tuple[Any, Any]],
    *,
    is_part: bool = False,
) -> None:
    plain = [tuple(map(_plain, pair)) for pair in ends]
    kinds = {kind for pair in plain for kind, _ in pair}
    if len(kinds) != 1 or None in kinds:
        return
    ranges = sorted((min(a, b), max(a, b)) for (_, a), (_, b) in plain)
    found[name] = FittedRanges(str(kinds.pop()), tuple(ranges), is_part)


def _plain(label: Any) -> tuple[str | None, Any]:
    """Kind of a label, and a number or text that compares as it does; None for other kinds."""
    if isinstance(label, str):
        return "text", label
    if label is pd.NaT or isinstance(label, bool | np.bool_):
        return None, None
    if isinstance(label, pd.Timestamp) and label.tz is None:
        return _date("datetime64", label)
    if isinstance(label, pd.Timedelta):
        return "timedelta64", int(label.value)
    if hasattr(label, "calendar") and hasattr(label, "isoformat"):
        return _date(str(label.calendar), label)
    if isinstance(label, int | float | np.integer | np.floating) and np.isfinite(label):
        return "number", label.item() if isinstance(label, np.generic) else label
    return None, None


def _date(kind: str, label: Any) -> tuple[str | None, Any]:
    """A date as text, of years that have four digits: others do not compare as text."""
    text = str(label.isoformat(timespec="microseconds"))
    return (kind, text) if text[4:5] == "-" and text[0] != "-" else (None, None)


def _shown(kind: str, label: Any) -> str:
    """A label for a reader: of dates no midnight, and no digits of rounding."""
    if kind == "timedelta64":
        return str(pd.Timedelta(label, "ns"))
    if kind == "number":
        return f"{label:.6g}" if isinstance(label, float) else str(label)
    text = str(label)
    if kind != "text":
        text = text.replace("T", " ").removesuffix(".000000").removesuffix(":00")
        text = text.removesuffix(" 00:00")
    return str(printable(text))
