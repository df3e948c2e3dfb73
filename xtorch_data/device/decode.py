"""Packed batches are decoded on the device, from tables of what each integer becomes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..samples.batch import Batch
from ..samples.packing import Group, Packed
from ..samples.part_labels import PartLabels
from ..samples.select import Part
from .streams import Streams

__all__ = ["Unpacker"]

# What integers are looked at as: on some devices torch can do nothing with unsigned ones.
_SIGNED = {1: torch.int8, 2: torch.int16}


class Unpacker:
    """Makes batches of decoded values from those of packed ones, on a device.

    Made by a loader for each device; any thread that gathers there, or copies, may call it.
    """

    def __init__(self, packed: Packed, device: torch.device) -> None:
        self._recipe = packed.decoded
        self._tables = {
            part.name: [
                (group, _Tables(group, part, self._recipe.cast, device) if group.packings else None)
                for group in packed.groups[part.name]
            ]
            for part in self._recipe.parts
        }
        self._labels = {part.name: PartLabels.of(part) for part in self._recipe.parts}

    def used_on(self, streams: Streams) -> None:
        """Note that a stream reads the tables."""
        for groups in self._tables.values():
            for _, tables in groups:
                if tables is not None:
                    streams.uses(tables.values)
                    streams.uses(tables.begins)

    def signed(self, batch: Batch) -> Batch:
        """A packed batch on the host, looked at as what every device can take."""
        packed = {
            group.part.name: batch[group.part.name].view(tables.signed)
            for groups in self._tables.values()
            for group, tables in groups
            if tables is not None
        }
        return batch.replace(dims=None, **packed)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the parts that were asked for, of one with groups on the device."""
        single = batch.index.ndim == 0
        parts = {part.name: self._decoded(part, batch, single) for part in self._recipe.parts}
        return batch._with(parts, self._labels)

    def _decoded(self, part: Part, batch: Batch, single: bool) -> torch.Tensor:
        groups = self._tables[part.name]
        if len(groups) == 1:
            return _values(batch, *groups[0])
        axis = 0 if single else 1  # that of variables: of one variable there is one group
        table = next(tables.values for _, tables in groups if tables is not None)
        shape = [*batch.index.shape, len(part.variables), *part.shape]
        out = torch.empty(shape, dtype=table.dtype, device=table.device)
        for group, tables in groups:
            _put(out, axis, group.places, _values(batch, group, tables))
        return out


def _values(batch: Batch, group: Group, tables: _Tables | None) -> torch.Tensor:
    values = batch[group.part.name]
    return values if tables is None else tables.decode(values)


def _put(out: torch.Tensor, axis: int, places: Sequence[int], values: torch.Tensor) -> None:
    """Copy variables to their places; when it returns, nothing holds them any more."""
    for place, variable in zip(places, values.unbind(axis), strict=True):
        out.select(axis, place).copy_(variable)


class _Tables:
    """The tables of the variables of a group, one after the other, and where each begins."""

    def __init__(
        self, group: Group, part: Part, cast: torch.dtype | None, device: torch.device
    ) -> None:
        tables = torch.from_numpy(
            np.concatenate([packing.table(part.dtype) for packing in group.packings])
        )
        self.values = (tables if cast is None else tables.to(cast)).to(device)
        size = len(tables) // len(group.packings)
        # Where the integer 0 is.
        begins = (
            torch.arange(len(group.packings), dtype=torch.int32, device="cpu") * size + size // 2
        )
        self.begins = begins.reshape([-1, *[1] * len(part.shape)] if part.stacked else [1])
        self.begins = self.begins.to(device)
        self.signed = _SIGNED[group.packings[0].dtype.itemsize]

    def decode(self, stored: torch.Tensor) -> torch.Tensor:
        """What integers ``([sample,] [variable,] *dims)`` become."""
        places = torch.add(stored.view(self.signed), self.begins)
        found = torch.index_select(self.values, 0, places.reshape(-1))
        return found.view(stored.shape)
