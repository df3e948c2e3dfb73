"""Parts of a split in worker processes."""

import numpy as np
import torch
import xarray as xr
from helpers import assert_once, numbered, samples_of

import xtorch_data as xtd


def dataset_of(steps, size=1, overlap=0, index=None, **options):
    """Windows along ``time`` on a variable whose values are the numbers of the steps."""
    ds = numbered(steps)
    if index is not None:
        ds = ds.assign_coords(time=index)
    return xtd.IterableDataset(ds, {"time": size}, {"time": overlap}, inputs="a", **options)


def test_workers_yield_the_samples_of_a_part():
    dataset = dataset_of(100, 8, 7, shuffle=True, batch_size=5)
    _, (train, _), _ = xtd.kfold(dataset, "time", 3)
    batches = list(xtd.DataLoader(train, num_workers=2))
    assert_once(samples_of(batches), len(train.windows))
    steps = torch.cat([batch.x.flatten() for batch in batches])
    assert set(steps.tolist()) == {*range(34), *range(67, 100)}


def test_workers_yield_the_samples_of_a_part_of_two_dims_and_label_them():
    valid = np.arange(30)[:, None] + np.arange(6)
    ds = xr.Dataset({"a": (("init", "lead"), np.arange(180.0).reshape(30, 6))})
    ds = ds.assign_coords(valid=(("init", "lead"), valid))
    samples = xtd.MapDataset(
        ds, {"lead": 3}, {"lead": 2}, inputs="a", targets=xtd.Select("a", lead=2)
    )
    for part, labels in zip(
        xtd.split(samples, "valid", at=15, by="targets"),
        ({*range(2, 15)}, {*range(15, 35)}),
        strict=True,
    ):
        loader = xtd.DataLoader(part, batch_size=5, shuffle=True, num_workers=2)
        seen = [xr.DataArray(batch.y) for batch in loader]
        values = np.concatenate([each.values for each in seen]).astype(int).ravel()
        assert set(valid.ravel()[values]) == labels
        every = [(i, k) for i in range(30) for k in range(2, 6) if i + k in labels]
        assert len(values) == len(part) == len(every)
