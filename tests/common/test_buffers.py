import gc
import pickle

import numpy as np
import pytest
import torch

from xtorch_data.common import buffers as module
from xtorch_data.common.buffers import Buffers

F4 = np.dtype("f4")


@pytest.fixture(autouse=True)
def no_array_is_small(monkeypatch):
    monkeypatch.setattr(module, "LEAST_BYTES", 1)


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_lent_again_only_when_nobody_holds_it():
    buffers = Buffers(10**6)
    array = buffers.take((4, 5), F4)
    array[...] = 1
    where = address(array)
    tensor = torch.from_numpy(array)
    holders = {
        "a view of a view": array[1:][:2].T,
        "a tensor": tensor,
        "a view of a tensor": tensor[2:],
        "the array of a tensor": tensor.numpy(),
        "a view of the array of a view": tensor[1:].numpy()[:, 1],
    }
    del array, tensor
    for name in list(holders):
        gc.collect()
        other = buffers.take((4, 5), F4)
        assert address(other) != where, f"{name} is still there"
        other.fill(2)
        assert (np.asarray(holders[name]) == 1).all()
        del other, holders[name]
    found = {address(each) for each in [buffers.take((20,), F4) for _ in range(6)]}
    assert where in found


def test_lent_memory_is_writable_and_shared_with_the_tensor():
    array = Buffers(10**6).take((3, 2), np.dtype("i2"))
    array[...] = np.arange(6).reshape(3, 2)
    tensor = torch.from_numpy(array)
    tensor += 1
    np.testing.assert_array_equal(array.ravel(), np.arange(1, 7))


def test_only_so_many_idle_buffers_are_kept():
    buffers = Buffers(idle=1000)
    arrays = [buffers.take((100,), F4) for _ in range(5)]
    addresses = {address(array) for array in arrays}
    del arrays
    again = [buffers.take((100,), F4) for _ in range(2)]
    assert {address(array) for array in again} <= addresses
    assert sum(len(free) for free in buffers._free.values()) == 0


def test_idle_memory_that_is_somewhat_larger_serves_as_well():
    buffers = Buffers(10**6)
    where = address(buffers.take((100,), F4))
    smaller = buffers.take((9, 10), F4)
    assert address(smaller) == where
    assert smaller.shape == (9, 10)
    del smaller
    much = buffers.take((20,), F4)  # half of it would lie idle
    assert sum(len(free) for free in buffers._free.values()) == 1
    assert address(buffers.take((100,), F4)) == where
    assert much.nbytes == 80


def test_nothing_can_be_lent():
    assert Buffers(10**6).take((0, 4), F4).shape == (0, 4)


def test_a_copy_begins_empty():
    buffers = Buffers(10**6)
    del [buffers.take((4,), F4)][:]
    assert pickle.loads(pickle.dumps(buffers))._free == {}


def test_lent_and_idle_memory_keep_to_the_total():
    def idle(buffers):
        return sum(len(free) * nbytes for nbytes, free in buffers._free.items())

    buffers = Buffers(idle=1000, total=1000)
    arrays = [buffers.take((100,), F4) for _ in range(2)]
    del arrays
    assert idle(buffers) == 800
    held = buffers.take((60,), F4)  # 240 bytes more than 800: one of the others goes
    assert idle(buffers) == 400
    more = [buffers.take((100,), F4) for _ in range(3)]  # more is lent than the total
    assert idle(buffers) == 0
    del more, held
    assert 600 < idle(buffers) <= 1000
