"""Whatever ends a training process, nothing that it has made is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import uuid

import pytest
import torch
from helpers import numbered

import xtorch_data as xtd

TRAINING = """
    import os, signal, sys, time
    import torch
    from helpers import numbered
    import xtorch_data as xtd

    def stuck(sample):  # as in a read that nobody answers
        while torch.utils.data.get_worker_info() and int(sample.to_array().max()) >= 8:
            time.sleep(3600)
        return sample

    def train(method, ending):
        ds, options = numbered(400), {"multiprocessing_context": method, "num_workers": 1}
        stream = xtd.IterableDataset(ds, {"time": 1}, batch_size=4)
        plain = torch.utils.data.DataLoader(
            xtd.MapDataset(ds, {"time": 1}, transform=stuck), batch_size=4, **options
        )
        loaders = [xtd.DataLoader(stream, persistent_workers=True, **options)]
        if ending != "interrupt":
            loaders.append(plain)
        if method != "spawn":  # which takes long
            loaders.append(torch.utils.data.DataLoader(stream, batch_size=None, **options))
        running = [iter(loader) for loader in loaders]
        held = [next(batches) for batches in running]
        print("ready", flush=True)
        if sys.stdin.readline() == "exit\\n":
            os._exit(3)
        for batch in running[0]:
            time.sleep(0.1)

    if __name__ == "__main__":
        train(*sys.argv[1:])
"""


def processes_with(token):
    """Those that have it in their environment, which all descendants inherit."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                if token.encode() in file.read():
                    found.append(int(process))
        except OSError:  # ended, or another user's
            continue
    return found


def names_in_shared_memory(processes):
    found = set()
    for process in processes:
        with open(f"/proc/{process}/maps") as file:
            lines = [line.rstrip("\n") for line in file]
        found |= {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line}
    return {name for name in found if not name.endswith(" (deleted)")}


@pytest.fixture
def short_folder():
    """A folder whose path leaves room for the names of sockets, which have 108 bytes in all."""
    with tempfile.TemporaryDirectory() as folder:
        yield folder


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")
@pytest.mark.parametrize(
    ("method", "ending"),
    [("fork", "kill"), ("forkserver", "kill"), ("spawn", "exit"), ("forkserver", "interrupt")],
)
def test_nothing_is_left_of_a_training_process(tmp_path, method, ending, short_folder):
    token = uuid.uuid4().hex
    script, folder = tmp_path / "training.py", short_folder
    script.write_text(textwrap.dedent(TRAINING))
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, script, method, ending],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path, "TOKEN": token, "TMPDIR": folder},
        start_new_session=True,
    ) as training:
        assert training.stdout.readline() == "ready\n", training.stderr.read()
        began = processes_with(token)
        assert len(began) >= 2
        names = names_in_shared_memory(began)
        if ending == "kill":
            training.kill()
        elif ending == "exit":
            training.stdin.write("exit\n")
            training.stdin.flush()
        else:
            training.stdin.write("go on\n")
            training.stdin.flush()
            os.killpg(training.pid, signal.SIGINT)  # as a terminal sends it
        training.wait(30)
        deadline = time.monotonic() + 30
        while left := processes_with(token):
            if time.monotonic() > deadline:
                os.killpg(training.pid, signal.SIGKILL)
                pytest.fail(f"processes {left} are left of {began}")
            time.sleep(0.05)
        said = training.stderr.read()
    assert not [name for name in names if os.path.exists(name)]
    assert os.listdir(folder) == []
    if ending == "interrupt":
        assert said.count("Traceback") == 1, said
        assert said.endswith("\nKeyboardInterrupt\n")
        assert len(said.splitlines()) < 20


def watches(_):
    return "xtorch_data-orphans" in [thread.name for thread in threading.enumerate()]


class Watches(torch.utils.data.Dataset):
    """Whether workers are watched, before and after they use something."""

    def __init__(self, used=None):
        self.used = used

    def __len__(self):
        return 1

    def __getitem__(self, index):
        found = watches(index)
        if self.used is not None:
            next(iter(self.used))
        return found, watches(index)


def test_only_forks_that_use_our_datasets_are_watched():
    stream = xtd.IterableDataset(numbered(4), {"time": 1})
    samples = xtd.MapDataset(numbered(4), {"time": 1})
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert not pool.apply(watches, (0,))
    for used, found in [(None, False), (stream, True), (samples, True)]:
        loader = torch.utils.data.DataLoader(
            Watches(used), batch_size=None, num_workers=1, multiprocessing_context="fork"
        )
        assert list(loader) == [[False, found]]
    assert not watches(0)
