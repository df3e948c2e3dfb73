"""A loader of samples by number reads ahead without workers: in order, bounded, and it ends."""

import gc
import itertools
import threading
import time
import weakref

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import add_noise, forecast, orders

import xtorch_data as xtd
from xtorch_data.iteration.lookahead import ahead, fetched_ahead

WINDOW = {"time": 8, "y": -1, "x": -1}
PATIENCE = 30


def make(**options):
    return xtd.MapDataset(forecast(), WINDOW, {"time": 7}, inputs="a", **options)


class Counting:
    """A transform that counts samples, and fails for those that begin with certain values."""

    def __init__(self, failing=()):
        self.count, self.failing = 0, failing
        self.counted = threading.Condition()

    def __call__(self, sample):
        with self.counted:
            self.count += 1
            self.counted.notify_all()
        if sample.values.flat[0] in self.failing:
            raise ValueError("not this one")
        return sample

    def wait_for(self, count):
        with self.counted:
            came = self.counted.wait_for(lambda: self.count >= count, PATIENCE)
        assert came, f"{self.count} of {count} came"


def test_batches_are_fetched_while_one_is_used_and_no_more_than_a_few(no_new_threads):
    counting = Counting()
    loader = xtd.DataLoader(make(transform=counting), batch_size=5)
    counting.count = 0  # of trials when it is made
    for taken, batch in enumerate(loader, start=1):
        assert batch.index[0] == 5 * (taken - 1)
        most = min(5 * (taken + 3), 53)
        counting.wait_for(most)
        time.sleep(0.02)
        assert counting.count == most
    del loader, batch


def test_large_batches_wait_one_at_a_time():
    counting = Counting()
    large = xr.Dataset({"a": (("time", "y"), np.zeros((12, 2_000_000), "float32"))})
    dataset = xtd.MapDataset(large, {"time": 1, "y": -1}, inputs="a", transform=counting)
    counting.count = 0  # of trials when it is made
    for taken, _ in enumerate(xtd.DataLoader(dataset, batch_size=3), start=1):  # 24 MB
        most = min(3 * (taken + 1), 12)
        counting.wait_for(most)
        time.sleep(0.02)
        assert counting.count == most


def test_an_error_comes_in_its_place():
    first = forecast()["a"].values[23, 0, 0]
    batches = iter(xtd.DataLoader(make(transform=Counting([first])), batch_size=5))
    assert [next(batches).index[0].item() for _ in range(4)] == [0, 5, 10, 15]
    with pytest.raises(ValueError, match="not this one"):
        next(batches)


def test_an_error_of_the_sampler_comes_in_its_place_too():
    def numbers():
        yield from range(12)
        raise RuntimeError("no more")

    class Ending(torch.utils.data.Sampler):
        def __iter__(self):
            return numbers()

    batches = iter(xtd.DataLoader(make(), batch_size=5, sampler=Ending()))
    assert [len(next(batches)) for _ in range(2)] == [5, 5]
    with pytest.raises(RuntimeError, match="no more"):
        next(batches)


@pytest.mark.parametrize("how", ["break", "error", "close", "forget", "exhaust"])
def test_threads_end_with_the_iteration(how, no_new_threads):
    """Also while a fetch is under way."""
    counting = Counting()
    loader = xtd.DataLoader(make(transform=counting), batch_size=2)
    if how in ("close", "forget"):
        batches = iter(loader)
        next(batches)
        if how == "close":
            batches.close()
        del batches
    else:
        try:
            for place, _ in enumerate(loader):
                if how == "break" and place == 3:
                    break
                if how == "error" and place == 3:
                    raise KeyError
        except KeyError:
            pass
    del loader
    gc.collect()
    no_new_threads()


def followed(items, most=1, failing=()):
    """What happens while items are begun and finished, and the generator of these."""
    happened = []

    def begin(item):
        happened.append(("begin", item))
        if item in failing:
            raise ValueError(f"{item} cannot be begun")
        return item

    def finish(item):
        happened.append(("finish", item))
        return item

    return happened, ahead(items, begin, finish, most)


@pytest.mark.parametrize("most", range(4))
def test_the_next_ones_begin_before_one_is_handed_out(most):
    happened, batches = followed(iter(range(5)), most)
    for number, batch in enumerate(batches):
        assert batch == number
        # never more than asked for ahead of the one in use
        begun = [n for what, n in happened if what == "begin"]
        assert begun == list(range(min(number + 1 + most, 5)))
        assert happened[-1] == ("finish", number)


def failing_after(count):
    yield from range(count)
    raise ValueError(f"{count} cannot be read")


@pytest.mark.parametrize("count", range(4))
def test_an_error_of_what_is_asked_or_begun_comes_in_its_place(count):
    _, unread = followed(failing_after(count))
    _, not_begun = followed(iter(range(9)), failing=[count])
    for batches in (unread, not_begun):
        assert [next(batches) for _ in range(count)] == list(range(count))
        with pytest.raises(ValueError, match=f"{count} cannot be"):
            next(batches)
        assert list(batches) == []


def test_what_waits_is_not_fetched_after_the_end():
    begun, going_on, ended, fetched = *(threading.Event() for _ in range(3)), []

    def fetch(number):
        if number == 1:
            begun.set()
            assert going_on.wait(PATIENCE)
        fetched.append(number)
        if number == 1:
            ended.set()
        return number

    batches = fetched_ahead(fetch, itertools.count(), 4)
    assert next(batches) == 0
    assert begun.wait(PATIENCE)
    batches.close()  # does not wait for what hangs
    going_on.set()
    assert ended.wait(PATIENCE)
    time.sleep(0.02)
    assert fetched == [0, 1]


def test_what_was_handed_out_is_not_held():
    batches = fetched_ahead(lambda number: np.full(3, number), iter(range(9)), 2)
    first = next(batches)
    alive = threading.Event()
    weakref.finalize(first, alive.set)
    del first
    next(batches)
    assert alive.wait(PATIENCE)
    batches.close()


def test_the_order_of_a_drawing_sampler_follows_the_seed_however_slow_reads_are():
    def order(pause):
        dataset = make(transform=lambda sample: time.sleep(pause) or sample)
        sampler = torch.utils.data.RandomSampler(dataset, replacement=True, num_samples=60)
        torch.manual_seed(3)
        found = []
        for batch in xtd.DataLoader(dataset, batch_size=8, sampler=sampler):
            found += batch.index.tolist()
            torch.rand(1)  # as training does
        return found

    assert order(0) == order(0.002)


def test_an_iteration_keeps_its_epoch():
    whole = [batch.x for batch in xtd.DataLoader(make(transform=add_noise), batch_size=8)]
    dataset = make(transform=add_noise)
    found = []
    for batch in xtd.DataLoader(dataset, batch_size=8):
        found.append(batch.x)
        dataset.set_epoch(7)
    assert all(map(torch.equal, found, whole))


def test_two_loaders_of_one_dataset_go_side_by_side():
    dataset = make(memory="30 kB")
    loaders = [xtd.DataLoader(dataset, batch_size=5, sampler=s) for s in (None, range(52, -1, -1))]
    pairs = list(zip(*loaders, strict=True))
    there, back = ([pair[place] for pair in pairs] for place in (0, 1))
    assert [n for batch in orders(there) for n in batch] == list(range(53))
    assert [n for batch in orders(back) for n in batch] == list(range(52, -1, -1))
    values = forecast()["a"].values
    for batch in (*there, *back):
        for number, x in zip(batch.index.tolist(), batch.x, strict=True):
            np.testing.assert_array_equal(x, values[number : number + 8])
