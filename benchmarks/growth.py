"""Private memory of the processes of a run over many epochs."""

from __future__ import annotations

import multiprocessing
import statistics
import time

import psutil

from .targets import MIB, Target
from .workloads import make_workload

WORKLOAD = "forecast-16"
WORKERS = 2
BATCH_SIZE = 8
EPOCHS = 50
SETTLED = 10  # epochs until caches of every kind are full
COMPARED = 5  # epochs whose median is compared with that of the last ones
PERCENT = 5


def table(quick: bool) -> tuple[str, list[Target]]:
    """Private memory after some epochs, and how much it grows."""
    from . import report

    work = make_workload(WORKLOAD, quick=True)  # growth is a matter of epochs, not of their size
    work.store.make()
    epochs = EPOCHS // 2 if quick else EPOCHS
    shown = [1, SETTLED, epochs // 2, epochs]
    body, found = [], []
    for workers in (0, WORKERS):
        for name, sizes in _measure(work, workers, epochs).items():
            early = statistics.median(sizes[SETTLED : SETTLED + COMPARED])
            growth = 100 * (statistics.median(sizes[-COMPARED:]) / early - 1)
            figures = [f"{sizes[epoch - 1] / MIB:,.0f}" for epoch in shown]
            body.append([str(workers), name, *figures, f"{growth:+.1f}"])
            what = f"{workers} workers, {name} process: growth of private memory, %"
            found.append(Target("growth", what, PERCENT, growth, at_most=True))
    columns = ["workers", "process", *(f"epoch {epoch}, MiB" for epoch in shown), "growth, %"]
    text = (
        f"\n### growth\n\n{work.name}, {work.store.nbytes / MIB:,.0f} MiB, {epochs} epochs in one "
        f"run, batches of {BATCH_SIZE}, `memory` of 128 MiB; private memory (resident and not "
        f"shared) after an epoch. Growth is that of the median of {COMPARED} epochs, from epoch "
        f"{SETTLED} to the last. Workers live on from epoch to epoch.\n\n"
    )
    return text + report.rows(columns, body), found


def _measure(work: object, workers: int, epochs: int) -> dict[str, list[int]]:
    """Private bytes of every process after each epoch; in a process that has done nothing else."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, workers, epochs, sender))
    process.start()
    sender.close()
    found: dict[str, list[int]] = receiver.recv()
    process.join()
    return found


def _run(work, workers, epochs, sender):  # type: ignore[no-untyped-def]
    import xtorch_data as xtd

    dataset = xtd.IterableDataset(
        xtd.open_zarr(work.store.path, consolidated=False),
        input_dims=work.input_dims,
        input_overlap=work.input_overlap,
        inputs=work.store.names,
        batch_size=BATCH_SIZE,
        shuffle=True,
        memory="128 MiB",
    )
    loader = xtd.DataLoader(dataset, workers, persistent_workers=bool(workers))
    me, found = psutil.Process(), {}
    for _ in range(epochs):
        for _batch in loader:
            pass
        _batch = None
        time.sleep(0.2)  # workers clear up after their last batch
        processes = {"training": me}
        if workers:
            pids = (worker.pid for worker in loader._iterator._workers)
            processes |= {f"worker {n}": psutil.Process(pid) for n, pid in enumerate(pids)}
        for name, process in processes.items():
            memory = process.memory_info()  # what is shared are files, and memory that batches use
            found.setdefault(name, []).append(memory.rss - memory.shared)
    sender.send(found)
