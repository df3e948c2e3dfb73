"""The race: contenders checked, then timed in interleaved rounds, each in its own process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3_server import Server

from . import remote
from .child import Child
from .contenders import CONTENDERS, STAGES, Contender
from .report import GIB, MIB, Target, median, number, rounds, rows
from .stores import bench_dir
from .workloads import Workload, make_workload

BEGUN = time.monotonic()
# Without torch: its batches are NumPy arrays, which torch takes as they are.
INSITUBATCH = "insitubatch==0.2.0"
SLACK = 200 * 10**6  # bytes that are allowed beside `memory` and batches
BATCHES = 4
LIMIT_PARTS = ("zarrs", "bare codec", "tensorstore", "sockets", "obstore", "sockets alone",
               "obstore alone", "copy")  # fmt: skip


def say(line: str) -> None:
    """Progress, beside the table."""
    print(f"{time.monotonic() - BEGUN:5.0f} s  {line}", file=sys.stderr, flush=True)


def allowed_memory(memory: int, batch_nbytes: int) -> float:
    """Peak above imports that a process may have, MiB."""
    return (memory + BATCHES * batch_nbytes + SLACK) / MIB


@dataclass
class Result:
    """What was measured of one contender."""

    contender: Contender
    first: list[dict[str, Any]] = field(default_factory=list)  # each of a fresh process
    later: list[dict[str, Any]] = field(default_factory=list)
    peak: int = 0  # bytes of resident memory above imports
    stored: int = 0  # bytes of the chunks of its store
    versions: dict[str, str] = field(default_factory=dict)
    skipped: str = ""

    def runs(self) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """First and later epochs, where it accounts for its time."""
        for title, epochs in (("first", self.first), ("later", self.later)):
            if epochs and set(STAGES) <= set(epochs[0]):
                yield title, epochs


def entry(key: str, name: str, quick: bool, endpoint: str = "", python: str = "",
          **given: Any) -> Child:  # fmt: skip
    """The process of a contender."""
    arguments = (key, name, quick, endpoint, given)
    tree = CONTENDERS[key].workers > 0
    return Child("contenders:Entry", *arguments, python=python, tree=tree)


def timed(child: Child) -> dict[str, Any]:
    """An epoch, and what it took."""
    answer = child.call("epoch")
    took = {"user": answer.user, "system": answer.system, "fetched": answer.read}
    return {**answer.value, **took, "peak": answer.peak - child.begun}


class Race:
    """All that can do a workload race over it, and what came of it.

    A contender that fails does not end the race of the others.
    """

    def __init__(self, name: str, quick: bool) -> None:
        self.name, self.quick = name, quick
        self.work: Workload = make_workload(name, quick)
        self.kind = name.split("-")[0]
        self.results = {
            key: Result(contender)
            for key, contender in CONTENDERS.items()
            if {name, self.kind} & set(contender.groups)
        }
        self.rounds = rounds(quick)
        self.firsts = 1 if quick else self.rounds
        self.children: dict[str, Child] = {}
        self.python = ""
        with contextlib.ExitStack() as stack:
            self.server = stack.enter_context(Server(bench_dir())) if name == "remote" else None
            stack.callback(lambda: [child.close() for child in self.children.values()])
            self._run()

    def _run(self) -> None:
        say(f"{self.name}: making the store")
        for result in self.results.values():
            result.contender.of(self.work).store.make()
            if result.contender.other_python:
                self.python, result.skipped = _insitubatch_python()
        for key in self.results:
            if key != "limit":
                say(f"{self.name}: checking {self.results[key].contender.title}")
                self._attempt(key, self._check)
        for result in self.results.values():
            result.stored = result.contender.of(self.work).store.warm()
        self.load = os.getloadavg()[0]
        for turn in range(self.firsts):
            say(f"{self.name}: first epochs, {turn + 1} of {self.firsts}")
            for key, result in self.results.items():
                if result.contender.firsts:
                    self._attempt(key, self._first)
        for turn in range(self.rounds):
            say(f"{self.name}: later epochs, {turn + 1} of {self.rounds}")
            for key in self.results:
                self._attempt(key, self._later)
        for key, child in self.children.items():
            result = self.results[key]
            result.versions = child.call("versions").value
            result.peak = max(run["peak"] for run in result.first[-1:] + result.later)

    def _attempt(self, key: str, what: Callable[[str], None]) -> None:
        result = self.results[key]
        if result.skipped:
            return
        try:
            what(key)
        except RuntimeError as error:
            result.skipped = f"failed: {error}"
            result.later.clear()
            say(f"{self.name}: {result.contender.title} {result.skipped}")
            self._stop(key)

    def _stop(self, key: str) -> None:
        if key in self.children:
            self.children.pop(key).close()

    def _start(self, key: str) -> Child:
        self._stop(key)
        python = self.python if self.results[key].contender.other_python else ""
        endpoint = self.server.endpoint if self.server else ""
        self.children[key] = entry(key, self.name, self.quick, endpoint, python)
        return self.children[key]

    def _check(self, key: str) -> None:
        self._start(key).call("check")

    def _first(self, key: str) -> None:
        self.results[key].first.append(self._epoch(key, self._start(key)))

    def _later(self, key: str) -> None:
        self.results[key].later.append(self._epoch(key, self.children[key]))

    def _epoch(self, key: str, child: Child) -> dict[str, Any]:
        if not self.server:
            return timed(child)
        self.server.spoil(self.results[key].contender.faults)
        before = self.server.counts()
        epoch, counts = timed(child), self.server.counts()
        failed, slowed = counts.failed - before.failed, counts.slowed - before.slowed
        epoch |= {"fetched": counts.sent - before.sent, "most": counts.most}
        return epoch | {"failed": failed, "slowed": slowed}

    # What came of it

    def rate(self, key: str, of_first: bool = False) -> float | None:
        """Median samples per second of a contender; None if it did not run."""
        result = self.results.get(key)
        epochs = (result.first if of_first else result.later) if result else []
        return median(epochs, "rate") if epochs else None

    def best_xbatcher(self) -> float | None:
        """Samples per second of the fastest of xbatcher's loaders."""
        keys = [key for key in self.results if key.startswith("xbatcher")]
        return max(filter(None, map(self.rate, keys)), default=None)

    def samples_in(self, *parts: str) -> float | None:
        """Samples a second if nothing but these parts of the limit took time."""
        epochs = self.results["limit"].later
        return self.work.samples / sum(median(epochs, part) for part in parts) if epochs else None

    def targets(self) -> list[Target]:
        """The targets of the workload."""
        limit, found = self.rate("limit"), []
        single = self.name in ("forecast-1", "forecast-sharded")

        def add(key: str, what: str, wanted: float, base: float | None, of_first: bool = False,
                at_most: bool = False) -> None:  # fmt: skip
            """The rate of a contender over another, or the inverse if that is to be small."""
            rate = self.rate(key, of_first)
            ratio = (base / rate if at_most else rate / base) if rate and base else None
            where = self._spent(key, of_first)
            found.append(Target(self.name, what, wanted, ratio, at_most, where))

        for key in ("shuffled", "in order"):
            if self.kind == "forecast":
                add(key, f"{key}, of the best xbatcher", 8 if single else 20, self.best_xbatcher())
                add(key, f"{key}, of the limit", 0.85 if key == "shuffled" else 0.9, limit)
                add(key, f"{key}, first epoch, of the limit", 0.7, limit, True)
            elif self.kind in ("patches", "giant"):
                add(key, f"{key}, of the limit", 0.8, limit)
            elif self.kind == "stations":
                add(key, f"{key}, million samples/s", 5, 1e6)
            elif self.kind == "packed":
                plain = self.rate(f"{key}, unpacked")
                add(key, f"{key}, times as long as unpacked", 1.5, plain, at_most=True)
            elif self.kind == "remote":
                fetching = self.samples_in("fetch", "copy")
                add(key, f"{key}, of fetching alone + copying", 0.9, fetching)
                add(key, f"{key}, of the limit (decoding, too)", 0.9, limit)
            found += self._first_batch(key) + self._memory(key)
        if self.kind == "forecast":
            add("cached", "cache=True, of memcpy", 0.9, self.samples_in("copy"))
        if "insitubatch" in self.results:
            theirs = [self.rate("insitubatch", is_first) for is_first in (True, False)]
            add("shuffled", "shuffled, first epoch, of insitubatch's first", 2, theirs[0], True)
            add("shuffled", "shuffled, later epochs, of insitubatch's cached", 1, theirs[1])
        return found

    def _first_batch(self, key: str) -> list[Target]:
        """From the opened store to the first batch, in reads of the first pool when shuffled."""
        epochs, pools = self.results[key].first, self.results["shuffled"].first
        found, limit = None, self.results["limit"].later
        if epochs and pools and limit:
            pool = median(limit, "read") / self.work.store.nbytes * median(pools, "pool")
            found = (median(epochs, "first_batch") - median(epochs, "opening")) / pool
        what = f"{key}, first batch, pool reads"
        return [Target(self.name, what, 2, found, True, self._spent(key, True))]

    def _memory(self, key: str) -> list[Target]:
        allowed = allowed_memory(self.work.memory, self.work.batch_size * self.work.sample_nbytes)
        peak = self.results[key].peak / MIB or None
        return [Target(self.name, f"{key}, peak above imports, MiB", allowed, peak, True)]

    def _spent(self, key: str, of_first: bool) -> str:
        """Where the time of a contender of ours went, in a line."""
        result = self.results[key]
        epochs = dict(result.runs()).get("first" if of_first else "later")
        if result.skipped or not epochs:
            return result.skipped
        stages = ", ".join(f"{name} {median(epochs, name):.2f}" for name in STAGES)
        cpu = f"{median(epochs, 'user'):.2f} + {median(epochs, 'system'):.2f}"
        return f"{median(epochs, 'seconds'):.2f} s: {stages}; CPU {cpu}"

    def table(self) -> str:
        """Its numbers, where the time went, the targets, the versions."""
        work, results = self.work, self.results.values()
        size = work.sample_nbytes
        text = (
            f"\n### {work.name}\n\n{work.samples:,} samples of "
            f"{f'{size / MIB:.3g} MiB' if size >= MIB / 10 else f'{size:,} bytes'} in batches of "
            f"{work.batch_size:,}: {work.samples * size / GIB:.2f} GiB handed out of "
            f"{work.store.nbytes / GIB:.2f} GiB, stored in "
            f"{self.results['limit'].stored / GIB:.2f} GiB. Medians of {self.rounds} rounds; first "
            f"epochs of {self.firsts} processes. Load average {self.load:.1f}.\n\n"
        )
        head = [
            "contender", "first epoch, samples/s", "later epochs, samples/s", "first batch, s",
            "in later epochs, s", "CPU s, user + system", "bytes read / stored",
            "peak above imports, MiB", "× best xbatcher", "of the limit",
        ]  # fmt: skip
        raced = [each for key, each in self.results.items() if key != "limit" and each.later]
        text += rows(head, map(self._row, raced))
        if epochs := self.results["limit"].later:
            parts = [name for name in epochs[0] if name in LIMIT_PARTS]
            said = ", ".join(f"{name} {median(epochs, name):.3f} s" for name in parts)
            text += f"\nThe limit: {number(self.rate('limit'))} samples/s; {said}.\n"
        if any(result.contender.slow for result in raced):
            text += "\n\\* timed over a few samples spread over the store; each costs the same.\n"
        for result in results:
            if result.skipped:
                text += f"\n{result.contender.title}: not measured, {result.skipped}.\n"
        text += "\nStages are summed over threads; wait is the consumer's.\n\n" + self._stages()
        text += "\n" + "".join(f"- {line(target)}\n" for target in self.targets())
        versions: dict[str, set[str]] = {}
        for name, version in (pair for result in results for pair in result.versions.items()):
            versions.setdefault(name, set()).add(version)
        said = ", ".join(f"{name} {' or '.join(each)}" for name, each in versions.items())
        return f"{text}\nVersions: {said}.\n"

    def _row(self, result: Result) -> list[str]:
        first, later, whole = result.first, result.later, not result.contender.slow
        rate, limit, best = median(later, "rate"), self.rate("limit"), self.best_xbatcher()
        read = median(later, "fetched")
        return [
            result.contender.title + ("" if whole else " \\*"),
            number(median(first, "rate")) if first else "",
            number(rate),
            f"{median(first, 'first_batch'):.2f}" if first else "",
            f"{median(later, 'first_batch'):.2f}",
            f"{median(later, 'user'):.2f} + {median(later, 'system'):.2f}" if whole else "",
            f"{read / result.stored:.2f}" if whole and read else "",
            f"{result.peak / MIB:,.0f}",
            f"{rate / best:.1f}" if best else "",
            f"{rate / limit:.2f}" if limit else "",
        ]

    def _stages(self) -> str:
        """Where the time of each contender of ours went."""
        head = ["where the time went, s", "wall", *STAGES, "CPU user", "CPU system", "opening",
                "decoded / data", "first pool, MiB", "most requests at once", "failed + slow",
                "tried again", "ways"]  # fmt: skip
        body = []
        for result in self.results.values():
            for title, epochs in result.runs():
                of = {name: median(epochs, name) for name in epochs[0] if name != "paths"}
                seconds = ["seconds", *STAGES, "user", "system", "opening"]
                faulty = bool(result.contender.faults)
                body.append(
                    [
                        f"{result.contender.title}, {title}",
                        *(f"{of[name]:.2f}" for name in seconds),
                        f"{of['decoded'] / self.work.store.nbytes:.2f}",
                        f"{of['pool'] / MIB:,.0f}",
                        f"{of['most']:,.0f}" if "most" in of else "",
                        f"{of['failed']:.0f} + {of['slowed']:.0f}" if faulty else "",
                        f"{of['retries']:.0f}" if faulty else "",
                        ", ".join(f"{way} {n}" for way, n in epochs[-1]["paths"].items()),
                    ]
                )
        return rows(head, body)


