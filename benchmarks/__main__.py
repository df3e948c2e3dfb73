"""`WORKLOAD=forecast QUICK=1 python -m benchmarks`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from . import costs, report
from .formats import table_formats
from .gpu import table_gpu
from .graphs import table_dask
from .race import say, table
from .rechunking import table_rechunk
from .workloads import GROUPS

RESULTS = Path(__file__).parent / "results.md"  # not kept; docs/benchmarks.md has the last ones
TABLES = {
    **{name: partial(table, name) for group in GROUPS.values() for name in group},
    "planning": costs.table_planning,
    "explain": costs.table_explain,
    "memory": costs.table_memory,
    "growth": costs.table_growth,
    "state": costs.table_state,
    "disk": costs.table_disk,
    "gpu": table_gpu,
    "rechunk": table_rechunk,
    "dask": table_dask,
    "formats": table_formats,
}


def main() -> None:
    """Run what WORKLOAD names, everything by default; print the tables, and keep them."""
    quick, wanted = bool(os.environ.get("QUICK")), os.environ.get("WORKLOAD") or ""
    chosen = GROUPS.get(wanted) or [name for name in TABLES if wanted in ("", name)]
    if not chosen:
        raise SystemExit(f"no workload {wanted!r}; there are {[*GROUPS, *TABLES]}")
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
