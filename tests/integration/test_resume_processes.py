"""States of loaders whose workers are processes."""

import json

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd


def make(memory="2 kB", **kwargs):
    data = xr.Dataset({"v": (("time", "x"), np.arange(240.0).reshape(80, 3))}).chunk(time=7)
    arguments = {"batch_size": 4, "shuffle": True, "seed": 5, "memory": memory} | kwargs
    return xtd.IterableDataset(data, {"time": 4, "x": -1}, {"time": 3}, inputs="v", **arguments)


@pytest.mark.parametrize("persistent", [False, True])
def test_the_loader_goes_on_where_its_workers_were(persistent):
    def loader(workers):
        keep = {"persistent_workers": persistent} if workers else {}
        return xtd.DataLoader(
            make(), num_workers=workers, multiprocessing_context="fork" if workers else None, **keep
        )

    first = loader(2)
    batches = iter(first)
    seen = [n for _ in range(7) for n in next(batches).index.tolist()]
    state = json.loads(json.dumps(first.state_dict()))
    del batches
    second = loader(1)
    second.load_state_dict(state)
    assert len(second) == 13
    batches = iter(second)
    seen += [n for _ in range(4) for n in next(batches).index.tolist()]
    state = second.state_dict()
    del batches
    third = loader(0)
    third.load_state_dict(state)
    assert len(third) == 9  # of which torch must not remind us in the next epoch
    seen += [n for batch in third for n in batch.index.tolist()]
    assert sorted(seen) == list(range(77))
    assert sorted(n for batch in third for n in batch.index.tolist()) == list(range(77))
    first.load_state_dict(state)  # also a loader whose workers live on
    assert sorted(n for batch in first for n in batch.index.tolist()) == sorted(
        set(range(77)) - set(seen[:44])
    )
