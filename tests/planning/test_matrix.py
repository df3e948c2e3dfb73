"""Every topology, left at every batch, gone on with on every other: the plan alone, no processes.

A loader is played as torch's documentation has it: workers are asked in turns, whoever has ended is
skipped. A few loaders with real processes are at the end.
"""

import itertools

import pytest
from helpers import assert_once
from hypothesis import given
from hypothesis import strategies as st
from matrix_data import plan_of, play, play_marked
from strategies import examples

RANKS = (1, 2, 3)
WORKERS = (0, 1, 2, 4)
TOPOLOGIES = list(itertools.product(RANKS, WORKERS))


def flat(batches):
    return [number for batch in batches for number in batch]


@pytest.mark.parametrize(("ranks", "workers"), TOPOLOGIES)
def test_left_at_every_batch_and_gone_on_with_on_every_topology(ranks, workers):
    total, options = 48, {"batch_size": 3, "shuffle": True, "seed": 4, "memory": "200 B"}
    plan, epoch = plan_of(total, **options)
    whole = play(plan, epoch, ranks, workers)
    assert_once(flat(itertools.chain(*whole)), total)
    following = play(plan, epoch + 1, ranks, workers)
    for taken in range(1, len(whole[0]) + 1):
        state = plan.state_after(epoch, taken, ranks, max(1, workers))
        again, where = plan_of(total, state, **options)
        if taken == len(whole[0]):  # the end of an epoch is the beginning of the next
            assert where == epoch + 1
            assert play(again, where, ranks, workers) == following
            continue
        assert where == epoch
        # As it was: the very batches that would have come, on every rank.
        assert play(again, where, ranks, workers) == [batches[taken:] for batches in whole]
        assert play(again, where + 1, ranks, workers) == following
        before = flat(itertools.chain(*(batches[:taken] for batches in whole)))
        for others in TOPOLOGIES:
            rest = play(again, where, *others)
            left = total - len(before)
            assert {len(batches) for batches in rest} == {-(-(left // others[0]) // 3)}
            after = flat(itertools.chain(*rest))
            assert len(after) == left // others[0] * others[0]  # "drop": none more than must be
            assert len(set(before + after)) == len(before) + len(after)


@pytest.mark.parametrize(("ranks", "workers"), TOPOLOGIES)
@pytest.mark.parametrize("total", [2, 13, 29])
def test_padded_ranks_that_go_on_have_the_same_samples_marked(ranks, workers, total):
    options = {"batch_size": 2, "uneven": "pad", "memory": "200 B"}
    plan, epoch = plan_of(total, **options)
    whole = play_marked(plan, epoch, ranks, workers)
    for taken in range(1, len(whole[0])):
        state = plan.state_after(epoch, taken, ranks, max(1, workers))
        again, where = plan_of(total, state, **options)
        rest = play_marked(again, where, ranks, workers)
        assert rest == [batches[taken:] for batches in whole]


@given(
    total=st.integers(1, 70),
    history=st.lists(
        st.tuples(
            st.sampled_from(RANKS), st.sampled_from(WORKERS), st.integers(1, 6), st.integers(0, 9)
        ),
        max_size=4,
    ),
    uneven=st.sampled_from(["pad", "keep"]),
    shuffle=st.booleans(),
)
def test_interrupted_any_number_of_times_no_sample_is_lost(total, history, uneven, shuffle):
    options = {"uneven": uneven, "shuffle": shuffle, "memory": "200 B"}
    seen, state = [], None
    for ranks, workers, size, steps in [*history, (1, 0, 5, 99)]:
        plan, epoch = plan_of(total, state, batch_size=size, **options)
        if epoch:
            break
        found = play(plan, epoch, ranks, workers)
        counts = {len(batches) for batches in found}
        if uneven == "pad":
            assert len(counts) == 1
        assert max(counts) - min(counts) <= 1
        if steps >= min(counts):
            steps = max(counts)
        seen += flat(itertools.chain(*(batches[:steps] for batches in found)))
        state = plan.state_after(epoch, steps, ranks, max(1, workers))
    assert set(seen) == set(range(total))
    if uneven == "keep":
        assert_once(seen, total)


@examples(25, 1000)
@given(
    total=st.integers(1, 40),
    history=st.lists(
        st.tuples(
            st.integers(1, 9), st.sampled_from(WORKERS), st.integers(1, 6), st.booleans(),
            st.integers(0, 9),
        ),
        max_size=3,
    ),
    last=st.tuples(
        st.integers(1, 9), st.sampled_from(WORKERS), st.integers(1, 6), st.booleans(), st.just(99)
    ),
    shuffle=st.booleans(),
)  # fmt: skip
def test_however_often_interrupted_what_is_not_marked_as_repeated_is_each_sample_once(
    total, history, last, shuffle
):
    """On ranks that are padded; what is marked is the least that lets all have as many."""
    own, state = [], None
    for ranks, workers, size, drop_last, steps in [*history, last]:
        options = {"batch_size": size, "drop_last": drop_last, "shuffle": shuffle}
        plan, epoch = plan_of(total, state, uneven="pad", memory="200 B", **options)
        if epoch:
            break
        left = total - len(own)
        found = play_marked(plan, epoch, ranks, workers)
        assert len({len(batches) for batches in found}) == 1
        goes_on = plan.walk(epoch, ranks, max(1, workers))[0].batches
        marks = sum(mark for batches in found for batch in batches for _, mark in batch)
        if drop_last and -(-left // ranks) % size and not goes_on:
            assert marks == 0
        elif not goes_on:
            assert marks == -left % ranks
        steps = min(steps, len(found[0]))
        for number, mark in flat(itertools.chain(*(batches[:steps] for batches in found))):
            own += [] if mark else [number]
        assert len(set(own)) == len(own)
        if steps == len(found[0]) and not goes_on:
            least = left // ranks // size * size * ranks
            whole = not drop_last or -(-left // ranks) % size == 0
            assert len(own) == (total if whole else total - left + least)
        state = plan.state_after(epoch, steps, ranks, max(1, workers))
        if steps == len(found[0]) and not steps:
            break  # nothing is left, or too little for a batch


@given(
    total=st.integers(6, 70),
    topology=st.sampled_from(TOPOLOGIES),
    size=st.integers(1, 6),
    stops=st.lists(st.integers(1, 6), max_size=4),
    uneven=st.sampled_from(["drop", "pad", "keep"]),
    drop_last=st.booleans(),
)
def test_interrupted_on_one_topology_an_epoch_is_as_if_it_had_not_been(
    total, topology, size, stops, uneven, drop_last
):
    """Batch for batch, on every rank; and the state does not grow."""
    ranks, workers = topology
    options = {"batch_size": size, "uneven": uneven, "drop_last": drop_last, "shuffle": True}
    plan, epoch = plan_of(total, **options)
    whole = play(plan, epoch, ranks, workers)
    done, state = 0, None
    for steps in stops:
        plan, epoch = plan_of(total, state, **options)
        found = play(plan, epoch, ranks, workers)
        assert found == [batches[done:] for batches in whole]
        if steps >= min(map(len, found)):
            return
        done += steps
        state = plan.state_after(epoch, steps, ranks, max(1, workers))
        assert len(state["walks"]) == 1


# Real processes: forked and fresh ones, that live on and that do not, 1, 2 and 4 of them.
