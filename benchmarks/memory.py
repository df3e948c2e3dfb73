"""Peak memory of an epoch over a store ten times the budget."""

from __future__ import annotations

from .process import Process
from .targets import BATCHES, MIB, SLACK, Target
from .workloads import make_workload

WORKLOAD = "forecast-16"
BATCH_SIZE = 8
EPOCHS = 2


def table(quick: bool) -> tuple[str, list[Target]]:
    """Peaks above imports, of the process tree, and what is allowed."""
    from . import report
    from .contenders import contenders

    workload = make_workload(WORKLOAD, quick)
    workload.store.make()
    memory = workload.store.nbytes // 10
    batch = BATCH_SIZE * workload.sample_nbytes
    text = (
        f"\n### memory\n\n{workload.name}, {workload.store.nbytes / MIB:,.0f} MiB, with `memory` "
        f"of {memory / MIB:.0f} MiB and batches of {batch / MIB:.0f} MiB; the highest resident "
        f"memory of the process tree in {EPOCHS} epochs, above what the first process took after "
        "its imports. Allowed in one process: memory + 4 batches + 200 MB."
        " With workers: that and the imports for each of them.\n\n"
    )
    kinds = contenders()
    found = []
    for name in ("OursInOrder", "Ours", "OursWorkers"):
        kind = kinds[name]
        options = {"memory": memory, "batch_size": BATCH_SIZE}
        with Process.of(kind, WORKLOAD, quick, **options) as process:
            for _ in range(EPOCHS):
                process.epoch()
            peak = process.above_imports
        allowed = memory + BATCHES * batch + SLACK
        if kind.workers:  # each has a budget and imports of its own
            allowed = kind.workers * (allowed + process.imported)
        what = f"{kind.title}: peak above imports, MiB"
        found.append(Target("memory", what, allowed / MIB, peak / MIB, at_most=True))
    return text + "".join(f"- {report.line(target)}\n" for target in found), found
