import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.chunks import Chunks, Layout
from xtorch_data.planning.plan import Plan
from xtorch_data.planning.windows import Windows


@st.composite
def plans(draw, **options):
    """The plan for a small sample space on one chunked variable."""
    sizes = {"time": draw(st.integers(1, 60)), "x": draw(st.integers(1, 5))}
    size = draw(st.integers(1, sizes["time"]))
    windows = Windows.from_sizes(sizes, {"time": size}, {"time": draw(st.integers(0, size - 1))})
    chunks = {dim: Chunks(length, draw(st.integers(1, length))) for dim, length in sizes.items()}
    return Plan.of(
        windows,
        [Layout("v", 4, chunks)],
        memory=draw(st.sampled_from([10**4, 10**9])),
        shuffle=draw(st.booleans()),
        seed=draw(st.integers(0, 3)),
        batch_size=draw(st.sampled_from([None, 1, 3, 8])),
        **options,
    )


def numbers(plan, epoch, intervals):
    return [n for stage in plan.stages(epoch, intervals) for n in stage.numbers(plan.windows)]


@given(plans(), st.integers(0, 2), st.integers(1, 4), st.integers(1, 3))
def test_ranks_and_workers_share_an_epoch_in_as_many_batches_as_they_say(
    plan, epoch, world_size, workers
):
    found = []
    for rank in range(world_size):
        batches = 0
        for worker in range(workers):
            intervals = plan.intervals(epoch, rank, world_size, worker, workers)
            mine = numbers(plan, epoch, intervals)
            sizes = list(plan.batch_sizes(intervals))
            assert sum(sizes) == len(mine)
            assert set(sizes[:-1]) <= {plan.batch_size or 1}
            batches += len(sizes)
            found += mine
        assert batches == plan.batches(epoch, rank, world_size)
    assert sorted(found) == list(range(len(plan.windows)))


@given(plans(), st.integers(0, 2), st.data())
def test_a_resumed_plan_holds_what_was_not_yielded(plan, epoch, data):
    intervals = plan.intervals(epoch, 0, 1)
    sizes = list(plan.batch_sizes(intervals))
    batches = data.draw(st.integers(0, len(sizes)))
    state = plan.state_after(epoch, batches, world_size=1)
    resumed = plan.resume(state)
    everything = numbers(plan, epoch, intervals)
    if batches == len(sizes):
        assert resumed.resumed == (epoch + 1, ())
    else:
        rest = numbers(resumed, epoch, resumed.intervals(epoch, 0, 1))
        assert rest == everything[sum(sizes[:batches]) :]
    again = resumed.afresh()
    assert numbers(again, epoch, again.intervals(epoch, 0, 1)) == everything
    assert resumed.fingerprint() == plan.fingerprint()


def test_a_plan_for_other_windows_keeps_what_was_asked_for():
    windows = Windows.from_sizes({"time": 50}, {"time": 4}, {"time": 3})
    layout = Layout("v", 4, {"time": Chunks(50, 10)})
    plan = Plan.of(
        windows, [layout], memory=300, shuffle=True, seed=3, batch_size=5, drop_last=True,
        uneven="pad", independent=True, cached=True,
    )  # fmt: skip
    part = plan.over(windows.within("time", [(0, 23)]))
    asked = ("layouts", "shuffle", "seed", "batch_size", "drop_last", "uneven", "memory",
             "independent", "cached")  # fmt: skip
    assert all(getattr(part, name) == getattr(plan, name) for name in asked)
    assert sorted(numbers(part, 0, [(0, 20)])) == list(range(20))


@pytest.mark.parametrize(("shuffle", "memory"), [(False, 10**6), (True, 10**6), (True, 900)])
def test_bytes_of_loads_stay_within_what_the_plan_says(shuffle, memory):
    windows = Windows.from_sizes({"time": 1000}, {"time": 4}, {"time": 3})
    layout = Layout("v", 4, {"time": Chunks(1000, 10)})
    plan = Plan.of(windows, [layout], memory=memory, shuffle=shuffle)
    held = [plan.nbytes(load) for stage in plan.stages(0, [(0, 997)]) for load in stage.loads]
    assert 0 < max(held) <= plan.block_nbytes * (1 if shuffle else 2)
    assert 0 < plan.budget <= memory
    assert plan.amplification >= 1


def test_fewer_samples_than_ranks_are_refused_where_ranks_must_be_equal():
    windows = Windows.from_sizes({"time": 3}, {"time": 1})
    layouts = [Layout("v", 4, {"time": Chunks(3)})]
    Plan.of(windows, layouts, memory=10**6).require_shares(4)
    Plan.of(windows, layouts, memory=10**6, uneven="drop").require_shares(3)
    with pytest.raises(ValueError, match="3 samples cannot be shared by 4 ranks"):
        Plan.of(windows, layouts, memory=10**6, uneven="drop").require_shares(4)


def test_memory_that_a_sample_exceeds_is_warned_of_once_and_not_where_nobody_asked():
    windows = Windows.from_sizes({"time": 50}, {"time": 10})
    layout = Layout("v", 4, {"time": Chunks(50, 10)})
    with pytest.warns(UserWarning, match="one sample takes 40 B, more than memory=30 B"):
        plan = Plan.of(windows, [layout], memory=30)
    assert len(plan.over(windows.within("time", [(0, 30)])).windows) == 3  # warnings are errors
    assert plan.over(windows, memory=20).memory == 20
