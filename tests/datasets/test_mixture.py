"""Mixtures of datasets: exact rates, each dataset's own samples, and one state."""

import copy
import json
from fractions import Fraction

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd


def data(steps, name="a", first=0.0):
    values = np.arange(float(steps)) + first
    return xr.DataArray(values, {"time": np.arange(steps)}, "time", name)


FINE, COARSE = data(70, "fine"), data(40, "coarse", 1000)


def members(rank=0, world_size=1, shuffle=True, uneven=None, batches=(4, 3), **how):
    given = {"rank": rank, "world_size": world_size, "shuffle": shuffle, "uneven": uneven, **how}
    return {
        "fine": xtd.IterableDataset(FINE, {"time": 3}, {"time": 2}, batch_size=batches[0], **given),
        "coarse": xtd.IterableDataset(
            COARSE, {"time": 5}, {"time": 4}, batch_size=batches[1], inputs="coarse", **given
        ),
    }


def mixed(rates=(3, 1), stop="first", **how):
    return xtd.mix(members(**how), dict(zip(("fine", "coarse"), rates, strict=True)), stop)


def numbers(batches, name):
    """Sample numbers of one of the datasets that are not repeated, as they come."""
    return [
        number
        for batch in batches
        if batch.origin == name
        for number in batch.index[~batch.repeated].tolist()
    ]


def test_a_batch_tells_its_dataset():
    batch = next(iter(mixed((1, 1))))
    assert f"samples of {batch.origin!r} (x: " in repr(batch)
    assert f"of &#x27;{batch.origin}&#x27;" in batch._repr_html_()


def require_right(batch):
    source, size = {"fine": (FINE, 3), "coarse": (COARSE, 5)}[batch.origin]
    for place, number in enumerate(batch.index.tolist()):
        assert np.array_equal(batch.x[place].ravel(), source.values[number : number + size])


