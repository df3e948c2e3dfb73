import dataclasses
import itertools
import json
import random
import re

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import MORE

import xtorch_data as xtd
from xtorch_data.planning.intervals import cut, share, share_total, total
from xtorch_data.planning.resume import Progress, _round_robin, remaining


def positions(intervals):
    return [position for start, stop in intervals for position in range(start, stop)]


def yielded(walk, left):
    """What every rank yields, batch after batch, as torch's loader takes from its workers."""
    found = []
    for rank in range(walk.world_size):
        queues = [
            [
                cut(part, start, start + walk.batch_size)
                for start in range(0, total(part), walk.batch_size)
            ]
            for part in walk.parts(left, rank)
        ]
        taken = 0
        while taken < walk.batches and any(queues):
            for queue in queues:
                if queue and taken < walk.batches:
                    found += positions(queue.pop(0))
                    taken += 1
    return found


@st.composite
def walks(draw, most_ranks=4):
    return Progress(
        world_size=draw(st.integers(1, most_ranks)),
        num_workers=draw(st.integers(1, 4)),
        batch_size=draw(st.integers(1, 7)),
        uneven=draw(st.sampled_from(["drop", "keep"])),
        drop_last=draw(st.booleans()),
        batches=draw(st.integers(0, 12)),
    )


@given(st.integers(1, 150), st.lists(walks(), max_size=4))
def test_walks_on_any_topologies_one_after_the_other_hold_every_sample_once(samples, history):
    done = []
    for place, walk in enumerate(history):
        done += yielded(walk, remaining(samples, tuple(history[:place])))
    left = remaining(samples, tuple(history))
    assert sorted(done + positions(left)) == list(range(samples))
    assert list(left) == sorted(left)


