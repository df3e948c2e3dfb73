"""Memory that an epoch takes on a device, and bytes that are sent there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..common.text import format_bytes
from ..device.streams import BATCHES_QUEUED
from ..gathering.halo import joins
from ..iteration.lookahead import Lookahead
from ..planning.intervals import Interval, total
from ..planning.plan import Plan
from ..planning.stages import BlockRead
from ..samples.definition import SampleDefinition
from ..samples.packing import Group, Packed
from ..samples.select import Part

__all__ = ["DeviceCosts", "device_costs"]

# Loads that are walked through; in an epoch of many more, they are much the same.
WALKED_LOADS = 2_000
# Bytes of the place of a value in the table of what it becomes.
PLACE_BYTES = 4


@dataclass(frozen=True)
class DeviceCosts:
    """Memory and transfers of an epoch of one process on its device.

    Memory that torch keeps for later, and what `augment` allots, are not counted.

    Attributes
    ----------
    device : str
        Where.
    blocks : int
        Bytes of blocks that are there at a time, at most; 0 where windows are cut on the host.
    batches : int
        Bytes of batches: made ahead, handed out, and in use by work that is queued.
    passing : int
        Bytes that are there while a packed batch is decoded.
    batch_nbytes : int
        Bytes of a batch as it is sent, where windows are cut on the host.
    sent : int
        Bytes that are sent in the epoch, about.
    handed_out : int
        Bytes of the batches of the epoch.
    """

    device: str
    blocks: int
    batches: int
    passing: int
    batch_nbytes: int
    sent: int
    handed_out: int

    @property
    def nbytes(self) -> int:
        """Most bytes that are there at a time."""
        return self.blocks + self.batches + self.passing

    def __str__(self) -> str:
        parts = {"in blocks": self.blocks, "in batches": self.batches, "passing": self.passing}
        found = ", ".join(f"{format_bytes(size)} {part}" for part, size in parts.items() if size)
        return (
            f"{format_bytes(self.nbytes)} at most on {self.device}: {found}; about "
            f"{format_bytes(self.sent)} are sent for {format_bytes(self.handed_out)} of batches"
        )


def device_costs(
    device: str,
    samples: SampleDefinition,
    packed: Packed | None,
    plan: Plan,
    epoch: int,
    part: Sequence[Interval],
    prefetch: int,
    memory: int | None,
) -> DeviceCosts:
    """Costs of a walk over part of an epoch's line.

    `packed` is what is sent in place of `samples`; `memory` are bytes that blocks may take on the
    device, None where windows are cut on the host.
    """
    size, count = plan.batch_size or 1, total(part)
    sent_as = samples if packed is None else packed.samples
    each, as_sent = _nbytes(samples), _nbytes(sent_as)
    ahead = prefetch + 1
    if memory is not None:
        lookahead = Lookahead.of(sent_as.nbytes * size, samples.transformed)
        ahead = lookahead.jobs * lookahead.together
    ready = min(ahead + 1 + BATCHES_QUEUED, -(-count // size))
    passing = 0
    if packed is not None:
        decoded = max(
            _passing(samples, part, group, apart=len(packed.groups[part.name]) > 1)
            for part in samples.parts
            for group in packed.groups[part.name]
        )
        passing = min(size, count) * (as_sent + decoded)
        if memory is not None:  # batches are made on each of these
            passing *= min(lookahead.threads, -(-count // size))
    sent, blocks = as_sent * count, 0
    if memory is not None:
        blocks, sent = _blocks(sent_as, plan.held_as(sent_as.layouts), epoch, part, memory)
    return DeviceCosts(
        device, blocks, ready * size * each, passing, size * as_sent, sent, count * each
    )


def _passing(samples: SampleDefinition, part: Part, group: Group, apart: bool) -> int:
    """Bytes beside input and result while a group of variables of one sample is decoded.

    Of several groups, each is decoded by itself.
    """
    if not group.packings:
        return 0
    nbytes = PLACE_BYTES + (_itemsize(samples, part) if apart else 0)
    return math.prod(group.part.sample_shape) * nbytes


def _itemsize(samples: SampleDefinition, part: Part) -> int:
    cast = samples.cast
    return (cast if cast is not None and part.dtype.kind == "f" else part.dtype).itemsize


def _nbytes(samples: SampleDefinition) -> int:
    """Bytes of the tensors of one sample, as they are handed out."""
    return sum(math.prod(samples.shape(part)) * _itemsize(samples, part) for part in samples.parts)


def _blocks(
    samples: SampleDefinition, plan: Plan, epoch: int, part: Sequence[Interval], memory: int
) -> tuple[int, int]:
    """Bytes of blocks that are on the device at a time, and that are sent there."""

    def nbytes_of(load: BlockRead) -> int:
        joined = joins(samples.parts, (), plan.windows, load, lasting=True)
        return plan.nbytes(load, joined)

    sent = largest = walked = loads = 0
    for stage in plan.stages(epoch, part):
        nbytes = sum(map(nbytes_of, stage.loads))
        sent, largest = sent + nbytes, max(largest, nbytes)
        walked, loads = walked + stage.stop - stage.start, loads + len(stage.loads)
        if loads > WALKED_LOADS:
            break
    everything = sent * total(part) // max(1, walked)
    return min(everything, max(largest, memory)), everything
