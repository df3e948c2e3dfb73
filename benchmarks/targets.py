"""What must be reached, and whether it was."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .contenders import STAGES

if TYPE_CHECKING:
    from .harness import Race, Result
    from .process import Epoch

XBATCHER = ("Xbatcher", "XbatcherZarrs", "XbatcherDask", "XbatcherWorkers")
ORDERS = {"Ours": "shuffled", "OursInOrder": "in order"}
SLACK = 200 * 10**6  # bytes that are allowed beside `memory` and batches
BATCHES = 4
MIB = 2**20


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


def best_xbatcher(race: Race) -> float | None:
    """Samples per second of the fastest of xbatcher's loaders."""
    return max(filter(None, (race.rate(name) for name in XBATCHER)), default=None)


def targets(race: Race) -> list[Target]:
    """The targets of a workload."""
    return _Judge(race).all()


class _Judge:
    def __init__(self, race: Race) -> None:
        self.race = race
        self.name = race.workload.name
        self.kind = self.name.split("-")[0]
        self.found: list[Target] = []

    def all(self) -> list[Target]:
        limit = self.race.rate("Limit")
        for key, order in ORDERS.items():
            if self.kind == "forecast":
                self._forecast(key, order, limit)
            elif self.kind in ("patches", "giant"):
                self._ratio(key, f"{order}, of the limit", 0.8, limit)
            elif self.kind == "stations":
                self._ratio(key, f"{order}, million samples/s", 5, 1e6)
            elif self.kind == "packed":
                plain = self.race.rate(key.replace("Ours", "OursUnpacked"))
                self._slower(key, f"{order}, times as long as unpacked", 1.5, plain)
            elif self.kind == "remote":
                self._ratio(key, f"{order}, of fetching alone + copying", 0.9, self._fetching())
                self._ratio(key, f"{order}, of the limit (decoding, too)", 0.9, limit)
            self._first_batch(key, order)
            self._memory(key, order)
        if self.kind == "forecast":
            copying = self._samples_in(lambda parts: parts["copy"])
            self._ratio("OursCached", "cache=True, of memcpy", 0.9, copying)
        if "InSituBatch" in self.race.results:
            first, later = (self.race.rate("InSituBatch", is_first) for is_first in (True, False))
            self._ratio("Ours", "shuffled, first epoch, of insitubatch's first", 2, first, True)
            self._ratio("Ours", "shuffled, later epochs, of insitubatch's cached", 1, later)
        return self.found

    def _forecast(self, key: str, order: str, limit: float | None) -> None:
        single = self.name in ("forecast-1", "forecast-sharded")
        best = best_xbatcher(self.race)
        self._ratio(key, f"{order}, of the best xbatcher", 8 if single else 20, best)
        self._ratio(key, f"{order}, of the limit", 0.85 if key == "Ours" else 0.9, limit)
        self._ratio(key, f"{order}, first epoch, of the limit", 0.7, limit, True)

    def _ratio(
        self, key: str, what: str, wanted: float, base: float | None, is_first: bool = False
    ) -> None:
        rate = self.race.rate(key, is_first)
        found = rate / base if rate and base else None
        self._add(key, what, wanted, found, is_first=is_first)

    def _slower(self, key: str, what: str, wanted: float, base: float | None) -> None:
        rate = self.race.rate(key)
        self._add(key, what, wanted, base / rate if rate and base else None, at_most=True)

    def _first_batch(self, key: str, order: str) -> None:
        """From the opened store to the first batch, in reads of the first pool when shuffled."""
        results = self.race.results
        result, pools = results.get(key), results["Ours"].first
        reading = self._parts(lambda parts: parts["read"])
        found = None
        if result is not None and result.first and pools and reading:
            pool = reading / self.race.workload.store.nbytes * detail(pools, "pool")
            found = (result.median("first_batch", True) - detail(result.first, "opening")) / pool
        self._add(key, f"{order}, first batch, pool reads", 2, found, at_most=True, is_first=True)

    def _memory(self, key: str, order: str) -> None:
        result, work = self.race.results.get(key), self.race.workload
        allowed = work.memory + BATCHES * work.batch_size * work.sample_nbytes + SLACK
        peak = result.peak / MIB if result and result.peak else None
        target = Target(self.name, f"{order}, peak above imports, MiB", allowed / MIB, peak, True)
        self.found.append(target)

    def _add(
        self,
        key: str,
        what: str,
        wanted: float,
        found: float | None,
        *,
        at_most: bool = False,
        is_first: bool = False,
    ) -> None:
        result = self.race.results.get(key)
        where = ""
        if result is not None:
            where = result.skipped or spent(result, is_first)
        self.found.append(Target(self.name, what, wanted, found, at_most, where))

    def _fetching(self) -> float | None:
        return self._samples_in(lambda parts: parts["fetch"] + parts["copy"])

    def _samples_in(self, seconds: Callable[[dict[str, float]], float]) -> float | None:
        found = self._parts(seconds)
        return self.race.workload.samples / found if found else None

    def _parts(self, of: Callable[[dict[str, float]], float]) -> float | None:
        epochs = self.race.results["Limit"].later if "Limit" in self.race.results else []
        return statistics.median(of(epoch.details) for epoch in epochs) if epochs else None


def detail(epochs: Iterable[Epoch], name: str) -> float:
    """Median of what a contender says of its epochs."""
    return statistics.median(epoch.details[name] for epoch in epochs)


def has_stages(epochs: Sequence[Epoch]) -> bool:
    """Whether these are of one of ours that accounts for its time."""
    return bool(epochs) and set(STAGES) <= set(epochs[0].details)


def spent(result: Result, is_first: bool) -> str:
    """Where the time of a contender of ours went, in a line."""
    epochs = result.first if is_first else result.later
    if not has_stages(epochs):
        return ""
    stages = ", ".join(f"{name} {detail(epochs, name):.2f}" for name in STAGES)
    user, system = (result.median(name, is_first) for name in ("user", "system"))
    seconds = result.median("seconds", is_first)
    return f"{seconds:.2f} s: {stages}; CPU {user:.2f} + {system:.2f}"