@given(
    rates=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    world_size=st.integers(1, 3),
    shuffle=st.booleans(),
    uneven=st.sampled_from(["drop", "pad"]),
    batches=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
@examples(8)
def test_the_first_to_end_ends_the_epoch(rates, world_size, shuffle, uneven, batches):
    how = {"world_size": world_size, "shuffle": shuffle, "uneven": uneven, "batches": batches}
    ranks = [mixed(rates, rank=rank, **how) for rank in range(world_size)]
    for _ in range(2):
        found = [list(each) for each in ranks]
        origins = [[batch.origin for batch in each] for each in found]
        assert all(each == origins[0] for each in origins)
        assert len(origins[0]) == len(ranks[0])
        for stop in range(len(origins[0]) + 1):
            expected = Fraction(stop * rates[0], sum(rates))
            assert abs(origins[0][:stop].count("fine") - expected) < 1
        counts = {}
        for name, samples in (("fine", 68), ("coarse", 36)):
            own = [number for each in found for number in numbers(each, name)]
            assert len(set(own)) == len(own)
            counts[name] = len(own)
            whole = members(**how)[name]
            assert origins[0].count(name) <= len(whole)
            if not shuffle and world_size == 1:
                assert own == list(range(samples))[: len(own)]
        # One more batch would be of the one that has no more.
        ended = [origins[0].count(name) == len(each) for name, each in members(**how).items()]
        assert any(ended)
        for each in found:
            for batch in each:
                require_right(batch)


@given(
    rates=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    world_size=st.integers(1, 3),
    batches=st.tuples(st.integers(1, 6), st.integers(1, 6)),
)
@examples(8)
def test_until_all_had_all_of_theirs(rates, world_size, batches):
    how = {"world_size": world_size, "uneven": "pad", "batches": batches}
    ranks = [mixed(rates, "all", rank=rank, **how) for rank in range(world_size)]
    orders = []
    for _ in range(2):
        found = [list(each) for each in ranks]
        for name, samples in (("fine", 68), ("coarse", 36)):
            whole = len(members(**how)[name])
            of_ranks = [[batch for batch in each if batch.origin == name] for each in found]
            passes = []
            for begin in range(0, len(of_ranks[0]), whole):
                own = [n for each in of_ranks for n in numbers(each[begin : begin + whole], name)]
                passes.append(own)
                assert len(set(own)) == len(own)
                if len(of_ranks[0]) >= begin + whole:
                    assert sorted(own) == list(range(samples))
            orders += [tuple(each) for each in passes if len(each) == samples]
        assert all(each[-1].origin == found[0][-1].origin for each in found)
    assert len(set(orders)) == len(orders)  # passes have orders of their own


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize("taken", [0, 1, 7, 12, 16, 20])
def test_an_epoch_goes_on_exactly(stop, taken):
    one, other = mixed((2, 3), stop), mixed((2, 3), stop)
    one.set_epoch(1)
    batches = iter(one)
    for _ in range(taken):
        next(batches)
    state = json.loads(json.dumps(one.state_dict()))
    rest = list(batches)
    other.load_state_dict(state)
    assert state["turn"] == (taken if rest else 0)
    assert len(other) == len(rest or one)
    for expected in [rest, list(one)] if rest else [list(one)]:
        found = list(other)
        assert [each.origin for each in found] == [each.origin for each in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert torch.equal(ours.index, theirs.index)
            assert torch.equal(ours.x, theirs.x)


@pytest.mark.parametrize("second", range(1, 30, 4))
@pytest.mark.parametrize("first", [3, 11, 25])
def test_an_epoch_goes_on_twice_through_several_passes(first, second):
    whole = list(mixed((1, 2), "all"))
    assert sum(batch.origin == "coarse" for batch in whole) > 2 * 12
    state, had = None, 0
    for taken in (first, second, len(whole)):
        stream = mixed((1, 2), "all")
        if state is not None:
            stream.load_state_dict(state)
        counts = xtd.verify(stream)
        assert counts
        assert counts.batches_per_rank == (len(whole) - had,)
        batches = iter(stream)
        for _, batch in zip(range(taken), batches, strict=False):
            assert batch.origin == whole[had].origin
            assert torch.equal(batch.index, whole[had].index)
            had += 1
        state = json.loads(json.dumps(stream.state_dict()))
        if had == len(whole):
            break
    assert had == len(whole)
    assert state["epoch"] == 1


@given(
    stop=st.sampled_from(["first", "all"]),
    ranks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    taken=st.lists(st.integers(0, 12), min_size=1, max_size=3),
    rates=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
@examples(10)
def test_no_sample_comes_twice_on_other_topologies(stop, ranks, taken, rates):
    had = {"fine": [], "coarse": []}
    state = None
    for place, count in enumerate([*taken, None]):
        world_size = ranks[place % 2]
        states = []
        for rank in range(world_size):
            stream = mixed(rates, stop, rank=rank, world_size=world_size, uneven="pad")
            if state is not None:
                stream.load_state_dict(state)
            batches = iter(stream)
            for number, batch in enumerate(batches):
                if number == count:
                    break
                had[batch.origin] += batch.index[~batch.repeated].tolist()
                if number + 1 == count:
                    states.append(json.loads(json.dumps(stream.state_dict())))
            batches.close()
        if count == 0:
            continue
        if not states or states[0]["epoch"]:  # the epoch was over
            break
        assert all(each == states[0] for each in states)
        state = states[0]
    for name, samples in (("fine", 68), ("coarse", 36)):
        often = np.bincount(had[name], minlength=samples)
        if stop == "first":
            assert often.max() <= 1
        else:
            assert often.min() >= 1
            assert often.max() - often.min() <= 1


def test_rates_may_be_fractions_and_floats():
    assert mixed((0.3, 0.1)).rates == {"fine": 3, "coarse": 1}
    assert mixed((Fraction(1, 3), Fraction(1, 6))).rates == {"fine": 2, "coarse": 1}
    assert [batch.origin for batch in mixed((1, 1))][:4] == ["fine", "coarse"] * 2


def test_memory_is_that_of_the_largest_for_all():
    given = members()
    given["fine"] = given["fine"].replace(memory="1 MiB")
    given["coarse"] = given["coarse"].replace(memory="3 MiB")
    found = xtd.mix(given, {"fine": 9, "coarse": 1})
    shares = {name: each.plan.memory for name, each in found.datasets.items()}
    assert 0.99 * 3 * 2**20 < sum(shares.values()) <= 3 * 2**20
    assert shares["fine"] > 2 * shares["coarse"]
    assert given["fine"].plan.memory == 2**20  # those that were given are as they were
    assert next(iter(given["fine"])).origin is None


def test_phases_go_by_the_epoch_of_the_mixture():
    growing = xtd.Schedule({0: slice(3, 4), 2: slice(3, 5)})
    short = xtd.IterableDataset(
        COARSE,
        {"time": 5},
        {"time": 4},
        batch_size=20,
        inputs=xtd.Select("coarse", time=slice(0, 3)),
        targets=xtd.Select("coarse", time=growing),
    )
    given = members()["fine"]

    def lengths(stream):
        return {batch.y.shape[1] for batch in stream if batch.origin == "short"}

    stream = xtd.mix({"fine": given, "short": short}, {"fine": 1, "short": 1}, stop="all")
    assert [lengths(stream) for _ in range(3)] == [{1}, {1}, {2}]  # though it has many passes
    stream.set_epoch(1)
    assert [lengths(stream) for _ in range(2)] == [{1}, {1}]
    stream.set_epoch(2)
    assert lengths(stream) == {2}


def test_set_epoch_makes_an_epoch_come_again():
    stream = mixed((1, 2), "all")
    epochs = [[batch.index.tolist() for batch in stream] for _ in range(3)]
    stream.set_epoch(1)
    assert [batch.index.tolist() for batch in stream] == epochs[1]
    assert stream.epoch == 2
    iter(stream)
    batches = iter(stream)
    next(batches)
    stream.set_epoch(0)
    assert [batch.index.tolist() for batch in stream] == epochs[0]


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (3, 0), (2, 4)])
def test_it_is_verified_and_explained(stop, world_size, num_workers, capsys):
    stream = mixed((3, 2), stop)
    counts = xtd.verify(stream, world_size=world_size, num_workers=num_workers)
    assert "of 'coarse':" in capsys.readouterr().out
    assert counts
    ranks = [mixed((3, 2), stop, rank=rank, world_size=world_size) for rank in range(world_size)]
    found = [list(each) for each in ranks]
    assert counts.batches_per_rank == tuple(map(len, found))
    yielded = sum(len(batch) for each in found for batch in each)
    assert counts.samples - counts.missing + counts.repeated == yielded
    explained = stream.explain(world_size, num_workers)
    assert sum(explained.batches.values()) == len(found[0])
    assert explained.batches["fine"] == sum(batch.origin == "fine" for batch in found[0])
    assert "fine:" in str(explained)
    assert explained._repr_html_()
    assert "Mixture of 2 datasets" in repr(stream)
    assert stream._repr_html_()
    if world_size == 1:
        list(stream)
        assert stream.stats().batches <= len(found[0])


def test_what_cannot_be_mixed_is_refused():
    given = members()
    rates = {"fine": 1, "coarse": 1}
    samples = xtd.MapDataset(FINE, {"time": 3})
    with pytest.raises(TypeError, match="must be an xtorch_data.IterableDataset"):
        xtd.mix({"fine": samples, "coarse": given["coarse"]}, rates)
    with pytest.raises(TypeError, match="mapping of names to datasets"):
        xtd.mix(list(given.values()), rates)
    with pytest.raises(TypeError, match="mapping of names to datasets"):
        xtd.mix({}, {})
    with pytest.raises(TypeError, match="names of datasets are text"):
        xtd.mix({0: given["fine"]}, {0: 1})
    with pytest.raises(ValueError, match="rates are of"):
        xtd.mix(given, {"fine": 1})
    with pytest.raises(TypeError, match="rates must be a mapping"):
        xtd.mix(given, [1, 2])
    for wrong in (0, -1, "many", True, float("nan"), float("inf"), None):
        with pytest.raises(ValueError, match="rate of 'fine' must be a number above 0"):
            xtd.mix(given, {"fine": wrong, "coarse": 1})
    with pytest.raises(ValueError, match="stop must be"):
        xtd.mix(given, rates, stop="last")
    with pytest.raises(ValueError, match="uneven='keep'"):
        xtd.mix(members(uneven="keep"), rates)
    with pytest.raises(ValueError, match="shared by the same ranks"):
        xtd.mix({**given, "coarse": members(1, 2)["coarse"]}, rates)
    with pytest.raises(ValueError, match="'fine' has no batch"):
        xtd.mix(members(batches=(100, 3), drop_last=True), rates)
    with pytest.raises(TypeError, match="by number"):
        xtd.mix(given, rates)[0]


def test_states_of_others_are_refused():
    state = mixed((1, 1)).state_dict()
    with pytest.raises(ValueError, match="another mixture"):
        mixed((1, 2)).load_state_dict(state)
    mixed((1, 2)).load_state_dict(state, strict=False)
    with pytest.raises(ValueError, match="another mixture"):
        mixed((1, 1), "all").load_state_dict(state)
    with pytest.raises(ValueError, match="the state is of datasets"):
        xtd.mix({"fine": members()["fine"]}, {"fine": 1}).load_state_dict(state)
    with pytest.raises(ValueError, match="dataset 'fine': this state is of another dataset"):
        mixed((1, 1), seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="lacks 'turn'"):
        mixed((1, 1)).load_state_dict(members()["fine"].state_dict())
    with pytest.raises(ValueError, match="passes"):
        mixed((1, 1)).load_state_dict({**state, "passes": {"fine": -1, "coarse": 0}})


@pytest.mark.parametrize("memory", ["1 GiB", 400])
def test_an_epoch_with_several_passes_goes_on_with_other_batch_sizes(memory):
    stream = mixed((1, 2), "all", memory=memory)  # four passes over the coarse ones
    for _ in stream:
        pass
    batches = iter(stream)
    had = [next(batches) for _ in range(7)]
    state = json.loads(json.dumps(stream.state_dict()))
    larger = mixed((1, 2), "all", batches=(4, 30), memory=memory)
    larger.load_state_dict(state)
    found = list(larger)
    for name, samples in (("fine", 68), ("coarse", 36)):
        own = numbers([*had, *found], name)
        assert sorted(own[:samples]) == list(range(samples))  # each once, before any comes again


@pytest.mark.parametrize("stop", ["first", "all"])
def test_epochs_of_a_size_go_on_in_the_next_epoch(stop):
    how = {"shuffle": True, "batch_size": 5}
    sized = xtd.IterableDataset(data(100), {"time": 1}, epoch_size=20, **how)
    other = xtd.IterableDataset(data(20), {"time": 1}, **how)
    stream = xtd.mix({"sized": sized, "other": other}, {"sized": 1, "other": 1}, stop)
    found = [number for _ in range(5) for number in numbers(stream, "sized")]
    assert sorted(found) == list(range(100))


@pytest.mark.parametrize("stop", ["first", "all"])
def test_each_dataset_must_have_a_batch_on_every_rank(stop):
    def few(**topology):
        given = members(drop_last=True, **topology)
        given["coarse"] = given["coarse"].replace(batch_size=20)
        return xtd.mix(given, {"fine": 1, "coarse": 1}, stop)

    message = "dataset 'coarse' has no batch in an epoch on 4 ranks"
    with pytest.raises(ValueError, match=message):
        few(rank=0, world_size=4)
    for asked in (few().explain, lambda ranks: xtd.verify(few(), ranks)):
        with pytest.raises(ValueError, match=message):
            asked(4)


def test_a_dataset_without_a_turn_costs_nothing():
    stream = mixed((100, 1), uneven="drop")
    found = stream.explain(world_size=2)
    assert found.batches == {"fine": 9, "coarse": 0}
    assert found.samples == found.datasets["fine"].samples
    assert str(found)


def test_costs_are_those_of_the_phase():
    growing = xtd.Schedule({0: slice(3, 4), 2: slice(3, 5)})
    samples = xtd.MapDataset(
        COARSE, {"time": 5}, {"time": 4}, targets=xtd.Select("coarse", time=growing)
    )
    stream = xtd.mix({"a": xtd.IterableDataset(samples, batch_size=2)}, {"a": 1})
    before = stream.explain().datasets["a"].sample_nbytes
    stream.set_epoch(2)
    assert stream.explain().datasets["a"].sample_nbytes == before + 4


def test_iterators_do_not_change_each_other():
    stream = mixed((1, 2), "all")
    whole = list(stream)
    batches = iter(stream)
    for _ in range(5):
        next(batches)
    state = stream.state_dict()
    rest = [batch.index.tolist() for batch in batches]
    following = [batch.index.tolist() for batch in stream]
    assert len(whole) == len(following)
    other = mixed((1, 2), "all")
    other.load_state_dict(state)
    both = iter(other), iter(other)  # the second begins before the first has its first batch
    assert [batch.index.tolist() for batch in both[0]] == rest
    assert [batch.index.tolist() for batch in both[1]] == following


def test_a_copy_goes_its_own_way():
    stream = mixed()
    list(stream)
    copied = copy.copy(stream)
    expected = [batch.index.tolist() for batch in stream]
    assert copied.epoch == 1
    assert [batch.index.tolist() for batch in copied] == expected
