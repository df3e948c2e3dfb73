"""What a user says of another source: how its steps belong to a sample."""

from __future__ import annotations

import datetime
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

import numpy as np

from ..common.integers import as_integer
from ..common.redact import printable
from ..planning.windows import SourceWindows

__all__ = ["AsOf", "At", "Rule", "Source", "Span", "ValidTime", "Within", "in_short"]

# A duration, or a number in units of the labels.
Span = str | int | float | datetime.timedelta | np.timedelta64


@dataclass(frozen=True, kw_only=True)
class AsOf:
    """The last steps of a source that are known at a sample's anchor.

    A step is known `latency` after its label or, where labels bear the begin of what they sum up,
    after its end. So no value is in a sample that was not known at its anchor.

    Attributes
    ----------
    steps : int, str or timedelta
        How many of them, or how long they are together.
    latency : str, timedelta or number
        How long after a step its value is known: ``"0h"`` for an analysis that counts as known at
        once, ``"5h"`` for a forecast that takes five hours. A number, in units of the labels, where
        these are numbers.
    label : {"point", "left"}
        Whether a step is known `latency` after its label, or bears the begin of what it sums up, as
        daily means do (pandas' word), and is known `latency` after the next label.
    max_age : str, timedelta or number, optional
        How far the label of the newest step may be before the anchor; samples of which it is
        farther are left out.
    of : Hashable, optional
        The dim of the first source whose label is the anchor, by default the only one with times.

    Raises
    ------
    TypeError
        If `steps` is neither a number of steps nor a duration.
    ValueError
        If `steps` is less than 1, or `label` is another word.

    Notes
    -----
    Of the last step with ``label="left"`` nobody knows when it ends; it is taken to be as long as
    the longest regular step of the source. Where the source ends, its last steps stay the newest
    ones, however late the anchor: `max_age` says how long that may be so.

    Examples
    --------
    >>> AsOf(40, latency="1D", label="left", max_age="3D")
    AsOf(steps=40, latency='1D', label='left', max_age='3D', of=None)
    """

    steps: int | str | datetime.timedelta | np.timedelta64 = field(kw_only=False)
    latency: Span
    label: Literal["point", "left"] = "point"
    max_age: Span | None = None
    of: Hashable | None = None

    def __post_init__(self) -> None:
        if self.label not in ("point", "left"):
            raise ValueError(f"label must be 'point' or 'left', not {self.label!r}")
        if isinstance(self.steps, str | datetime.timedelta | np.timedelta64):
            return
        if as_integer(self.steps, "steps") < 1:
            raise ValueError(f"steps must be 1 or more, not {self.steps!r}")


@dataclass(frozen=True)
class Within:
    """The steps of a source that lie in the extent of a sample, on a finer or a coarser grid.

    A sample's extent is that of its cells, whose edges are halfway between labels. A label on the
    lower edge is inside, one on the upper edge is not, also where labels descend; within 1 % of a
    step of an edge, a label is on it. Every sample must have as many steps, but for those that pass
    the ends of the source, which are left out. Steps come in the direction of the first source.

    Attributes
    ----------
    halo : int
        How many more on each side. Samples for which there are not as many are left out.
    size : int, optional
        Take so many steps instead, those nearest to the middle of the sample: for grids that do not
        divide each other. Samples that pass the ends of the source by more than a step of it are
        left out.

    Raises
    ------
    TypeError
        If `halo` or `size` is no integer.
    ValueError
        If `halo` is negative, or `size` less than 1.

    Examples
    --------
    >>> Within(halo=4)
    Within(halo=4, size=None)
    """

    halo: int = 0
    size: int | None = None

    def __post_init__(self) -> None:
        if as_integer(self.halo, "halo") < 0:
            raise ValueError(f"halo must be 0 steps or more, not {self.halo}")
        if self.size is not None and as_integer(self.size, "size") < 1:
            raise ValueError(f"size must be 1 step or more, not {self.size}")


@dataclass(frozen=True)
class ValidTime:
    """The leads of a forecast that are valid from one time to another, counted from the anchor.

    Those of which ``anchor + start <= init + lead < anchor + stop``, with the init that the
    source's `AsOf` of one step chooses. The most frequent number of leads, of those that are not 0,
    is the size; samples with another are left out.

    Attributes
    ----------
    start, stop : str, timedelta or number
        From when to when; numbers, in units of the labels, where these are numbers.

    Examples
    --------
    >>> ValidTime("0h", "24h")
    ValidTime(start='0h', stop='24h')
    """

    start: Span
    stop: Span


