"""The loader's workers: fresh and forked ones, their seeds, errors and ends."""

import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.processes.workers import batches_of_workers

pytestmark = pytest.mark.compat


def make(**kwargs):
    data = xr.DataArray(
        np.arange(60.0).reshape(20, 3), dims=("time", "x"), coords={"time": np.arange(20)}, name="v"
    )
    return xtd.IterableDataset(data, {"time": 4, "x": -1}, {"time": 3}, batch_size=4, **kwargs)


@pytest.fixture(scope="module")
def seen_by():
    """Epochs that the workers of a plain loader see, by the order of their batches."""

    def orders(dataset, epochs, context, persistent=False, seed=None, **kwargs):
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=None,
            num_workers=2,
            multiprocessing_context=context,
            persistent_workers=persistent,
            timeout=60,
        )
        found = []
        for _ in range(epochs):
            if seed is not None:
                torch.manual_seed(seed)
            found.append([n for batch in loader for n in batch.index.tolist()])
            assert sorted(found[-1]) == list(range(17))
        return found

    return orders


def test_epochs_go_on_though_the_same_seed_is_set_before_each(seen_by):
    dataset = make(shuffle=True)
    orders = seen_by(dataset, 3, "fork", seed=0)
    assert len(set(map(tuple, orders))) == 3
    assert dataset.epoch == 3


def test_a_copy_of_a_dataset_serves_forked_workers_and_counts_for_itself(seen_by):
    dataset = make(shuffle=True)
    dataset.set_epoch(4)
    for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
        assert other.epoch == 4
        seen_by(other, 2, "fork")
        assert (other.epoch, dataset.epoch) == (6, 4)


def test_steps_of_a_list_come_from_workers_with_their_labels():
    dataset = make(shuffle=True).replace(inputs=xtd.Select("v", time=[3, 0, 1], x=[0, 2]))
    found = []
    for batch in xtd.DataLoader(dataset, num_workers=2):
        labels = batch.to_xarray()
        for place, first in enumerate(batch.index.tolist()):
            times = np.array([3, 0, 1]) + first
            np.testing.assert_array_equal(batch.x[place], 3 * times[:, None] + [0, 2])
            np.testing.assert_array_equal(labels["time"][place], times)
            found.append(first)
    assert sorted(found) == list(range(17))


def test_labels_outlive_the_dataset_they_were_copied_from():
    dataset = make()
    other = copy.deepcopy(dataset)
    del dataset
    gc.collect()
    loader = torch.utils.data.DataLoader(
        other, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=60
    )
    for batch in loader:
        assert batch.to_xarray()["time"].dims == ("sample", "time")


def test_two_iterators_of_one_loader_are_two_epochs():
    loader = xtd.DataLoader(make(shuffle=True), num_workers=2, multiprocessing_context="fork")
    first, second = iter(loader), iter(loader)
    orders = [[n for batch in each for n in batch.index.tolist()] for each in (first, second)]
    assert [sorted(order) for order in orders] == [list(range(17))] * 2
    assert orders[0] != orders[1]


