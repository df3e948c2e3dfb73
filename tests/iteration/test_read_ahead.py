"""The read-ahead as a state machine: within the budget, in order, and it ends at any point.

Its reader is a fake that waits for the test: no file, no sleep.
"""

import asyncio
import gc
import itertools
import threading
import weakref
from concurrent.futures import CancelledError, wait

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from strategies import EXAMPLES

from xtorch_data.iteration.budget import StageBudget
from xtorch_data.iteration.read_ahead import ReadAhead, settle
from xtorch_data.iteration.threads import Threads
from xtorch_data.planning.stages import BlockRead, Stage, StepsRead
from xtorch_data.planning.windows import Windows

PATIENCE = 60
FRAME = Windows.from_sizes({"x": 1000}, {"x": 1}).frame


class Memory:
    """What a stage is read into: steps of its own and of stages before it."""

    def __init__(self, number, steps=()):
        self.number, self.steps = number, steps


class DamageError(Exception):
    pass


def line_of(stages):
    """Stages one after the other, from what was drawn: samples, loads, steps, and steps behind.

    As in order, a stage may need steps of those before it, back to where the last one did.
    """
    found, first, begin, number, furthest = [], 0, 0, itertools.count(), 0
    for samples, loads, steps, behind in stages:
        furthest = max(furthest, begin - behind) if loads == 1 else begin + steps
        box, end = ((begin, begin + steps),), begin + steps
        read = StepsRead(begin, end, furthest if furthest < begin else None)
        loads = tuple(BlockRead(next(number), box, FRAME, (), 0, read) for _ in range(loads))
        found.append(Stage(loads, first, first, first + samples, None, None))
        first, begin = first + samples, begin + steps
    return found


def nbytes_of(load):
    return load.region[0][1] - load.region[0][0]


