"""Tables in Markdown."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import psutil

from .contenders import STAGES
from .targets import Target, best_xbatcher, detail, has_stages, number, targets

if TYPE_CHECKING:
    from .harness import Race, Result
    from .process import Epoch

MIB, GIB = 2**20, 2**30


def header(workload: str, quick: bool) -> str:
    """Date, machine and command."""
    given = {"WORKLOAD": workload, "QUICK": "1" * quick, "ROUNDS": os.environ.get("ROUNDS")}
    command = " ".join(["make bench", *(f"{key}={value}" for key, value in given.items() if value)])
    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 0
    memory = psutil.virtual_memory().total / GIB
    return (
        f"{datetime.date.today()}, `{command}` on {cores or os.cpu_count()} cores, "
        f"{memory:.0f} GiB of memory, {platform.machine()}, Python {platform.python_version()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start.\n"
    )


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def table(race: Race) -> str:
    """One workload: its numbers, where the time went, the targets, the versions."""
    work = race.workload
    text = (
        f"\n### {work.name}\n\n{work.samples:,} samples of {_size(work.sample_nbytes)} in "
        f"batches of {work.batch_size:,}: {work.samples * work.sample_nbytes / GIB:.2f} GiB handed "
        f"out of {work.store.nbytes / GIB:.2f} GiB, stored in "
        f"{race.results['Limit'].stored / GIB:.2f} GiB. Medians of {race.rounds} rounds; first "
        f"epochs of {race.firsts} processes. Load average {race.load:.1f}.\n\n"
    )
    best = best_xbatcher(race)
    head = [
        "contender", "first epoch, samples/s", "later epochs, samples/s", "first batch, s",
        "in later epochs, s", "CPU s, user + system", "bytes read / stored",
        "peak above imports, MiB", "× best xbatcher", "of the limit",
    ]  # fmt: skip
    raced = {key: each for key, each in race.results.items() if key != "Limit" and each.later}
    text += rows(head, [_row(race, result, best) for result in raced.values()])
    text += _limit(race)
    if any(result.kind.slow for result in raced.values()):
        text += "\n\\* timed over a few samples spread over the store; each costs the same.\n"
    for result in race.results.values():
        if result.skipped:
            text += f"\n{result.kind.title}: not measured, {result.skipped}.\n"
    text += _stages(race)
    text += "\n" + "".join(f"- {line(target)}\n" for target in targets(race))
    versions: dict[str, str] = {}
    for result in race.results.values():
        for name, version in result.versions.items():
            known = versions.setdefault(name, version)
            if version not in known:
                versions[name] = f"{known} ({version} for insitubatch)"
    return text + "\nVersions: " + ", ".join(f"{n} {v}" for n, v in versions.items()) + ".\n"


def line(target: Target) -> str:
    """One target in a line."""
    said = "reached" if target.reached else "**not reached**"
    if target.found is None:
        said = "**not measured**"
    return f"{said}: {target.what}: {number(target.found)} (wanted {target.limit})"


def summary(found: Sequence[Target]) -> str:
    """All targets in one table."""
    count = sum(target.reached for target in found)
    body = [
        [
            target.workload,
            target.what,
            target.limit,
            number(target.found),
            "yes" if target.reached else "**no**",
            "" if target.reached else target.where,
        ]
        for target in found
    ]
    head = ["workload", "target", "wanted", "found", "reached", "if not, where the time went, s"]
    return f"\n### Targets\n\n{count} of {len(found)} reached.\n\n" + rows(head, body)


def _size(nbytes: int) -> str:
    return f"{nbytes / MIB:.3g} MiB" if nbytes >= MIB / 10 else f"{nbytes:,} bytes"


def _row(race: Race, result: Result, best: float | None) -> list[str]:
    later, limit = result.median("rate"), race.rate("Limit")
    whole = not result.kind.slow
    reads = result.median("read")
    return [
        result.kind.title + ("" if whole else " \\*"),
        number(result.median("rate", True)) if result.first else "",
        number(later),
        f"{result.median('first_batch', True):.2f}" if result.first else "",
        f"{result.median('first_batch'):.2f}",
        f"{result.median('user'):.2f} + {result.median('system'):.2f}" if whole else "",
        f"{reads / result.stored:.2f}" if whole and reads else "",
        f"{result.peak / MIB:,.0f}",
        f"{later / best:.1f}" if best else "",
        f"{later / limit:.2f}" if limit else "",
    ]


def _limit(race: Race) -> str:
    epochs = race.results["Limit"].later
    if not epochs:
        return ""
    parts = [
        f"{name} {detail(epochs, name):.3f} s"
        for name in epochs[0].details
        if name not in ("seconds", "read", "fetch")
    ]
    return f"\nThe limit: {number(race.rate('Limit'))} samples/s; {', '.join(parts)}.\n"


def _faults(epochs: Sequence[Epoch]) -> tuple[str, str]:
    """Requests that were made to fail or take long, and reads that were tried again by us."""
    if not any(epoch.details.get("failed") or epoch.details.get("slowed") for epoch in epochs):
        return "", ""
    failed, slowed, retries = (detail(epochs, name) for name in ("failed", "slowed", "retries"))
    return f"{failed:.0f} + {slowed:.0f}", f"{retries:.0f}"


def _stages(race: Race) -> str:
    """Where the time of each contender of ours went."""
    head = ["where the time went, s", "wall", *STAGES, "CPU user", "CPU system", "opening",
            "decoded / data", "first pool, MiB", "most requests at once", "failed + slow",
            "tried again", "ways"]  # fmt: skip
    body = []
    for result in race.results.values():
        for title, epochs in (("first", result.first), ("later", result.later)):
            if not has_stages(epochs):
                continue
            is_first = title == "first"
            most = result.median("most", is_first)
            body.append(
                [
                    f"{result.kind.title}, {title}",
                    f"{result.median('seconds', is_first):.2f}",
                    *(f"{detail(epochs, name):.2f}" for name in STAGES),
                    f"{result.median('user', is_first):.2f}",
                    f"{result.median('system', is_first):.2f}",
                    f"{detail(epochs, 'opening'):.2f}" if is_first else "",
                    f"{detail(epochs, 'decoded') / race.workload.store.nbytes:.2f}",
                    f"{detail(epochs, 'pool') / MIB:,.0f}" if is_first else "",
                    f"{most:,.0f}" if most else "",
                    *_faults(epochs),
                    ", ".join(
                        f"{way} {count}" for way, count in epochs[-1].details["paths"].items()
                    ),
                ]
            )
    if not body:
        return ""
    return "\nStages are summed over threads; wait is the consumer's.\n\n" + rows(head, body)
