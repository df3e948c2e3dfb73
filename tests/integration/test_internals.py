"""Private names of torch and Python, tried by what they are for."""

import subprocess
import sys

import torch.utils.data

from xtorch_data.processes.internals import collate_with, end_workers_of, is_fork, workers_of


def test_torch_collates_a_type_as_it_was_taught():
    class Own:
        pass

    collate_with(Own, lambda batch, *, collate_fn_map: len(batch))
    assert torch.utils.data.default_collate([Own(), Own()]) == 2


def test_workers_of_a_loader_are_found_and_ended():
    loader = torch.utils.data.DataLoader(range(4), num_workers=2, multiprocessing_context="fork")
    batches = iter(loader)
    workers = list(workers_of(batches))
    assert len(workers) == 2 and all(map(is_fork, workers))
    assert all(worker.is_alive() for worker in workers)
    end_workers_of(batches)
    assert not any(worker.is_alive() for worker in workers)


SCRIPT = """
import threading
from concurrent.futures import ThreadPoolExecutor
from xtorch_data.processes.internals import before_threads_are_awaited, let_nobody_await

pool, begun = ThreadPoolExecutor(1), threading.Event()


def wait():
    begun.set()
    threading.Event().wait()


def end():
    [thread] = pool._threads
    let_nobody_await(thread)
    print("before")


starter = threading.Thread(target=lambda: pool.submit(wait), daemon=True)  # as its threads are
starter.start()
starter.join()
begun.wait()
before_threads_are_awaited(end)
"""


def test_the_interpreter_ends_though_a_thread_goes_on_that_nobody_awaits():
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100
    )
    assert (found.returncode, found.stdout) == (0, "before\n"), found.stderr
