"""The race: contenders checked, then timed in interleaved rounds, each in its own process."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Container
from dataclasses import dataclass, field

from . import memory, planning, report
from .contenders import Contender, contenders
from .environment import insitubatch_python
from .process import Epoch, Process, warm
from .workloads import GROUPS, Workload, make_workload


@dataclass
class Result:
    """What was measured of one contender."""

    kind: type[Contender]
    first: list[Epoch] = field(default_factory=list)  # each of a fresh process
    later: list[Epoch] = field(default_factory=list)
    peak: int = 0  # bytes of resident memory above imports
    versions: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    def median(self, name: str, of_first: bool = False) -> float:
        epochs = self.first if of_first else self.later
        return statistics.median(getattr(epoch, name) for epoch in epochs)


@dataclass(frozen=True)
class Race:
    """One workload's results."""

    workload: Workload
    results: dict[str, Result]
    rounds: int
    firsts: int
    stored: int  # bytes of the store's chunks

    def rate(self, name: str, of_first: bool = False) -> float | None:
        """Median samples per second of a contender; None if it did not run."""
        result = self.results.get(name)
        if result is None or not (result.first if of_first else result.later):
            return None
        return result.median("rate", of_first)


def race(name: str, quick: bool, only: Container[str] | None = None) -> Race:
    """Race contenders over one workload: all that can do it, or only some."""
    workload = make_workload(name, quick)
    say(f"{name}: making the store")
    workload.store.make()
    rounds = int(os.environ.get("ROUNDS") or (2 if quick else 5))
    firsts = 1 if quick else rounds
    group = name.split("-")[0]
    results = {
        key: Result(kind)
        for key, kind in contenders().items()
        if group in kind.groups and (only is None or key in only)
    }
    pythons = dict.fromkeys(results)
    for key, result in results.items():
        if result.kind.other_python:
            pythons[key], result.skipped = insitubatch_python()
    processes: dict[str, Process] = {}
    with contextlib.ExitStack() as stack:

        def start(key: str) -> Process:
            process = Process.of(results[key].kind, name, quick, pythons[key])
            stack.callback(process.close)
            return process

        for key, result in results.items():
            if result.skipped or key == "Limit":
                continue
            say(f"{name}: checking {result.kind.title}")
            try:
                processes[key] = start(key)
                processes[key].check()
            except RuntimeError as error:
                result.skipped = f"failed: {error}"
                if key in processes:
                    processes.pop(key).close()
        stored = warm(name, quick)
        from_start = [key for key, result in results.items() if result.kind.firsts]
        for turn in range(firsts):
            say(f"{name}: first epochs, {turn + 1} of {firsts}")
            for key in from_start:
                if not results[key].skipped:
                    if key in processes:
                        processes[key].close()
                    processes[key] = start(key)
                    results[key].first.append(processes[key].epoch())
        for turn in range(rounds):
            say(f"{name}: later epochs, {turn + 1} of {rounds}")
            for key, process in processes.items():
                results[key].later.append(process.epoch())
        for key, process in processes.items():
            results[key].peak = process.above_imports
            results[key].versions = process.versions
    return Race(workload, results, rounds, firsts, stored)


def say(line: str) -> None:
    """Progress, beside the table."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run what WORKLOAD names, everything by default, and print the tables."""
    quick = bool(os.environ.get("QUICK"))
    wanted = os.environ.get("WORKLOAD") or ""
    names = [name for group in GROUPS.values() for name in group]
    chosen = GROUPS.get(wanted) or [name for name in names if wanted in ("", name)]
    if wanted == "packed":
        chosen = ["forecast-16", "packed"]  # what it is compared with
    known = [*GROUPS, "planning", "memory", "remote"]
    if not chosen and wanted not in known:
        raise SystemExit(f"no workload {wanted!r}; there are {known} and {names}")
    print(report.header(wanted, quick))
    races: dict[str, Race] = {}
    for name in chosen:
        only = ("Ours", "OursInOrder", "Limit") if wanted == "packed" != name else None
        races[name] = race(name, quick, only)
        print(report.table(races[name], races), flush=True)
    if wanted in ("", "remote"):
        print(
            "## remote\n\nNot measured: the loopback server of this workload is not written yet.\n"
        )
    if wanted in ("", "planning"):
        print(planning.table(), flush=True)
    if wanted in ("", "memory"):
        print(memory.table(quick), flush=True)
