"""Samples around events in worker processes."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import xtorch_data as xtd

pytestmark = pytest.mark.filterwarnings("ignore:.* of centers are left out:UserWarning")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    rng = np.random.default_rng(0)
    times = pd.date_range("2000-01-01", periods=60, freq="6h")
    values = rng.normal(size=(60, 20, 30)).astype("f4")
    ds = xr.Dataset(
        {"t2m": (("time", "y", "x"), values)},
        {"time": times, "y": np.arange(20.0), "x": np.arange(30.0)},
    )
    path = tmp_path_factory.mktemp("centers") / "data.zarr"
    ds.to_zarr(path, consolidated=False, encoding={"t2m": {"chunks": (12, 10, 10)}})
    events = pd.DataFrame(
        {
            "time": times[rng.integers(0, 60, 150)],
            "y": rng.uniform(0, 20, 150),
            "x": rng.uniform(0, 30, 150),
            "wind": rng.random(150),
        }
    )
    return xtd.MapDataset(
        xr.open_zarr(path, consolidated=False, chunks=None),
        input_dims={"time": 4, "y": 4, "x": 4},
        centers=events,
        inputs="t2m",
        targets="centers/wind",
    )


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "edges", [{}, {"boundary": {"time": "reflect", "y": "edge"}, "halo": {"y": 2}}]
)
def test_workers_make_the_same_samples_and_go_on(samples, shuffle, edges):
    samples = samples.replace(**edges)
    every = samples.fetch(range(len(samples)))

    def loader(workers):
        return xtd.DataLoader(
            samples, batch_size=8, shuffle=shuffle, memory="200 KiB", num_workers=workers
        )

    first = loader(2)
    seen, states = [], []
    for batch in first:
        assert torch.equal(batch.x, every.x[batch.index])
        assert torch.equal(batch.y, every.y[batch.index])
        assert batch.to_xarray().sizes["sample"] == len(batch)
        seen += batch.index.tolist()
        states.append(first.state_dict())
    assert sorted(seen) == list(range(len(samples)))
    again = loader(0)
    again.load_state_dict(states[3])
    rest = [number for batch in again for number in batch.index.tolist()]
    assert sorted(seen[:32] + rest) == list(range(len(samples)))


def test_workers_fetch_by_number(samples):
    every = samples.fetch(range(len(samples)))
    loader = torch.utils.data.DataLoader(samples, batch_size=16, num_workers=1)
    x, y = (torch.cat(each) for each in zip(*loader, strict=True))
    assert torch.equal(x, every.x)
    assert torch.equal(y, every.y)
