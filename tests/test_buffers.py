import gc

import numpy as np
import torch

from xtorch_data.buffers import Buffers


def address(tensor):
    return tensor.untyped_storage().data_ptr()


def test_memory_is_lent_again_only_when_nobody_holds_it():
    buffers = Buffers()
    array, first = buffers.take((4, 5), np.dtype("f4"))
    array[...] = 1
    where = address(first)
    del array
    view = first[2:]
    as_numpy = view.numpy()
    del first
    for holder in ("view", "as_numpy"):
        other = buffers.take((4, 5), np.dtype("f4"))[1]
        assert address(other) != where, f"{holder} is still there"
        other.fill_(2)
        assert (as_numpy == 1).all()
        if holder == "view":
            del view
    del as_numpy, other
    gc.collect()
    assert where in {address(buffers.take((4, 5), np.dtype("f4"))[1]) for _ in range(1)} | {
        address(tensor) for tensor in [buffers.take((20,), np.dtype("f4"))[1] for _ in range(3)]
    }


def test_lent_memory_is_writable_and_shared_with_the_tensor():
    array, tensor = Buffers().take((3, 2), np.dtype("i2"))
    array[...] = np.arange(6).reshape(3, 2)
    assert tensor.dtype == torch.int16
    tensor += 1
    np.testing.assert_array_equal(array.ravel(), np.arange(1, 7))


def test_only_so_many_idle_buffers_are_kept():
    buffers = Buffers(idle=2)
    tensors = [buffers.take((100,), np.dtype("f8"))[1] for _ in range(5)]
    addresses = {address(tensor) for tensor in tensors}
    del tensors
    again = [buffers.take((100,), np.dtype("f8"))[1] for _ in range(2)]
    assert {address(tensor) for tensor in again} <= addresses
    assert sum(len(free) for free in buffers._free.values()) == 0


def test_nothing_can_be_lent():
    array, tensor = Buffers().take((0, 4), np.dtype("f4"))
    assert array.shape == tuple(tensor.shape) == (0, 4)
