import pickle
import random
import time

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.loading import suggest
from xtorch_data.loading.suggest import Costs, NumWorkers, decide


def slow(sample):
    time.sleep(0.02)
    return sample


def drawing(sample):
    random.random(), np.random.random(), torch.rand(1)
    return sample


def two_sources(kind=xtd.IterableDataset, **kwargs):
    """Samples of which the part of the second source has a function."""
    labels = xr.date_range("2000-01-01", periods=400)
    first, second = (data().rename(name).assign_coords(time=labels) for name in "vw")
    sizes, options = {"time": 5, "x": -1}, {"transform": {"w": kwargs.pop("transform")}}
    if kind is xtd.IterableDataset:
        options |= {"batch_size": 4, "shuffle": True}
    return kind({"v": first, "w": second}, sizes, **options, **kwargs)


def data(steps=400):
    return xr.DataArray(np.arange(steps * 4.0).reshape(steps, 4), dims=("time", "x"), name="v")


def make(kind=xtd.IterableDataset, **kwargs):
    if kind is xtd.IterableDataset:
        kwargs = {"batch_size": 4, "shuffle": True} | kwargs
    return kind(data(), {"time": 5, "x": -1}, **kwargs)


@pytest.fixture(autouse=True)
def five_cores(monkeypatch):
    monkeypatch.setattr(suggest, "CPU_COUNT", 5)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


@pytest.mark.parametrize(
    ("costs", "batches", "cores", "ranks", "step", "number", "reason"),
    [
        # Functions in Python: a process for each core but the one that trains.
        ((0.100, 0.010), 99, 8, 1, None, 7, "8 cores but one"),
        ((0.100, 0.010), 99, 8, 2, None, 3, "8 cores for 2 ranks"),
        ((0.100, 0.010), 2, 8, 1, None, 2, "2 batches"),
        ((0.100, 0.010), 99, 1, 1, None, 0, "1 core: none is left"),
        ((0.100, 0.010), 99, 4, 4, None, 0, "4 cores for 4 ranks: none is left"),
        ((0.100, 0.010), 1, 2, 1, None, 1, "but one"),
        # No more than the training step needs.
        ((0.100, 0.010), 99, 8, 1, 0.050, 3, "keep up with a step of 50.0 ms"),
        ((0.100, 0.010), 99, 8, 1, 0.001, 7, "8 cores but one"),
        ((0.100, 0.010), 99, 8, 1, 0.200, 0, "threads keep up with a step of 200.0 ms"),
        # Reading and copying: threads do it.
        ((0.010, 0.100), 99, 8, 1, None, 0, "threads do that"),
        ((0.010, 0.100), 99, 8, 1, 0.060, 0, "threads do that"),
        # Hardly anything.
        ((0.0008, 0.0001), 99, 8, 1, None, 0, "another process"),
    ],
)
def test_the_number_follows_from_what_batches_cost(
    costs, batches, cores, ranks, step, number, reason
):
    found = decide(Costs(*costs), batches, cores, ranks, step)
    assert (int(found), type(found)) == (number, NumWorkers)
    assert reason in found.reason and "a batch takes" in found.reason


def test_it_is_an_integer_that_knows_why():
    number = NumWorkers(3, "because")
    assert (number, number + 1, f"{number}", str(number)) == (3, 4, "3", "3")
    assert repr(number) == "3 workers: because"
    assert xtd.DataLoader(make(), num_workers=NumWorkers(1, "because")).num_workers == 1
    assert pickle.loads(pickle.dumps(number)).reason == "because"


@pytest.mark.parametrize("made", [make, two_sources])
@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_slow_functions_ask_for_all_cores_but_one(kind, made):
    found = xtd.suggest_num_workers(made(kind, transform=slow), seconds=0.05, batch_size=4)
    assert found == 4 and "your functions hold" in found.reason


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_slow_functions_of_blocks_count(kind):
    assert xtd.suggest_num_workers(make(kind, preprocess=slow), seconds=0.01) is not None


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_without_functions_none_are_needed(kind):
    assert xtd.suggest_num_workers(make(kind), seconds=0.05) == 0


def test_blocks_read_ahead_are_shared_among_their_batches(tmp_path, monkeypatch):
    """Else a short run, which reads more than it gathers, would blame reading."""
    ds = data(40_000).to_dataset().chunk(time=10_000)
    ds["v"] = ds["v"].map_blocks(lambda block: (time.sleep(0.05), block)[1], template=ds["v"])
    dataset = xtd.IterableDataset(ds, {"time": 5, "x": -1}, transform=slow, batch_size=4)
    assert xtd.suggest_num_workers(dataset, seconds=0.03) == 4


def global_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_the_dataset_goes_on_as_if_nothing_had_been_measured(kind):
    dataset, untouched = make(kind, transform=drawing), make(kind, transform=drawing)
    if kind is xtd.IterableDataset:
        for each in (dataset, untouched):
            batches = iter(each)
            next(batches)
            batches.close()
        before = dataset.state_dict(), str(dataset.stats())
    states = global_states()
    xtd.suggest_num_workers(dataset, seconds=0.01)
    assert states == global_states()
    assert dataset.epoch == untouched.epoch
    if kind is xtd.IterableDataset:
        assert before == (dataset.state_dict(), str(dataset.stats()))
        order = [batch.index.tolist() for batch in dataset]
        assert order == [batch.index.tolist() for batch in untouched]


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    dataset = make(transform=slow, rank=1, world_size=2)
    assert xtd.suggest_num_workers(dataset, seconds=0.01) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert xtd.suggest_num_workers(dataset, seconds=0.01) == 4
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert xtd.suggest_num_workers(dataset, seconds=0.01) == 4


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="IterableDataset or MapDataset, not list"):
        xtd.suggest_num_workers([1])
    for wrong in ({"seconds": 0}, {"step_seconds": -1.0}, {"batch_size": None}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            xtd.suggest_num_workers(make(), **wrong)