def line(target: Target) -> str:
    """One target in a line."""
    said = "reached" if target.reached else "**not reached**"
    said = "**not measured**" if target.found is None else said
    return f"{said}: {target.what}: {number(target.found)} (wanted {target.limit})"


def table(name: str, quick: bool) -> tuple[str, list[Target]]:
    """One workload."""
    if name == "remote" and remote.MISSING:
        return f"\n### remote\n\nNot measured: {remote.MISSING}.\n", []
    race = Race(name, quick)
    return race.table(), race.targets()


def _insitubatch_python() -> tuple[str, str]:
    """The interpreter that has insitubatch, made if need be; or "", and why there is none."""
    folder = bench_dir() / "insitubatch-env"
    python = str(folder / "bin" / "python")
    if _works(python, "import insitubatch"):
        return python, ""
    new_enough = "import sys; assert sys.version_info >= (3, 12)"
    base = next((found for found in _pythons() if _works(found, new_enough)), None)
    if base is None:
        return "", "no Python >= 3.12 found (XTD_BENCH_PYTHON may name one)"
    shutil.rmtree(folder, ignore_errors=True)
    install = [python, "-m", "pip", "install", "--quiet", INSITUBATCH]
    for command in ([base, "-m", "venv", str(folder)], install):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            return "", f"`{' '.join(command[1:4])}` failed: {last}"
    return python, ""


def _pythons() -> Iterator[str]:
    yield from filter(None, [os.environ.get("XTD_BENCH_PYTHON"), sys.executable])
    names = [f"python3.{minor}" for minor in (12, 13, 14)]
    yield from filter(None, map(shutil.which, names))
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    for name in names:
        yield from map(str, root.glob(f"versions/{name.removeprefix('python')}.*/bin/{name}"))


def _works(python: str, code: str) -> bool:
    with contextlib.suppress(OSError):
        return not subprocess.run([python, "-c", code], capture_output=True).returncode
    return False
