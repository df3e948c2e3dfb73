"""Shared memory of workers, and forks that have it."""

import gc
import os

import numpy as np
import pytest
import torch
from shared_memory_data import LARGE, STEPS, filled, sent, series, stream

import xtorch_data as xtd
from xtorch_data.processes import shared_memory as shared
from xtorch_data.processes.shared_memory import SharedBuffers


def test_a_fork_of_the_receiver_gives_nothing_back():
    buffers = SharedBuffers(10**6)
    held = [sent(filled(buffers, LARGE, 1))]
    child = os.fork()
    if child == 0:
        held.clear()
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    filled(buffers, LARGE, 2)
    assert (held[0] == 1).all()


def held_of_workers():
    """Pieces of memory of worker processes that are mapped here."""
    return [len(arenas) for sender, arenas in shared._received.items() if sender[0] != os.getpid()]


@pytest.mark.parametrize("context", ["fork", "forkserver"])
@pytest.mark.parametrize("loader", [xtd.DataLoader, torch.utils.data.DataLoader])
def test_batches_of_workers_can_be_kept(context, loader):
    ds = series()
    more = {} if loader is xtd.DataLoader else {"batch_size": None}
    batches = loader(
        stream(ds, batch_size=7),
        num_workers=2,
        multiprocessing_context=context,
        persistent_workers=True,
        **more,
    )
    kept = [batch for _ in range(2) for batch in batches]
    seen = []
    for batch in kept:
        for number, values in zip(batch.index.tolist(), batch.x, strict=True):
            np.testing.assert_array_equal(values, ds["t"][number : number + 4])
            seen.append(number)
    assert sorted(seen) == sorted(2 * list(range(STEPS - 3)))


def test_workers_use_their_memory_again_and_leave_none_behind():
    ds = series().pad(x=(0, 20_000), mode="edge")  # a batch is about a megabyte
    loader = xtd.DataLoader(stream(ds, batch_size=2), num_workers=2)
    mapped = []
    for batch in loader:
        batch.x.add_(1)  # the consumer may write
        mapped.append(held_of_workers())
    assert len(mapped) == (STEPS - 3 + 1) // 2
    assert all(each <= 10 for found in mapped for each in found)  # ahead, in the queue, in use
    del batch
    assert held_of_workers() == []


def test_memory_of_workers_is_left_when_an_epoch_is_broken_off():
    batch = next(iter(xtd.DataLoader(stream(series(), batch_size=2), num_workers=1)))
    gc.collect()
    first = batch.x.clone()
    shared.forget_ended()
    assert held_of_workers() == []
    assert torch.equal(batch.x, first)
