"""Seconds to find the samples of which enough is present: counted, and asked one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .contenders import Ours
from .race import race, rounds
from .report import Table, costs
from .stores import Store
from .workloads import Workload

LEAST = 0.7  # of a window
STEPS = 6  # that are asked about one by one


class Holey(Store):
    """Fields of which a third is land, where nothing is present."""

    def values(self, variable: int, start: int, stop: int) -> np.ndarray:
        values = super().values(variable, start, stop)
        coarse = np.random.default_rng(variable).random([-(-size // 8) for size in self.shape[1:]])
        land = np.kron(coarse < 1 / 3, np.ones((8, 8), bool))
        values[:, land[: self.shape[1], : self.shape[2]]] = np.nan
        return values


def make_windows(quick: bool) -> Workload:
    """A million windows, an eighth of them if it is to be quick."""
    sizes = {"time": 36 if quick else 260, "latitude": 181, "longitude": 360}
    store = Holey("validity", sizes, (16, 181, 360), variables=1)
    windows, overlap = {"time": 4, "latitude": 8, "longitude": 8}, {"time": 3}
    return Workload("validity", store, windows, {**overlap, "latitude": 4, "longitude": 4}, 32)


@dataclass
class Asking(Ours):
    """A dataset that is made with a condition; an epoch is making it."""

    ask: str = "counts"

    def ready(self, work: Workload) -> None:
        super().ready(work)
        self.work, self.data = work, work.opened()
        some = self.data.isel(time=slice(0, work.size("time")))
        work.dataset(some, where=self._where(some))  # what is imported late

    def open(self, work: Workload) -> None:
        """Nothing: it is open."""

    def expected(self) -> None:
        return None

    def _where(self, data: Any) -> Any:
        import xtorch_data as xtd

        (name,) = self.work.store.names
        if self.ask == "counts":
            return xtd.NotNull(name, min=LEAST)
        if self.ask == "function":
            return _Enough(name)
        windows = self.work.dataset(data).windows
        share = data[name].notnull().rolling(self.work.input_dims).mean()
        last = {
            dim: windows.first_steps(dim) + size - 1 for dim, size in self.work.input_dims.items()
        }
        return share.isel(last) >= LEAST

    def epoch(self) -> Iterator[Any]:
        data = self.data.isel(time=slice(0, STEPS)) if self.ask == "function" else self.data
        made = self.work.dataset(data, where=self._where(data))
        self.asked, self.kept = len(made.windows), made.plan.samples
        return iter(())

    def details(self) -> dict[str, Any]:
        return {"windows asked": self.asked, "of these kept": self.kept}


@dataclass(frozen=True)
class _Enough:
    name: str

    def __call__(self, window: Any) -> bool:
        return bool(window[self.name].notnull().mean() >= LEAST)


def compare(work: Workload) -> None:
    """Raise if the ways to ask do not give the same samples."""
    few = work.opened().isel(time=slice(0, STEPS))
    found = []
    for ask in ("counts", "function", "rolling"):
        way = Asking(ask, ask=ask)
        way.work = work
        found.append(work.dataset(few, where=way._where(few)).where)
    for each in found[1:]:
        np.testing.assert_array_equal(each.values, found[0].values)


def table_validity(quick: bool) -> Table:
    """Seconds until a dataset is made that leaves out what is not there."""
    work = make_windows(quick)
    work.store.make()
    compare(work)
    racing = {
        "counts": Asking("where=NotNull(…, min=0.7)", ask="counts"),
        "rolling": Asking("where=mask, a rolling mean of xarray", ask="rolling"),
        "function": Asking(f"where=function, of {STEPS} steps alone", ask="function"),
    }
    frame = race(racing, work, rounds(quick), check=False)
    frame["seconds for all windows"] = frame["seconds"] * work.samples / frame["windows asked"]
    frame["of a function's"] = (
        frame["seconds for all windows"] / frame["seconds for all windows"]["function"]
    )
    text = (
        f"{work.samples:,} windows of 4 × 8 × 8, stride 1 × 4 × 4, over {work.store.sizes['time']} "
        "fields of 181 × 360, of which a third is land; from the arguments to the dataset. Before "
        "it is timed, the samples that are kept are compared."
    )
    names = ["windows asked", "of these kept", "seconds", "seconds for all windows"]
    most = {"seconds for all windows": pd.Series({"counts": 10.0}).reindex(frame.index)}
    return costs("validity", text, frame, [*names, "of a function's", "peak, MiB"], most)
