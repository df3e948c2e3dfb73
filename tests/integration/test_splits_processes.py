"""Parts of a split in worker processes."""

import torch
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
