"""Costs of an epoch, from metadata alone: the EXPLAIN of data loading."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from ..common.redact import printable
from ..common.text import format_bytes
from ..planning.chunks import Layout
from ..planning.coverage import used_nbytes
from ..planning.intervals import Interval, share_total, total
from ..planning.plan import Plan
from ..planning.stages import reads as reads_of
from ..reading.disk_cells import OnDisk
from ..reading.recycled import read_path
from ..samples.definition import SampleDefinition
from ..sources.lazy_arrays import is_computed, is_lazy
from .advice import advice, notes
from .break_costs import breaks_of
from .explanation import Explanation, VariableReads
from .memory import peak_memory
from .mixing import mixing_of, pool_blocks, pools_of
from .source_costs import SourceCosts, chunk_nbytes, costs_of_sources, lost_samples
from .uncovered import PartOfSplit, steps_in_no_window

__all__ = ["explain"]

# Loads up to which an epoch is walked to count what it reads; beyond, it is estimated.
COUNTED_LOADS = 20_000


def explain(
    samples: SampleDefinition,
    data: xr.Dataset,
    plan: Plan,
    epoch: int,
    world_size: int,
    num_workers: int,
    on_disk: OnDisk | None = None,
    on_device: bool = False,
    pinned: bool = False,
    stretches: PartOfSplit = PartOfSplit(),  # noqa: B008 that never changes
    phases: Mapping[int, SampleDefinition] | None = None,
) -> Explanation:
    """Costs of an epoch of a plan on a topology.

    `data` is what is read, as it is read; `on_disk` what of it is kept there. With `on_device`,
    batches are made of blocks that are sent to a device; `pinned` if through page-locked memory.
    `stretches` are those of a part of a split, `phases` what samples are from some epochs on.
    """
    windows, workers = plan.windows, max(1, num_workers)
    known = data if samples.centers is None else samples.primary.data
    parts = plan.shares(epoch, world_size, num_workers)
    left = plan.left(epoch)
    share = plan.samples / plan.there  # of a pass over all samples
    once = share * sum(map(plan.frame.nbytes_once, plan.layouts))
    used = share * sum(
        used_nbytes(layout, windows, plan.where, samples.beyond) for layout in plan.layouts
    )
    exact = len(plan.grid) * (2 if world_size * workers > 1 else 1) <= COUNTED_LOADS
    if exact:
        _, alone = _counted(plan, epoch, [left])
        if share != 1 and plan.weights is None:  # of the pass, of which the epoch may end in a pool
            _, alone = _counted(replace(plan, epoch_size=None), epoch, [[(0, plan.there)]])
            alone = [int(share * each) for each in alone]
        chunk_reads, nbytes = _counted(plan, epoch, [part for rank in parts for part in rank])
    else:
        chunk_reads, nbytes, alone = _estimated(plan, world_size * workers)
    count, batches = total(left), plan.batches_per_rank(parts)
    yielded = sum(total(part) for rank in parts for part in rank)
    uneven = plan.walk(epoch, world_size, workers)[0].sharing(count)
    shared = sum(share_total(count, rank, world_size, uneven) for rank in range(world_size))
    decoded, walked = sum(nbytes), sum(alone)
    factors = {
        "chunks": once / used if used else 1.0,
        "halo": walked / once if once else 1.0,
        "cuts": decoded / walked if walked else 1.0,
    }
    breaks = breaks_of(samples)
    along = {axis.dim: len(axis) for axis in samples.windows_with_lost.axes}
    laid = {
        dim: windows_along + (breaks[dim].left_out if dim in breaks else 0)
        for dim, windows_along in along.items()
    }
    every = math.prod(
        windows_along + (0 if dim in stretches.steps else samples.breaks.at_ends.get(dim, 0))
        for dim, windows_along in laid.items()
    )
    lost, of_two_dims = lost_samples(samples, along)
    beside = costs_of_sources(samples, plan, epoch, [part for rank in parts for part in rank])
    if samples.centers is not None:  # what is read lies around the events
        own, _ = beside[str(samples.primary.source)]
        used, decoded, exact = own.nbytes_once, own.nbytes, exact and own.exact
        factors["halo"] = own.amplification
    found = Explanation(
        source=samples.origin,
        windows=every,
        samples=count,
        left_out={
            "halo": every - math.prod(laid.values()),
            "breaks": math.prod(laid.values()) - math.prod(along.values()),
            **lost,
            "split": stretches.outside,
            "where": plan.left_out - stretches.outside - of_two_dims,
            "uneven": max(0, count - shared),
            "drop_last": max(0, min(count, shared) - yielded),
        },
        shuffle=plan.shuffle,
        beyond=steps_in_no_window(samples, stretches),
        batches_per_rank=batches,
        num_workers=num_workers,
        sample_nbytes=samples.nbytes,
        variables=tuple(
            _variable(layout, data, count, size)
            for layout, count, size in zip(plan.layouts, chunk_reads, nbytes, strict=True)
        )
        + tuple(
            replace(
                _variable(layout, each.data, *counts),
                name=names[layout.name],
                source=None if each is samples.primary else each.source,
            )
            for each, layouts in zip(samples.others, plan.others, strict=True)
            for names in [samples.named(each, [layout.name for layout in layouts])]
            for layout, counts in zip(layouts, beside[str(each.source)][1], strict=True)
        ),
        blocks=len(plan.grid),
        block_nbytes=plan.block_nbytes,
        pools=pools_of(plan),
        pool_nbytes=plan.block_nbytes * pool_blocks(plan),
        memory=plan.memory,
        peak_memory=peak_memory(
            samples,
            data,
            plan,
            epoch,
            max(parts[0], key=total),
            in_worker=num_workers > 0,
            waiting=0 if on_disk is None else on_disk.waiting(known),
            on_device=on_device,
            pinned=pinned,
        ),
        nbytes_used=int(used),
        nbytes=int(decoded),
        amplification=decoded / used if used else 1.0,
        amplification_of=factors,
        mixing=mixing_of(plan),
        exact=exact,
        advice=(),
        notes=(*notes(known), *samples.breaks.notes()),
        breaks=breaks,
        sources={name: costs for name, (costs, _) in beside.items()},
        cache="" if on_disk is None else _cache(plan, on_disk),
        passes=share,
        phases={
            begin: {part.name: each.shape(part) for _, part in each.every_part if part.scheduled}
            for begin, each in (phases or {}).items()
        },
    )

    def costs_of(other: Plan) -> dict[str, SourceCosts]:
        walked = [part for rank in other.shares(epoch, world_size, num_workers) for part in rank]
        beside = costs_of_sources(samples, other, epoch, walked)
        return {name: costs for name, (costs, _) in beside.items()}

    return replace(found, advice=tuple(advice(found, plan, known, costs_of)))


def _cache(plan: Plan, on_disk: OnDisk) -> str:
    """Bytes that later epochs find on disk, in words."""
    kept = [layout for layout in plan.layouts if layout.name in on_disk.identities]
    nbytes = sum(map(plan.frame.nbytes_once, kept))
    folder = printable(on_disk.cache.folder)
    size = on_disk.cache.size
    if nbytes <= size:
        return f"{format_bytes(nbytes)} at most, decoded, are read once and kept in {folder}"
    return (
        f"{format_bytes(size)} of {format_bytes(nbytes)}, decoded, are read once and kept in "
        f"{folder}; the rest is read in every epoch, unless cache_size is larger"
    )


def _counted(
    plan: Plan, epoch: int, parts: Iterable[Sequence[Interval]]
) -> tuple[list[int], list[int]]:
    """Chunks and bytes of each variable that are decoded to walk over some parts of the line."""
    sums = np.zeros((2, len(plan.layouts)), dtype=np.int64)
    for part in parts if plan.layouts else ():
        sums += reads_of(plan.stages(epoch, part), plan.frame)
    chunks, nbytes = sums.tolist()
    return chunks, nbytes


def _estimated(plan: Plan, parts: int) -> tuple[list[int], list[int], list[int]]:
    """Estimate of the same; each cut makes two parts read the same pool.

    Last, bytes that one process alone would decode.
    """
    share = plan.filled_blocks[0] / len(plan.grid) * plan.amplification
    share *= plan.samples / plan.there
    alone = [int(plan.frame.nbytes_once(layout) * share) for layout in plan.layouts]
    nbytes = [int(size * (1 + (parts - 1) / pools_of(plan))) for size in alone]
    chunks = [
        size // max(1, chunk_nbytes(layout))
        for layout, size in zip(plan.layouts, nbytes, strict=True)
    ]
    return chunks, nbytes, alone


def _variable(layout: Layout, data: xr.Dataset, chunk_reads: int, nbytes: int) -> VariableReads:
    variable = data[layout.name].variable
    if is_computed(variable):
        path = "by dask"
    else:
        path = read_path(variable) if is_lazy(variable) else "from memory"
    stored = path != "from memory" and layout.in_chunks
    return VariableReads(
        name=layout.name,
        dtype=str(variable.dtype),
        chunks={dim: grid.largest for dim, grid in layout.chunks.items()} if stored else {},
        chunk_nbytes=chunk_nbytes(layout) if stored else 0,
        path=path,
        chunk_reads=chunk_reads if stored else 0,
        nbytes=nbytes,
    )
