"""What became of a worker process that gives no more batches."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Sequence
from typing import Any

from .batch import Batch

__all__ = ["batches_of_workers", "how_it_ended"]

# After a worker has died, until the system says how.
_REAPING_SECONDS = 1.0


def batches_of_workers(batches: Any) -> Generator[Batch, None, None]:
    """Batches of worker processes; if one has died, an error that says which, and of what."""
    try:
        yield from batches
    except (RuntimeError, OSError, EOFError) as error:  # torch's own, and of a connection cut off
        if "DataLoader worker process" in str(error):
            raise  # the error of a worker that lives
        how = _end_of_a_worker(batches._workers)
        if how is None:
            raise
        raise RuntimeError(how) from error


def _end_of_a_worker(workers: Sequence[Any]) -> str | None:
    """What became of the worker that has ended; None if none has."""
    end = time.monotonic() + _REAPING_SECONDS
    while time.monotonic() < end:
        try:
            for number, worker in enumerate(workers):
                if worker.exitcode:
                    return how_it_ended(number, worker)
            time.sleep(0.01)
        except RuntimeError:  # torch's handler of SIGCHLD has noticed, too
            continue
    return None


def how_it_ended(number: int, worker: Any) -> str:
    """What became of a worker."""
    exitcode = worker.exitcode
    if exitcode == -signal.SIGKILL:
        end = (
            "was killed (SIGKILL), most often because memory ran out: use fewer workers, a smaller "
            "memory= in each, or a smaller batch"
        )
    elif exitcode < 0:
        end = f"was ended by {signal.Signals(-exitcode).name}"
    else:
        end = f"ended with exit code {exitcode}; what it printed says why"
        if exitcode == 1 and worker._start_method != "fork":  # it has run the script once more
            end += (
                ". If that is of the bootstrapping phase, guard the script with "
                "`if __name__ == '__main__':`"
            )
    return f"worker {number} (process {worker.pid}) {end}"
