import errno
import gc
import importlib.util
import os
from multiprocessing import reduction
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from shared_memory_data import LARGE, filled, send, sent, series, stream

import xtorch_data as xtd
from xtorch_data.processes import shared_memory as shared
from xtorch_data.processes import unnamed_memory as unnamed
from xtorch_data.processes.shared_memory import SharedBuffers, shareable


def slot_of(tensor):
    return shared._lent[tensor.untyped_storage().data_ptr()]


def test_a_slot_is_lent_again_when_neither_process_holds_it():
    buffers = SharedBuffers(10**6)
    ours = filled(buffers, LARGE, 1)
    slot = slot_of(ours)
    theirs = sent(ours)
    np.testing.assert_array_equal(theirs, np.ones(LARGE))
    ours[0, 0] = 5
    assert theirs[0, 0] == 5  # the same memory
    view = theirs[1:]
    del theirs
    other = filled(buffers, LARGE, 2)
    assert slot_of(other) is not slot  # both hold it
    del ours
    third = filled(buffers, LARGE, 3)
    assert slot_of(third) is not slot  # the other process holds it
    assert (view == 1).all()
    del view
    assert slot_of(filled(buffers, LARGE, 4)) is slot


def test_a_slot_that_was_never_sent_is_lent_again():
    buffers = SharedBuffers(10**6)
    tensor = filled(buffers, LARGE, 1)
    slot = slot_of(tensor)
    del tensor
    assert slot_of(filled(buffers, LARGE, 2)) is slot


def test_views_and_dtypes_arrive_as_they_were():
    array = SharedBuffers(10**6).take((4, 6), np.dtype("i2"))
    array[...] = np.arange(24).reshape(4, 6)
    found = sent(torch.from_numpy(array)[1].reshape(2, 3).T)
    assert found.dtype == torch.int16
    assert found.shape == (3, 2)
    np.testing.assert_array_equal(found, np.arange(6, 12).reshape(2, 3).T)


def test_what_is_sent_twice_is_copied_the_second_time():
    buffers = SharedBuffers(10**6)
    tensor = filled(buffers, LARGE, 1)
    slot = slot_of(tensor)
    first, second = sent(tensor), sent(tensor)
    del first, tensor
    assert slot_of(filled(buffers, LARGE, 2)) is slot
    np.testing.assert_array_equal(second, np.ones(LARGE))


def test_no_more_idle_slots_are_kept_than_wanted():
    large = 2**20
    buffers = SharedBuffers(idle=2 * 4 * large)
    held = [filled(buffers, (large,), value) for value in range(6)]
    there = [sent(tensor) for tensor in held]
    assert len(shared._received[buffers.sender]) == 6
    del held, there
    last = sent(filled(buffers, (large + 1,), 9))
    assert len(shared._received[buffers.sender]) == 3  # one in use and two idle
    assert (last == 9).all()


def test_many_small_slots_share_one_file():
    buffers = SharedBuffers(10**6)
    held = [sent(filled(buffers, (100,), value)) for value in range(500)]
    assert len(shared._received[buffers.sender]) == 1
    for value, tensor in enumerate(held):
        assert (tensor == value).all()


def test_empty_tensors_need_no_slot():
    assert sent(filled(SharedBuffers(10**6), (0, 3), 1)).shape == (0, 3)


def test_a_batch_that_comes_to_another_process_than_those_before_says_so():
    buffers = SharedBuffers(10**6)
    sent(filled(buffers, LARGE, 1))
    message = send(filled(buffers, LARGE, 2))
    del shared._received[buffers.sender]
    with pytest.raises(RuntimeError, match="one process receive all batches"):
        ForkingPickler.loads(message)


# With real workers.


def test_tensors_of_many_sizes_share_few_files():
    buffers = SharedBuffers(10**6)
    for size in range(1, 3000):
        found = sent(filled(buffers, (size,), size))
        assert found.shape == (size,)
        assert (found == size).all()
    assert len(shared._received[buffers.sender]) < 100


def test_tensors_that_are_more_than_their_memory_go_as_torch_sends_them():
    array = SharedBuffers(10**6).take((4,), np.dtype("c8"))
    array[...] = 1j
    plain = torch.from_numpy(array)
    assert isinstance(shareable(plain), shared._Loan)
    assert not isinstance(shareable(plain.conj()), shared._Loan)
    assert not isinstance(shareable(plain.to_sparse()), shared._Loan)
    assert not isinstance(shareable(torch.nn.Parameter(plain)), shared._Loan)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name")
def test_memory_without_a_name_is_not_needed(monkeypatch):
    def forbidden(name):
        raise PermissionError(errno.EPERM, "as in a sandbox")

    with monkeypatch.context() as patched:  # as on Windows
        patched.delattr(reduction, "DupFd")
        spec = importlib.util.spec_from_file_location("xtorch_data._again", unnamed.__file__)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", forbidden)
        unnamed.has_unnamed_memory.cache_clear()
        assert unnamed.SharedIntegers(3).values.tolist() == [0, 0, 0]
        assert len(list(xtd.DataLoader(stream(series(), batch_size=7)))) == 34
    unnamed.has_unnamed_memory.cache_clear()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_many_datasets_hold_few_files_and_an_error_none(monkeypatch):
    def full(*args, **options):
        raise RuntimeError("unable to open file in read-write mode: Too many open files (24)")

    gc.collect()  # files of what other tests have left
    ds, before = series(), len(os.listdir("/proc/self/fd"))
    held = [make(ds, {"time": 4}) for make in (xtd.MapDataset, xtd.IterableDataset) * 10]
    assert len(os.listdir("/proc/self/fd")) - before < 10
    held[1].set_epoch(5)
    held[2].set_epoch(7)
    assert [each.epoch for each in held[:4]] == [0, 5, 7, 0]
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(torch, "from_file", full)
    with pytest.raises(OSError, match="ulimit -n") as caught:
        unnamed.UnnamedMemory(64)
    assert caught.value.errno == errno.EMFILE
    del caught
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
