"""Real workers yield what the plan says."""

import json

import pytest
from helpers import numbered, samples_of
from matrix_data import plan_of, play

import xtorch_data as xtd


@pytest.mark.parametrize(
    ("context", "workers", "persistent"),
    [("fork", 4, True), ("fork", 2, False), ("forkserver", 1, True), ("forkserver", 2, False)],
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_real_workers_yield_what_the_plan_says_also_after_a_stop(context, workers, persistent):
    def loader(state=None):
        dataset = xtd.IterableDataset(numbered(48).chunk(time=7), {"time": 1}, **options)
        made = xtd.DataLoader(
            dataset,
            num_workers=workers,
            multiprocessing_context=context,
            persistent_workers=persistent,
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
