"""Real workers yield what the plan says."""

import itertools
import json

import numpy as np
import pytest
from helpers import numbered, samples_of

import xtorch_data as xtd


def plan_of(total, state=None, **options):
    dataset = xtd.IterableDataset(numbered(total).chunk(time=7), {"time": 1}, **options)
    if state is not None:
        dataset.load_state_dict(json.loads(json.dumps(state)))
    return dataset.plan, dataset.epoch


def play(plan, epoch, ranks, workers):
    """What each rank's loader yields in an epoch: lists of sample numbers, batch after batch."""
    found = []
    for rank in range(ranks):
        queues = []
        for worker in range(max(1, workers)):
            mine = plan.intervals(epoch, rank, ranks, worker, max(1, workers))
            numbers = np.concatenate(
                [stage.numbers(plan.windows) for stage in plan.stages(epoch, mine)]
                or [np.zeros(0, int)]
            ).tolist()
            sizes = list(plan.batch_sizes(mine))
            ends = list(itertools.accumulate(sizes))
            queues.append(
                [numbers[end - size : end] for size, end in zip(sizes, ends, strict=True)]
            )
        batches = []
        while any(queues):
            batches += [queue.pop(0) for queue in queues if queue]
        assert len(batches) == plan.batches(epoch, rank, ranks)
        found.append(batches)
    return found


@pytest.mark.parametrize(
    ("context", "workers", "persistent"),
    [("fork", 4, True), ("fork", 2, False), ("forkserver", 1, True), ("forkserver", 2, False)],
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_real_workers_yield_what_the_plan_says_also_after_a_stop(context, workers, persistent):
    def loader(state=None):
        dataset = xtd.IterableDataset(numbered(48).chunk(time=7), {"time": 1}, **options)
        made = xtd.DataLoader(
            dataset, workers, multiprocessing_context=context, persistent_workers=persistent
        )
        if state is not None:
            made.load_state_dict(json.loads(json.dumps(state)))
        return made

    options = {"batch_size": 3, "shuffle": True, "seed": 4, "memory": "200 B", "rank": 1}
    options |= {"world_size": 2}
    plan, _ = plan_of(48, **options)
    whole = [play(plan, epoch, 2, workers)[1] for epoch in range(2)]
    first = loader()
    batches, found = iter(first), []
    for _ in range(3):
        found.append(samples_of([next(batches)]))
    state = first.state_dict()
    del batches
    again = first if context == "forkserver" and persistent else loader(state)
    again.load_state_dict(state)
    found += [samples_of([batch]) for batch in again]
    assert found == whole[0]
    assert [samples_of([batch]) for batch in again] == whole[1]
