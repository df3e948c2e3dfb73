"""Blocks on a device, and the windows that are gathered there.

With overlapping windows a batch holds each value many times. Where windows are gathered on the
host, each of them crosses the bus; here a block does, once, and its windows are cut behind it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from ..common.buffers import Buffers
from ..common.recorder import Way
from ..common.text import format_bytes
from ..gathering.assembly import Assembly
from ..gathering.sample_indices import Offsets, SampleIndices
from ..gathering.stage import StageInMemory, as_integers
from ..gathering.views import Array, View
from ..planning.windows import IntArray
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from .streams import WITH_STREAMS, Streams, Then

__all__ = ["DeviceGather"]

# Where the bytes of different blocks begin, so that values of any dtype are aligned.
ALIGNMENT = 16
# What values are moved as: every dtype goes this way bit for bit.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class DeviceGather:
    """A destination on a device: stages are sent there, and batches made of them.

    Made by a loader for each device, for all its epochs. Plain operations of torch, the same on
    every kind of device. `then` is what is made of a batch there.
    """

    def __init__(self, device: torch.device, memory: int, then: Then | None = None) -> None:
        self.device, self.memory, self.then = device, memory, then
        self._sending, self.gathering = Streams.of(device), Streams.of(device)

    def send(self, stage: StageInMemory) -> StageInMemory:
        """The pieces of a stage on the device; their memory on the host is not needed any more."""
        extents = _extents(stage)
        # On a thread that may wait. First for windows that are being cut from stages which are
        # counted no more: only then is their memory free.
        self._sending.own_thread()
        self.gathering.mark().synchronize()
        with self._sending.on():
            memory = self._room_for(extents.nbytes)
            try:
                for begin, stop, there in extents:
                    host = as_integers(stage, begin, (stop - begin,), (1,), 1)
                    memory[there : there + stop - begin].copy_(host, non_blocking=True)
            finally:  # or what is read would be used again
                self._sending.mark().synchronize()
        self.gathering.uses(memory)
        views = {
            name: [
                _DeviceView(self, memory, extents, [*map(_as_array, pieces)], stage.axes)
                for pieces in variables
            ]
            for name, variables in stage.views.items()
        }
        return stage.elsewhere(views)

    def _room_for(self, nbytes: int) -> torch.Tensor:
        try:
            # Of this stream's own memory: what another one has let go of, it may still work on.
            return torch.empty(nbytes, dtype=torch.int8, device=self.device)
        except torch.OutOfMemoryError as error:
            error.add_note(
                f"there was no room for {format_bytes(nbytes)} of blocks with gather='device': "
                "give the loader less device_memory=, and the dataset less memory="
            )
            raise

    def begin_thread(self) -> None:
        """Let a thread gather on this device, on a stream of its own."""
        self.gathering.begin()

    def on_device(self, index: IntArray) -> torch.Tensor:
        """Places, as a tensor there; nothing waits for the copy."""
        tensor = torch.from_numpy(np.ascontiguousarray(index))
        if self.device.type not in WITH_STREAMS:
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def assembly(self, recipe: SampleDefinition, samples: int, epoch: int) -> Assembly:
        """A batch in the making, on the device."""
        return _DeviceAssembly(recipe, self, samples, epoch)


class _Extents:
    """Stretches of the host's memory, and where on the device their bytes go."""

    def __init__(self, stretches: Sequence[tuple[int, int]]) -> None:
        merged: list[list[int]] = []
        for begin, stop in sorted(stretches):
            if merged and begin < merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], stop)
            else:
                merged.append([begin, stop])
        self._begins = np.array([begin for begin, _ in merged], dtype=np.int64)
        self._stops = [stop for _, stop in merged]
        self._there = np.zeros(len(merged), dtype=np.int64)
        end = 0
        for place, (begin, stop) in enumerate(merged):
            self._there[place] = end + begin % ALIGNMENT
            end = -(-(int(self._there[place]) + stop - begin) // ALIGNMENT) * ALIGNMENT
        self.nbytes = end

    def __iter__(self) -> Any:
        return zip(self._begins.tolist(), self._stops, self._there.tolist(), strict=True)

    def of(self, address: int) -> int:
        """Where on the device an address of the host is."""
        place = int(np.searchsorted(self._begins, address, side="right")) - 1
        return address - int(self._begins[place]) + int(self._there[place])


def _extents(stage: StageInMemory) -> _Extents:
    views = [
        _as_array(view)
        for variables in stage.views.values()
        for pieces in variables
        for view in pieces
    ]
    return _Extents([np.lib.array_utils.byte_bounds(view) for view in views if view.size])


def _as_array(view: View) -> Array:
    assert isinstance(view, np.ndarray), "windows in several arrays are joined for a device"
    return view


class _DeviceView:
    """The windows of one variable in all pieces, on the device.

    Windows that step through memory alike, mostly those of all pieces, are one strided tensor of
    which torch selects rows.
    """

    def __init__(
        self,
        gather: DeviceGather,
        memory: torch.Tensor,
        extents: _Extents,
        views: Sequence[Array],
        axes: int,
    ) -> None:
        self._gather, first = gather, views[0]
        self._size = min(first.itemsize, 8)
        integers = memory.view(_INTEGERS[self._size])
        begins, steps = np.zeros((len(views), 1), np.int64), np.zeros((len(views), axes), np.int64)
        alike: dict[tuple[int, ...], list[int]] = {}
        for place, view in enumerate(views):
            if view.size:
                begins[place] = extents.of(view.__array_interface__["data"][0]) // self._size
            steps[place] = [step // self._size for step in view.strides[:axes]]
            alike.setdefault(view.strides[axes:], []).append(place)
        self._offsets = Offsets(begins[:, 0], steps)
        self._groups: list[tuple[list[int], torch.Tensor]] = []
        for strides, places in alike.items():
            shape = first.shape[axes:]
            inside = [step // self._size for step in strides]
            if first.itemsize > self._size:
                shape, inside = (*shape, first.itemsize // self._size), [*inside, 1]
            reach = sum((size - 1) * step for size, step in zip(shape, inside, strict=True))
            rows = integers.numel() - reach if math.prod(shape) else 1
            self._groups.append((places, integers.as_strided((rows, *shape), (1, *inside))))

    def copy(self, key: Hashable, indices: SampleIndices, out: torch.Tensor) -> Way:
        """Copy the windows of some samples into ``out (sample, *dims)``."""
        offsets = indices.offsets(key, self._offsets.of)
        if len(self._groups) == 1:
            torch.index_select(self._groups[0][1], 0, self._gather.on_device(offsets), out=out)
            return Way.SELECTED
        for places, windows in self._groups:
            rows = np.flatnonzero(np.isin(indices.pieces, places))
            if len(rows):
                index, to = self._gather.on_device(offsets[rows]), self._gather.on_device(rows)
                out.index_copy_(0, to, torch.index_select(windows, 0, index))
        return Way.SELECTED


class _DeviceAssembly(Assembly):
    """A batch in the making, whose tensors are on the device."""

    def __init__(
        self, recipe: SampleDefinition, gather: DeviceGather, samples: int, epoch: int
    ) -> None:
        self._gather = gather
        super().__init__(recipe, Buffers(0), samples, epoch)

    def _allocate(self, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        size = min(dtype.itemsize, 8)
        wide = (dtype.itemsize // size,) if dtype.itemsize > size else ()
        integers = torch.empty(
            (len(self._numbers), *shape, *wide), dtype=_INTEGERS[size], device=self._gather.device
        )
        self._arrays[name] = integers
        values = torch.from_numpy(np.empty(0, dtype)).dtype
        self._tensors[name] = (
            torch.view_as_complex(integers.view(torch.float64)) if wide else integers.view(values)
        )

    def _cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return tensor.to(dtype)

    def finish(self, single: bool, skipped: Sequence[int] = ()) -> Batch:
        """The batch, with a mark of when it is there."""
        batch = super().finish(single, skipped)
        if self._gather.then is not None:
            batch = self._gather.then(batch)
        batch._arrival = self._gather.gathering.mark()
        return batch
