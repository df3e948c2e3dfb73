import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.blocks import plan_in_order, plan_shuffled
from xtorch_data.planning.chunks import Chunks, Layout
from xtorch_data.planning.frames import Frame
from xtorch_data.planning.index_maps import IndexMap, term_of
from xtorch_data.planning.windows import Windows


@st.composite
def grids(draw):
    """A chunk grid, and the chunk in which each of its steps lies."""
    length = draw(st.integers(1, 40))
    if draw(st.booleans()):
        size = draw(st.integers(1, length + 3))
        offset = draw(st.integers(0, size - 1))
        return Chunks(length, size, offset), [(step + offset) // size for step in range(length)]
    inner = sorted(draw(st.sets(st.integers(1, length - 1)))) if length > 1 else []
    edges = np.array([0, *inner, length])
    return Chunks(length, edges=edges), np.repeat(range(len(inner) + 1), np.diff(edges)).tolist()


@given(grids(), st.data())
def test_chunks_touched_are_those_of_the_steps(grid, data):
    chunks, chunk_of = grid
    start = data.draw(st.integers(0, chunks.length - 1))
    stop = data.draw(st.integers(start + 1, chunks.length))
    touched = set(chunk_of[start:stop])
    assert chunks.touched(start, stop) == len(touched)
    assert chunks.count == len(set(chunk_of))
    ends = [step + 1 for step in range(start, chunks.length) if chunk_of[step] == chunk_of[start]]
    assert chunks.end_of(start) == ends[-1]
    if chunks.edges is not None:
        assert chunks.decoded(start, stop) == sum(chunk in touched for chunk in chunk_of)
        assert chunks.largest == max(np.bincount(chunk_of))
    else:
        assert chunks.decoded(start, stop) == len(touched) * chunks.size


@given(grids(), st.integers(1, 9))
def test_boundaries_are_where_chunks_begin(grid, every):
    chunks, chunk_of = grid
    changes = [step for step in range(1, chunks.length) if chunk_of[step] != chunk_of[step - 1]]
    assert chunks.boundaries(1).tolist() == changes
    assert chunks.boundaries(every).tolist() == changes[every - 1 :: every]


@given(
    st.integers(1, 30),
    st.integers(1, 20),
    st.sampled_from([1, 200, 2000, 10**6]),
    st.booleans(),
)
def test_samples_before_a_block_are_those_of_the_blocks_before(time, x, budget, shuffle):
    windows = Windows.from_sizes({"time": time, "x": x}, {"time": 1 + time // 3})
    layout = Layout("v", 4, {"time": Chunks(time, 3), "x": Chunks(x, 4, 1)})
    grid = (plan_shuffled if shuffle else plan_in_order)(windows, [layout], budget)
    counts = []
    for block in range(len(grid)):
        counts.append(np.prod([last - first for first, last in grid.box(block)]))
    assert grid.samples(np.arange(len(grid))).tolist() == counts
    assert grid.samples_before(np.arange(len(grid) + 1)).tolist() == [0, *np.cumsum(counts)]
    assert sum(counts) == len(windows)


def test_blocks_end_at_chunks_of_a_grid_offset_by_slicing():
    windows = Windows.from_sizes({"time": 1000}, {"time": 1})
    layout = Layout("v", 1000, {"time": Chunks(1000, 16, 5)})
    grid = plan_shuffled(windows, [layout], 200_000)
    assert len(grid) > 1
    assert {(int(cut) + 5) % 16 for cut in grid.cuts[0][1:-1]} == {0}
    assert grid.amplification == 1.0


def test_blocks_follow_the_common_boundaries_of_two_grids():
    windows = Windows.from_sizes({"time": 960}, {"time": 1})
    variables = [
        Layout("a", 100, {"time": Chunks(960, 4)}),
        Layout("b", 100, {"time": Chunks(960, 6)}),
    ]
    grid = plan_shuffled(windows, variables, 50_000)
    assert len(grid) > 1
    assert grid.amplification == 1.0
    assert {int(cut) % 12 for cut in grid.cuts[0][:-1]} == {0}


def test_unchunked_data_is_cut_by_the_budget_alone():
    windows = Windows.from_sizes({"time": 1000, "x": 8}, {"time": 10, "x": -1}, {"time": 9})
    layout = Layout("v", 4, {"time": Chunks(1000), "x": Chunks(8)})
    grid = plan_shuffled(windows, [layout], 8000)
    assert grid.nbytes <= 8000
    assert grid.amplification <= 1.5


@pytest.mark.parametrize(("variables", "steps"), [(1, 2), (4, 2), (51, 2), (51, 30)])
def test_in_order_a_block_reads_enough_of_each_variable_however_many_there_are(variables, steps):
    step = 2**18
    windows = Windows.from_sizes({"time": 1000}, {"time": steps}, {"time": steps - 1})
    layouts = [Layout(f"v{at}", step, {"time": Chunks(1000, 1)}) for at in range(variables)]
    budget = 2**30
    grid = plan_in_order(windows, layouts, budget)
    assert grid.amplification == 1.0
    assert grid.nbytes <= budget
    read = 1000 * step * variables / len(grid)
    assert 0.7 < read / max(2**25, 2**22 * variables) < 1.1


@pytest.mark.parametrize("events", [False, True])
def test_in_order_variables_of_other_sources_count(events):
    """Points of a series, and beside each 4 steps of 51 fields of 1 MiB that come once a day."""
    windows = Windows.from_sizes({"time": 24_000}, {"time": 1})
    fields = [Layout(f"v{at}", 2**20, {"day": Chunks(1004, 1)}) for at in range(51)]
    days = IndexMap("day", 1004, 4, {0: term_of(np.arange(24_000) // 24)})
    beside = Frame((days,), tuple(fields))
    own = [] if events else [Layout("v", 4, {"time": Chunks(24_000, 1000)})]
    grid = plan_in_order(windows, own, 2**30, [beside])
    samples = grid.samples(np.arange(len(grid)))
    assert grid.nbytes <= 2**30
    assert (samples[:-1] >= 24).all()  # fields are not read for a point or two
    assert samples.max() / 24 <= 5  # of days, of which 4 MiB of each variable are 4


def test_in_order_small_variables_beside_a_large_one_make_no_block_larger():
    windows = Windows.from_sizes({"time": 1000}, {"time": 2}, {"time": 1})
    large = Layout("large", 2**20, {"time": Chunks(1000, 1)})
    small = [Layout(f"v{at}", 4, {"time": Chunks(1000, 1)}) for at in range(100)]
    assert len(plan_in_order(windows, [large, *small], 2**30)) == len(
        plan_in_order(windows, [large], 2**30)
    )


def test_in_order_many_variables_of_few_steps_are_still_read_in_several_blocks():
    windows = Windows.from_sizes({"time": 15}, {"time": 2}, {"time": 1})
    layouts = [Layout(f"v{at}", 2**18, {"time": Chunks(15, 1)}) for at in range(51)]
    assert len(plan_in_order(windows, layouts, 2**30)) >= 4


@pytest.mark.parametrize("planner", [plan_shuffled, plan_in_order])
def test_a_window_larger_than_the_budget_is_a_block(planner):
    windows = Windows.from_sizes({"time": 20, "x": 5}, {"time": 4, "x": -1}, {"time": 2})
    layout = Layout("v", 8, {"time": Chunks(20, 3), "x": Chunks(5, 2)})
    grid = planner(windows, [layout], 10)
    assert grid.samples(np.arange(len(grid))).tolist() == [1] * len(windows)


@pytest.mark.parametrize("planner", [plan_shuffled, plan_in_order])
def test_a_space_without_dims_is_one_block(planner):
    grid = planner(Windows.from_sizes({}, {}), [Layout("v", 8, {})], 1000)
    assert len(grid) == 1
    assert grid.samples(np.array([0])).tolist() == [1]
    assert grid.samples_before(np.array([0, 1])).tolist() == [0, 1]


def test_in_order_no_block_is_much_larger_than_the_others():
    windows = Windows.from_sizes({"time": 2**16, "x": 256}, {"x": -1})
    layout = Layout("v", 4, {"time": Chunks(2**16), "x": Chunks(256)})
    grid = plan_in_order(windows, [layout], 2**28)
    assert grid.nbytes <= 2**25
    assert len({*grid.samples(np.arange(len(grid))).tolist()}) == 1
