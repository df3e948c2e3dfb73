"""What an epoch will cost, from metadata alone: the EXPLAIN of data loading."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import xarray as xr

from ..common.redact import printable
from ..common.text import format_bytes, number_of
from ..planning.blocks import ENOUGH_AMPLIFICATION
from ..planning.chunk_fitting import DEFAULT_MEMORY, fitted
from ..planning.chunks import Layout
from ..planning.coverage import amplification_of, used_nbytes
from ..planning.intervals import Interval, share_total, total
from ..planning.plan import Plan
from ..reading.disk_cells import OnDisk
from ..reading.lazy_arrays import codec_pipeline, is_lazy, read_path
from ..samples.arguments import as_bytes
from ..samples.definition import Samples
from ..sources.codecs import is_decoded_fast
from ..sources.layers import layers
from .explanation import Explanation, VariableReads
from .memory import peak_memory

__all__ = ["explain"]

# What is decoded for one byte that is used, from which on chunks are worth a copy that halves it.
MUCH_AMPLIFICATION = 2.0
# Loads up to which an epoch is walked to count what it reads; beyond, it is estimated.
COUNTED_LOADS = 20_000
# Chunks smaller than this cost more to ask for than to decode ...
SMALL_CHUNK_BYTES = 2**16
# ... which is felt for a variable of more bytes, or in an epoch of more reads of it.
LARGE_BYTES, MANY_READS = 2**28, 50_000
# A shuffle that mixes less than this can be better.
ENOUGH_MIXING = 0.8


def explain(
    samples: Samples,
    data: xr.Dataset,
    plan: Plan,
    epoch: int,
    world_size: int,
    num_workers: int,
    on_disk: OnDisk | None = None,
    on_device: bool = False,
    pinned: bool = False,
) -> Explanation:
    """Work out what an epoch will cost.

    Parameters
    ----------
    samples : Samples
        What a sample is.
    data : xarray.Dataset
        What is read, as it is read.
    plan : Plan
        The plan of its epochs.
    epoch : int
        Which one.
    world_size, num_workers : int
        The topology.
    on_disk : OnDisk, optional
        What of it is kept on disk.
    on_device : bool
        Whether batches are made on a device, of blocks that are sent there.
    pinned : bool
        Whether what is sent lies in page-locked memory.
    """
    windows, workers = plan.windows, max(1, num_workers)
    parts = plan.shares(epoch, world_size, num_workers)
    left = plan.left(epoch)
    once = sum(map(plan.frame.nbytes_once, plan.layouts))
    used = sum(used_nbytes(layout, windows, plan.where) for layout in plan.layouts)
    exact = len(plan.grid) * (2 if world_size * workers > 1 else 1) <= COUNTED_LOADS
    if exact:
        _, alone = _counted(plan, epoch, [left])
        chunk_reads, nbytes = _counted(plan, epoch, [part for rank in parts for part in rank])
    else:
        chunk_reads, nbytes, alone = _estimated(plan, world_size * workers)
    count, batches = total(left), plan.batches_per_rank(parts)
    yielded = sum(total(part) for rank in parts for part in rank)
    shared = sum(share_total(count, rank, world_size, plan.uneven) for rank in range(world_size))
    mixing = _mixing(plan)
    decoded, walked = sum(nbytes), sum(alone)
    factors = {
        "chunks": once / used if used else 1.0,
        "halo": walked / once if once else 1.0,
        "cuts": decoded / walked if walked else 1.0,
    }
    return Explanation(
        source=samples.origin,
        windows=len(windows),
        samples=count,
        left_out={
            "where": plan.left_out,
            "uneven": max(0, count - shared),
            "drop_last": max(0, shared - yielded),
        },
        shuffle=plan.shuffle,
        beyond={
            axis.dim: axis.length - int(axis.stretches[1][-1])
            for axis in windows.axes
            if axis.windowed and len(axis)
        },
        batches_per_rank=batches,
        num_workers=num_workers,
        sample_nbytes=samples.nbytes,
        variables=tuple(
            _variable(layout, data, count, size)
            for layout, count, size in zip(plan.layouts, chunk_reads, nbytes, strict=True)
        ),
        blocks=len(plan.grid),
        block_nbytes=plan.block_nbytes,
        pools=_pools(plan),
        pool_nbytes=plan.block_nbytes * (_pool_blocks(plan) if plan.shuffle else 1),
        memory=plan.memory,
        peak_memory=peak_memory(
            samples,
            data,
            plan,
            epoch,
            max(parts[0], key=total),
            in_worker=num_workers > 0,
            waiting=0 if on_disk is None else on_disk.waiting(data),
            on_device=on_device,
            pinned=pinned,
        ),
        nbytes_used=int(used),
        nbytes=int(decoded),
        amplification=decoded / used if used else 1.0,
        amplification_of=factors,
        mixing=mixing,
        exact=exact,
        notes=tuple(_notes(data)),
        advice=tuple(_advice(plan, data, factors, mixing, batches, num_workers, chunk_reads)),
        cache="" if on_disk is None else _cache(plan, on_disk),
    )


def _cache(plan: Plan, on_disk: OnDisk) -> str:
    """How much later epochs find on disk."""
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
    plan: Plan, epoch: int, parts: Iterable[Iterable[Interval]]
) -> tuple[list[int], list[int]]:
    """Chunks and bytes of each variable that are decoded to walk over some parts of the line."""
    sums = np.zeros((2, len(plan.layouts)), dtype=np.int64)
    for part in parts:
        sums += plan.decoded(epoch, part)
    chunks, nbytes = sums.tolist()
    return chunks, nbytes


def _estimated(plan: Plan, parts: int) -> tuple[list[int], list[int], list[int]]:
    """About as many; each cut makes two parts read the same pool."""
    share = plan.filled_blocks[0] / len(plan.grid) * plan.amplification
    alone = [int(plan.frame.nbytes_once(layout) * share) for layout in plan.layouts]
    nbytes = [int(size * (1 + (parts - 1) / _pools(plan))) for size in alone]
    chunks = [
        size // max(1, _chunk_nbytes(layout))
        for layout, size in zip(plan.layouts, nbytes, strict=True)
    ]
    return chunks, nbytes, alone


def _chunk_nbytes(layout: Layout) -> int:
    return layout.itemsize * math.prod(grid.largest for grid in layout.chunks.values())


def _pools(plan: Plan) -> int:
    count, _ = plan.filled_blocks
    return -(-count // _pool_blocks(plan)) if plan.shuffle else count


def _pool_blocks(plan: Plan) -> int:
    return min(plan.pool_blocks, plan.filled_blocks[0])


def _variable(layout: Layout, data: xr.Dataset, chunk_reads: int, nbytes: int) -> VariableReads:
    variable = data[layout.name].variable
    if variable.chunks is not None:
        path = "by dask"
    else:
        path = read_path(variable) if is_lazy(variable) else "from memory"
    stored = path != "from memory" and layout.in_chunks
    return VariableReads(
        name=layout.name,
        dtype=str(variable.dtype),
        chunks={dim: grid.largest for dim, grid in layout.chunks.items()} if stored else {},
        chunk_nbytes=_chunk_nbytes(layout) if stored else 0,
        path=path,
        chunk_reads=chunk_reads if stored else 0,
        nbytes=nbytes,
    )


def _mixing(plan: Plan) -> float:
    """How well batches are mixed: see `Explanation.mixing`."""
    if not plan.shuffle:
        return 0.0
    (blocks, sizes), together = plan.filled_blocks, _pool_blocks(plan)
    if together == blocks:
        return 1.0
    alike = float((sizes**2).mean() / sizes.mean() ** 2)  # 1 where all are equal
    rest = blocks % together  # in the last pool
    same = alike * ((blocks - rest) / together + (rest > 0)) / blocks
    return max(0.0, (1 - same) / (1 - alike / blocks))


def _advice(
    plan: Plan,
    data: xr.Dataset,
    factors: Mapping[str, float],
    mixing: float,
    batches: tuple[int, ...],
    num_workers: int,
    chunk_reads: Iterable[int],
) -> Iterable[str]:
    """What would make an epoch cheaper or mix it better."""
    again, cuts = factors["halo"], factors["cuts"]
    in_chunks = any(layout.in_chunks for layout in plan.layouts)
    what = "chunks are decoded" if in_chunks else "steps are read"
    if again > ENOUGH_AMPLIFICATION:
        better = _first(plan, lambda other: other.amplification <= ENOUGH_AMPLIFICATION)
        if better is not None:
            yield (
                f"{what} {again:.1f} times; with memory="
                f"{format_bytes(better.memory)!r} it would be {better.amplification:.1f} times"
            )
        elif in_chunks:
            yield (
                f"chunks are decoded {again:.1f} times, and more memory would not help: chunks "
                "that are longer than a window along windowed dims would"
            )
    yield from _rechunked(plan, data)
    if plan.shuffle and mixing < ENOUGH_MIXING:
        better = _first(plan, lambda other: _mixing(other) >= ENOUGH_MIXING)
        if better is not None:
            yield (
                f"mixing is {mixing:.2f}: with memory={format_bytes(better.memory)!r} it would be "
                f"{_mixing(better):.2f}"
            )
    for layout, reads in zip(plan.layouts, chunk_reads, strict=True):
        variable, size = data[layout.name].variable, _chunk_nbytes(layout)
        if not (layout.in_chunks and (is_lazy(variable) or variable.chunks is not None)):
            continue
        block = plan.block_nbytes / len(plan.layouts)
        felt = variable.nbytes > LARGE_BYTES or reads > MANY_READS
        if felt and size < SMALL_CHUNK_BYTES and block > 16 * size:
            yield (
                f"chunks of {layout.name!r} have {format_bytes(size)}, so a block takes about "
                f"{block / size:,.0f} requests of them: chunks of a megabyte or more are read "
                "faster, above all from far away"
            )
            break
    lazily = [name for name, each in data.data_vars.items() if each.chunks is not None]
    stored = [name for name in lazily if "preferred_chunks" in data[name].encoding]
    if stored:
        yield (
            f"{stored[0]!r} is read through dask: of one file or store, opened with chunks=None, "
            "it would be read block by block without it"
        )
    slow = [
        name
        for name, each in data.data_vars.items()
        if is_lazy(each.variable)
        and read_path(each.variable) == "by zarr"
        and not codec_pipeline(each.variable).startswith("zarrs.")
        and is_decoded_fast(layers(each.variable._data)[-1]._array)
    ]
    if slow:
        yield (
            f"{slow[0]!r} is decoded by zarr's own codec pipeline: opened by "
            "xtorch_data.open_zarr it would be decoded by the faster one of zarrs"
        )
    if cuts > ENOUGH_AMPLIFICATION:
        parts, pools = len(batches) * max(1, num_workers), number_of(_pools(plan), "pool")
        yield (
            f"blocks are read {cuts:.1f} times because {parts} ranks and workers share {pools}: "
            "fewer workers, or less memory for more and smaller pools, read less"
        )
    if num_workers > min(batches):
        few = number_of(min(batches), "batch", "batches")
        yield f"{num_workers} workers share {few}: some have none"


def _notes(data: xr.Dataset) -> Iterable[str]:
    """What reads do not tell of the data."""
    ways = {
        path: name
        for name, each in data.data_vars.items()
        if is_lazy(each.variable) and (path := read_path(each.variable)) != "by its backend"
    }
    if not ways:
        return
    known = "stats().chunks_missing counts them"
    if "by zarr" in ways:
        known += f" where chunks are read directly, not those of {ways['by zarr']!r}"
    yield (
        "chunks that are not in the store have the fill value, which cannot be told from data that "
        f"is missing: {known}"
    )


def _rechunked(plan: Plan, data: xr.Dataset) -> Iterable[str]:
    """What a copy in chunks that fit would give, if it is much."""
    stored = [
        each for each in plan.layouts if each.in_chunks and not data[each.name].variable._in_memory
    ]
    now = amplification_of(plan)
    if not stored or now < MUCH_AMPLIFICATION:
        return
    found = fitted(plan, plan.layouts, memory=as_bytes(DEFAULT_MEMORY))
    if found.amplification > now / MUCH_AMPLIFICATION:
        return
    largest = max(stored, key=lambda layout: layout.itemsize).name
    chunks = found.sizes[largest]
    sizes = " × ".join(
        f"{printable(dim)} {chunks[dim]}" for dim in data[largest].dims if dim in chunks
    )
    yield (
        f"{now:.1f} times what is used is decoded: of a copy in chunks of {sizes}, as "
        f"xtorch_data.rechunk(ds, dataset, path) makes it, {found.amplification:.1f} times"
    )


def _first(plan: Plan, good: Callable[[Plan], bool]) -> Plan | None:
    """The plan with the least of a few larger memories that is good."""
    larger = (plan.over(plan.windows, memory=plan.memory * 2**power) for power in range(1, 7))
    return next((other for other in larger if good(other)), None)
