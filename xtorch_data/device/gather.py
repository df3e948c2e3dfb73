"""Blocks on a device, and the windows that are gathered there.

With overlapping windows a batch holds each value many times. Where windows are gathered on the
host, each of them crosses the bus; here a block does, once, and its windows are cut behind it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from ..common.buffers import Buffers
from ..common.recorder import Way
from ..common.text import format_bytes
from ..gathering.assembly import Assembly
from ..gathering.gatherers import WindowRows, bytes_between
from ..gathering.sample_indices import SampleIndices
from ..gathering.stage import StageInMemory
from ..gathering.views import Array, View
from ..planning.windows import IntArray
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.tensors import sent
from .streams import Streams, Then

__all__ = ["DeviceGather"]

# Where the bytes of different blocks begin, so that values of any dtype are aligned.
ALIGNMENT = 16


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
                    host = bytes_between(stage, begin, stop)
                    memory[there : there + len(host)].copy_(host, non_blocking=True)
            finally:  # or what is read would be used again
                self._sending.mark().synchronize()
        self.gathering.uses(memory)
        views = {
            name: [
                _DeviceWindows(self, [*map(_as_array, pieces)], stage.axes, memory, extents.of)
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
        return sent(np.ascontiguousarray(index), self.device)

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


class _DeviceWindows(WindowRows):
    """The windows of one variable in all pieces, on the device."""

    def __init__(
        self, gather: DeviceGather, views: Sequence[Array], axes: int, *there: Any
    ) -> None:
        super().__init__(views, axes, *there)
        self._gather = gather

    def copy(self, key: Hashable, indices: SampleIndices, out: torch.Tensor) -> Way:
        """Copy the windows of some samples into ``out (sample, *dims)``."""
        target = out.unsqueeze(-1).view(self._integers)
        for rows, chosen, samples, turned in self._chosen(key, indices):
            index = self._gather.on_device(chosen)
            if samples is None and not turned:
                torch.index_select(rows, 0, index, out=target)
                continue
            found = torch.index_select(rows, 0, index).flip(turned)
            if samples is None:
                target.copy_(found)
            else:
                target.index_copy_(0, self._gather.on_device(samples), found)
        return Way.SELECTED


class _DeviceAssembly(Assembly):
    """A batch in the making, whose tensors are on the device."""

    def __init__(
        self, recipe: SampleDefinition, gather: DeviceGather, samples: int, epoch: int
    ) -> None:
        self._gather = gather
        super().__init__(recipe, Buffers(0), samples, epoch)

    def _allocate(self, name: str, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        values = torch.from_numpy(np.empty(0, dtype)).dtype
        size = (len(self._numbers), *shape)
        self._tensors[name] = torch.empty(size, dtype=values, device=self._gather.device)
        self._arrays[name] = self._tensors[name]

    def _cast(self, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return tensor.to(dtype)

    def finish(self, single: bool, skipped: Sequence[int] = ()) -> Batch:
        """The batch, with a mark of when it is there."""
        batch = super().finish(single, skipped)
        if self._gather.then is not None:
            batch = self._gather.then(batch)
        batch._arrival = self._gather.gathering.mark()
        return batch
