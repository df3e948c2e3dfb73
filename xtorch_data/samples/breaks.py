"""Breaks in the labels of windowed dims, and the windows that begin anew after each."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr

from ..common.text import number_of
from ..planning.windows import Windows
from ..sources.conventions import texts_of
from ..sources.label_steps import DOUBTFUL, Breaks, LabelSteps

__all__ = ["BreakRule", "SampleBreaks", "windows_between_breaks"]

BreakRule = Literal["split", "raise", "ignore"]
RULES = ("split", "raise", "ignore")


@dataclass(frozen=True, eq=False)
class SampleBreaks:
    """The breaks of a dataset, by dim.

    Attributes
    ----------
    found : mapping of Hashable to Breaks
        Those that no window crosses.
    laid : Windows
        The windows over all of the data, in no part of a split.
    unruled : frozenset of Hashable
        Dims of which the user has not said what is to become of breaks.
    doubtful : mapping of Hashable to LabelSteps
        Dims whose labels are too irregular for breaks to be told, and not wholly so.
    """

    found: Mapping[Hashable, Breaks]
    laid: Windows
    unruled: frozenset[Hashable] = frozenset()
    doubtful: Mapping[Hashable, LabelSteps] = field(default_factory=dict)

    def warnings(self, coords: xr.Dataset) -> Iterator[tuple[str, Hashable]]:
        """What the user is to know, by dim, and what it is about; `coords` has the labels."""
        for dim, breaks in self.found.items():
            if dim in self.unruled:
                yield (
                    f"{self.told(dim, coords)}. {remedies(dim, breaks)}breaks='split' says that "
                    "this is meant, breaks='ignore' counts windows by position",
                    ("breaks", dim, breaks.positions.tobytes()),
                )
        for dim, steps in self.doubtful.items():
            yield (
                f"{irregular(dim, steps)}: too few to tell breaks, so that windows are counted by "
                f"position and may jump. breaks={{{dim!r}: 'ignore'}} says that this is meant",
                ("no breaks", dim),
            )

    def told(self, dim: Hashable, coords: xr.Dataset) -> str:
        """The breaks along a dim, and what they leave out, in words."""
        breaks, axis = self.found[dim], self.laid.axis(dim)
        lost = int(breaks.left_out(axis).sum())
        return (
            f"{described(dim, breaks, coords)}. No window crosses a break, which leaves out "
            f"{number_of(lost, 'window')} along {dim!r} and leaves {len(axis):,}"
        )


def described(dim: Hashable, breaks: Breaks, coords: xr.Dataset) -> str:
    """How often the labels of a dim break, and where first."""
    first, text = int(breaks.positions[0]), texts_of(coords.variables[dim])
    assert text is not None
    often = "once," if len(breaks) == 1 else f"{len(breaks):,} times, first"
    return (
        f"the labels along {dim!r}, {breaks.steps.text(breaks.steps.step)} apart, break {often} "
        f"between {text(first - 1)} and {text(first)}"
    )


def irregular(dim: Hashable, steps: LabelSteps) -> str:
    """How few of the steps along a dim are regular."""
    return (
        f"only {steps.share:.0%} of the steps between labels along {dim!r} are about as long as "
        f"their median, {steps.text(steps.step)}"
    )


def remedies(dim: Hashable, breaks: Breaks) -> str:
    """What would mend labels that are in no order or repeated, as sentences."""
    back = np.count_nonzero(breaks.jumps * breaks.steps.step < 0)
    found = ""
    if back:
        found += f"{back:,} {'goes' if back == 1 else 'go'} back: ds.sortby({dim!r}) sorts labels. "
    if (breaks.jumps == 0).any():
        found += f"Some repeat a label: ds.drop_duplicates({dim!r}) keeps the first of each. "
    return found


def windows_between_breaks(
    windows: Windows, data: xr.Dataset, rules: Any
) -> tuple[Windows, SampleBreaks]:
    """Windows that cross no break in the labels of their dims, and the breaks.

    Labels are read of windowed dims alone of which a window is more than a step and less than all.

    Parameters
    ----------
    windows : Windows
        Laid by position.
    data : xarray.Dataset
        The data with its coordinates.
    rules : {"split", "raise", "ignore"}, mapping or None
        What the user says is to become of breaks, for all dims or by dim.

    Returns
    -------
    Windows
        Those that cross none, numbered anew.
    SampleBreaks
        What was found.

    Raises
    ------
    TypeError, ValueError
        If a rule is none, or is for a dim that the samples lack; if there are breaks and the rule
        is "raise"; or if no window is left.
    """
    by_dim = _by_dim(rules, windows)
    found: dict[Hashable, Breaks] = {}
    doubtful: dict[Hashable, LabelSteps] = {}
    for axis in windows.axes:
        rule = by_dim.get(axis.dim)
        if not axis.windowed or axis.size == 1 or axis.whole or rule == "ignore":
            continue
        steps = LabelSteps.of(data, axis.dim)
        if steps is None:
            continue
        breaks = steps.breaks()
        if breaks is not None:
            if rule == "raise":
                raise ValueError(
                    f"{described(axis.dim, breaks, data)}, and breaks='raise'. "
                    f"{remedies(axis.dim, breaks)}breaks='split' lets windows begin anew after each"
                )
            found[axis.dim] = breaks
        elif DOUBTFUL <= steps.share and not steps.regular.all():
            if rule == "raise":
                raise ValueError(f"{irregular(axis.dim, steps)}, and breaks='raise'")
            doubtful[axis.dim] = steps
    for dim, breaks in found.items():
        windows = windows.begun_anew(dim, breaks.positions)
        axis = windows.axis(dim)
        if not len(axis):
            (start, stop), *_ = breaks.longest(axis.length, 1)
            raise ValueError(
                f"there is no sample: {described(dim, breaks, data)}, and the longest stretch "
                f"without a break has {number_of(stop - start, 'step')}, where a window has "
                f"{axis.size}. {remedies(dim, breaks)}breaks='ignore' counts windows by position"
            )
    unruled = frozenset(dim for dim in found if by_dim.get(dim) is None)
    return windows, SampleBreaks(found, windows, unruled, doubtful)


def _by_dim(rules: Any, windows: Windows) -> dict[Hashable, str | None]:
    """The rule for each dim; None where the user has given none."""
    dims = [axis.dim for axis in windows.axes]
    if not isinstance(rules, Mapping):
        rules = dict.fromkeys(dims, rules)
    for dim, rule in rules.items():
        if dim not in dims:
            raise ValueError(f"breaks names dim {dim!r}, which the samples lack; theirs are {dims}")
        if rule is not None and rule not in RULES:
            raise ValueError(
                f"breaks must be one of {list(RULES)}, None, or a mapping of dims to these, not "
                f"{rule!r}"
            )
    return dict(rules)
