"""States of one worker of one rank, which a loader of another package stops and sets going."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from . import resume, states
from .intervals import total
from .plan import Plan
from .resume import WorkerProgress

__all__ = ["progress_of", "require_progress", "state_of_worker"]


def progress_of(
    plan: Plan, rank: int, world_size: int, worker: int, num_workers: int
) -> WorkerProgress:
    """One worker of one rank, which has yielded nothing yet."""
    size = plan.batch_size or 1
    return WorkerProgress(rank, world_size, worker, num_workers, size, plan.uneven, plan.drop_last)


def state_of_worker(plan: Plan, epoch: int, worker: WorkerProgress) -> dict[str, Any]:
    """A JSON-able state of one worker alone."""
    state = states.as_state(epoch, plan.walked(epoch), plan.fingerprint())
    return {**state, "part": list(astuple(worker))}


def require_progress(plan: Plan, epoch: int, worker: WorkerProgress) -> None:
    """Raise ValueError if a worker has yielded more batches than it has."""
    mine = plan.intervals(epoch, worker.rank, worker.world_size, worker.worker, worker.num_workers)
    resume.require_batches(total(mine), worker)
