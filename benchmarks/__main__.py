"""`WORKLOAD=forecast QUICK=1 python -m benchmarks`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from . import chunks, costs, report
from .cores import table_cores
from .events import table_events
from .formats import table_formats
from .gpu import table_gpu
from .mixture import table_mixture
from .pipelines import table_pipelines
from .predictions import table_predictions
from .race import say
from .scenes import table_scenes
from .sources import table_sources
from .speed import table_speed
from .validity import table_validity
from .workloads import NAMES

RESULTS = Path(__file__).parent / "results.md"  # not kept; docs/benchmarks.md has the last ones
TABLES = {
    **{name: partial(table_speed, name) for name in NAMES},
    "planning": costs.table_planning,
    "explain": costs.table_explain,
    "memory": costs.table_memory,
    "growth": costs.table_growth,
    "state": costs.table_state,
    "disk": costs.table_disk,
    "gpu": table_gpu,
    "cores": table_cores,
    "pipelines": table_pipelines,
    "rechunk": chunks.table_rechunk,
    "sources": table_sources,
    "validity": table_validity,
    "events": table_events,
    "scenes": table_scenes,
    "predictions": table_predictions,
    "mixture": table_mixture,
    "dask": chunks.table_dask,
    "formats": table_formats,
}


def main() -> None:
    """Run what WORKLOAD names, everything by default; print the tables, and keep them."""
    quick, wanted = bool(os.environ.get("QUICK")), os.environ.get("WORKLOAD") or ""
    chosen = [name for name in TABLES if wanted in ("", name, name.split("-")[0])]
    if not chosen:
        raise SystemExit(f"no workload {wanted!r}; there are {[*TABLES]}")
    found: list[report.Target] = []
    with RESULTS.open("w") as file:

        def put(text: str) -> None:
            for each in (file, sys.stdout):
                print(text, file=each, flush=True, end="")

        put(report.header(wanted, quick))
        for name in chosen:
            text, targets = TABLES[name](quick)
            put(text)
            found += targets
        put(report.summary(found))
    say(f"kept in {RESULTS}")


if __name__ == "__main__":
    main()
