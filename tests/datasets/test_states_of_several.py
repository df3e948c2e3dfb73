"""A state holds while no sample changes: other sources enter by what they leave out and cut."""

import numpy as np
import pytest
import torch
from several_data import DAILY, DAYS, samples, sst

import xtorch_data as xtd

MORE_DAYS = np.append(DAYS, DAYS[-1] + np.arange(1, 10) * np.timedelta64(1, "D"))


def made(days, shuffle):
    others = {"sst": xtd.Source(sst(days), time=DAILY)}
    return samples(xtd.IterableDataset, others=others, batch_size=4, shuffle=shuffle, seed=3)


def stopped(dataset, batches=5):
    passing = iter(dataset)
    for _ in range(batches):
        next(passing)
    return dataset.state_dict()


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_longer_index_that_changes_no_sample_keeps_a_state(shuffle):
    whole = list(made(DAYS, shuffle))
    longer = made(MORE_DAYS, shuffle)
    longer.load_state_dict(stopped(made(DAYS, shuffle)))
    rest = list(longer)
    assert len(rest) == len(whole) - 5
    for mine, theirs in zip(rest, whole[5:], strict=True):
        assert torch.equal(mine.index, theirs.index)
        for name in theirs.keys():  # noqa: SIM118
            assert torch.equal(mine[name], theirs[name])


@pytest.mark.parametrize("shuffle", [False, True])
def test_another_loss_is_refused(shuffle):
    state = stopped(made(DAYS, shuffle))
    with pytest.raises(ValueError, match="windows"):
        made(DAYS[9:], shuffle).load_state_dict(state)


def test_values_that_are_known_later_are_another_dataset_only_where_samples_are_lost():
    state = stopped(samples(xtd.IterableDataset, batch_size=4))
    slower = {"sst": xtd.Source(sst(), time=xtd.AsOf(5, latency="20D", label="left"))}
    with pytest.raises(ValueError, match="samples"):
        samples(xtd.IterableDataset, others=slower, batch_size=4).load_state_dict(state)
