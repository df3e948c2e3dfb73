"""Batches sent to other processes."""

import pickle

import pytest
import xarray as xr
from helpers import Script, forecast

import xtorch_data as xtd


@pytest.fixture
def ds():
    return forecast(time=30)


@pytest.fixture
def dataset(ds):
    return xtd.IterableDataset(
        ds, {"time": 8, "x": 5}, {"time": 6}, inputs=["a", "b"], targets="a", batch_size=6,
        shuffle=True,
    )  # fmt: skip


@pytest.fixture
def batch(dataset):
    return next(iter(dataset))


def test_a_pickled_batch_has_its_labels_in_another_process_too(tmp_path, batch):
    (tmp_path / "batch.pickle").write_bytes(pickle.dumps(batch))
    script = tmp_path / "script.py"
    script.write_text(
        "import pickle\n"
        'with open("batch.pickle", "rb") as file:\n'
        "    batch = pickle.load(file)\n"
        'batch.to_xarray().to_netcdf("labels.nc")\n'
    )
    run = Script(script, folder=tmp_path).wait()
    assert run.returncode == 0, run.stderr
    with xr.open_dataset(tmp_path / "labels.nc") as labels:
        xr.testing.assert_equal(labels.load(), batch.to_xarray())
