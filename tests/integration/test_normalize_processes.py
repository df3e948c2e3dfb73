"""Normalize in worker processes."""

import pickle

import torch
import torch.utils.data
import xarray as xr
from normalize_data import WINDOW, known

import xtorch_data as xtd


def test_it_goes_to_worker_processes():
    normalize, ds = known("level")
    copy = pickle.loads(pickle.dumps(normalize))
    xr.testing.assert_identical(copy(ds), normalize(ds))
    dataset = xtd.IterableDataset(ds, WINDOW, inputs=["u"], preprocess=normalize, batch_size=4)
    plain = [batch.x for batch in dataset]
    dataset.set_epoch(0)
    found = [batch.x for batch in xtd.DataLoader(dataset, num_workers=1)]
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)