class ReadingAhead(RuleBasedStateMachine):
    position = 0

    @initialize(
        stages=st.lists(
            st.tuples(
                st.integers(1, 5), st.sampled_from([1, 1, 1, 2]), st.integers(1, 6),
                st.integers(0, 9),
            ),
            min_size=1, max_size=12,
        ),
        memory=st.integers(1, 25),
        most=st.sampled_from([None, None, 1, 2, 3]),
        batch=st.integers(1, 8),
    )  # fmt: skip
    def begin(self, stages, memory, most, batch):
        self.line, self.memory, self.most = line_of(stages), memory, most
        self.needed = self.whom_stages_need()
        total = self.line[-1].stop
        sizes = [min(batch, total - start) for start in range(0, total, batch)]
        self.begun, self.released, self.outcomes = [], {}, {}
        self.done, self.left = set(), [stage.stop - stage.start for stage in self.line]
        self.taken, self.position = [], 0
        self.memories, self.steps = [None] * len(self.line), {}
        self.others = set(threading.enumerate())
        self.threads = Threads()
        budget = StageBudget(memory, nbytes_of, most=most)
        self.ahead = ReadAhead(iter(self.line), budget, self.read, self.threads)
        self.threads.begin(self.ahead.close)
        self.slices = self.ahead.slices(iter(sizes))

    def whom_stages_need(self):
        """The stages before whose steps each stage needs, too: what lies from where it carries."""
        return [
            {
                before
                for before in range(number)
                if stage.loads[0].carried is not None
                and self.line[before].loads[0].region[0][1] > stage.loads[0].carried
            }
            for number, stage in enumerate(self.line)
        ]

    async def read(self, pending, before):
        number = self.line.index(pending.stage)
        assert before is (self.begun[-1] if self.begun else None)
        self.begun.append(pending)
        self.released[number] = asyncio.Event()
        await self.released[number].wait()
        steps = ()
        if pending.stage.loads[0].carried is not None:
            steps = await asyncio.wrap_future(before.halo)
            assert {each.number for each in steps} == self.needed[number]
        if self.outcomes[number] == "fails":
            raise DamageError(number)
        steps = (*steps, Memory(number))
        self.steps[number] = weakref.ref(steps[-1])
        upcoming = self.needed[number + 1] if number + 1 < len(self.line) else ()
        settle(pending.halo, tuple(each for each in steps if each.number in upcoming))
        memory = Memory(number, steps)
        self.memories[number] = weakref.ref(memory)
        return memory

    def flush(self):
        """Let all that was begun on the event loop come to where it waits."""

        async def nothing():
            pass

        self.threads.start(nothing()).result(PATIENCE)

    # What can be seen from outside.

    def expected(self, number):
        """What comes of reading a stage: None as long as nothing does."""
        outcome = self.outcomes.get(number)
        if outcome is None or self.line[number].loads[0].carried is None:
            return outcome and (outcome, number)
        before = self.expected(number - 1)
        if before is None or before[0] == "fails":
            return before
        return outcome, number

    def in_memory(self):
        """Stages whose memory is taken: those begun, until whoever needs them is done."""
        users = {
            n: {n} | {later for later, needed in enumerate(self.needed) if n in needed}
            for n in range(len(self.begun))
        }
        return {n for n, some in users.items() if not some <= self.done}

    @invariant()
    def stages_are_begun_in_order_as_far_as_they_fit(self):
        if not self.position:
            return
        self.flush()
        count = len(self.begun)
        assert [each.stage for each in self.begun] == self.line[:count]
        nbytes = [sum(map(nbytes_of, stage.loads)) for stage in self.line]
        used = sum(nbytes[n] for n in self.in_memory())
        under_way = count - len(self.done)
        assert under_way <= 1 or used <= self.memory
        assert self.most is None or under_way <= self.most
        if count < len(self.line):  # the next one waits for a reason
            full = under_way == self.most or used + nbytes[count] > self.memory
            assert under_way and full

    @invariant()
    def steps_that_nobody_needs_are_let_go(self):
        if not self.position or "fails" in self.outcomes.values():  # an error holds on to some
            return
        self.flush()
        held = {number for number, steps in self.steps.items() if steps() is not None}
        assert held <= self.in_memory()

    @rule()
    def ask_for_a_batch(self):
        slices = next(self.slices, None)
        if slices is None:
            assert self.position == self.line[-1].stop
            return
        for each in slices:
            stage = each.pending.stage
            assert stage.start + each.start == self.position
            assert each.start < each.stop <= stage.stop - stage.start
            self.position += each.stop - each.start
            self.taken.append((self.line.index(stage), each))

    @rule(data=st.data(), outcome=st.sampled_from(["is read", "is read", "is read", "fails"]))
    def let_a_read_end(self, data, outcome):
        self.flush()
        waiting = [n for n in range(len(self.begun)) if n not in self.outcomes]
        if waiting:
            number = data.draw(st.sampled_from(waiting))
            self.outcomes[number] = outcome
            self.threads.loop.call_soon_threadsafe(self.released[number].set)

    @rule(data=st.data())
    def gather(self, data):
        self.flush()
        ready = [n for n, (number, _) in enumerate(self.taken) if self.expected(number)]
        if not ready:
            return
        number, each = self.taken.pop(data.draw(st.sampled_from(ready)))
        assert wait([each.pending.loaded], PATIENCE).done
        outcome, where = self.expected(number)
        if outcome == "fails":  # in its place: this stage, and those that need what it has read
            assert each.pending.loaded.exception().args == (where,)
        else:
            assert isinstance(each.pending.loaded.result(), Memory)
        self.left[number] -= each.stop - each.start
        if not self.left[number]:
            self.done.add(number)
        self.ahead.done(each.pending, each.stop - each.start)
        if not self.left[number]:
            assert each.pending.loaded.cancelled()
            if outcome != "fails":
                self.flush()
                assert self.memories[number]() is None

    def teardown(self):
        """Close it, at whatever point this is."""
        if not hasattr(self, "ahead"):
            return
        self.threads.close()
        self.threads.close()  # may be called again
        begun = (*self.begun, *(each.pending for _, each in self.taken))
        assert all(each.loaded.done() for each in begun)  # nobody waits for it
        del begun
        assert self.threads.loop.is_closed()
        with pytest.raises(CancelledError):
            self.threads.start(asyncio.sleep(0))
        count = len(self.begun)
        list(itertools.islice(self.slices, 2))  # is planned, but not begun
        assert len(self.begun) == count
        memories = [each for each in self.memories if each is not None]
        del self.ahead, self.slices, self.begun[:], self.taken[:]
        gc.collect()
        assert all(each() is None for each in memories)
        assert set(threading.enumerate()) <= self.others


TestReadingAhead = ReadingAhead.TestCase
TestReadingAhead.settings = hypothesis.settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None
)
