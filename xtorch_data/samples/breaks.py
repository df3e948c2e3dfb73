"""Breaks in the labels of windowed dims, and the windows that begin anew after each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.spelling import spelled
from ..common.text import number_of
from ..planning.edges import EdgeRule, ExtendedDim
from ..planning.windows import Axis, IntArray, Windows
from ..sources.conventions import texts_of
from ..sources.label_steps import DOUBTFUL, Breaks, LabelSteps

__all__ = ["BreakRule", "SampleBreaks", "texts", "windows_between_breaks"]

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
    at_ends : mapping of Hashable to int
        Windows along dims that are left out because their halos pass the ends of the data.
    edges : mapping of Hashable to EdgeRule
        What the user says of the ends of dims.
    """

    found: Mapping[Hashable, Breaks]
    laid: Windows
    unruled: frozenset[Hashable] = frozenset()
    doubtful: Mapping[Hashable, LabelSteps] = field(default_factory=dict)
    at_ends: Mapping[Hashable, int] = field(default_factory=dict)
    edges: Mapping[Hashable, EdgeRule] = field(default_factory=dict)

    def losses(self, windows: Windows) -> dict[Hashable, tuple[IntArray, IntArray]]:
        """By dim: the first step after each break, and the windows along the dim it leaves out.

        `windows` are those of the dataset. Of a part of a split, breaks count that lie between two
        windows of the part which follow each other in the data, or between such a window and an end
        of the data. Dims that have none are left out.
        """
        losses = {}
        for dim, breaks in self.found.items():
            laid, axis = self.laid.axis(dim), windows.axis(dim)
            behind = laid.first_from(breaks.positions)
            before = (behind == 0) | _has(axis, laid, behind - 1)
            inside = before & ((behind == len(laid)) | _has(axis, laid, behind))
            if inside.any():
                losses[dim] = breaks.positions[inside], breaks.left_out(laid)[inside]
        return losses

    def facts(self, windows: Windows, coords: xr.Dataset) -> Iterator[str]:
        """What there is to say of the breaks between `windows`, in a line for each dim."""
        for dim, (positions, counts) in self.losses(windows).items():
            lost = number_of(int(counts.sum()), "window")
            found = _counted(positions, f" along {dim!r}", texts(dim, coords))
            yield f"{found}: {lost} left out"

    def warnings(self, coords: xr.Dataset) -> Iterator[tuple[str, Hashable]]:
        """What the user is to know, by dim, and what it is about; `coords` has the labels."""
        argument = spelled("breaks")
        for dim, breaks in self.found.items():
            if dim in self.unruled:
                axis = self.laid.axis(dim)
                lost = int(breaks.left_out(axis).sum())
                yield (
                    f"{described(dim, breaks, coords)}. No window crosses a break: "
                    f"{number_of(lost, 'window')} along {dim!r} {'is' if lost == 1 else 'are'} "
                    f"left out, {len(axis):,} remain. {remedies(dim, breaks)}{argument}='split' "
                    f"does the same without a warning; {argument}='ignore' counts windows by "
                    "position, across breaks",
                    ("breaks", dim, breaks.positions.tobytes()),
                )
        for dim, steps in self.doubtful.items():
            yield (
                f"{irregular(dim, steps)}. {argument}='ignore' does the same without a warning",
                ("no breaks", dim),
            )

    def notes(self) -> Iterator[str]:
        """What cannot be known, by dim."""
        for dim, steps in self.doubtful.items():
            yield irregular(dim, steps)


def _has(axis: Axis, laid: Axis, numbers: IntArray) -> npt.NDArray[np.bool_]:
    """Whether some of the windows of `laid`, by number, are also those of `axis`."""
    starts = laid.start(np.clip(numbers, 0, len(laid) - 1))
    found: npt.NDArray[np.bool_] = axis.first_from(starts) < axis.first_from(starts + 1)
    return found


def texts(dim: Hashable, coords: xr.Dataset) -> Callable[[int], str]:
    """From a step along a dim that has breaks to its label; labels are read at once."""
    coord = coords.variables[dim]
    found = texts_of(xr.Variable(coord.dims, coord.to_numpy(), coord.attrs))
    assert found is not None  # a dim without labels has no breaks
    return found


def described(dim: Hashable, breaks: Breaks, coords: xr.Dataset) -> str:
    """How regular the labels of a dim are, how often they break, and where first."""
    step = breaks.steps.text(abs(breaks.steps.step))
    are = "is" if len(breaks) == 1 else "are"
    found = _counted(breaks.positions, "", texts(dim, coords))
    return f"labels along {dim!r} are mostly {step} apart, but there {are} {found}"


def _counted(positions: IntArray, along: str, text: Callable[[int], str]) -> str:
    """How many breaks there are, and the labels on both sides of the first."""
    first = int(positions[0])
    which = "between" if len(positions) == 1 else "the first between"
    count = number_of(len(positions), "break")
    return f"{count}{along}, {which} {text(first - 1)} and {text(first)}"


def irregular(dim: Hashable, steps: LabelSteps) -> str:
    """How few of the steps along a dim are regular, and what follows."""
    return (
        f"only {steps.share:.0%} of the steps between labels along {dim!r} are about as long as "
        f"their median, {steps.text(abs(steps.step))}: too few to tell breaks, so that windows are "
        "counted by position and their labels may jump"
    )


