"""Memory for batches that a worker shares with the process it works for, used again."""

from __future__ import annotations

import itertools
import math
import os
import uuid
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..common.buffers import Buffers
from .orphans import is_there
from .unnamed_memory import Address, Memory, new_memory, opened

__all__ = ["SharedBuffers", "forget_ended", "shareable"]

# Before the values of a slot is a byte that both processes see. The worker sets it when it sends
# the slot, the other process clears it when nobody holds a tensor of it any more.
HEADER = 64
# Smaller slots lie side by side in memory of this size: each piece of memory is an open file.
ARENA_BYTES, MOST_SLOTS = 2**20, 1024
WITH_CONSUMER, FREE = 1, 0

# Worker process, and a name that no other one has had.
Sender = tuple[int, str]

# In a worker: slots that are lent, by the address of their values.
_lent: dict[int, _Slot] = {}
# In the process it works for: arenas, by sender and number.
_received: dict[Sender, dict[int, torch.Tensor]] = {}


@dataclass(eq=False)
class _Arena:
    """Shared memory for slots of one size: many small ones, or a single one."""

    number: int
    memory: Memory
    known: bool = False  # to the other process


@dataclass(eq=False)
class _Slot:
    """Memory for one tensor, as long as its arena; the worker and its parent both see its state."""

    buffers: SharedBuffers
    arena: _Arena
    begin: int
    nbytes: int
    sent: bool = False  # since it was lent

    def __post_init__(self) -> None:
        memory = self.arena.memory.bytes.numpy()
        self.state = memory[self.begin : self.begin + 1]
        self.values = memory[self.begin + HEADER : self.begin + HEADER + self.nbytes].data
        self.state[0] = FREE


class SharedBuffers(Buffers):
    """Shared memory that is lent, and lent again once no process holds what it was lent for.

    Torch would make fresh shared memory for every tensor that a worker sends: a file, two mappings
    and a page fault for each page, which takes several times as long as filling it. A slot of this
    memory is mapped once by each process. After that a tensor is sent by the number of its slot. Up
    to `idle` bytes of large slots are kept while nobody uses them.
    """

    def __init__(self, idle: int) -> None:
        super().__init__(idle)
        self._slots: dict[int, deque[_Slot]] = {}  # those this process holds nothing of, by size
        self._arenas = itertools.count()
        self._forgotten: deque[int] = deque()  # arenas that are gone, but known elsewhere
        self.sender: Sender = os.getpid(), uuid.uuid4().hex

    def take(self, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Uninitialized shared memory as an array, lent as by `Buffers.take`."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes == 0:
            return np.empty(shape, dtype)
        size = _rounded(nbytes)
        slot = self._free_slot(size)
        if slot is None:
            self._drop_idle()
            slot = self._new_slot(size)
        slot.sent = False
        root = np.frombuffer(slot.values[:nbytes], dtype)
        address = root.__array_interface__["data"][0]
        _lent[address] = slot
        weakref.finalize(root, _let_go, address, self._slots).atexit = False
        return root.reshape(shape)

    def _new_slot(self, nbytes: int) -> _Slot:
        step = HEADER + -(-nbytes // HEADER) * HEADER
        count = min(max(1, ARENA_BYTES // step), MOST_SLOTS)
        arena = _Arena(next(self._arenas), new_memory(count * step))
        slot, *others = (_Slot(self, arena, place * step, nbytes) for place in range(count))
        self._slots.setdefault(nbytes, deque()).extend(others)
        return slot

    def _free_slot(self, nbytes: int) -> _Slot | None:
        """A slot of a size that no process holds."""
        slots = self._slots.get(nbytes, deque())
        for _ in range(len(slots)):
            try:
                slot = slots.popleft()
            except IndexError:  # taken by another thread
                break
            if slot.state[0] == FREE:
                return slot
            slots.append(slot)
        return None

    def _drop_idle(self) -> None:
        """Let large slots go that no process holds, but for as many as may be idle."""
        left = self._idle
        for nbytes, slots in list(self._slots.items()):
            if nbytes < ARENA_BYTES // 2:
                continue
            for _ in range(len(slots)):
                slot = self._free_slot(nbytes)
                if slot is None:
                    break
                if left >= nbytes:
                    left -= nbytes
                    slots.append(slot)
                elif slot.arena.known:
                    self._forgotten.append(slot.arena.number)

    def forgotten(self) -> tuple[int, ...]:
        """Numbers of arenas that are gone, to be told once."""
        found = []
        while self._forgotten:
            found.append(self._forgotten.popleft())
        return tuple(found)


def _rounded(nbytes: int) -> int:
    """A size up to an eighth larger, one of few: batches may differ in theirs."""
    step = max(HEADER, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


def _let_go(address: int, free: dict[int, deque[_Slot]]) -> None:
    # Runs wherever the last reference dies, in the middle of a lock for all we know.
    slot = _lent.pop(address)
    free.setdefault(slot.nbytes, deque()).append(slot)


class _Loan:
    """A tensor in a slot, as it is sent."""

    def __init__(self, slot: _Slot, tensor: torch.Tensor) -> None:
        self.slot = slot
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        slot, tensor = self.slot, self.tensor
        slot.sent, slot.state[0] = True, WITH_CONSUMER
        arena = slot.arena
        memory = None if arena.known else arena.memory.address()
        arena.known = True
        return _receive, (
            slot.buffers.sender,
            slot.buffers.forgotten(),
            arena.number,
            memory,
            slot.begin,
            slot.nbytes,
            (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset()),
        )


def shareable(tensor: torch.Tensor) -> Any:
    """The tensor to send or, if it lies in a slot, the number of that."""
    plain = type(tensor) is torch.Tensor and tensor.layout is torch.strided
    if not plain or tensor.requires_grad or tensor.is_conj() or tensor.is_neg():
        return tensor
    slot = _lent.get(tensor.untyped_storage().data_ptr())
    # Sent twice it would be given back twice: the second time it is copied.
    return tensor if slot is None or slot.sent else _Loan(slot, tensor)


def _receive(
    sender: Sender,
    forgotten: Sequence[int],
    number: int,
    memory: Address | None,
    begin: int,
    nbytes: int,
    layout: tuple[torch.dtype, Sequence[int], Sequence[int], int],
) -> torch.Tensor:
    """The tensor that a worker has sent; its slot goes back when the last reference dies."""
    arenas = _received.setdefault(sender, {})
    for gone in forgotten:
        arenas.pop(gone, None)
    if memory is not None:
        arenas[number] = opened(memory)
    if number not in arenas:
        raise RuntimeError(
            f"a batch of worker process {sender[0]} came to process {os.getpid()}, but its earlier "
            "ones went to another process: let one process receive all batches of a loader"
        )
    slot = arenas[number].numpy()[begin : begin + HEADER + nbytes]
    root = np.frombuffer(slot[HEADER:].data, np.uint8)
    weakref.finalize(root, _give_back, slot[:1], os.getpid()).atexit = False
    dtype, shape, stride, offset = layout
    return torch.from_numpy(root).view(dtype).as_strided(shape, stride, offset)


def _give_back(state: npt.NDArray[np.uint8], process: int) -> None:
    if process != os.getpid():  # a fork has lost its copy; its parent may still hold the tensor
        return
    state[0] = FREE
    forget_ended()


def forget_ended() -> None:
    """Let go of the memory of workers that have ended; tensors that are still held keep theirs."""
    for sender in list(_received):
        if not is_there(sender[0]):
            _received.pop(sender, None)
