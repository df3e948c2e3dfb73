"""Epochs of a fixed number of samples, which go on where the one before has ended."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd


def series(steps, chunk=7):
    return xr.DataArray(np.arange(float(steps)), dims="time", name="a").chunk(time=chunk)


def dataset(steps, **how):
    return xtd.IterableDataset(series(steps), {"time": 3}, {"time": 2}, shuffle=True, **how)


def numbers(epoch):
    return [number for batch in epoch for number in batch.index.tolist()]


@given(
    steps=st.integers(3, 60),
    size=st.integers(1, 130),
    batch_size=st.integers(1, 9),
    memory=st.sampled_from([64, 600, "1 GiB"]),
    epochs=st.integers(1, 5),
)
@examples(10)
def test_every_sample_comes_before_any_comes_again(steps, size, batch_size, memory, epochs):
    data = dataset(steps, batch_size=batch_size, epoch_size=size, memory=memory)
    there = len(data.windows)
    of_epochs = [numbers(data) for _ in range(epochs)]
    assert [len(each) for each in of_epochs] == [size] * epochs
    every = sum(of_epochs, [])
    for begin in range(0, len(every) - there + 1, there):
        assert sorted(every[begin : begin + there]) == list(range(there))
    data.set_epoch(epochs - 1)
    assert numbers(data) == of_epochs[-1]
    for start in range(0, len(every) - there, there):  # passes have orders of their own
        if there > 20 and start + 2 * there <= len(every):
            assert every[start : start + there] != every[start + there : start + 2 * there]


@given(
    size=st.integers(1, 90),
    world_size=st.integers(1, 4),
    uneven=st.sampled_from(["drop", "pad", "keep"]),
    epoch=st.integers(0, 4),
)
@examples(10)
def test_ranks_share_an_epoch(size, world_size, uneven, epoch):
    size = max(size, world_size)

    def of_rank(rank, ranks, **how):
        made = dataset(40, batch_size=4, epoch_size=size, rank=rank, world_size=ranks, **how)
        made.set_epoch(epoch)
        return made

    alone = numbers(of_rank(0, 1))
    shares = [of_rank(rank, world_size, uneven=uneven) for rank in range(world_size)]
    found, repeated = [], []
    for share in shares:
        for batch in share:
            found += batch.index[~batch.repeated].tolist()
            repeated += batch.index[batch.repeated].tolist()
    kept = size - size % world_size if uneven == "drop" else size
    assert found == alone[:kept]
    assert len(repeated) == (-size % world_size if uneven == "pad" else 0)
    counts = xtd.verify(shares[0], world_size=world_size, num_workers=3)
    assert counts.samples == size
    assert counts.missing == size - kept
    assert counts.repeated == len(repeated)


@given(
    size=st.integers(5, 90),
    taken=st.integers(0, 9),
    ranks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    epoch=st.integers(0, 4),
)
@examples(10)
def test_an_epoch_goes_on_on_another_topology(size, taken, ranks, epoch):
    def of_rank(rank, count):
        return dataset(
            31, batch_size=2, epoch_size=size, rank=rank, world_size=count, uneven="keep"
        )

    before, after = ranks
    found = []
    state = None
    for rank in range(before):
        data = of_rank(rank, before)
        data.set_epoch(epoch)
        for place, batch in enumerate(data):
            if place == taken:
                break
            found += batch.index.tolist()
            if rank == 0 and place + 1 == taken:
                state = json.loads(json.dumps(data.state_dict()))
    if state is None or state["epoch"] != epoch:  # nothing was taken, or all of it
        return
    for rank in range(after):
        data = of_rank(rank, after)
        data.load_state_dict(state)
        found += numbers(data)
    whole = of_rank(0, 1)
    whole.set_epoch(epoch)
    assert sorted(found) == sorted(numbers(whole))


def test_in_order_every_epoch_begins_with_the_first_sample():
    data = xtd.IterableDataset(series(20), {"time": 2}, batch_size=4, epoch_size=6)
    assert [numbers(data) for _ in range(3)] == [[0, 1, 2, 3, 4, 5]] * 3
    longer = xtd.IterableDataset(series(20), {"time": 2}, batch_size=4, epoch_size=23)
    assert numbers(longer) == [*range(10), *range(10), 0, 1, 2]
    assert xtd.verify(longer)


def test_with_weights_it_is_the_number_of_draws():
    weights = np.zeros(38)
    weights[[3, 7]] = 1, 3
    data = dataset(40, batch_size=16, epoch_size=4000, weights=weights)
    drawn = np.array(numbers(data))
    assert len(drawn) == 4000
    assert set(drawn.tolist()) == {3, 7}
    assert 0.7 < (drawn == 7).mean() < 0.8


def test_with_where_passes_are_over_what_is_left():
    where = np.arange(38) % 3 == 0
    data = dataset(40, batch_size=4, epoch_size=6, where=where)
    every = sum((numbers(data) for _ in range(11)), [])
    assert sorted(every[:13]) == sorted(every[13:26]) == np.flatnonzero(where).tolist()


def test_a_state_of_another_size_is_refused():
    state = dataset(40, epoch_size=6).state_dict()
    with pytest.raises(ValueError, match="epoch size: 6 in the state, 7 here"):
        dataset(40, epoch_size=7).load_state_dict(state)
    with pytest.raises(ValueError, match="epoch size: 6 in the state, none here"):
        dataset(40).load_state_dict(state)


@pytest.mark.parametrize("size", [0, -1, True])
def test_a_size_must_be_positive(size):
    with pytest.raises((ValueError, TypeError), match="epoch_size"):
        dataset(40, epoch_size=size)


def test_it_is_told():
    data = dataset(402, batch_size=10, epoch_size=100)
    assert "epochs of 100 samples" in repr(data)
    assert "100 samples" in data._repr_html_()
    found = data.explain()
    assert found.samples == 100
    assert found.passes == 0.25
    assert "0.25 passes over all samples" in str(found)
    assert found.amplification_of["halo"] < 1.1
    assert 3.5 < found.amplification_of["cuts"] < 4.5  # the only pool is read in each epoch
    assert "epochs end inside pools, of which a pass has 1" in str(found)
    small = dataset(402, batch_size=10, epoch_size=100, memory=1000).explain()
    assert small.amplification_of["cuts"] < 1.2
    train, test = xtd.split(data, "time", fractions=(0.5, 0.5))
    assert len(train) == len(test) == 10
