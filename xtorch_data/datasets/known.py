"""Proof, from labels alone, that what samples have of other sources was known at their anchors."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..common.text import number_of
from ..planning.index_maps import IndexMap
from ..planning.windows import Windows
from ..samples.aligning import in_units
from ..samples.definition import SampleDefinition
from ..samples.source_rules import AsOf
from ..sources.comparable import Comparable, comparable

__all__ = ["KnownAtAnchor", "anchors_behind_inputs", "known_at_anchors"]

# Windows that are looked at together.
TOGETHER = 2**20


@dataclass(frozen=True)
class KnownAtAnchor:
    """What labels say of the steps that windows have of an as-of source.

    Attributes
    ----------
    source : str
        Name of the source.
    dim : Hashable
        Its dim that is looked up as of the anchor.
    windows : int
        Windows along the anchor's dim, each of which was looked at.
    late : int
        How many have a step that was not known at the anchor.
    latest : str
        How long before the anchor the newest step of a window was known, where that is least.
    where : str
        The first window that is late: its anchor and the label of its last step.
    """

    source: str
    dim: Hashable
    windows: int
    late: int
    latest: str
    where: str = ""

    def __str__(self) -> str:
        windows = f"{number_of(self.windows, 'window')} of {self.source}"
        if self.late:
            return f"{self.late:,} of {windows} not known at the anchor, the first {self.where}"
        return f"{windows}, the latest {self.latest} before it"


def known_at_anchors(samples: SampleDefinition, windows: Windows) -> Iterator[KnownAtAnchor]:
    """Compare labels with anchors, for every window number and as-of source.

    A step is known `latency` after its label or, where labels are those of begins, after the end
    of the step: the next label. Tables that say where windows lie are taken as they are, and only
    their answers looked at.
    """
    for place, other in enumerate(samples.others, start=1):
        for dim, rule in other.rules.items():
            if not isinstance(rule, AsOf):
                continue
            along = next(each for each in windows.space.frames[place].maps if each.dim == dim)
            labels = comparable(other.labels.coords, dim)
            assert labels is not None
            yield _known(samples, windows, str(other.source), along, rule, labels)


def _known(
    samples: SampleDefinition,
    windows: Windows,
    source: str,
    along: IndexMap,
    rule: AsOf,
    labels: Comparable,
) -> KnownAtAnchor:
    ((place, term),) = along.terms.items()
    axis = windows.axes[place]
    if place == 0 and samples.centers is not None:  # the anchors are the events' own labels
        of, step = samples.centers.anchor_of(rule.of, samples.primary.labels.coords), 0
        first = samples.centers.label(of, samples.primary.labels.coords)
    else:
        found = comparable(samples.labels.coords, axis.dim)
        assert found is not None
        first, step = found, samples.anchors[axis.dim]
    latency = in_units(rule.latency, labels, "latency")
    ends = labels.values
    if rule.label == "left":
        ends = np.append(ends[1:], ends[-1] + np.asarray(labels.step).astype(ends.dtype))
    late, least, where = 0, None, ""
    for begin in range(0, len(axis), TOGETHER):
        numbers = np.arange(begin, min(begin + TOGETHER, len(axis)))
        starts = along.base + term.at(numbers)
        last = starts + along.extent - 1
        anchors = first.values[axis.start(numbers) + step]
        # A position before the first step is none.
        spare = np.where(starts < 0, -1, anchors - latency - ends[last])
        if not where and (spare < 0).any():
            at = int(np.flatnonzero(spare < 0)[0])
            newest, anchor = _text(labels, labels.values[last[at]]), _text(first, anchors[at])
            where = f"at {anchor}, with {newest}"
        late += int(np.count_nonzero(spare < 0))
        least = spare.min() if least is None else min(least, spare.min())
    latest = "" if least is None else _span(labels, least)
    return KnownAtAnchor(source, along.dim, len(axis), late, latest, where)


def anchors_behind_inputs(samples: SampleDefinition) -> Iterator[str]:
    """Where the anchor is later than the last step of part ``x``, in words, by dim."""
    x = next((part for part in samples.primary.parts if part.name == "x"), None)
    if x is None or not samples.others:
        return
    rules = [rule for each in samples.others for rule in each.rules.values()]
    if samples.centers is not None and not any(isinstance(rule, AsOf) for rule in rules):
        return  # an event may lie among the targets
    for axis in samples.primary.windows.axes:
        if not axis.windowed or axis.dim not in x.dims + tuple(x.indexers):
            continue
        cut = x.indexers.get(axis.dim, slice(None))
        last = int(np.max(np.arange(axis.size)[cut]))
        anchor = samples.anchors.get(axis.dim, last)
        if anchor > last:
            yield (
                f"the anchor is step {anchor} of {axis.dim!r}, as given, later than the last step "
                f"of x, {last}: other sources may know what comes after x"
            )


def _text(labels: Comparable, value: Any) -> str:
    return str(np.datetime64(int(value), "us")) if labels.is_time else f"{value}"


def _span(labels: Comparable, value: Any) -> str:
    return str(pd.Timedelta(int(value), "us")) if labels.in_microseconds else f"{value:g}"
