from hypothesis import given
from hypothesis import strategies as st

from xtorch_data.planning.intervals import batches, cut, share, worker_share

intervals_lists = st.lists(st.integers(1, 30), min_size=1, max_size=5).map(
    lambda sizes: [
        (7 * place + sum(sizes[:place]), 7 * place + sum(sizes[: place + 1]))
        for place in range(len(sizes))
    ]
)


def positions(intervals):
    return [position for start, stop in intervals for position in range(start, stop)]


@given(intervals_lists, st.integers(1, 9), st.sampled_from(["drop", "pad", "keep"]))
def test_ranks_share_the_line(intervals, world_size, uneven):
    everything = positions(intervals)
    parts = [positions(share(intervals, rank, world_size, uneven)) for rank in range(world_size)]
    together = [position for part in parts for position in part]
    sizes = {len(part) for part in parts}
    if uneven == "drop":
        assert together == everything[: len(everything) // world_size * world_size]
        assert len(sizes) == 1
    elif uneven == "keep":
        assert together == everything
        assert max(sizes) - min(sizes) <= 1
    else:
        laps = everything * world_size
        assert together == laps[: -(-len(everything) // world_size) * world_size]
        assert len(sizes) == 1


@given(intervals_lists, st.integers(1, 6), st.integers(1, 9), st.booleans())
def test_workers_share_whole_batches(intervals, workers, batch_size, drop_last):
    everything = positions(intervals)
    parts = [
        positions(worker_share(intervals, worker, workers, batch_size, drop_last))
        for worker in range(workers)
    ]
    together = [position for part in parts for position in part]
    kept = len(everything) // batch_size * batch_size if drop_last else len(everything)
    assert together == everything[:kept]
    full = [len(part) % batch_size == 0 for part in parts if part]
    assert all(full[:-1])
    assert sum(-(-len(part) // batch_size) for part in parts) == batches(
        len(everything), batch_size, drop_last
    )


@given(intervals_lists, st.integers(-5, 100), st.integers(-5, 100))
def test_a_cut_is_a_slice_of_the_positions(intervals, start, stop):
    expected = positions(intervals)[max(start, 0) : max(stop, 0)]
    assert positions(cut(intervals, start, stop)) == expected