@dataclass(frozen=True)
class At:
    """The steps of a source at the labels of a coordinate of the first source.

    Attributes
    ----------
    coord : Hashable
        The coordinate, of one dim or two: such as the valid time of forecasts, at which analyses
        are looked up. Its dims take the place of the source's dim. At most one of them may be
        windowed. Samples of which the source lacks a label are left out.

    Examples
    --------
    >>> At("valid_time")
    At(coord='valid_time')
    """

    coord: Hashable


Rule = AsOf | Within | ValidTime | At


def in_short(rules: Mapping[Hashable, Rule], windows: SourceWindows, first: SourceWindows) -> str:
    """The rules of a source's dims in a line, those that nothing was said of as well."""
    found = [f"{printable(dim)}={_said(rule)}" for dim, rule in rules.items()]
    shared = [axis.dim for axis in first.axes]
    dims = [axis.dim for axis in windows.axes if axis.dim not in rules]
    if any(isinstance(rule, At) for rule in rules.values()):
        dims = [dim for dim in dims if dim not in shared]  # which take the place of its own
    same = [printable(dim) for dim in dims if dim in shared]
    whole = [printable(dim) for dim in dims if dim not in shared]
    found += [f"same {', '.join(same)}"] * bool(same) + [f"all of {', '.join(whole)}"] * bool(whole)
    return ", ".join(found) or "the same for every sample"


def _said(rule: Rule) -> str:
    """A rule with what is not as it is by default."""
    said = []
    for each in fields(rule):
        value = getattr(rule, each.name)
        if each.default is MISSING or value != each.default:
            named = each.kw_only or each.default is not MISSING
            said.append(f"{each.name}={value!r}" if named else repr(value))
    return f"{type(rule).__name__}({', '.join(said)})"


class Source:
    """Another source of data of a sample, and how its steps belong to it.

    Parameters
    ----------
    ds : xarray.Dataset, DataArray, zarr.Array or zarr.Group
        The data.
    rules : mapping of Hashable to AsOf, Within, ValidTime or At, optional
        By dim of the source. Of a dim without one that the first source has, too, samples have the
        same labels; of one that the first source lacks, all steps.
    breaks : {"ignore"}, optional
        Whether windows of steps may cross breaks in the labels of this source; samples of which one
        does are left out else.
    **dims : AsOf, Within, ValidTime or At
        Rules by the name of the dim.

    Raises
    ------
    TypeError
        If a rule is none.
    ValueError
        If there are two rules for a dim, several dims with a `ValidTime`, or `breaks` is another
        word.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> sst = xr.DataArray(np.zeros(100), dims="time", name="sst")
    >>> Source(sst, time=AsOf(40, latency="1D"))
    Source(sst, time=AsOf(steps=40, latency='1D', label='point', max_age=None, of=None))
    """

    def __init__(
        self,
        ds: Any,
        rules: Mapping[Hashable, Rule] | None = None,
        *,
        breaks: Literal["ignore"] | None = None,
        **dims: Rule,
    ) -> None:
        given: dict[Hashable, Rule] = dict(rules or {})
        given.update(dims)
        if len(given) < len(rules or {}) + len(dims):
            twice = sorted(set(rules or {}) & set(dims), key=str)
            raise ValueError(f"there are two rules for dim {twice[0]!r}")
        for dim, rule in given.items():
            if not isinstance(rule, Rule):
                raise TypeError(
                    f"the rule of dim {dim!r} must be an AsOf, Within, ValidTime or At, not "
                    f"{rule!r}"
                )
        if sum(isinstance(rule, ValidTime) for rule in given.values()) > 1:
            raise ValueError("one dim of a source has leads, and a ValidTime")
        if breaks not in (None, "ignore"):
            raise ValueError(f"breaks of a source must be 'ignore' or None, not {breaks!r}")
        self.ds, self.rules, self.breaks = ds, given, breaks

    def __repr__(self) -> str:
        name = getattr(self.ds, "name", None) or type(self.ds).__name__
        rules = "".join(f", {dim}={rule!r}" for dim, rule in self.rules.items())
        return f"Source({name}{rules})"
