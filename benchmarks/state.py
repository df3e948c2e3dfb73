"""What it costs to take a state at every batch."""

from __future__ import annotations

import json
import statistics
import time

from .targets import Target
from .workloads import make_workload

WORKLOAD = "forecast-16"
ROUNDS = 5
PERCENT, BYTES = 1, 4096


def table(quick: bool) -> tuple[str, list[Target]]:
    """Share of an epoch that goes into states, and how large they are."""
    import xtorch_data as xtd

    from . import report

    work = make_workload(WORKLOAD, quick)
    work.store.make()
    body, found = [], []
    for what, resumed in (("a whole epoch", 0), ("an epoch that was resumed 3 times", 3)):
        shares, sizes = [], []
        for _ in range(ROUNDS):
            dataset = xtd.IterableDataset(
                xtd.open_zarr(work.store.path, consolidated=False),
                input_dims=work.input_dims,
                input_overlap=work.input_overlap,
                inputs=work.store.names,
                batch_size=work.batch_size,
                shuffle=True,
            )
            loader = xtd.DataLoader(dataset)
            for _ in loader:  # memory is in use from here on
                pass
            for taken in range(resumed):
                stream = iter(loader)
                for _ in range(taken + 1):
                    next(stream)
                loader.load_state_dict(loader.state_dict())
            taking, begin, states = 0.0, time.perf_counter(), []
            for _ in loader:
                start = time.perf_counter()
                states.append(loader.state_dict())
                taking += time.perf_counter() - start
            shares.append(100 * taking / (time.perf_counter() - begin))
            sizes.append(max(len(json.dumps(state)) for state in states))
        share, size = statistics.median(shares), max(sizes)
        each = f"{1e6 * taking / len(states):,.0f}"
        body.append([what, str(len(states)), each, f"{share:.2f}", str(size)])
        found.append(Target("state", f"{what}: share of its time, %", PERCENT, share, at_most=True))
        found.append(Target("state", f"{what}: bytes of a state", BYTES, size, at_most=True))
    columns = ["", "batches", "a state, µs", "share of the epoch, %", "largest, bytes as JSON"]
    text = (
        f"\n### state\n\n{work.name}, batches of {work.batch_size}, `loader.state_dict()` after "
        f"every batch; medians of {ROUNDS} epochs.\n\n"
    )
    return text + report.rows(columns, body), found
