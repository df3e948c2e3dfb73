"""Settings of the property tests and the fixtures that several modules share."""

import contextlib
import gc
import glob
import multiprocessing.process
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

# A test process for each core: threads of torch's own would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import psutil
import pytest
import torch.utils.data
import zarr.core.sync
from strategies import EXAMPLES

hypothesis.settings.register_profile(
    "default",
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=[
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
        hypothesis.HealthCheck.function_scoped_fixture,
    ],
)
# In continuous integration the same examples run each time, and leave no database behind.
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("default"), derandomize=True, database=None
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# The fork server, which is started by whoever needs it first, imports torch once for all tests.
multiprocessing.set_forkserver_preload(["xtorch_data.loading.fork_server"])

# Started in the background, shells let interrupts be ignored, also in whatever tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    """Leave what is imported out of later collections, of which many tests ask for one."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Run the slow ones first, so that no process is left with one when the others have ended."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def no_processes(request, monkeypatch):
    """Fail a test that starts a process; those that do live in integration/."""
    if request.node.get_closest_marker("integration"):
        return

    def refuse(*args, **kwargs):
        pytest.fail("starts a process: it belongs to tests/integration/")

    begin = subprocess.Popen.__init__

    def unless_python(self, command, *args, **kwargs):  # libraries ask the system for a while
        first = command if isinstance(command, str | bytes) else [*command][0]
        if os.fsdecode(first) == sys.executable:
            refuse()
        begin(self, command, *args, **kwargs)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", unless_python)
    monkeypatch.setattr(os, "fork", refuse, raising=False)


@pytest.fixture(scope="session", autouse=True)
def no_workers_left():
    """Fail if the suite leaves a loader's worker behind, or shared memory of torch."""
    yield
    gc.collect()  # which ends the workers of loaders that nobody holds, one after the other
    deadline = time.monotonic() + 10.0
    while left := _left_of_loaders():
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}")
        time.sleep(0.05)


def _left_of_loaders():
    left = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() == "pt_data_worker":  # as torch calls them
                left.append(process)
    return left + glob.glob(f"/dev/shm/torch_{os.getpid()}_*")


@pytest.fixture
def as_worker(monkeypatch):
    """Make this process look like one worker of a ``torch.utils.data.DataLoader``.

    ``as_worker(1, 3)`` pretends to be worker 1 of 3; ``as_worker(0, 0)`` the main process.
    """

    def pretend(number, workers, dataset=None):
        info = None
        if workers:
            info = SimpleNamespace(id=number, num_workers=workers, seed=1234, dataset=dataset)
        # The module's global is what get_worker_info returns, wherever it was imported to.
        monkeypatch.setattr(torch.utils.data._utils.worker, "_worker_info", info)
        assert torch.utils.data.get_worker_info() is info

    return pretend


def _threads_of_zarr():
    """Threads of zarr's own loop, which grow in number as it likes and stay."""
    pool = getattr(zarr.core.sync.loop[0], "_default_executor", None)
    return set() if pool is None else pool._threads


@pytest.fixture
def no_new_threads():
    """Fail a test that leaves a thread behind, after a short grace.

    The fixture gives the function that checks, so that a test can ask more than once.
    """
    before = set(threading.enumerate())

    def check(grace=4.0):
        end = time.monotonic() + grace
        while left := set(threading.enumerate()) - before - _threads_of_zarr():
            if time.monotonic() > end:
                before.update(left)  # told once
                pytest.fail(f"threads left behind: {left}")
            left.pop().join(max(0, end - time.monotonic()))

    yield check
    check()
