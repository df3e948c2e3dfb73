"""Breaks in the labels of a dim, and what each of them costs, for `explain`."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import numpy as np

from ..common import html
from ..common.redact import printable
from ..common.text import number_of
from ..samples.breaks import texts
from ..samples.definition import SampleDefinition

__all__ = ["Break", "DimBreaks", "Stretch", "break_lines", "breaks_of", "breaks_page"]

# What is kept of very many, and what a text names.
MOST_BREAKS, MOST_STRETCHES = 1000, 10
NAMED_BREAKS, NAMED_STRETCHES = 3, 2


@dataclass(frozen=True)
class Break:
    """A place where the labels of a dim jump, go back or are repeated.

    Attributes
    ----------
    before, after : str
        The labels on both sides.
    step : int
        The first step after it, as a position in the data.
    left_out : int
        Windows along the dim that would follow those before it, and cross it.
    """

    before: str
    after: str
    step: int
    left_out: int


@dataclass(frozen=True)
class Stretch:
    """Steps without a break, from the first one of a window to the last one of a window.

    Attributes
    ----------
    first, last : str
        Their labels.
    steps : int
        How many there are.
    """

    first: str
    last: str
    steps: int


@dataclass(frozen=True)
class DimBreaks:
    """Breaks along a dim, or along what a part of a split has of it.

    Attributes
    ----------
    count : int
        How many there are.
    windows : int
        Windows along the dim that there are, between breaks; also those that another source leaves
        out.
    left_out : int
        Windows along the dim that breaks leave out, all together.
    breaks : tuple of Break
        Each of them, in order; the first 1,000 of more.
    longest : tuple of Stretch
        The longest stretches between breaks, at most ten, longest first.
    """

    count: int
    windows: int
    left_out: int
    breaks: tuple[Break, ...]
    longest: tuple[Stretch, ...]


def break_lines(dim: Hashable, found: DimBreaks) -> Iterator[str]:
    """What the breaks along a dim cost; then the first of them, and the longest stretches."""
    every = number_of(found.windows + found.left_out, "window")
    yield f"{found.count:,} along {dim!r}; {found.left_out:,} of {every} left out"
    named = [
        f"{each.left_out:,} between {each.before} and {each.after}"
        for each in found.breaks[:NAMED_BREAKS]
    ]
    more = found.count - len(named)
    yield ", ".join(named) + (f", and {more:,} more" if more else "")
    stretches = ", ".join(
        f"{each.first} to {each.last} ({number_of(each.steps, 'step')})"
        for each in found.longest[:NAMED_STRETCHES]
    )
    yield f"longest without a break: {stretches}"


def breaks_page(dim: Hashable, found: DimBreaks) -> str:
    """Tables of the breaks along a dim and of the longest stretches, as HTML to unfold."""
    inline = number_of(found.count, "break")
    if found.count > len(found.breaks):
        inline += f", the first {len(found.breaks):,} here"
    breaks = [(each.before, each.after, f"{each.left_out:,}") for each in found.breaks]
    longest = [(each.first, each.last, f"{each.steps:,}") for each in found.longest]
    tables = [
        html.table(("label before", "label after", "windows left out"), breaks),
        html.table(("longest stretches, from", "to", "steps"), longest),
    ]
    return html.section(f"Breaks along {printable(dim)}", inline, "".join(tables))


def breaks_of(samples: SampleDefinition) -> dict[Hashable, DimBreaks]:
    """The breaks between the windows of a dataset, by dim; dims that have none are left out."""
    found, windows = {}, samples.windows_with_lost
    for dim, (positions, lost) in samples.breaks.losses(windows).items():
        axis, text = windows.axis(dim), texts(dim, samples.labels.coords)
        begin, end = samples.inside(axis)
        start, stop = samples.breaks.found[dim].cut(*np.clip(axis.stretches, begin, end))
        order = np.argsort(start - stop, kind="stable")[:MOST_STRETCHES]
        found[dim] = DimBreaks(
            count=len(positions),
            windows=len(axis),
            left_out=int(lost.sum()),
            breaks=tuple(
                Break(text(step - 1), text(step), step - begin, count)
                for step, count in zip(
                    positions[:MOST_BREAKS].tolist(), lost[:MOST_BREAKS].tolist(), strict=True
                )
            ),
            longest=tuple(
                Stretch(text(first), text(last - 1), last - first)
                for first, last in zip(start[order].tolist(), stop[order].tolist(), strict=True)
            ),
        )
    return found
