"""The race: contenders checked, then timed in interleaved rounds, each in its own process."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import (
    explain,
    formats,
    gpu,
    graphs,
    growth,
    memory,
    planning,
    rechunking,
    remote,
    report,
    state,
)
from .contenders import Contender, contenders
from .environment import insitubatch_python
from .process import Epoch, Process, warm
from .server import Server
from .stores import bench_dir
from .targets import Target, targets
from .workloads import GROUPS, Workload, make_workload

BEGUN = time.monotonic()
RESULTS = Path(__file__).parent / "results.md"  # not kept; docs/benchmarks.md has the last ones


@dataclass
class Result:
    """What was measured of one contender."""

    kind: type[Contender]
    first: list[Epoch] = field(default_factory=list)  # each of a fresh process
    later: list[Epoch] = field(default_factory=list)
    peak: int = 0  # bytes of resident memory above imports
    stored: int = 0  # bytes of the chunks of its store
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
    load: float  # load average when timing began

    def rate(self, name: str, of_first: bool = False) -> float | None:
        """Median samples per second of a contender; None if it did not run."""
        result = self.results.get(name)
        if result is None or not (result.first if of_first else result.later):
            return None
        return result.median("rate", of_first)


def race(name: str, quick: bool) -> Race:
    """Race all that can do a workload over it."""
    workload = make_workload(name, quick)
    results = {
        key: Result(kind)
        for key, kind in contenders().items()
        if {name, name.split("-")[0]} & set(kind.groups)
    }
    pythons = dict.fromkeys(results)
    say(f"{name}: making the store")
    for result in results.values():
        result.kind.store_of(workload).make()
    for key, result in results.items():
        if result.kind.other_python:
            pythons[key], result.skipped = insitubatch_python()
    rounds = int(os.environ.get("ROUNDS") or (2 if quick else 5))
    firsts = 1 if quick else rounds
    processes: dict[str, Process] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(bench_dir())) if name == "remote" else None

        def start(key: str) -> None:
            stop(key)
            kind = results[key].kind
            processes[key] = Process.of(kind, name, quick, pythons[key], server)
            stack.callback(processes[key].close)

        def stop(key: str) -> None:
            if key in processes:
                processes.pop(key).close()

        def attempt(key: str, what: Callable[[str], None]) -> None:
            """One contender that fails does not end the race of the others."""
            try:
                what(key)
            except RuntimeError as error:
                results[key].skipped = f"failed: {error}"
                results[key].later.clear()
                say(f"{name}: {results[key].kind.title} {results[key].skipped}")
                stop(key)

        def check(key: str) -> None:
            start(key)
            processes[key].check()

        def first(key: str) -> None:
            start(key)
            results[key].first.append(processes[key].epoch())

        def later(key: str) -> None:
            results[key].later.append(processes[key].epoch())

        for key, result in results.items():
            if not result.skipped and key != "Limit":
                say(f"{name}: checking {result.kind.title}")
                attempt(key, check)
        for result in results.values():
            result.stored = warm(result.kind.store_of(workload))
        load = os.getloadavg()[0]
        for turn in range(firsts):
            say(f"{name}: first epochs, {turn + 1} of {firsts}")
            for key, result in results.items():
                if result.kind.firsts and not result.skipped:
                    attempt(key, first)
        for turn in range(rounds):
            say(f"{name}: later epochs, {turn + 1} of {rounds}")
            for key in list(processes):
                attempt(key, later)
        for key, process in processes.items():
            results[key].peak = process.above_imports
            results[key].versions = process.versions
    return Race(workload, results, rounds, firsts, load)


def say(line: str) -> None:
    """Progress, beside the table."""
    print(f"{time.monotonic() - BEGUN:5.0f} s  {line}", file=sys.stderr, flush=True)


# Workloads that are tables of their own.
TABLES = {
    "planning": planning.table,
    "explain": explain.table,
    "memory": memory.table,
    "growth": growth.table,
    "state": state.table,
    "gpu": gpu.table,
    "rechunk": rechunking.table,
    "dask": graphs.table,
    "formats": formats.table,
}


def main() -> None:
    """Run what WORKLOAD names, everything by default; print the tables, and keep them."""
    quick = bool(os.environ.get("QUICK"))
    wanted = os.environ.get("WORKLOAD") or ""
    names = [name for group in GROUPS.values() for name in group]
    chosen = GROUPS.get(wanted) or [name for name in names if wanted in ("", name)]
    known = [*GROUPS, *TABLES]
    if not chosen and wanted not in known:
        raise SystemExit(f"no workload {wanted!r}; there are {known} and {names}")
    found: list[Target] = []
    with RESULTS.open("w") as file:

        def put(text: str) -> None:
            for each in (file, sys.stdout):
                print(text, file=each, flush=True, end="")

        put(report.header(wanted, quick))
        for name in chosen:
            if name == "remote" and not remote.can_read():
                put(f"\n### remote\n\nNot measured: {remote.MISSING}.\n")
                continue
            raced = race(name, quick)
            put(report.table(raced))
            found += targets(raced)
        for name, measure in TABLES.items():
            if wanted in ("", name):
                text, reached = measure(quick)
                put(text)
                found += reached
        put(report.summary(found))
    say(f"kept in {RESULTS}")