def padded(walk, samples):
    """What every rank yields of a whole line, and whether it is repeated, by plain lists."""
    each, size = -(-samples // walk.world_size), walk.batch_size
    if walk.drop_last and each % size:  # as many batches without padding
        each = samples // walk.world_size
    found = []
    for rank in range(walk.world_size):
        places = range(rank * each, (rank + 1) * each)
        mine = [(place % samples, place >= samples) for place in places]
        batches = [mine[start : start + size] for start in range(0, each, size)]
        if walk.drop_last:
            batches = [batch for batch in batches if len(batch) == size]
        ends = [w * len(batches) // walk.num_workers for w in range(walk.num_workers + 1)]
        queues = [batches[start:stop] for start, stop in itertools.pairwise(ends)]
        turns = itertools.chain(*itertools.zip_longest(*queues))
        found += itertools.chain(*[batch for batch in turns if batch][: walk.batches])
    return found


@example(11, Progress(5, 1, 1, "pad", False, 1))  # sample 1: the last rank has it repeated
@given(st.integers(1, 60), walks(most_ranks=9))
def test_padded_ranks_leave_what_was_not_yielded_as_their_own(samples, walk):
    """What one rank has only repeated is to come on another: metrics leave the first one out."""
    walk = Progress(**{**walk.__dict__, "uneven": "pad"})
    found = padded(walk, samples)
    assert sorted(yielded(walk, [(0, samples)])) == sorted(position for position, _ in found)
    done = {position for position, repeated in found if not repeated}
    assert positions(remaining(samples, (walk,))) == sorted(set(range(samples)) - done)


@given(st.integers(0, 30), st.integers(1, 6), st.data())
def test_batches_are_taken_from_workers_in_turns(number, workers, data):
    counts = [(w + 1) * number // workers - w * number // workers for w in range(workers)]
    taken = data.draw(st.integers(0, number))
    queues, expected, rest = list(counts), [0] * workers, taken
    while rest:
        for worker in range(workers):
            if queues[worker] and rest:
                queues[worker] -= 1
                expected[worker] += 1
                rest -= 1
    assert _round_robin(counts, taken) == expected


def make(memory="2 kB", **kwargs):
    data = xr.Dataset({"v": (("time", "x"), np.arange(240.0).reshape(80, 3))}).chunk(time=7)
    arguments = {"batch_size": 4, "shuffle": True, "seed": 5, "memory": memory} | kwargs
    return xtd.IterableDataset(data, {"time": 4, "x": -1}, {"time": 3}, inputs="v", **arguments)


def test_the_rest_of_an_epoch_is_the_same_from_every_batch():
    """And the epochs after it."""
    how = {"batch_size": 10, "transform": lambda sample, rng: sample + rng.normal()}
    dataset = make(**how)
    whole, states = [], [dataset.state_dict()]
    for _ in range(2):
        for batch in dataset:
            whole.append((batch.index.tolist(), batch.x.clone()))
            states.append(json.loads(json.dumps(dataset.state_dict())))
    for taken, state in enumerate(states):
        again = make(**how)
        again.load_state_dict(state)
        found = [(batch.index.tolist(), batch.x.clone()) for _ in range(2) for batch in again]
        expected = whole[taken:]
        assert [index for index, _ in found[: len(expected)]] == [index for index, _ in expected]
        assert all(
            torch.equal(ours, theirs)
            for (_, ours), (_, theirs) in zip(found, expected, strict=False)
        )
        assert len(json.dumps(state)) < 1000
    assert states[8]["epoch"] == 1  # the end of an epoch is the beginning of the next


def test_an_epoch_goes_on_with_other_ranks_and_batch_sizes():
    chance = random.Random(0)
    for _ in range(6 * MORE):
        seen, state = [], make().state_dict()
        while state["epoch"] == 0:
            ranks, size = chance.randint(1, 3), chance.randint(1, 6)
            datasets = [
                make(rank=rank, world_size=ranks, batch_size=size, uneven="keep")
                for rank in range(ranks)
            ]
            for dataset in datasets:
                dataset.load_state_dict(state)
            steps = min(chance.randint(1, 9), *map(len, datasets), 99)
            for dataset in datasets:
                batches = iter(dataset)
                seen += [n for _ in range(steps) for n in next(batches).index.tolist()]
                batches.close()
            states = [dataset.state_dict() for dataset in datasets]
            if steps:  # one rank's state serves every rank
                assert all(each == states[0] for each in states)
                state = states[0]
        assert sorted(seen) == list(range(77))


def test_a_state_is_small_at_any_scale():
    dataset = make(rank=0, world_size=5, uneven="keep")
    state = dataset.plan.state_after(0, 3, world_size=5, num_workers=8)
    state["walks"] = [[4096, 8, 32, "drop", True, 123_456]] * 20
    assert len(json.dumps(state)) < 4096


def test_what_is_left_is_computed_once_for_the_states_of_all_batches(monkeypatch):
    """With thousands of workers it takes a tenth of a second."""
    first = make(rank=0, world_size=3, batch_size=1, seed=99)
    state = first.plan.state_after(0, 5, 3, 4)
    done, calls = Progress.done, []
    monkeypatch.setattr(Progress, "done", lambda *args: calls.append(args) or done(*args))
    dataset = make(rank=0, world_size=3, batch_size=1, seed=99)
    dataset.load_state_dict(state)
    for _ in dataset:
        dataset.state_dict()
        len(dataset)
    assert len(calls) <= 1


@given(st.integers(0, 90), st.integers(1, 7), st.sampled_from(["drop", "pad", "keep"]))
def test_the_size_of_a_share_is_known_without_cutting_it(count, world_size, uneven):
    intervals = [(0, count // 3), (count, count + count - count // 3)]
    for rank in range(world_size):
        found = share_total(count, rank, world_size, uneven)
        assert found == total(share(intervals, rank, world_size, uneven))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 6}, "seed"),
        ({"shuffle": False}, "shuffle"),
        ({"memory": "600 B"}, "memory"),
    ],
)
def test_the_state_of_another_dataset_is_refused(change, word):
    state = make().state_dict()
    other = make(**change)
    with pytest.raises(ValueError, match=f"What differs.*{word}"):
        other.load_state_dict(state)
    other.load_state_dict(state, strict=False)
    assert other.epoch == 0


def test_what_is_refused_says_what_differs_field_by_field():
    """And neither what follows from that, nor all that a state has."""
    state = make().state_dict()

    def said(dataset, state=state):
        with pytest.raises(ValueError, match="state") as info:
            dataset.load_state_dict(state)
        return str(info.value).partition("differs: ")[2].partition(". strict")[0] or str(info.value)

    assert said(make(seed=6)) == f"seed: {state['dataset']['seed']} in the state, 6 here"
    assert said(make(shuffle=False)) == "shuffle: True in the state, False here"
    assert said(make(where=np.arange(len(make().windows)) > 3)) == (
        "the samples that where leaves, here only"
    )
    shorter = make().replace(input_dims={"time": 2}, input_overlap=None)
    assert re.fullmatch(
        r"samples: \d+ in the state, \d+ here; the windows, or the sizes of the dims", said(shorter)
    )
    many = changed(state, "walks", value=[[1, 1, 4, "drop", False, 1]] * 500 + [3])
    for broken in (many, changed(state, "epoch"), changed(state, "walks", value={"a": [1] * 500})):
        assert len(said(make(), broken)) < 200
    assert "it lacks 'walks', 'dataset'" in said(make(), {"version": 1, "epoch": 2})


TIMES = xr.date_range("2000-01-01", periods=20)
NOLEAP = xr.date_range("2000-01-01", periods=20, calendar="noleap", use_cftime=True)
STATIONS = np.array([f"s{n}" for n in range(20)])
LEVELS = [("a", n) for n in range(10)] + [("b", n) for n in range(10)]

# Labels, the same as they may be elsewhere, and others with which no state goes on.
LABELS = {
    "dates": (
        TIMES.values.astype("M8[ns]"),
        TIMES.values.astype("M8[s]"),
        [TIMES.values + np.timedelta64(366, "D"), TIMES.values + np.timedelta64(1, "ns")],
    ),
    "dates long ago": (
        TIMES.values.astype("M8[s]") - np.timedelta64(400_000, "D"),
        TIMES.values.astype("M8[us]") - np.timedelta64(400_000, "D"),
        [TIMES.values.astype("M8[s]")],
    ),
    "dates of a calendar": (NOLEAP, NOLEAP.copy(), [NOLEAP.shift(1, "D"), TIMES.values]),
    "dates of the usual calendar": (
        TIMES.values,
        xr.date_range("2000-01-01", periods=20, use_cftime=True),
        [xr.date_range("2000-01-01", periods=20, calendar="julian", use_cftime=True)],
    ),
    "latitudes": (
        np.linspace(90, -90, 20),
        np.linspace(90, -90, 20).astype("f4"),
        [np.linspace(-90, 90, 20), np.linspace(90, -89, 20)],
    ),
    "numbers": (np.arange(20), np.arange(20, dtype="i2"), [np.arange(1, 21)]),
    "whole numbers": (np.arange(20), np.arange(20.0), [np.arange(20) + 0.5]),
    "days": (20000101 + np.arange(20), 20000101.0 + np.arange(20), [20000102.0 + np.arange(20)]),
    "computed": (np.cumsum(np.full(20, 0.1)) * 10, np.arange(1, 21, dtype="f4"), [np.arange(20)]),
    "stations": (STATIONS, STATIONS.astype(object), [STATIONS[::-1], np.roll(STATIONS, 1)]),
    "levels": (
        pd.MultiIndex.from_tuples(LEVELS),
        pd.MultiIndex.from_tuples(LEVELS, names=["one", "other"]),
        [pd.MultiIndex.from_tuples(LEVELS[::-1])],
    ),
    "months": (
        pd.period_range("2000-01", periods=20, freq="M"),
        pd.period_range("2000-01", periods=20, freq="M"),
        [pd.period_range("2001-01", periods=20, freq="M")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("windowed", [True, False])
def test_a_state_knows_the_labels_of_its_samples(kind, windowed):
    def labeled(labels):
        ds = xr.Dataset({"v": (("time", "x"), np.zeros((20, 20)))})
        if isinstance(labels, pd.MultiIndex):
            labels = xr.Coordinates.from_pandas_multiindex(labels, "time")
            return xtd.IterableDataset(
                ds.assign_coords(labels), {"time": 4} if windowed else {"x": 4}
            )
        return xtd.IterableDataset(
            ds.assign_coords(time=labels), {"time": 4} if windowed else {"x": 4}
        )

    labels, same, others = LABELS[kind]
    state = json.loads(json.dumps(labeled(labels).state_dict()))
    labeled(same).load_state_dict(state)
    for other in others:
        with pytest.raises(
            ValueError, match="What differs: the labels of dim 'time': .* to .* here"
        ):
            labeled(other).load_state_dict(state)
        labeled(other).load_state_dict(state, strict=False)
    without = labeled(labels)
    without._inside.plan = dataclasses.replace(without.plan, labels=None)  # as states were before
    assert "labels" not in without.state_dict()["dataset"]
    labeled(others[0]).load_state_dict(without.state_dict())


def test_labels_are_told_of_whatever_takes_states_and_not_before():
    def of(year, kind, **kwargs):
        times = xr.date_range(f"{year}-01-01", periods=40)
        ds = xr.Dataset({"v": ("time", np.arange(40.0))}, {"time": times})
        return kind(ds, {"time": 4}, **kwargs)

    def loaders(year):
        numbered = [of(year, xtd.MapDataset) for _ in range(3)]
        yield xtd.DataLoader(of(year, xtd.IterableDataset, batch_size=2, shuffle=True))
        yield xtd.split(of(year, xtd.IterableDataset), "time", fractions=(0.5, 0.5))[1]
        yield xtd.DataLoader(numbered[0], batch_size=2)
        yield xtd.DataLoader(numbered[1], sampler=xtd.ChunkSampler(numbered[1]))
        yield xtd.DataLoader(torch.utils.data.Subset(numbered[2], [3, 1]), shuffle=True)

    message = (
        "labels of dim 'time': 2001-01-01 to 2001-02-09 in the state, 2003-01-01 to 2003-02-09"
    )
    for before, same, other in zip(loaders(2001), loaders(2001), loaders(2003), strict=True):
        dataset = getattr(before, "dataset", before)
        dataset = getattr(dataset, "dataset", dataset)
        assert "found" not in vars(dataset.plan.labels)  # nothing is digested yet
        state = before.state_dict()
        same.load_state_dict(state)
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
        other.load_state_dict(state, strict=False)


def test_what_is_no_state_is_refused():
    with pytest.raises(ValueError, match="not a state"):
        make().load_state_dict({"epoch": 1})
    with pytest.raises(ValueError, match="version 7"):
        make().load_state_dict(make().state_dict() | {"version": 7})


def test_setting_the_epoch_that_is_resumed_keeps_its_rest():
    dataset = make()
    batches = iter(dataset)
    taken = [n for _ in range(5) for n in next(batches).index.tolist()]
    state = dataset.state_dict()
    other = make()
    other.load_state_dict(state)
    other.set_epoch(state["epoch"])
    rest = [n for batch in other for n in batch.index.tolist()]
    assert sorted(taken + rest) == list(range(77))


def test_an_epoch_that_is_set_again_after_it_was_resumed_is_whole():
    dataset = make()
    batches = iter(dataset)
    next(batches)
    dataset.load_state_dict(dataset.state_dict())
    assert len(list(dataset)) == 19
    assert len(list(dataset)) == 20
    dataset.set_epoch(0)
    assert len(dataset) == len(list(dataset)) == 20


WRONG_NUMBERS = (None, "1", 1.5, True, -1, 2**70, [1], {})


def changed(state, *where, value=KeyError):
    """A copy of a state, as JSON keeps it, in which something is another or missing."""
    copy = json.loads(json.dumps(state))
    inner = copy
    for key in where[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    return copy


def test_a_malformed_state_is_refused_and_says_what_is_wrong():
    ds = xr.Dataset({"a": ("time", np.arange(40.0))})
    dataset = xtd.IterableDataset(ds, {"time": 1}, batch_size=4, shuffle=True)
    iterator = iter(dataset)
    next(iterator), next(iterator)
    state = dataset.state_dict()
    iterator.close()
    names = "world_size", "num_workers", "batch_size", "uneven", "drop_last", "batches"

    def refused(state, message, taker=dataset, strict=True):
        with pytest.raises(ValueError, match=message) as info:
            taker.load_state_dict(state, strict=strict)
        assert type(info.value) is ValueError

    for each in (None, 3, "state", [], {}, [1, 2], *(changed(state, key) for key in state)):
        refused(each, "not a state of an xtorch_data dataset")
    for value in (None, 2, "1", [1]):
        refused(changed(state, "version", value=value), "version")
    for strict in (True, False):
        for value in WRONG_NUMBERS:
            refused(changed(state, "epoch", value=value), "epoch is .* in the state", strict=strict)
            for place in (0, 1, 2, 5):
                wrong = changed(state, "walks", 0, place, value=value)
                refused(wrong, f"{names[place]} is .* in the state", strict=strict)
        for value in (None, 3, "other", ["drop"]):
            refused(changed(state, "walks", 0, 3, value=value), "uneven is", strict=strict)
        for value in (None, 1, "yes"):
            refused(changed(state, "walks", 0, 4, value=value), "drop_last is", strict=strict)
        for value in (None, "walks", 3, [3], [None], [[1, 2]], ["abcdef"], [[*range(9)]]):
            refused(changed(state, "walks", value=value), "walks|values of", strict=strict)
        refused(changed(state, "walks", 0, 0, value=2**40), "1099511627776 ranks", strict=strict)
        refused(changed(state, "dataset", value=[1]), "'dataset' a mapping", strict=strict)
    refused(changed(state, "walks", 0, 5, value=11), "40 samples on 1 ranks make 10 batches of 4")
    refused(changed(state, "dataset", "seed"), "another dataset")
    refused({**state, "part": [0, 1, 0, 1, 4, "drop", False, 1]}, "taken in a loader worker")

    # Of what is refused nothing is kept: the true state gives the rest.
    dataset.load_state_dict(json.loads(json.dumps(state)))
    rest = torch.cat([batch.index for batch in dataset]).tolist()
    every = xtd.IterableDataset(ds, {"time": 1}, batch_size=4, shuffle=True)
    assert rest == torch.cat([batch.index for batch in every]).tolist()[8:]

    samples = xtd.MapDataset(ds, {"time": 1})
    every = torch.utils.data.Subset(samples, range(40))
    loader = xtd.DataLoader(every, batch_size=4, shuffle=True)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    for each in (None, 3, [], {}, *(changed(state, key) for key in state)):
        refused(each, "not a state of a loader of a MapDataset", loader)
    for value in WRONG_NUMBERS:
        for key in ("epoch", "batches"):
            refused(changed(state, key, value=value), f"{key} is .* in the state", loader)
        if value != -1:
            refused(changed(state, "order", "seed", value=value), "seed of the order", loader)
    refused(changed(state, "batches", value=11), "an epoch has 10", loader)
    refused(changed(state, "order", value={}), "lacks the seed", loader)
    refused(changed(state, "order", value=[1]), "'order' one or None", loader)
    refused(changed(state, "dataset", value=3), "'dataset' must be a mapping", loader)
    loader.load_state_dict(json.loads(json.dumps(state)))
    rest = torch.cat([batch.index for batch in loader]).tolist()
    assert rest == torch.cat([batch.index for batch in iterator]).tolist()
