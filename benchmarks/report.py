"""Tables in Markdown, and which targets were reached."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from .harness import Race, Result

XBATCHER = ("Xbatcher", "XbatcherZarrs", "XbatcherDask", "XbatcherWorkers")
MIB, GIB = 2**20, 2**30


def header(workload: str, quick: bool) -> str:
    """Date, machine and command."""
    given = {"WORKLOAD": workload, "QUICK": "1" * quick, "ROUNDS": os.environ.get("ROUNDS")}
    command = " ".join(["make bench", *(f"{key}={value}" for key, value in given.items() if value)])
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    memory = psutil.virtual_memory().total / GIB
    return (
        f"# Benchmarks, {datetime.date.today()}\n\n`{command}` on {cores or os.cpu_count()} cores, "
        f"{memory:.0f} GiB of memory, {platform.machine()}, Python {platform.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start.\n"
    )


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def table(race: Race, races: Mapping[str, Race]) -> str:
    """One workload: its numbers, the versions, the targets."""
    work, limit = race.workload, race.results["Limit"]
    text = (
        f"\n## {work.name}\n\n{work.samples:,} samples of {work.sample_nbytes / MIB:.3g} MiB in "
        f"batches of {work.batch_size}: {work.samples * work.sample_nbytes / GIB:.2f} GiB handed "
        f"out of {work.store.nbytes / GIB:.2f} GiB, stored in {race.stored / GIB:.2f} GiB. Medians "
        f"of {race.rounds} rounds; first epochs of {race.firsts} processes.\n\n"
    )
    best = _best_xbatcher(race)
    head = [
        "contender", "first epoch, samples/s", "later epochs, samples/s", "first batch, s",
        "CPU s, user + system", "bytes read / stored", "peak above imports, MiB", "× best xbatcher",
        "of the limit",
    ]  # fmt: skip
    body = [
        _row(race, key, result, best)
        for key, result in race.results.items()
        if key != "Limit" and not result.skipped
    ]
    text += rows(head, body)
    if limit.later:
        parts = limit.later[0].details
        text += "\nThe limit: " + ", ".join(
            [f"{race.rate('Limit'):,.0f} samples/s"]
            + [
                f"{name} {_median(epoch.details[name] for epoch in limit.later):.3f} s"
                for name in parts
                if name != "seconds"
            ]
        )
        text += ".\n"
    text += "".join(_stages(race, key) for key in ("Ours", "OursInOrder", "OursCached"))
    if any(result.kind.slow for result in race.results.values()):
        text += "\n\\* timed over a few samples spread over the store; each costs the same.\n"
    for result in race.results.values():
        if result.skipped:
            text += f"\n{result.kind.title}: not measured, {result.skipped}.\n"
    text += "\n" + "".join(f"- {line}\n" for line in targets(race, races))
    versions: dict[str, str] = {}
    for result in race.results.values():
        for name, version in result.versions.items():
            known = versions.setdefault(name, version)
            if version not in known:
                versions[name] = f"{known} ({version} for insitubatch)"
    return text + "\nVersions: " + ", ".join(f"{n} {v}" for n, v in versions.items()) + ".\n"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _row(race: Race, key: str, result: Result, best: float | None) -> list[str]:
    later, limit = result.median("rate"), race.rate("Limit")
    whole = not result.kind.slow
    reads = result.median("read")
    return [
        result.kind.title + ("" if whole else " \\*"),
        f"{result.median('rate', True):,.0f}" if result.first else "",
        f"{later:,.0f}",
        f"{result.median('first_batch'):.2f}",
        f"{result.median('user'):.2f} + {result.median('system'):.2f}" if whole else "",
        f"{reads / race.stored:.2f}" if whole and reads else "",
        f"{result.peak / MIB:,.0f}",
        f"{later / best:.1f}" if best else "",
        f"{later / limit:.2f}" if limit else "",
    ]


def _stages(race: Race, key: str) -> str:
    """Where the time of a contender of ours has gone."""
    result = race.results.get(key)
    if result is None or not result.later:
        return ""
    found = {
        name: _median(epoch.details[name] for epoch in result.later)
        for name in result.later[0].details
    }
    decoded = found.pop("decoded") / race.workload.store.nbytes
    stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items())
    return (
        f"\n{result.kind.title}: {result.median('seconds'):.2f} s; summed over threads {stages}; "
        f"decoded {decoded:.2f} × the data.\n"
    )


def _best_xbatcher(race: Race) -> float | None:
    return max(filter(None, (race.rate(name) for name in XBATCHER)), default=None)


def targets(race: Race, races: Mapping[str, Race]) -> list[str]:
    """The targets of a workload, each reached or not."""
    name = race.workload.name
    ours, in_order = race.rate("Ours"), race.rate("OursInOrder")
    limit, best = race.rate("Limit"), _best_xbatcher(race)
    lines: list[str] = []

    def at_least(what: str, wanted: float, found: float | None, base: float | None) -> None:
        if found is not None and base:
            _line(lines, what, found / base, wanted, found / base >= wanted)

    if name.startswith("forecast"):
        wanted = 8 if name in ("forecast-1", "forecast-sharded") else 20
        at_least("shuffled, of the best xbatcher", wanted, ours, best)
        at_least("in order, of the best xbatcher", wanted, in_order, best)
        peer = [race.rate("InSituBatch", of_first) for of_first in (True, False)]
        at_least("first epoch, of insitubatch's first", 2, race.rate("Ours", True), peer[0])
        at_least("later epochs, of insitubatch's cached ones", 1, ours, peer[1])
        at_least("in order, of the limit", 0.9, in_order, limit)
        at_least("shuffled, of the limit", 0.85, ours, limit)
        copies = [race.workload.samples / e.details["copy"] for e in race.results["Limit"].later]
        copy = _median(copies) if copies else None
        at_least("later epochs with cache=True, of memcpy", 0.9, race.rate("OursCached"), copy)
        at_least("first epoch shuffled, of the limit", 0.7, race.rate("Ours", True), limit)
    elif name.startswith(("patches", "giant")):
        at_least("shuffled, of the limit", 0.8, ours, limit)
        at_least("in order, of the limit", 0.8, in_order, limit)
    elif name == "stations":
        at_least("shuffled, million samples/s", 5, ours, 1e6)
        at_least("in order, million samples/s", 5, in_order, 1e6)
    elif name == "packed" and "forecast-16" in races:
        plain = races["forecast-16"].rate("Ours")
        at_least("time of the same data unpacked, inverse", 1 / 1.5, ours, plain)
    return lines


def _line(lines: list[str], what: str, found: float, wanted: float, reached: bool) -> None:
    number: Callable[[float], str] = "{:.2f}".format
    lines.append(
        f"{'reached' if reached else '**not reached**'}: {what}: {number(found)} "
        f"(wanted {number(wanted)})"
    )
