"""Batches a second of a mixture of two datasets, and of each of them alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .contenders import Ours
from .race import race, rounds
from .report import Table, Target, costs
from .workloads import Workload, make_workload

RATES = {"windows": 3, "fields": 1}


def make_mixture(work: Workload, data: Any, memory: int) -> Any:
    """Windows of eight steps of all variables, and single fields of one."""
    import xtorch_data as xtd

    how = {"shuffle": True, "memory": memory}
    windows = work.dataset(data, **how)
    (first, *_), sizes = data.data_vars, {**work.input_dims, "time": 1}
    fields = xtd.IterableDataset(data, sizes, inputs=first, batch_size=64, **how)
    return xtd.mix({"windows": windows, "fields": fields}, RATES)


@dataclass
class Mixed(Ours):
    """The mixture, or one of its datasets alone with the memory that it has there."""

    alone: str = ""

    def _loader(self, how: dict[str, Any]) -> Any:
        made = make_mixture(self.work, self.data, how["memory"])
        self.dataset = made.datasets[self.alone] if self.alone else made
        return self.dataset

    def expected(self) -> None:
        return None

    def count(self, batch: Any) -> int:
        self.counts[batch.origin] += 1
        return 1  # batches are counted, whose samples differ in size

    def epoch(self) -> Iterator[Any]:
        self.counts: Counter[str] = Counter()
        return iter(self.dataset)

    def details(self) -> dict[str, Any]:
        return {name: self.counts[name] for name in RATES}


def table_mixture(quick: bool) -> Table:
    """How fast a mixture is, beside what its datasets alone would take for the same batches."""
    work = make_workload("forecast-16", quick)
    work.store.make()
    frame = race(
        {
            "mixed": Mixed("mix, 3 batches of windows to 1 of fields"),
            "windows": Mixed("windows of 8 steps, 4 variables, alone", alone="windows"),
            "fields": Mixed("single fields of one variable, alone", alone="fields"),
        },
        work,
        rounds(quick),
        check=False,
    )
    alone = sum(frame[name]["mixed"] / frame["rate"][name] for name in RATES)
    together = sum(frame[name]["mixed"] for name in RATES) / frame["rate"]["mixed"]
    frame = frame.assign(**{"batches/s": frame["rate"], "of both alone": float("nan")})
    frame.loc["mixed", "of both alone"] = alone / together
    text = (
        f"Batches of {work.batch_size} windows and of 64 fields over {work.store.path.name}, "
        "shuffled, `memory` 1 GiB for both. A mixture is compared with the seconds that each "
        "dataset alone, with the memory that it has there, takes for as many batches."
    )
    found, _ = costs("mixture", text, frame, ["batches/s", "of both alone", "peak, MiB"])
    return found, [Target("mixture", "of both alone", 0.9, alone / together)]
