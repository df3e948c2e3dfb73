"""What must be reached, and tables in Markdown."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import psutil

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Target:
    """One number that is wanted, and what was found: NaN where it could not be measured."""

    workload: str
    what: str
    wanted: float
    found: float
    at_most: bool = False
    where: str = ""  # where the time went

    @property
    def reached(self) -> bool:
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted

    @property
    def limit(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {show(self.wanted)}"

    def __str__(self) -> str:
        said = "reached" if self.reached else "**not reached**"
        said = "**not measured**" if np.isnan(self.found) else said
        return f"- {said}: {self.what}: {show(self.found)} (wanted {self.limit})\n"


Table = tuple[str, list[Target]]  # a text in Markdown, and what it says of targets


def show(value: Any) -> str:
    """A text as it is, a number with three digits or so, nothing for what was not measured."""
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.3g}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def rows(head: Sequence[str], body: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *(map(show, row) for row in body)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def table(frame: pd.DataFrame, columns: Iterable[str]) -> str:
    """Some figures of a race: a row for each contender."""
    names = ["title", *columns]
    return rows(["", *names[1:]], frame.reindex(columns=names).itertuples(index=False))


def costs(
    title: str,
    text: str,
    frame: pd.DataFrame,
    columns: Iterable[str],
    most: Mapping[str, Any] = MappingProxyType({}),
) -> Table:
    """A table with its title, and a target for each figure in it that has a limit."""
    found = [
        Target(title, f"{row}: {name}", wanted, value, at_most=True)
        for name, limit in most.items()
        for row, value, wanted in zip(
            frame["title"], frame[name], pd.Series(limit, frame.index, dtype=float), strict=True
        )
        if not np.isnan([value, wanted]).any()
    ]
    return f"\n### {title}\n\n{text}\n\n" + table(frame, columns), found


def summary(found: Sequence[Target]) -> str:
    """All targets in one table."""
    head = ["workload", "target", "wanted", "found", "reached", "if not, where the time went, s"]
    body = (
        [each.workload, each.what, each.limit, show(each.found) or "not measured"]
        + (["yes", ""] if each.reached else ["**no**", each.where])
        for each in found
    )
    count = sum(each.reached for each in found)
    return f"\n### Every target\n\n{count} of {len(found)} reached.\n\n" + rows(head, body)


def header(workload: str, quick: bool) -> str:
    """Date, state of the code, machine and command."""
    given = {"WORKLOAD": workload, "QUICK": "1" * quick, "ROUNDS": os.environ.get("ROUNDS")}
    command = " ".join(["make bench", *(f"{key}={value}" for key, value in given.items() if value)])
    described = ["git", "describe", "--always", "--dirty"]
    state = subprocess.run(described, capture_output=True, text=True).stdout.strip()
    return (
        f"{datetime.date.today()}, `{command}`, commit {state or 'unknown'}, {os.cpu_count()} "
        f"cores, {psutil.virtual_memory().total / GIB:.0f} GiB of memory, {platform.machine()}, "
        f"Python {platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the start.\n"
    )