def remedies(dim: Hashable, breaks: Breaks) -> str:
    """What would mend labels that are in no order or repeated, as sentences."""
    back = np.count_nonzero(breaks.jumps * breaks.steps.step < 0)
    again = np.count_nonzero(breaks.jumps == 0)
    found = ""
    if back:
        found += f"At {back:,} of them labels go back, which ds.sortby({dim!r}) mends. "
    if again:
        found += (
            f"At {again:,} of them a label is repeated, which ds.drop_duplicates({dim!r}) mends. "
        )
    return found


def windows_between_breaks(
    windows: Windows, data: xr.Dataset, rules: Any, edges: Mapping[Hashable, EdgeRule]
) -> tuple[Windows, SampleBreaks, dict[Hashable, ExtendedDim]]:
    """Windows that cross no break in the labels of their dims, the breaks, and what lies beyond.

    Labels are read of windowed dims alone of which a window is more than a step and less than all.

    Parameters
    ----------
    windows : Windows
        Laid by position.
    data : xarray.Dataset
        The data with its coordinates.
    rules : {"split", "raise", "ignore"}, mapping or None
        What the user says is to become of breaks, for all dims or by dim.
    edges : mapping of Hashable to EdgeRule
        What windows find at the ends of dims, and their halos, which `windows` have not yet.

    Returns
    -------
    Windows
        Those that cross none, numbered anew.
    SampleBreaks
        What was found.
    dict of Hashable to ExtendedDim
        What they find beyond the ends of dims; there they count its steps.

    Raises
    ------
    TypeError, ValueError
        If a rule is none, or is for a dim that the samples lack; if there are breaks and the rule
        is "raise"; or if no window is left.
    """
    by_dim, argument = _by_dim(rules, windows), spelled("breaks")
    found: dict[Hashable, Breaks] = {}
    doubtful: dict[Hashable, LabelSteps] = {}
    for axis in windows.axes:
        rule, edge = by_dim.get(axis.dim), edges.get(axis.dim, EdgeRule())
        if not axis.windowed or axis.size + edge.halo == 1 or axis.whole or rule == "ignore":
            continue
        if edge.boundary == "wrap":  # whose labels close a circle
            continue
        steps = LabelSteps.of(data, axis.dim)
        if steps is None:
            continue
        breaks = steps.breaks()
        if breaks is not None:
            if rule == "raise":
                raise ValueError(
                    f"{described(axis.dim, breaks, data)}, and {argument}='raise' allows none. "
                    f"{remedies(axis.dim, breaks)}{argument}='split' lets windows begin anew after "
                    "each break"
                )
            found[axis.dim] = breaks
        elif DOUBTFUL <= steps.share and not steps.regular.all():
            if rule == "raise":
                raise ValueError(
                    f"{irregular(axis.dim, steps)}, and {argument}='raise' refuses such labels; "
                    f"{argument}='ignore' accepts them"
                )
            doubtful[axis.dim] = steps
    beyond: dict[Hashable, ExtendedDim] = {}
    at_ends: dict[Hashable, int] = {}
    for dim in [axis.dim for axis in windows.axes if axis.dim in found or axis.dim in edges]:
        length, breaks = windows.axis(dim).length, found.get(dim)
        anew = () if breaks is None else breaks.positions
        edge = edges.get(dim, EdgeRule())
        laid = windows.axis(dim)
        at_ends[dim] = edge.lost_at_ends(length, laid.size, laid.stride, anew)
        windows, extended = windows.at_edges(dim, edge, anew)
        axis = windows.axis(dim)
        if extended is not None:
            beyond[dim] = extended
        if not len(axis) and breaks is None:
            raise ValueError(
                f"there is no sample: no window along {dim!r}, of {axis.size:,} steps with its "
                f"halo, lies in the {length:,} of the data. {spelled('boundary', dim)} says what "
                "lies beyond"
            )
        if breaks is None:
            continue
        lead = -edge.before % axis.stride
        found[dim] = replace(
            breaks,
            before=0 if extended is None else extended.before,
            leads=(lead if edge.boundary is None else -edge.before, lead),
        )
        if not len(axis):
            longest = number_of(breaks.longest(length), "step")
            raise ValueError(
                f"there is no sample: {described(dim, breaks, data)}. The longest stretch without "
                f"a break has {longest}, and a window has {axis.size:,}. {remedies(dim, breaks)}"
                f"{argument}='ignore' counts windows by position, across breaks"
            )
    unruled = frozenset(dim for dim in found if by_dim.get(dim) is None)
    return windows, SampleBreaks(found, windows, unruled, doubtful, at_ends, edges), beyond


def _by_dim(rules: Any, windows: Windows) -> dict[Hashable, str | None]:
    """The rule for each dim; None where the user has given none."""
    dims = [axis.dim for axis in windows.axes]
    if not isinstance(rules, Mapping):
        rules = dict.fromkeys(dims, rules)
    for dim, rule in rules.items():
        if dim not in dims:
            raise ValueError(
                f"{spelled('breaks')} names dim {dim!r}, which the samples do not have; theirs are "
                f"{dims}"
            )
        if rule is not None and rule not in RULES:
            raise ValueError(
                f"{spelled('breaks')} must be one of {list(RULES)}, None, or a mapping of dims to "
                f"these, not {rule!r}"
            )
    return dict(rules)
