"""What becomes of an epoch when processes are killed: of a training run, and of a worker."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap

import psutil
import pytest
from helpers import assert_once, in_a_process

TRAINING = """
    import json, os, sys
    from helpers import numbered
    import xtorch_data as xtd

    checkpoint, workers = sys.argv[1], int(sys.argv[2])
    dataset = xtd.IterableDataset(
        numbered(400).chunk(time=30), {"time": 1}, batch_size=4, shuffle=True, memory="2 kB"
    )
    loader = xtd.DataLoader(
        dataset, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    trained = []
    if os.path.exists(checkpoint):
        saved = json.load(open(checkpoint))
        trained = saved["trained"]
        loader.load_state_dict(saved["loader"])
    for step, batch in enumerate(loader):
        trained += batch.index.tolist()
        if step % 3 == 0:  # the state of the loader, beside what stands for the model
            with open(checkpoint + ".part", "w") as file:
                json.dump({"trained": trained, "loader": loader.state_dict()}, file)
            os.replace(checkpoint + ".part", checkpoint)
        print(step, flush=True)
        sys.stdin.readline()  # it goes on when it is told to, or when nobody is there to tell it
    print(json.dumps(trained), flush=True)
"""


def start_training(checkpoint, workers):
    with checkpoint.with_suffix(".stderr").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(TRAINING), str(checkpoint), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )


def train_a_batch(run, checkpoint):
    if not run.stdout.readline():
        errors = checkpoint.with_suffix(".stderr").read_text()
        pytest.fail(f"it ended with {run.wait(60)}: {errors}")
    run.stdin.write("\n")
    run.stdin.flush()


@pytest.mark.slow
def test_a_run_that_is_killed_twice_trains_on_every_sample_once(tmp_path):
    """Each time at some batch, and restarted from the latest checkpoint with other workers."""
    checkpoint = tmp_path / "checkpoint.json"
    orphans = []
    for workers in (2, 1):
        with start_training(checkpoint, workers) as run:
            for _ in range(random.randint(1, 40)):
                train_a_batch(run, checkpoint)
            orphans += psutil.Process(run.pid).children(recursive=True)
            os.kill(run.pid, signal.SIGKILL)
        assert run.returncode == -signal.SIGKILL
    assert 0 < len(json.loads(checkpoint.read_text())["trained"]) < 400
    with start_training(checkpoint, 0) as run:
        run.stdin.close()
        *_, last = run.stdout
    assert_once(json.loads(last), 400)
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive  # workers notice that nobody waits for them any more


KILLED = """
    import signal, sys
    import psutil, torch
    from helpers import numbered
    import xtorch_data as xtd

    def train(kind, context):
        dataset = xtd.IterableDataset(numbered(2000), {"time": 1}, batch_size=4)
        options = {"num_workers": 2, "multiprocessing_context": context}
        if kind == "ours":
            loader = xtd.DataLoader(dataset, **options)
        else:
            loader = torch.utils.data.DataLoader(dataset, batch_size=None, **options)
        batches = iter(loader)
        next(batches)
        victim = next(  # neither the fork server nor what tracks shared memory
            process.pid
            for process in psutil.Process().children(recursive=True)
            if not process.children() and "resource" "_tracker" not in " ".join(process.cmdline())
        )
        psutil.Process(victim).send_signal(signal.SIGKILL)
        try:
            for _ in batches:
                pass
        except (RuntimeError, OSError, EOFError) as error:
            assert kind == "plain" or f"process {victim}" in str(error), (victim, error)
            print(kind, type(error).__name__, error)

    if __name__ == "__main__":
        train("ours", "fork")
        train("plain", "fork")
        train("ours", "forkserver")
"""


@pytest.mark.slow
def test_a_worker_that_is_killed_is_named_and_not_waited_for():
    run = in_a_process(KILLED, warnings_as_errors=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ours", "plain", "ours"]
    for ours in (lines[0], lines[2]):
        assert ours.startswith("ours RuntimeError worker ")
        assert "was killed (SIGKILL)" in ours
        assert "memory" in ours
