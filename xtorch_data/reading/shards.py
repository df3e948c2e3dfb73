"""Chunks of a region, and the shards in which they lie: indexes read once, byte ranges together."""

from __future__ import annotations

import asyncio
import io
import itertools
import math
import os
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
import zarr.abc.codec
import zarr.codecs
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest

from ..common.retry import GivenUp, given_up
from ..sources.file_stamps import stamp_of

__all__ = [
    "Chunk", "ChunksAlong", "Extent", "Index", "PartOfShard", "Place", "Shards", "byte_order",
    "chunks_along", "chunks_of", "fill", "shards_of",
]  # fmt: skip

Index = npt.NDArray[np.uint64]
Place: TypeAlias = tuple[int, ...]
Slices: TypeAlias = tuple[slice, ...]

# What a region wants of chunks along a dim: number, part of the chunk, part of the region.
ChunksAlong: TypeAlias = list[tuple[int, slice, slice]]
# The same of a chunk: its numbers in the grid, part of the chunk, part of the region. There are
# hundreds of thousands of them, which as objects of a class would take longer to make than to read.
Chunk: TypeAlias = tuple[Place, Slices, Slices]

# Chunks that lie so close to each other are fetched in one request, up to so many bytes.
GAP_BYTES, MOST_BYTES = 2**15, 2**23
# The same of files. The system reads ahead as much as such a gap, which takes less time to copy
# than one more call.
FILE_GAP_BYTES, MOST_FILE_BYTES = 2**16, 2**20
# Bytes of indexes that are kept in a process, by all arrays together; at least one by each.
KEPT_BYTES = 2**26

_NOT_THERE, _FARTHEST = np.uint64(2**64 - 1), np.uint64(2**63 - 1)
_CHECKSUM_BYTES = 4


