"""What there is to show of statistics: lines of text, and a page in notebooks."""

from __future__ import annotations

from collections.abc import Iterator

import xarray as xr

from ..common import html
from ..common.redact import printable
from ..common.text import number_of
from ..datasets.fitted_labels import FittedLabels
from ..samples.date_parts import PART_OF
from .applying import Scaling

__all__ = ["described", "page"]

SHOWN_VARIABLES = 20


def described(scaling: Scaling, fitted_on: FittedLabels) -> str:
    """Statistics in a line for each variable, and of which labels they are."""
    names = scaling.kind.statistics
    lines = []
    for variable, where, first, second, units in _rows(scaling):
        line = printable(variable) + (f" ({where})" if where else "")
        line += f": {names[0]} {first}, {names[1]} {second}"
        lines.append(line + (f", in {units}" if units else ""))
    more = len(lines) - SHOWN_VARIABLES
    if more > 0:
        lines[SHOWN_VARIABLES:] = [f"and {more} more"]
    lines += [f"fitted on {printable(name)} {ranges}" for name, ranges in _of_note(fitted_on)]
    return "<xtorch_data.Normalize" + "".join(f"\n  {line}" for line in lines) + ">"


def page(scaling: Scaling, fitted_on: FittedLabels, text: str) -> str:
    """Page of statistics in a notebook; `text` is their plain repr."""
    kind, per = scaling.kind, {}
    for dim, coordinate in scaling.first.coords.items():
        per[dim] = f"{coordinate.attrs.get(PART_OF, printable(dim))} ({coordinate.size:,})"
    facts = [
        ("kind", f"{kind.name}: {kind.formula}"),
        ("per", ", ".join(per.values()) or "nothing"),
    ]
    if scaling.source is not None:
        facts.append(("first source", scaling.source))
    rows = [
        (variable, where or "one number", first, second, units)
        for variable, where, first, second, units in _rows(scaling)
    ]
    columns = ("variable", "per", *kind.statistics, "units")
    head = number_of(len(rows), "variable")
    parts = [
        html.facts(facts),
        html.section("Statistics", head, html.table(columns, rows), opened=True),
    ]
    if fitted_on:
        ranges = [(name, str(each)) for name, each in fitted_on.items()]
        names = ", ".join(map(printable, fitted_on))
        table = html.table(("dim", "labels"), ranges)
        parts.append(html.section("Fitted on", names, table, opened=True))
    return html.page("xtorch_data.Normalize", head, parts, text)


def _rows(scaling: Scaling) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, dims, both statistics and units of each variable."""
    for name, first in scaling.first.data_vars.items():
        yield (
            str(name),
            ", ".join(f"{printable(dim)}: {size}" for dim, size in first.sizes.items()),
            _range(first),
            _range(scaling.second[name]),
            printable(first.attrs.get("units", "")),
        )


def _of_note(fitted_on: FittedLabels) -> Iterator[tuple[str, object]]:
    """Labels that a reader wants to know of: what a split has left, and dates."""
    for name, ranges in fitted_on.items():
        if ranges.is_part or ranges.kind not in ("number", "text", "timedelta64"):
            yield name, ranges


def _range(values: xr.DataArray) -> str:
    least, most = float(values.min()), float(values.max())
    return f"{least:.6g}" if values.ndim == 0 else f"{least:.6g} to {most:.6g}"
