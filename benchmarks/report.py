"""What must be reached, and tables in Markdown."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Target:
    """One number that is wanted, and what was found."""

    workload: str
    what: str
    wanted: float
    found: float | None  # None where it could not be measured
    at_most: bool = False
    where: str = ""  # where the time went

    @property
    def reached(self) -> bool:
        if self.found is None:
            return False
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted

    @property
    def limit(self) -> str:
        """What is wanted, in words."""
        return f"{'≤' if self.at_most else '≥'} {number(self.wanted)}"


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value < 0.1 else f"{value:.2f}"


def median(runs: Iterable[dict[str, Any]], name: str) -> float:
    """Median of one figure of several runs."""
    return statistics.median(run[name] for run in runs)


def in_turns(ways: dict[str, Callable[[], Any]], count: int) -> dict[str, list[dict[str, Any]]]:
    """Run some ways in turns: seconds of each run, and what it returned."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(count):
        for name, way in ways.items():
            begin = time.perf_counter()
            value = way()
            found[name].append({"seconds": time.perf_counter() - begin, "value": value})
    return found


def rounds(quick: bool, most: int = 5) -> int:
    """How often everything is timed; ROUNDS sets it."""
    return int(os.environ.get("ROUNDS") or (2 if quick else most))


def header(workload: str, quick: bool) -> str:
    """Date, machine and command."""
    given = {"WORKLOAD": workload, "QUICK": "1" * quick, "ROUNDS": os.environ.get("ROUNDS")}
    command = " ".join(["make bench", *(f"{key}={value}" for key, value in given.items() if value)])
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    return (
        f"{datetime.date.today()}, `{command}` on {cores or os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / GIB:.0f} GiB of memory, {platform.machine()}, Python "
        f"{platform.python_version()}, load average {os.getloadavg()[0]:.1f} at the start.\n"
    )


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def summary(found: Sequence[Target]) -> str:
    """All targets in one table."""
    body = [
        [target.workload, target.what, target.limit, number(target.found)]
        + (["yes", ""] if target.reached else ["**no**", target.where])
        for target in found
    ]
    head = ["workload", "target", "wanted", "found", "reached", "if not, where the time went, s"]
    count = sum(target.reached for target in found)
    return f"\n### Targets\n\n{count} of {len(found)} reached.\n\n" + rows(head, body)
