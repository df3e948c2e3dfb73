"""What tests of topologies share, in one process and in several."""

import itertools
import json

import numpy as np
from helpers import numbered

import xtorch_data as xtd


def plan_of(total, state=None, **options):
    dataset = xtd.IterableDataset(numbered(total).chunk(time=7), {"time": 1}, **options)
    if state is not None:
        dataset.load_state_dict(json.loads(json.dumps(state)))
    return dataset.plan, dataset.epoch


def play(plan, epoch, ranks, workers):
    """What each rank's loader yields in an epoch: lists of sample numbers, batch after batch."""
    found = play_marked(plan, epoch, ranks, workers)
    return [[[number for number, _ in batch] for batch in batches] for batches in found]


def play_marked(plan, epoch, ranks, workers):
    """The same, each number with whether it is marked as repeated."""
    found = []
    for rank in range(ranks):
        queues = []
        for worker in range(max(1, workers)):
            mine = plan.intervals(epoch, rank, ranks, worker, max(1, workers))
            numbers = np.concatenate(
                [stage.numbers(plan.windows) for stage in plan.stages(epoch, mine)]
                or [np.zeros(0, int)]
            ).tolist()
            last = plan.repeated(epoch, rank, ranks, worker, max(1, workers))
            assert 0 <= last <= len(numbers)
            marks = [place >= len(numbers) - last for place in range(len(numbers))]
            numbers = list(zip(numbers, marks, strict=True))
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