def _rank(rank, dataset, store, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    found = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(2):
            found.append([n for batch in dataset for n in batch.index.tolist()])
    results.put((rank, found, [str(each.message) for each in warned]))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_ranks_that_are_given_one_dataset_share_each_epoch(context, tmp_path):
    """Made before the process group, sent to its ranks: each counts epochs for itself."""
    start = torch.multiprocessing.get_context(context)
    results = start.Queue()
    dataset = make(shuffle=True, uneven="keep")
    ranks = [
        start.Process(target=_rank, args=(rank, dataset, tmp_path / "store", results))
        for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    found, told = {}, {}
    for _ in ranks:
        rank, found[rank], told[rank] = results.get(timeout=90)
    for rank in ranks:
        rank.join(30)
        assert rank.exitcode == 0
    for messages in told.values():  # once, and of both epochs
        assert len([each for each in messages if "rank 1 has 3 batches" in each]) == 1
    for epoch in range(2):
        assert sorted(found[0][epoch] + found[1][epoch]) == list(range(17))
    assert found[0][0] != found[0][1]
    assert dataset.epoch == 0


def _seed(sample):
    """The global seed of the worker, instead of data."""
    return xr.full_like(sample, torch.initial_seed() % 2**40, dtype="int64")


def test_global_seeds_differ_by_rank_worker_and_epoch_and_come_again():
    def seeds(rank):
        dataset = make(transform=_seed, rank=rank, world_size=2)
        loader = xtd.DataLoader(dataset, num_workers=2, multiprocessing_context="fork")
        return [{int(batch.x[0, 0, 0]) for batch in loader} for _ in range(2)]

    found = seeds(0) + seeds(1)
    assert [len(epoch) for epoch in found] == [2, 2, 2, 2]  # one of each worker
    assert len(set().union(*found)) == 8
    assert found == seeds(0) + seeds(1)


def _begin(worker):
    torch.manual_seed(1234 + worker)


def test_what_is_called_in_workers_may_be_set_after_the_loader_is_made():
    """As Lightning does."""
    loader = xtd.DataLoader(make(transform=_seed), num_workers=1, multiprocessing_context="fork")
    loader.worker_init_fn = _begin
    for _ in range(2):
        assert {int(batch.x[0, 0, 0]) for batch in loader} == {1234}


def test_an_error_in_a_worker_keeps_its_type():
    loader = xtd.DataLoader(
        make(transform=_fail), num_workers=1, multiprocessing_context="fork", timeout=60
    )
    with pytest.raises(OSError, match="no space"):
        list(loader)


def _fail(sample):
    raise OSError("no space left")


class OfMessage(Exception):
    message = "one that torch would give an argument of this name"


def _fail_with(kind):
    class Local(Exception):
        pass

    class TakesTwo(Exception):
        def __init__(self, one, two):
            super().__init__(one, two)

    def fail(sample):
        if kind == "local":
            raise Local("broken")
        raise TakesTwo("broken", 2) if kind == "two" else OfMessage("broken")

    return fail


@pytest.mark.parametrize("kind", ["local", "two", "message"])
@pytest.mark.parametrize("how", ["stream", "samples", "plain"])
def test_an_error_that_cannot_be_sent_is_told_and_the_loader_goes_on(kind, how):
    """If its class cannot be pickled, torch's worker sends nothing, which is waited for."""
    options = {"num_workers": 1, "multiprocessing_context": "fork", "timeout": 60}
    if how == "stream":
        loader = xtd.DataLoader(make(transform=_fail_with(kind)), **options)
    else:
        samples = xtd.MapDataset(
            make()._inside.definition.data, {"time": 4}, transform=_fail_with(kind)
        )
        loader = (torch.utils.data if how == "plain" else xtd).DataLoader(samples, **options)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"(?s)in DataLoader worker.*in fail.*broken"):
            list(loader)


class Broken:
    """An iterator of torch that raises, and its workers."""

    def __init__(self, exitcode):
        self._workers = [SimpleNamespace(pid=12, exitcode=exitcode, _start_method="fork")]

    def __iter__(self):
        raise RuntimeError("Caught RuntimeError in DataLoader worker process 0.")


@pytest.mark.parametrize(
    ("exitcode", "message"), [(None, "Caught"), (0, "Caught"), (-9, "worker 0 .* was killed")]
)
def test_whether_a_worker_has_ended_is_not_told_by_what_an_error_says(exitcode, message):
    with pytest.raises(RuntimeError, match=message):
        list(batches_of_workers(Broken(exitcode)))


OF_THE_USER = """
import multiprocessing, signal
from helpers import numbered
import xtorch_data as xtd

def tell(connection):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    connection.send((signal.SIGINT in blocked, default))

if __name__ == "__main__":
    dataset = xtd.IterableDataset(numbered(3), {"time": 1})
    found = len(list(xtd.DataLoader(dataset, num_workers=1)))
    start = multiprocessing.get_context("forkserver")
    here, there = start.Pipe()
    start.Process(target=tell, args=(there,)).start()
    print(found, *here.recv())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs masks of signals")
def test_other_processes_of_the_fork_server_hear_interrupts(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(OF_THE_USER)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.stdout == "3 False True\n", run.stderr


# ---------------------------------------------------------------------------------------------
# Functions of batches, which the main process calls


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("kind", ["stream", "samples"])
def test_batches_of_workers_are_flipped_as_those_of_none(kind, persistent):
    """By number of the sample: workers have the batches of a stream in an order of their own."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {"v": (("time", "x"), rng.normal(3, 2, (20, 6)).astype("f4"))},
        coords={"time": np.arange(20), "x": np.arange(6) * 0.5},
    )
    samples = xtd.MapDataset(ds, {"x": 3}, preprocess=xtd.Normalize.fit(ds))
    flip = xtd.RandomFlip("x", signs={"v": "x"})
    order = {"sampler": range(40)} if kind == "samples" else {"shuffle": True}

    def epochs(**workers):
        loader = xtd.DataLoader(samples, batch_size=4, augment=flip, **order, **workers)
        for _ in range(2):
            found = {}
            for batch in loader:
                labels = batch.to_xarray()["x"].values
                rows = zip(batch.index.tolist(), batch.x, labels, strict=True)
                found.update((number, each) for number, *each in rows)
            yield found

    workers = epochs(num_workers=2, persistent_workers=persistent)
    turned = []
    for ours, theirs in zip(workers, epochs(), strict=True):
        assert ours.keys() == theirs.keys() == set(range(40))
        for number, (values, labels) in ours.items():
            assert torch.equal(values, theirs[number][0])
            assert np.array_equal(labels, theirs[number][1])
        turned.append([labels[0] > labels[1] for _, (_, labels) in sorted(ours.items())])
    assert turned[0] != turned[1] and 0 < sum(turned[0]) < 40