def chunks_along(start: int, stop: int, size: int) -> ChunksAlong:
    """Parts of chunks of a size that a region holds along a dim."""
    found = []
    for number in range(start // size, -(-stop // size)) if stop > start else ():
        begin = number * size
        first, last = max(start, begin), min(stop, begin + size)
        found.append(
            (number, slice(first - begin, last - begin), slice(first - start, last - start))
        )
    return found


def chunks_of(
    along: Sequence[ChunksAlong], start: int = 0, stop: int | None = None
) -> Iterator[Chunk]:
    """The chunks that hold a region, from one of them to another, in C order."""
    numbers = itertools.product(*([number for number, _, _ in dim] for dim in along))
    inside = itertools.product(*([inside for _, inside, _ in dim] for dim in along))
    target = itertools.product(*([target for _, _, target in dim] for dim in along))
    return itertools.islice(zip(numbers, inside, target, strict=True), start, stop)


@dataclass(frozen=True, eq=False)
class PartOfShard:
    """The part of a shard that a region holds."""

    shard: Place  # numbers of the shard
    along: Sequence[ChunksAlong]  # what is wanted of its chunks along every dim
    start: int  # the first and the last of these chunks, in C order
    stop: int

    def chunks(self) -> Iterator[Chunk]:
        """The chunks."""
        return chunks_of(self.along, self.start, self.stop)


def shards_of(
    along: Sequence[ChunksAlong], counts: Sequence[int], start: int = 0, stop: int | None = None
) -> Iterator[PartOfShard]:
    """The shards that hold a region, from one of their chunks to another, shard after shard.

    `counts` are the chunks of a shard along every dim.
    """
    by_shard = (
        [
            (shard, list(found))
            for shard, found in itertools.groupby(dim, lambda each: each[0] // count)  # noqa: B023
        ]
        for dim, count in zip(along, counts, strict=True)
    )
    before = 0
    for found in itertools.product(*by_shard):
        inner = [each for _, each in found]
        count = math.prod(map(len, inner))
        first, last = max(0, start - before), count if stop is None else min(count, stop - before)
        if first < last:
            yield PartOfShard(tuple(shard for shard, _ in found), inner, first, last)
        before += count
        if stop is not None and before >= stop:
            return


@dataclass(frozen=True)
class Extent:
    """Bytes of a shard that are fetched in one request, and where chunks lie in them."""

    start: int  # place in the shard
    stop: int
    # Numbers of each chunk in the grid of the array, and where it begins and ends in the extent.
    chunks: tuple[tuple[Place, int, int], ...]


@dataclass(frozen=True, eq=False)
class Shards:
    """Places of the chunks in the shards of an array; any thread and any loop may ask."""

    codecs: tuple[Any, ...]  # how chunks are encoded
    counts: tuple[int, ...]  # chunks of a shard along every dim
    at_end: bool  # whether an index is at the end of its shard, not at the beginning
    has_checksum: bool  # whether a checksum stands behind an index
    # Indexes, with the stamp of the shard where that is a file.
    _known: OrderedDict[Place, tuple[Any, Index | None]] = field(default_factory=OrderedDict)
    _asked: dict[tuple[int, Place], asyncio.Future[Index | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _alive.add(self)

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> Shards | None:
        """The shards of an array, or None if it has none, or such as are not read here."""
        codecs = array.metadata.codecs if array.metadata.zarr_format == 3 else ()
        codec = codecs[0] if len(codecs) == 1 else None
        if not isinstance(codec, zarr.codecs.ShardingCodec):
            return None
        first, *others = codec.index_codecs
        if type(first) is not zarr.codecs.BytesCodec or byte_order(first) != "little":
            return None
        if len(others) > 1 or any(type(each) is not zarr.codecs.Crc32cCodec for each in others):
            return None
        assert array.shards is not None
        sizes = zip(array.shards, array.chunks, strict=True)
        counts = tuple(shard // chunk for shard, chunk in sizes)
        at_end = _configuration(codec).get("index_location", "end") == "end"
        return cls(codec.codecs, counts, at_end, bool(others))

    def __reduce__(self) -> Any:
        return Shards, (self.codecs, self.counts, self.at_end, self.has_checksum)

    @property
    def _index_nbytes(self) -> int:
        return 16 * math.prod(self.counts) + self.has_checksum * _CHECKSUM_BYTES

    async def index(
        self, shard: Place, get: Callable[[ByteRequest], Awaitable[memoryview | None]]
    ) -> Index | None:
        """Offset and length of the chunks of a shard; None if there is no such shard.

        It is asked for once, also if several reads want it at the same time.
        """
        try:
            self._known.move_to_end(shard)
            return self._known[shard][1]
        except KeyError:  # or forgotten just now by another thread
            pass
        key = id(asyncio.get_running_loop()), shard
        if key not in self._asked:
            self._asked[key] = asyncio.ensure_future(self._read(shard, get))
            self._asked[key].add_done_callback(lambda done: self._end(key, done))
        try:
            # Others may want it if this read is given up.
            return await asyncio.shield(self._asked[key])
        except GivenUp as error:
            failed = given_up(error)
        raise failed

    def _end(self, key: tuple[int, Place], done: asyncio.Future[Index | None]) -> None:
        self._asked.pop(key, None)
        if not done.cancelled():
            done.exception()  # seen, though all who wanted it may have gone

    async def _read(
        self, shard: Place, get: Callable[[ByteRequest], Awaitable[memoryview | None]]
    ) -> Index | None:
        nbytes = self._index_nbytes
        encoded = await get(
            SuffixByteRequest(nbytes) if self.at_end else RangeByteRequest(0, nbytes)
        )
        index = None if encoded is None else self._decoded(encoded)
        self._keep(shard, None, index)
        return index

    def _keep(self, shard: Place, stamp: Any, index: Index | None) -> None:
        """Keep an index, and forget what was used least recently; on any thread."""
        self._known[shard] = stamp, index
        while len(self._known) * self._index_nbytes * len(_alive) > KEPT_BYTES:
            if len(self._known) == 1:
                break
            try:
                self._known.popitem(last=False)
            except KeyError:  # another thread was faster
                break

    def _decoded(self, encoded: memoryview) -> Index:
        if len(encoded) != self._index_nbytes:
            raise ValueError(
                f"the index of a shard has {len(encoded)} bytes instead of {self._index_nbytes}"
            )
        if self.has_checksum:
            encoded, checksum = encoded[:-_CHECKSUM_BYTES], encoded[-_CHECKSUM_BYTES:]
            if google_crc32c.value(bytes(encoded)) != int.from_bytes(checksum, "little"):
                raise ValueError("the index of a shard does not have the checksum it should have")
        return np.frombuffer(encoded, "<u8").reshape(*self.counts, 2).astype(np.uint64)

    def index_of_file(self, file: io.FileIO, shard: Place) -> Index:
        """Likewise of a shard that is a file, on any thread; read again if it is written anew."""
        found = os.fstat(file.fileno())
        stamp = stamp_of(found)
        known, index = self._known.get(shard, (None, None))
        if index is None or known != stamp:
            nbytes = self._index_nbytes
            begin = found.st_size - nbytes if self.at_end else 0
            encoded = memoryview(bytearray(nbytes))
            index = self._decoded(encoded[: fill(file, begin, encoded) if begin >= 0 else 0])
            self._keep(shard, stamp, index)
        return index

    def extents(
        self, index: Index | None, places: Iterable[Place], in_file: bool = False
    ) -> tuple[list[Extent], list[Place]]:
        """The bytes of a shard to read for some of its chunks, and the chunks that are not there.

        Raises ValueError if no file can have anything where the index says.
        """
        places = list(places)
        if index is None or not places:
            return [], places
        inside = np.array(places, np.intp) % np.array(self.counts, np.intp)
        offsets, lengths = index[tuple(inside.T)].reshape(-1, 2).T
        absent = (offsets == _NOT_THERE) & (lengths == _NOT_THERE)
        damaged = (offsets > _FARTHEST) | (lengths > _FARTHEST - np.minimum(offsets, _FARTHEST))
        for number in np.flatnonzero(damaged & ~absent)[:1]:
            raise ValueError(
                f"the index of a shard is damaged: it has chunk {places[number]} at "
                f"{offsets[number]}, of {lengths[number]} bytes"
            )
        there = np.flatnonzero(~absent)
        begins, ends = offsets[there], offsets[there] + lengths[there]
        order = np.lexsort((ends, begins))
        found = zip(
            begins[order].tolist(), ends[order].tolist(), there[order].tolist(), strict=True
        )
        gap, most = (FILE_GAP_BYTES, MOST_FILE_BYTES) if in_file else (GAP_BYTES, MOST_BYTES)
        extents: list[list[tuple[int, int, Place]]] = []
        start = stop = 0
        for begin, end, number in found:
            near = begin <= stop + gap and max(end, stop) - start <= most
            if extents and near:
                extents[-1].append((begin, end, places[number]))
                stop = max(end, stop)
            else:
                extents.append([(begin, end, places[number])])
                start, stop = begin, end
        missing = [places[number] for number in np.flatnonzero(absent)]
        return [_extent(each) for each in extents], missing


_alive: weakref.WeakSet[Shards] = weakref.WeakSet()  # between which what is kept is shared


def _extent(chunks: list[tuple[int, int, Place]]) -> Extent:
    start, stop = chunks[0][0], max(end for _, end, _ in chunks)
    return Extent(start, stop, tuple((place, b - start, e - start) for b, e, place in chunks))


def byte_order(codec: zarr.codecs.BytesCodec) -> str | None:
    """The byte order that a codec writes, "little" or "big", or None for values of single bytes."""
    return _configuration(codec).get("endian")


def _configuration(codec: zarr.abc.codec.Codec) -> dict[str, Any]:
    """Metadata of a codec: text in every release of zarr; its attributes are enums before 3.4."""
    found: Any = codec.to_dict().get("configuration", {})
    return found  # type: ignore[no-any-return]


def fill(file: io.FileIO, begin: int, memory: memoryview) -> int:
    """Fill memory from a place of a file on; returns how many bytes there were."""
    read = 0
    if len(memory):
        file.seek(begin)
    while read < len(memory) and (more := file.readinto(memory[read:])):
        read += more
    return read
