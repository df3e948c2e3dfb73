"""The cost of an epoch as a program and a reader see it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..common import html
from ..common.redact import printable
from ..common.text import Fact, fact_lines, format_bytes, number_of, sizes_of
from .break_costs import DimBreaks, break_lines, breaks_page
from .device_costs import DeviceCosts
from .memory import PeakMemory
from .source_costs import SourceCosts, source_lines, sources_table

__all__ = ["Explanation", "VariableReads"]

NOT_CHUNKED = "not chunked"
# Lines for variables that are stored and read alike; of more, all have one line.
MOST_LINES = 4

# Words of the page, in the order in which a reader meets them.
GLOSSARY = (
    ("block", "neighboring windows whose data is read together, and each chunk of it once"),
    ("pool", "blocks that are in memory together; their samples are shuffled with each other"),
    ("halo", "what is decoded again because windows of one block reach into the next"),
    ("cuts", "what is read again because ranks and workers divide a pool"),
    ("mixing", "how well batches are shuffled: 0 is in order, 1 a full shuffle"),
    ("passing", "memory for short: chunks as stored, values before they are cast, positions"),
)


@dataclass(frozen=True)
class VariableReads:
    """The storage of one variable, and what an epoch reads of it.

    Attributes
    ----------
    name : Hashable
        Its name.
    dtype : str
        Dtype of the values as they are held.
    chunks : mapping of Hashable to int
        Size of a chunk along each dim of the sample space, the largest where they differ. Empty
        for what is not chunked, of which any slice is read for its own cost: data in memory,
        memory maps, contiguous HDF5, NetCDF-3.
    chunk_nbytes : int
        Bytes of a chunk as it is held, 0 for what is not chunked.
    path : str
        How it is read: ``"directly"``, ``"by zarr"``, ``"by its backend"``, ``"by dask"`` or
        ``"from memory"``.
    chunk_reads : int
        Chunks that are decoded in an epoch, over all ranks and workers; 0 for what is not chunked.
    nbytes : int
        Bytes that are decoded, or read, in an epoch, over all ranks and workers.
    source : str, optional
        Name of its source, of others than the first.
    """

    name: Hashable
    dtype: str
    chunks: Mapping[Hashable, int]
    chunk_nbytes: int
    path: str
    chunk_reads: int
    nbytes: int
    source: str | None = None


@dataclass(frozen=True)
class Explanation:
    """Forecast of the next epoch of a dataset: what it will do, and what that costs.

    Attributes
    ----------
    source : str
        Where the data comes from.
    windows : int
        Windows that fit into the data, also those that halos, breaks or other sources leave out.
    samples : int
        Samples of the epoch, or what is left of it where it is resumed.
    left_out : mapping of str to int
        Samples that are not yielded, by reason: ``"halo"``, those whose halo passes an end of the
        data; ``"breaks"``; the name of each other source that they lack something of; ``"split"``,
        those of a part along a coordinate of two dims that are in no part or another one;
        ``"where"``, ``"uneven"``, ``"drop_last"``. Breaks leave out a
        sample that would cross one along any dim: windows along the dim times those along the
        others, together with what these lose; sources likewise, of what the ones before have left.
    shuffle : bool
        Whether the order is random.
    beyond : mapping of Hashable to int
        Steps of windowed dims that are in no sample because no more window fits: behind the last
        window or, in a part of a split, at the ends of what it has of the dim; also before the
        first window, if a break comes early. Steps of other parts, of gaps and between breaks do
        not count.
    batches_per_rank : tuple of int
        Batches of each rank.
    num_workers : int
        Worker processes of each rank, 0 for none.
    sample_nbytes : int
        Bytes of the tensors of one sample, before any transform.
    variables : tuple of VariableReads
        What is read, and how; variables of other sources are named as ``"sst/tos"``.
    blocks, block_nbytes : int
        Blocks in which the data is read, and bytes of the largest.
    pools, pool_nbytes : int
        Pools whose samples are shuffled together, and bytes of one; the blocks where nothing is.
    memory : int
        Bytes that blocks may take in each process.
    peak_memory : PeakMemory
        Most bytes that a process which loads will have allotted at a time: each worker, or the
        only process.
    nbytes_used : int
        Bytes that are in at least one window, each counted once, as they are held. This and what
        follows are of the first source, where there are several.
    nbytes : int
        Bytes that are decoded, over all ranks and workers.
    amplification : float
        Their ratio: how many bytes are decoded for one that is used.
    amplification_of : mapping of str to float
        Its factors: ``"chunks"``, what chunks hold beside what windows use; ``"halo"``, what is
        decoded again for windows that reach into the next block; ``"cuts"``, what is read again
        where ranks and workers divide a pool.
    mixing : float
        How well batches are mixed, from 0 in order to 1 for a full shuffle: the chance that two
        samples that are shuffled together come from different blocks, over that of a full shuffle.
    exact : bool
        Whether reads are counted; for very many blocks they are estimated. What ``cache`` has kept
        from an earlier epoch is not taken off.
    advice : tuple of str
        What would make it cheaper or mix it better, and by how much.
    cache : str
        How much later epochs take from the folder given as `cache`, if there is one.
    notes : tuple of str
        What cannot be known, and should not surprise.
    device : DeviceCosts, optional
        What each process takes on its device, if a loader was asked that has one.
    breaks : mapping of Hashable to DimBreaks
        Breaks in the labels along each dim that has some, and the windows that each leaves out. In
        a part of a split, of those between its windows.
    sources : mapping of str to SourceCosts
        What each other source costs and leaves out.
    passes : float
        How many passes over all samples the epoch makes: with `epoch_size`, part of one or several.
        ``nbytes_used`` is then the same part of what all samples use.
    phases : mapping of int to mapping of str to tuple of int
        By the epoch at which each phase of a `Schedule` begins, the shapes of the parts that it
        changes. All else is of the phase of the next epoch.
    """

    source: str
    windows: int
    samples: int
    left_out: Mapping[str, int]
    shuffle: bool
    beyond: Mapping[Hashable, int]
    batches_per_rank: tuple[int, ...]
    num_workers: int
    sample_nbytes: int
    variables: tuple[VariableReads, ...]
    blocks: int
    block_nbytes: int
    pools: int
    pool_nbytes: int
    memory: int
    peak_memory: PeakMemory
    nbytes_used: int
    nbytes: int
    amplification: float
    amplification_of: Mapping[str, float]
    mixing: float
    exact: bool
    advice: tuple[str, ...]
    cache: str = ""
    notes: tuple[str, ...] = ()
    device: DeviceCosts | None = None
    breaks: Mapping[Hashable, DimBreaks] = field(default_factory=dict)
    sources: Mapping[str, SourceCosts] = field(default_factory=dict)
    passes: float = 1.0
    phases: Mapping[int, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def chunk_reads(self) -> int:
        """Chunks that are decoded in an epoch, over all sources, ranks and workers."""
        return sum(variable.chunk_reads for variable in self.variables)

    def __str__(self) -> str:
        lines = [
            self._head(),
            *fact_lines(("breaks", each) for each in self._breaks()),
            *fact_lines(self._facts()),
            *fact_lines(("source", source_lines(*each)) for each in self.sources.items()),
            *(f"    {line}" for line in _variable_lines(self.variables)),
            *fact_lines(self._more()),
            *fact_lines(("advice", text) for text in self.advice),
            *fact_lines(("note", text) for text in self.notes),
        ]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        columns = ("variable", "dtype", "chunks", "a chunk", "read", "chunks read", "bytes")
        rows = [_variable_row(variable) for variable in self.variables]
        breaks = [("breaks", each[0]) for each in self._breaks()]  # tables have the rest
        parts = [
            html.facts([*breaks, *self._facts(), *self._more()]),
            html.section("Variables", f"{len(rows):,}", html.table(columns, rows)),
            *(breaks_page(dim, each) for dim, each in self.breaks.items()),
            *self._sources_page(),
        ]
        if self.advice:
            advice = html.bullets(self.advice)
            parts.append(html.section("Advice", f"{len(self.advice)}", advice, opened=True))
        if self.notes:
            parts.append(html.section("Notes", f"{len(self.notes)}", html.bullets(self.notes)))
        words = ", ".join(word for word, _ in GLOSSARY)
        parts.append(html.section("Words", words, html.table(("word", "meaning"), GLOSSARY)))
        return html.page("xtorch_data.Explanation", self._head(), parts, str(self))

    def _head(self) -> str:
        out = [f"{count:,} by {reason}" for reason, count in self.left_out.items() if count]
        out += [
            f"{number_of(steps, 'step')} of {dim!r}" for dim, steps in self.beyond.items() if steps
        ]
        left = f"; left out: {', '.join(out)}" if out else ""
        return f"{self.samples:,} of {number_of(self.windows, 'sample')} from {self.source}{left}"

    def _breaks(self) -> list[tuple[str, ...]]:
        """Lines of the breaks along each dim that has some."""
        return [tuple(break_lines(dim, each)) for dim, each in self.breaks.items()]

    def _sources_page(self) -> list[str]:
        """A table of the other sources, where there are some."""
        if not self.sources:
            return []
        table = sources_table(self.sources)
        return [html.section("Other sources", ", ".join(self.sources), table, opened=True)]

    def _facts(self) -> list[Fact]:
        blocks = f"{self.blocks:,} of {format_bytes(self.block_nbytes)} at most"
        order = "in order"
        if self.shuffle:
            pools = f"{number_of(self.pools, 'pool')} of {format_bytes(self.pool_nbytes)}"
            order = f"{pools}, mixing {self.mixing:.2f}"
        passes = f"{self.passes:.3g} passes over all samples"
        return [
            *([("epoch", passes)] if self.passes != 1 else []),
            *(("phase", _phase_line(begin, each)) for begin, each in self.phases.items()),
            ("batches", self._batches()),
            ("blocks", f"{blocks}; {order}, {format_bytes(self.memory)} of memory a process"),
            ("memory", self._memory()),
            ("reads", self._reads()),
        ]

    def _more(self) -> list[Fact]:
        """Facts of what not every dataset has."""
        found = {"device": self.device, "cache": self.cache}
        return [(name, str(value)) for name, value in found.items() if value]

    def _batches(self) -> str:
        fewest, most = min(self.batches_per_rank), max(self.batches_per_rank)
        each = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
        ranks, workers = len(self.batches_per_rank), self.num_workers
        return (
            f"{each} on {'each of ' if ranks > 1 else ''}{number_of(ranks, 'rank')}, "
            f"{number_of(workers, 'worker') if workers else 'no workers'}; "
            f"{format_bytes(self.sample_nbytes)} a sample"
        )

    def _memory(self) -> str:
        peak, where = self.peak_memory, "each worker" if self.num_workers else "each process"
        parts = {"in blocks": peak.blocks, "in batches": peak.batches, "passing": peak.passing}
        # At the worst moment there may be no batch yet.
        found = [f"{format_bytes(size)} {part}" for part, size in parts.items() if size]
        return f"{format_bytes(peak.nbytes)} at most in {where}: {', '.join(found)}"

    def _reads(self) -> tuple[str, str]:
        read = format_bytes(self.nbytes)
        first = [each for each in self.variables if each.source is None]
        if any(variable.chunk_nbytes for variable in first):
            chunks = sum(each.chunk_reads for each in first)
            read = f"{number_of(chunks, 'chunk')}, {read} decoded"
        factors = ", ".join(f"{name} {times:.2f}" for name, times in self.amplification_of.items())
        return (
            f"{'' if self.exact else 'about '}{read} for {format_bytes(self.nbytes_used)} used: "
            f"{self.amplification:.2f} times",
            f"({factors})",
        )


def _phase_line(begin: int, parts: Mapping[str, tuple[int, ...]]) -> str:
    """The shapes of parts in a phase."""
    return f"from epoch {begin:,} on: " + ", ".join(
        f"{part} {each}" for part, each in parts.items()
    )


def _variable_row(variable: VariableReads) -> tuple[Any, ...]:
    chunks, chunk, reads = NOT_CHUNKED, "–", "–"
    if variable.chunk_nbytes:
        chunks, chunk = _chunks(variable), format_bytes(variable.chunk_nbytes)
        reads = f"{variable.chunk_reads:,}"
    nbytes = format_bytes(variable.nbytes)
    return variable.name, variable.dtype, chunks, chunk, variable.path, reads, nbytes


def _variable_lines(variables: Sequence[VariableReads]) -> Iterator[str]:
    """A line for each variable, or for many that are stored and read alike."""
    alike: dict[str, list[VariableReads]] = {}
    for each in variables:
        alike.setdefault(_storage(each), []).append(each)
    for each in variables:
        storage = _storage(each)
        group = alike[storage]
        if len(group) <= MOST_LINES:
            yield f"{printable(each.name)}: {storage}"
        elif each is group[0]:
            first, second, last = (printable(group[at].name) for at in (0, 1, -1))
            some = f"{first}, {second}, …, {last} ({len(group):,} variables)"
            yield f"{some}: {storage}" + " each" * bool(each.chunk_nbytes)


def _storage(variable: VariableReads) -> str:
    if not variable.chunk_nbytes:
        return f"{variable.dtype}, {NOT_CHUNKED}, read {variable.path}"
    return (
        f"{variable.dtype}, chunks of {_chunks(variable)} ({format_bytes(variable.chunk_nbytes)}), "
        f"read {variable.path}, {number_of(variable.chunk_reads, 'chunk')}"
    )


def _chunks(variable: VariableReads) -> str:
    return sizes_of(variable.chunks.items()) or "scalar"
