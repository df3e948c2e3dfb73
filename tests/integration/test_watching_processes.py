"""Progress of loaders whose workers are processes."""

import numpy as np
import xarray as xr

import xtorch_data as xtd


def make(**kwargs):
    data = xr.DataArray(np.arange(400.0).reshape(100, 4), dims=("time", "x"), name="v")
    return xtd.IterableDataset(data, {"time": 5, "x": -1}, batch_size=4, **kwargs)


def test_what_other_processes_do_is_not_guessed(capsys):
    loader = xtd.DataLoader(make(), num_workers=1, multiprocessing_context="fork")
    assert len(list(xtd.watch(loader, "training"))) == 5
    shown = capsys.readouterr().err
    assert "training: 100%" in shown
    assert "samples/s, waits " in shown
    assert "limited by" not in shown
