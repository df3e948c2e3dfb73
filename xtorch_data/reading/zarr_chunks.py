"""Zarr chunks decoded straight into the memory where their values are wanted."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import dask.system
import numcodecs
import numpy as np
import numpy.typing as npt
import zarr
import zarr.codecs
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from ..common.buffers import Buffers
from ..common.retry import answered, retried_alone
from ..sources.zarr_stores import innermost, on_loop_of
from .chunk_errors import ChunkError, Named, require_array, require_local_array
from .concurrency import on_thread, request_slots, room_for, together
from .decoders import Decoder, Encoded, copied, decoder_of, fresh_decoder_of, scratch
from .shards import (
    Chunk,
    ChunksAlong,
    Extent,
    Index,
    PartOfShard,
    Place,
    Shards,
    byte_order,
    chunks_along,
    chunks_of,
    fill,
    shards_of,
)  # fmt: skip

__all__ = ["ChunkError", "DirectReader", "noting_missing"]

Array = npt.NDArray[Any]

# A task decodes chunks of so many bytes: a small chunk takes less time than a task costs, and an
# iteration that is given up waits for its tasks.
TASK_BYTES, MOST_TASK_BYTES = 2**20, 2**23
# Codecs may make more of values than they are, by their headers and where nothing is to be saved.
SLACK_BYTES = 2**16
# Memory for values of so few bytes costs less than what decoders do to take memory that is there.
SMALL_BYTES = 2**15
# Small chunks are decoded together up to so many bytes, which stay in the cache of a core.
TOGETHER_BYTES = 2**17


# Called with how many chunks of a region were not there; they have the fill value.
noting_missing: ContextVar[Callable[[int], None] | None] = ContextVar(
    "noting_missing", default=None
)


# How many chunks are not there, and whether an object is not.
_Missing = tuple[int, bool]
# By their numbers.
_Chunks = Mapping[Place, Chunk]


@dataclass(eq=False)
class DirectReader:
    """Reads regions of an array whose chunks are numbers in C order, perhaps compressed.

    Zarr's codec pipelines allot memory for every chunk, or spend on each more Python than decoding
    takes where chunks are small. Most arrays need neither: each chunk is a file that is decoded by
    one call, outside the GIL, to where it belongs.

    Made when a lazy variable gets recycled memory, for as long as that lives. Any thread may read,
    and any event loop.
    """

    array: zarr.Array[Any]
    decode: Decoder
    shards: Shards | None = None  # of chunks that are not objects of their own

    def __post_init__(self) -> None:
        array = self.array  # which works these out each time that it is asked
        self.is_local = type(array.store) is LocalStore  # not one that overrides its reads
        self._sizes, self._dtype = array.chunks, array.dtype
        self._chunk_nbytes = math.prod(self._sizes) * self._dtype.itemsize
        self._most_nbytes = 2 * self._chunk_nbytes + SLACK_BYTES
        self._fill_value: Any = 0 if array.fill_value is None else array.fill_value
        is_small = self._chunk_nbytes <= SMALL_BYTES
        self._fresh = fresh_decoder_of(self.decode) if is_small else None

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> DirectReader | None:
        """A reader of an array, or None if its chunks are not so simple."""
        dtype = array.dtype
        if dtype.kind not in "biufc" or not dtype.isnative:
            return None
        metadata, shards = array.metadata, None
        codecs: list[Any]
        if metadata.zarr_format == 2:
            if metadata.order != "C":
                return None
            codecs = [*(metadata.filters or ()), *filter(None, [metadata.compressor])]
        else:
            found: Any = metadata.codecs
            if metadata.chunk_grid.to_dict()["name"] != "regular":
                return None
            if array.shards is not None:
                shards = Shards.of(array)
                if shards is None:
                    return None
                found = shards.codecs
            first, *codecs = found
            if type(first) is not zarr.codecs.BytesCodec:
                return None
            if dtype.itemsize > 1 and byte_order(first) != sys.byteorder:
                return None
            codecs = [_unwrapped(codec) for codec in codecs]
        decode = decoder_of(codecs, dtype)
        return None if decode is None else cls(array, decode, shards)

    @staticmethod
    def supports(key: Sequence[slice | int]) -> bool:
        """Whether a key picks a region without gaps."""
        return all(not isinstance(place, slice) or place.step in (None, 1) for place in key)

    def read(self, key: Sequence[slice | int], buffers: Buffers) -> Array:
        """A region of a local store, read on this thread."""
        along, shape = self._region(key)
        out = buffers.take([_steps(dim) for dim in along], self._dtype)
        missing, gone = self._read_local(along, 0, None, out)
        if gone:
            require_local_array(self.array)
        _note_missing(missing)
        return out.reshape(shape)

    async def read_async(self, key: Sequence[slice | int], buffers: Buffers) -> Array:
        """A region, decoded on threads of the running loop."""
        along, shape = self._region(key)
        out = buffers.take([_steps(dim) for dim in along], self._dtype)
        jobs: Iterator[Awaitable[_Missing]]
        if self.is_local:
            count = math.prod(map(len, along))
            each = self._chunks_of_a_task(count)
            jobs = (
                on_thread(self._read_local, along, start, start + each, out)
                for start in range(0, count, each)
            )
        elif self.shards is None:
            jobs = (self._fetch(chunk, out) for chunk in chunks_of(along))
        else:
            jobs = await self._fetches_of_shards(self.shards, along, out)
        found = await together(jobs)
        if any(gone for _, gone in found):
            await require_array(self.array)
        _note_missing(sum(missing for missing, _ in found))
        return out.reshape(shape)

    def _chunks_of_a_task(self, count: int) -> int:
        """Number of chunks of a region to decode in one go: a share for each core, if they can."""
        least, most = (
            max(1, nbytes // max(1, self._chunk_nbytes)) for nbytes in (TASK_BYTES, MOST_TASK_BYTES)
        )
        return min(max(least, -(-count // dask.system.CPU_COUNT)), most)

    def _region(self, key: Sequence[slice | int]) -> tuple[list[ChunksAlong], list[int]]:
        """Parts of chunks that a region holds, along every dim, and the shape that is asked for."""
        along, shape = [], []
        for place, length, size in zip(key, self.array.shape, self._sizes, strict=True):
            if isinstance(place, slice):
                start, stop, _ = place.indices(length)
                shape.append(max(0, stop - start))
            else:
                start = int(place) % length
                stop = start + 1
            along.append(chunks_along(start, stop, size))
        return along, shape

    # Which chunks these are is worked out where they are decoded: thousands of them would keep the
    # event loop busy.

    def _read_local(
        self, along: Sequence[ChunksAlong], start: int, stop: int | None, out: Array
    ) -> _Missing:
        """Read some chunks of a region; returns what is not there."""
        if self.shards is not None:
            parts = shards_of(along, self.shards.counts, start, stop)
            found = [self._read_shard(part, self.shards, out) for part in parts]
            return sum(missing for missing, _ in found), any(gone for _, gone in found)
        missing, gone = 0, False
        encode_key = self.array.metadata.encode_chunk_key
        for chunk in chunks_of(along, start, stop):
            key = encode_key(chunk[0])
            with Named(self.array, key):
                file = self._open(key)
                if file is None:
                    self._put(chunk, None, out)
                    missing, gone = missing + 1, True
                    continue
                with file:
                    size = os.fstat(file.fileno()).st_size
                    self._require_size(size)
                    if not self._read_rows(file, size, chunk, out):
                        with scratch(size) as encoded:
                            self._put(chunk, encoded[: fill(file, 0, encoded)], out)
        return missing, gone

    def _read_shard(self, part: PartOfShard, shards: Shards, out: Array) -> _Missing:
        """Read chunks of a shard that is a file; returns what is not there."""
        key = self.array.metadata.encode_chunk_key(part.shard)
        with Named(self.array, key):
            chunks = {chunk[0]: chunk for chunk in part.chunks()}
            file = self._open(key)
            if file is None:
                for chunk in chunks.values():
                    self._put(chunk, None, out)
                return len(chunks), True
            with file:
                index = shards.index_of_file(file, part.shard)
                size, found = os.fstat(file.fileno()).st_size, 0
                for extent in self._extents(shards, index, chunks, out):
                    # Where an index lies, there may be nothing.
                    with scratch(max(0, min(extent.stop, size) - extent.start)) as encoded:
                        encoded = encoded[: fill(file, extent.start, encoded)]
                        self._put_together(encoded, extent.chunks, chunks, out)
                    found += len(extent.chunks)
                return len(chunks) - found, False

    def _open(self, key: str) -> io.FileIO | None:
        """A file of a local store; None if there is none."""
        store = self.array.store
        assert isinstance(store, LocalStore)
        try:
            return io.FileIO(os.path.join(store.root, self.array.path, key))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):  # as zarr has it
            return None

    def _require_size(self, nbytes: int, what: str = "the chunk") -> None:
        """Raise if a chunk takes more bytes than codecs make of any values, before it is read."""
        if nbytes > self._most_nbytes:
            raise ValueError(
                f"{what} takes {nbytes} bytes, though its values are {self._chunk_nbytes}"
            )

    def _read_rows(self, file: io.FileIO, size: int, chunk: Chunk, out: Array) -> bool:
        """Read just the rows that are wanted, where they lie side by side in file and memory."""
        _, inside, where = chunk
        target = out[where]
        sizes = self._sizes
        if self.decode is not copied or not sizes or not target.flags.c_contiguous:
            return False
        if target.shape[1:] != sizes[1:] or size != self._chunk_nbytes:
            return False
        begin = inside[0].start * (size // sizes[0])
        memory = target.reshape(-1).view(np.uint8).data
        return fill(file, begin, memory) == len(memory)

    async def _fetch(self, chunk: Chunk, out: Array) -> _Missing:
        """Read a chunk from any store; returns what is not there."""
        async with room_for(self._chunk_nbytes):
            key = self.array.metadata.encode_chunk_key(chunk[0])
            found = await self._get(key, _whole(self.array.store))
            with Named(self.array, key):
                await on_thread(self._put, chunk, found, out)
            return int(found is None), found is None

    async def _get(self, key: str, wanted: ByteRequest | None) -> memoryview | None:
        """An object, or some bytes of it."""
        array = self.array
        path = f"{array.path}/{key}" if array.path else key

        async def get() -> Any:
            async with request_slots():
                asked = array.store.get(path, default_buffer_prototype(), wanted)
                return await answered(on_loop_of(array, asked))

        with Named(self.array, key):
            what = f"chunk {key}" if self.shards is None else f"shard {key}"
            found = await retried_alone(get, what)
        return None if found is None else found.as_numpy_array().data

    async def _fetches_of_shards(
        self, shards: Shards, along: Sequence[ChunksAlong], out: Array
    ) -> Iterator[Coroutine[Any, Any, _Missing]]:
        """Read chunks of a region by byte ranges of their shards; what is not there."""

        async def of_shard(part: PartOfShard) -> _Missing:
            key = self.array.metadata.encode_chunk_key(part.shard)
            with Named(self.array, key):
                index = await shards.index(part.shard, lambda wanted: self._get(key, wanted))
                chunks, extents = await on_thread(worked_out, index, part)
            await together(of_extent(key, extent, chunks) for extent in extents)
            return len(chunks) - sum(len(each.chunks) for each in extents), index is None

        def worked_out(index: Index | None, part: PartOfShard) -> tuple[_Chunks, list[Extent]]:
            chunks = {chunk[0]: chunk for chunk in part.chunks()}
            return chunks, self._extents(shards, index, chunks, out)

        async def of_extent(key: str, extent: Extent, chunks: _Chunks) -> None:
            async with room_for(extent.stop - extent.start):
                found = await self._get(key, RangeByteRequest(extent.start, extent.stop))
                encoded = memoryview(b"") if found is None else found  # gone meanwhile
                some = extent.chunks
                each = self._chunks_of_a_task(len(some))
                with Named(self.array, key):
                    await together(
                        on_thread(
                            self._put_together, encoded, some[start : start + each], chunks, out
                        )
                        for start in range(0, len(some), each)
                    )

        parts = await on_thread(lambda: list(shards_of(along, shards.counts)))
        return (of_shard(part) for part in parts)

    def _extents(
        self, shards: Shards, index: Index | None, chunks: _Chunks, out: Array
    ) -> list[Extent]:
        """The bytes of a shard to read for its chunks; those not there get the fill value."""
        extents, missing = shards.extents(index, chunks, in_file=self.is_local)
        most = self._most_nbytes
        for extent in extents:
            for place, begin, end in extent.chunks:
                if end - begin > most:
                    self._require_size(end - begin, f"chunk {place} of the shard")
        for place in missing:
            self._put(chunks[place], None, out)
        return extents

    def _put_together(
        self,
        encoded: memoryview,
        some: Sequence[tuple[Place, int, int]],
        chunks: _Chunks,
        out: Array,
    ) -> None:
        """Put the values of chunks of a shard, which begin and end somewhere, where they belong."""
        each = max(1, TOGETHER_BYTES // max(1, self._chunk_nbytes))
        for start in range(0, len(some), each):
            few = some[start : start + each]
            found = [encoded[begin:end] for _, begin, end in few]
            if self._put_small(found, [chunks[place] for place, _, _ in few], out):
                continue
            for (place, _, _), one in zip(few, found, strict=True):
                try:
                    self._put(chunks[place], one, out)
                except Exception as error:
                    error.add_note(f"chunk {place} of the shard")
                    raise

    def _put_small(self, encoded: Sequence[Encoded], chunks: Sequence[Chunk], out: Array) -> bool:
        """Put the values of chunks where they belong; false if they are large, or one is damaged.

        Each step is taken for all of them before the next one: a decoder drives out of the cache of
        a core what Python needs there, which then takes three times as long.
        """
        if self._fresh is None:
            return False
        sizes, dtype = self._sizes, self._dtype
        try:
            decoded = self._fresh(encoded, self._chunk_nbytes)
        except Exception:  # that of the chunk is raised where they are put one by one
            return False
        for values, (_, inside, place) in zip(decoded, chunks, strict=True):
            out[place] = np.ndarray(sizes, dtype, values)[inside]
        return True

    def _put(self, chunk: Chunk, encoded: Encoded | None, out: Array) -> None:
        """Put the values of a chunk where they belong; one that is missing is the fill value."""
        _, inside, place = chunk
        if encoded is None:
            out[place] = self._fill_value
            return
        if self._put_small([encoded], [chunk], out):
            return
        where: tuple[Any, ...] = (*place, ...)
        target = out[where]  # a view also where there are no dims
        if target.shape == self._sizes and target.flags.c_contiguous:
            self.decode(encoded, target)
            return
        with scratch(self._chunk_nbytes) as memory:
            values = np.frombuffer(memory, self._dtype).reshape(self._sizes)
            self.decode(encoded, values)
            np.copyto(target, values[inside])


def _steps(along: ChunksAlong) -> int:
    """Steps of a region along a dim."""
    return along[-1][2].stop if along else 0


def _unwrapped(codec: Any) -> Any:
    """The codec of numcodecs that one of zarr is put around, if it is."""
    own = getattr(codec, "codec_config", None)
    return codec if own is None else numcodecs.get_codec(dict(own))


def _note_missing(chunks: int) -> None:
    note = noting_missing.get()
    if chunks and note is not None:
        note(chunks)


def _whole(store: Store) -> OffsetByteRequest | None:
    """Byte range of a whole object: s3fs would ask for its size first, in a request of its own."""
    is_s3fs = type(getattr(innermost(store), "fs", None)).__module__.partition(".")[0] == "s3fs"
    return OffsetByteRequest(0) if is_s3fs else None
