"""What fits into memory; tests/iteration/test_read_ahead.py has what follows from it."""

import pickle

from xtorch_data.iteration.budget import BlockCache, Budget, Claim, StageBudget, StageClaim
from xtorch_data.planning.stages import BlockRead, Stage
from xtorch_data.planning.windows import Windows

SIZE = 10
FRAME = Windows.from_sizes({"x": SIZE}, {"x": 1}).frame


def stage(number, loads=1, shuffle=None):
    """A stage of four samples."""
    each = [BlockRead.whole(number + place, ((0, SIZE),), FRAME) for place in range(loads)]
    return Stage(tuple(each), 0, 0, 4, shuffle, None)


def planned(budget, *stages):
    claims = [StageClaim(each) for each in stages]
    for each in claims:
        budget.plan(each)
    return claims


def test_room_for_work_is_left():
    cache = BlockCache(memory=100, working=40, total=1000)
    assert [cache.offer(key, key, 20) for key in range(5)] == [True, True, True, False, False]
    assert cache.nbytes == 60
    assert not cache.offer(0, 0, 0)
    fits = BlockCache(memory=100, working=40, total=100)
    assert all(fits.offer(key, key, 20) for key in range(5))
    assert fits.nbytes == 100
    assert pickle.loads(pickle.dumps(fits)).nbytes == 0


def test_ending_what_was_not_begun_changes_nothing():
    budget, held = Budget(5), Claim(nbytes=4)
    budget.begin(held)
    budget.end(Claim(nbytes=4))
    assert not budget.fits(Claim(nbytes=4))
    budget.end(held)
    budget.end(held)
    assert budget.fits(Claim(nbytes=4))
    budget.begin(other := Claim(nbytes=4))
    assert not budget.fits(Claim(nbytes=4))
    budget.end(other)


def test_one_that_is_alone_may_exceed_the_memory():
    budget, large, small = Budget(5), Claim(nbytes=9), Claim(nbytes=0)
    assert budget.fits(large)
    budget.begin(large)
    assert not budget.fits(small)
    budget.end(large)
    assert budget.fits(small)


def test_what_a_cache_keeps_counts_there_alone():
    cache = BlockCache(memory=100, working=20, total=1000)
    budget = StageBudget(30, lambda load: SIZE, cache)
    first, second, third = planned(budget, stage(0), stage(1), stage(2, loads=2))
    assert (first.nbytes, third.nbytes) == (10, 20)
    budget.begin(first)
    assert budget.fits(third)
    assert budget.offer(first, first.stage.loads[0], "a block")
    assert cache.nbytes == 10 and budget.is_cached(first.stage.loads[0])
    assert budget.fits(third)  # 10 in the cache and 20
    budget.begin(second)
    assert not budget.fits(third)
    [again] = planned(budget, stage(0))
    assert again.nbytes == 0 and budget.fits(again)


def test_the_order_of_a_shuffled_stage_counts():
    [shuffled] = planned(StageBudget(99, lambda load: SIZE), stage(0, shuffle=(0, 0, 0)))
    assert shuffled.nbytes == SIZE + 4 * 8


def test_a_device_has_a_memory_of_its_own_where_what_is_cached_counts_too():
    cache = BlockCache(memory=1000, working=0, total=1000)
    budget = StageBudget(1000, lambda load: SIZE, cache, device_memory=25)
    cache.offer(stage(2).loads[0].key, "a block", SIZE)
    claims = planned(budget, stage(0), stage(1), stage(2))
    assert [each.nbytes for each in claims] == [10, 10, 0]
    for each in claims[:2]:
        assert budget.fits(each)
        budget.begin(each)
    assert not budget.fits(claims[2])
    budget.end(claims[0])
    assert budget.fits(claims[2])
