"""Mixtures in worker processes, of our loader and of torch's."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd


def mixed(stop="first"):
    fine = xr.DataArray(np.arange(70.0), {"time": np.arange(70)}, "time", "fine")
    coarse = xr.DataArray(np.arange(40.0) + 1000, {"time": np.arange(40)}, "time", "coarse")
    how = {"shuffle": True, "uneven": "pad"}
    members = {
        "fine": xtd.IterableDataset(fine, {"time": 3}, {"time": 2}, batch_size=4, **how),
        "coarse": xtd.IterableDataset(coarse, {"time": 5}, {"time": 4}, batch_size=3, **how),
    }
    return xtd.mix(members, {"fine": 2, "coarse": 3}, stop)


def origins(batches):
    return [batch.origin for batch in batches]


def numbers(batches):
    return sorted((batch.origin, number) for batch in batches for number in batch.index.tolist())


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_loader_yields_the_same_turns(stop, num_workers):
    alone, loader = mixed(stop), xtd.DataLoader(mixed(stop), num_workers=num_workers)
    assert len(loader) == len(alone)
    for _ in range(2):
        ours, theirs = list(loader), list(alone)
        assert origins(ours) == origins(theirs)
        for batch in ours:
            first = 1000 if batch.origin == "coarse" else 0
            assert np.array_equal(batch.to_xarray("x")["time"] + first, batch.x)
        if num_workers == 1:
            assert [batch.index.tolist() for batch in ours] == [
                batch.index.tolist() for batch in theirs
            ]


@pytest.mark.parametrize("stop", ["first", "all"])
def test_torchs_loader_yields_the_same_batches(stop):
    alone, dataset = mixed(stop), mixed(stop)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context="forkserver"
    )
    for _ in range(2):
        ours, theirs = list(loader), list(alone)
        assert origins(ours) == origins(theirs)
        assert numbers(ours) == numbers(theirs)
    with pytest.raises(RuntimeError, match=r"xtorch_data\.DataLoader"):
        list(torch.utils.data.DataLoader(AsksForStates(dataset), batch_size=None, num_workers=1))


class AsksForStates(torch.utils.data.IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        yield self.dataset.state_dict()


def test_a_loader_goes_on_with_other_workers():
    loader = xtd.DataLoader(mixed(), num_workers=3)
    batches = iter(loader)
    first = [next(batches) for _ in range(7)]
    state = json.loads(json.dumps(loader.state_dict()))
    rest = list(batches)
    other = xtd.DataLoader(mixed(), num_workers=0)
    other.load_state_dict(state)
    found = list(other)
    assert origins(found) == origins(rest)
    samples = numbers([*first, *found])
    assert len(set(samples)) == len(samples)
    same = xtd.DataLoader(mixed(), num_workers=3)
    same.load_state_dict(state)
    assert numbers(same) == numbers(rest)


def test_a_loader_tells_what_it_is():
    loader = xtd.DataLoader(mixed(), num_workers=2)
    assert "Mixture of 2 datasets" in repr(loader)
    assert loader._repr_html_()
    assert loader.num_workers == 2
    assert loader.explain().datasets["fine"].num_workers == 1
    assert xtd.verify(loader)
    with pytest.raises(TypeError, match="batch_size"):
        xtd.DataLoader(mixed(), batch_size=3)
    loader = xtd.DataLoader(mixed(), augment=lambda batch: batch.replace(x=-batch.x))
    batch = next(iter(loader))
    assert batch.origin == "coarse"
    assert (batch.x <= -1000).all()


def test_a_resumed_epoch_of_one_dataset_comes_again_as_a_whole_from_workers_that_live_on():
    alone, same = (mixed().datasets["fine"] for _ in range(2))
    loader = xtd.DataLoader(same, num_workers=2, persistent_workers=True)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    state = loader.state_dict()
    rest = numbers(batches)
    loader.load_state_dict(state)
    assert numbers(loader) == rest
    same.set_epoch(0)
    assert numbers(loader) == numbers(alone)
    same.load_state_dict(state)  # of the dataset itself
    assert numbers(loader) == rest


@pytest.mark.parametrize("stop", ["first", "all"])
def test_a_resumed_epoch_comes_again_as_a_whole_from_workers_that_live_on(stop):
    alone, loader = mixed(stop), xtd.DataLoader(mixed(stop), num_workers=2, persistent_workers=True)
    batches = iter(alone)
    for _ in range(4):
        next(batches)
    loader.load_state_dict(json.loads(json.dumps(alone.state_dict())))
    assert numbers(loader) == numbers(batches)
    assert numbers(loader) == numbers(alone)
    for dataset in (alone, loader.dataset):
        dataset.set_epoch(0)
    assert numbers(loader) == numbers(alone)