def test_epochs_of_a_fixed_size_go_on_in_workers():
    a = xr.DataArray(np.arange(60.0), dims="time", name="a")
    samples = xtd.MapDataset(a, {"time": 3}, {"time": 2})
    given = {"batch_size": 5, "shuffle": True, "epoch_size": 20}
    loader = xtd.DataLoader(samples, num_workers=2, persistent_workers=True, **given)
    alone = xtd.DataLoader(samples, **given)
    assert len(loader) == 4
    for _ in range(4):
        ours, theirs = (
            sorted(number for batch in each for number in batch.index.tolist())
            for each in (loader, alone)
        )
        assert ours == theirs


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("loader", [xtd.DataLoader, torch.utils.data.DataLoader])
def test_workers_go_on_to_the_next_phase_of_a_schedule(loader, persistent):
    a = xr.DataArray(np.arange(60.0), {"time": np.arange(60)}, "time", "a")
    steps = xtd.Schedule({0: slice(3, 4), 1: slice(3, 6)})
    samples = xtd.MapDataset(
        a, {"time": 6}, {"time": 5},
        inputs=xtd.Select("a", time=slice(0, 3)), targets=xtd.Select("a", time=steps),
    )  # fmt: skip
    dataset = xtd.IterableDataset(samples, batch_size=5, shuffle=True)
    given = {"num_workers": 2, "persistent_workers": persistent}
    if loader is not xtd.DataLoader:
        given |= {"batch_size": None, "multiprocessing_context": "forkserver"}
    loads = loader(dataset, **given)

    def lengths():
        found = set()
        for batch in loads:
            found.add(batch.y.shape[1])
            times = batch.to_xarray("y")["time"].values
            assert np.array_equal(times, batch.y.numpy())  # labels of the same phase
        return found

    assert [lengths() for _ in range(3)] == [{1}, {3}, {3}]
    dataset.set_epoch(0)
    assert [lengths() for _ in range(2)] == [{1}, {1}]
