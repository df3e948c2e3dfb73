"""Rules of what would make an epoch cheaper or mix it better; `explain` shows what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import xarray as xr

from ..common.text import format_bytes, number_of, sizes_of
from ..planning.blocks import ENOUGH_AMPLIFICATION
from ..planning.chunk_fitting import DEFAULT_MEMORY, fitted
from ..planning.coverage import amplification_of
from ..planning.plan import Plan
from ..reading.recycled import codec_pipeline, read_path
from ..samples.arguments import as_bytes
from ..sources.codecs import is_decoded_fast
from ..sources.lazy_arrays import is_computed, is_lazy, zarr_array
from .explanation import Explanation
from .mixing import mixing_of
from .source_costs import SourceCosts
from .unfit_chunks import stored

__all__ = ["advice", "notes"]

# What is decoded for one byte that is used, from which on chunks are worth a copy that halves it.
MUCH_AMPLIFICATION = 2.0
# Chunks smaller than this cost more to ask for than to decode ...
SMALL_CHUNK_BYTES = 2**16
# ... which is felt for a variable of more bytes, or in an epoch of more reads of it.
LARGE_BYTES, MANY_READS = 2**28, 50_000
# A shuffle that mixes less than this can be better.
ENOUGH_MIXING = 0.8


CostsOfSources = Callable[[Plan], Mapping[str, SourceCosts]]


def advice(
    found: Explanation, plan: Plan, data: xr.Dataset, costs_of: CostsOfSources
) -> Iterator[str]:
    """All advice for an epoch, what saves most first; `costs_of` other plans of its sources."""
    yield from _on_halos(found, plan)
    yield from _on_sources(found, plan, costs_of)
    yield from _on_a_copy(plan, data)
    yield from _on_mixing(found, plan)
    yield from _on_small_chunks(found, plan, data)
    yield from _on_dask(data)
    yield from _on_codecs(data)
    yield from _on_cuts(found)


def notes(data: xr.Dataset) -> Iterator[str]:
    """Limits of what reads tell of the data."""
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


def _on_halos(found: Explanation, plan: Plan) -> Iterator[str]:
    again = found.amplification_of["halo"]
    if again <= ENOUGH_AMPLIFICATION or not plan.layouts:
        return
    in_chunks = any(layout.in_chunks for layout in plan.layouts)
    what = "chunks are decoded" if in_chunks else "steps are read"
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


def _on_sources(found: Explanation, plan: Plan, costs_of: CostsOfSources) -> Iterator[str]:
    for name, costs in found.sources.items():
        if costs.kept == "whole" or costs.amplification <= ENOUGH_AMPLIFICATION:
            continue
        times = f"chunks of source {name!r} are decoded {costs.amplification:.1f} times"

        def is_good(other: Plan, name: str = name) -> bool:
            return costs_of(other)[name].amplification <= ENOUGH_AMPLIFICATION

        better = _first(plan, is_good)
        if better is None:
            yield f"{times}, and more memory would not help"
            continue
        then = costs_of(better)[name]
        kept = ", kept whole" if then.kept == "whole" else ""
        yield (
            f"{times}; with memory={format_bytes(better.memory)!r} it would be "
            f"{then.amplification:.1f} times{kept}"
        )


def _on_a_copy(plan: Plan, data: xr.Dataset) -> Iterator[str]:
    in_store, now = stored(plan, data), amplification_of(plan)
    if not in_store or now < MUCH_AMPLIFICATION:
        return
    better = fitted(plan, plan.layouts, memory=as_bytes(DEFAULT_MEMORY))
    if better.amplification > now / MUCH_AMPLIFICATION:
        return
    largest = max(in_store, key=lambda layout: layout.itemsize).name
    chunks = better.sizes[largest]
    sizes = sizes_of((dim, chunks[dim]) for dim in data[largest].dims if dim in chunks)
    yield (
        f"{now:.1f} times what is used is decoded: of a copy in chunks of {sizes}, as "
        f"xtorch_data.rechunk(ds, dataset, path) makes it, {better.amplification:.1f} times"
    )


def _on_mixing(found: Explanation, plan: Plan) -> Iterator[str]:
    if not plan.shuffle or found.mixing >= ENOUGH_MIXING:
        return
    better = _first(plan, lambda other: mixing_of(other) >= ENOUGH_MIXING)
    if better is not None:
        yield (
            f"mixing is {found.mixing:.2f}: with memory={format_bytes(better.memory)!r} it would "
            f"be {mixing_of(better):.2f}"
        )


def _on_small_chunks(found: Explanation, plan: Plan, data: xr.Dataset) -> Iterator[str]:
    block = plan.block_nbytes / max(1, len(plan.layouts))
    for each in found.variables if plan.layouts else ():
        if each.source is not None:
            continue
        size = each.chunk_nbytes
        felt = data[each.name].nbytes > LARGE_BYTES or each.chunk_reads > MANY_READS
        if felt and 0 < size < SMALL_CHUNK_BYTES and block > 16 * size:
            yield (
                f"chunks of {each.name!r} have {format_bytes(size)}, so a block takes about "
                f"{block / size:,.0f} requests of them: chunks of a megabyte or more are read "
                "faster, above all from far away"
            )
            return


def _on_dask(data: xr.Dataset) -> Iterator[str]:
    lazily = [name for name, each in data.data_vars.items() if is_computed(each.variable)]
    in_store = [name for name in lazily if "preferred_chunks" in data[name].encoding]
    if in_store:
        yield (
            f"{in_store[0]!r} is read through dask: of one file or store, opened with chunks=None, "
            "it would be read block by block without it"
        )


def _on_codecs(data: xr.Dataset) -> Iterator[str]:
    slow = [
        name
        for name, each in data.data_vars.items()
        if is_lazy(each.variable)
        and read_path(each.variable) == "by zarr"
        and not codec_pipeline(each.variable).startswith("zarrs.")
        and is_decoded_fast(zarr_array(each.variable))
    ]
    if slow:
        yield (
            f"{slow[0]!r} is decoded by zarr's own codec pipeline: opened by "
            "xtorch_data.open_zarr it would be decoded by the faster one of zarrs"
        )


def _on_cuts(found: Explanation) -> Iterator[str]:
    times, fewest = found.amplification_of["cuts"], min(found.batches_per_rank)
    if times > ENOUGH_AMPLIFICATION:
        parts = len(found.batches_per_rank) * max(1, found.num_workers)
        pools = number_of(found.pools, "pool")
        because = f"{parts} ranks and workers share {pools}: fewer workers"
        if found.passes != 1:
            because = f"epochs end inside pools, of which a pass has {found.pools:,}: longer epochs"
        yield (
            f"blocks are read {times:.1f} times because {because}, or less memory for more and "
            "smaller pools, read less"
        )
    if found.num_workers > fewest:
        few = number_of(fewest, "batch", "batches")
        yield f"{found.num_workers} workers share {few}: some have none"


def _first(plan: Plan, good: Callable[[Plan], bool]) -> Plan | None:
    """The plan with the least of a few larger memories that is good."""
    larger = (plan.over(plan.windows, memory=plan.memory * 2**power) for power in range(1, 7))
    return next((other for other in larger if good(other)), None)
