"""Zarr chunks decoded straight into the memory where their values are wanted."""

from __future__ import annotations

import io
import itertools
import math
import operator
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dask.system
import numpy as np
import numpy.typing as npt
import zarr
import zarr.codecs
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from .awaiting import on_loop_of, on_thread, request_slots, room_for, together
from .buffers import Buffers
from .decoders import Decoder, Encoded, copied, decoder_of, scratch
from .presence import require_array, require_local_array
from .redact import printable, redacted, words_of
from .retry import GivenUp, answered, retried_alone
from .shards import Extent, Index, Shards, byte_order
from .stores import innermost

__all__ = ["ChunkError", "DirectReader", "noting_missing"]

Array = npt.NDArray[Any]

# A task decodes chunks of so many bytes: a small chunk takes less time than a task costs, and an
# iteration that is given up waits for its tasks.
TASK_BYTES, MOST_TASK_BYTES = 2**20, 2**23
# Codecs may make more of values than they are, by their headers and where nothing is to be saved.
SLACK_BYTES = 2**16


# Called with how many chunks of a region were not there; they have the fill value.
noting_missing: ContextVar[Callable[[int], None] | None] = ContextVar(
    "noting_missing", default=None
)


class ChunkError(Exception):
    """A chunk of a Zarr array could not be read or decoded; ``__cause__`` says why.

    Attributes
    ----------
    chunk : str
        Its key in the store.
    store : str
        The store.
    """

    def __init__(self, chunk: str, store: str) -> None:
        super().__init__(chunk, store)
        self.chunk, self.store = chunk, store

    @classmethod
    def of(cls, array: zarr.Array[Any], key: str) -> ChunkError:
        """The error of a chunk of an array, by its key inside the array."""
        path = f"{array.path}/{key}" if array.path else key
        return cls(printable(path), printable(redacted(str(array.store))))

    def __str__(self) -> str:
        cause = f": {words_of(self.__cause__)}" if self.__cause__ else ""
        return f"chunk {self.chunk} of {self.store}{cause}"


@dataclass(frozen=True, eq=False)
class _Named:
    """Names the chunk, or the shard, that an error inside is about.

    No generator: on Python 3.13 one that raises lives in a cycle with the error and the memory in
    its frames, which is then not given back before garbage is collected.
    """

    array: zarr.Array[Any]
    key: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, (MemoryError, ChunkError)):
            return
        if not isinstance(error, GivenUp):
            raise ChunkError.of(self.array, self.key) from error
        if not isinstance(error.__cause__, ChunkError):
            named = ChunkError.of(self.array, self.key)
            named.__cause__ = error.__cause__
            raise GivenUp from named


# What a region wants of chunks along a dim: number, part of the chunk, whether that is all of it,
# part of the region.
_Along = list[tuple[int, slice, bool, slice]]


@dataclass(frozen=True, eq=False)
class _Chunk:
    """What a region wants of a chunk: its key, and its numbers in the grid."""

    key: str
    numbers: tuple[int, ...]
    inside: tuple[slice, ...]  # of the chunk
    target: tuple[slice, ...]  # of the region
    whole: bool


# How many chunks are not there, and whether an object is not.
_Missing = tuple[int, bool]
_ByNumbers = dict[tuple[int, ...], _Chunk]
_OfShards = dict[tuple[int, ...], list[tuple[int, ...]]]


@dataclass(frozen=True, eq=False)
class DirectReader:
    """Reads regions of an array whose chunks are numbers in C order, perhaps compressed.

    Zarr's codec pipelines allot memory for every chunk, or spend on each more Python than decoding
    takes where chunks are small. Most arrays need neither: each chunk is a file that is decoded by
    one call, outside the GIL, to where it belongs.

    Attributes
    ----------
    array : zarr.Array
        The array.
    decode : callable
        ``(encoded, out)``, which fills a contiguous array.
    shards : Shards, optional
        Where chunks lie that are not objects of their own.
    """

    array: zarr.Array[Any]
    decode: Decoder
    shards: Shards | None = None

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
            # Those of numcodecs are wrapped.
            codecs = [getattr(codec, "_codec", codec) for codec in codecs]
        decode = decoder_of(codecs, dtype)
        return None if decode is None else cls(array, decode, shards)

    @staticmethod
    def supports(key: Sequence[slice | int]) -> bool:
        """Whether a key picks a region without gaps."""
        return all(not isinstance(place, slice) or place.step in (None, 1) for place in key)

    def read(self, key: Sequence[slice | int], buffers: Buffers) -> Array:
        """A region of a local store, read on this thread.

        Parameters
        ----------
        key : sequence of slice or int
            The region, an entry for each dim.
        buffers : Buffers
            Where its memory comes from.
        """
        box, shape = self._box(key)
        out = buffers.take([stop - start for start, stop in box], self.array.dtype)
        missing, gone = self._read_local(self._along(box), 0, None, out)
        if gone:
            require_local_array(self.array)
        _note_missing(missing)
        return out.reshape(shape)

    async def read_async(self, key: Sequence[slice | int], buffers: Buffers) -> Array:
        """A region, read on the threads of the running loop's default executor."""
        box, shape = self._box(key)
        out = buffers.take([stop - start for start, stop in box], self.array.dtype)
        along = self._along(box)
        jobs: Iterator[Coroutine[Any, Any, _Missing]]
        if self.is_local:
            count = math.prod(map(len, along))
            each = self._chunks_of_a_task(count)
            jobs = (
                on_thread(self._read_local, along, start, start + each, out)
                for start in range(0, count, each)
            )
        else:
            if self.shards is None:
                jobs = (self._fetch(chunk, out) for chunk in self._chunks(along))
            else:
                jobs = await self._fetches_of_shards(self.shards, along, out)
        found = await together(jobs)
        if any(gone for _, gone in found):
            await require_array(self.array)
        _note_missing(sum(missing for missing, _ in found))
        return out.reshape(shape)

    def _chunks_of_a_task(self, count: int) -> int:
        """How many chunks of a region are decoded in one go: a share for each core, if they can."""
        least, most = (
            max(1, nbytes // max(1, self._chunk_nbytes)) for nbytes in (TASK_BYTES, MOST_TASK_BYTES)
        )
        return min(max(least, -(-count // dask.system.CPU_COUNT)), most)

    def _box(self, key: Sequence[slice | int]) -> tuple[list[tuple[int, int]], list[int]]:
        """Begin and end of a region along every dim, and the shape of what is asked for."""
        box, shape = [], []
        for place, length in zip(key, self.array.shape, strict=True):
            if isinstance(place, slice):
                start, stop, _ = place.indices(length)
                box.append((start, max(start, stop)))
                shape.append(max(0, stop - start))
            else:
                place = int(place) % length
                box.append((place, place + 1))
        return box, shape

    @property
    def is_local(self) -> bool:
        """Whether chunks are files of a local folder."""
        return type(self.array.store) is LocalStore  # not what overrides its reads

    # Zarr works these out each time that it is asked.

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        return self.array.chunks

    @cached_property
    def _dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @cached_property
    def _chunk_nbytes(self) -> int:
        return math.prod(self._sizes) * self._dtype.itemsize

    def _along(self, box: Sequence[tuple[int, int]]) -> list[_Along]:
        """What a region wants of chunks, along every dim."""
        sizes = self.array.chunks
        return [_along(*bounds, size) for bounds, size in zip(box, sizes, strict=True)]

    def _chunks(
        self, along: Sequence[_Along], start: int = 0, stop: int | None = None
    ) -> Iterator[_Chunk]:
        """The chunks that hold a region, from one of them to another.

        Worked out where they are decoded: thousands of them would keep the event loop busy.
        """
        key = self.array.metadata.encode_chunk_key
        for found in itertools.islice(itertools.product(*along), start, stop):
            # No dims, one chunk.
            numbers, inside, whole, target = zip(*found, strict=True) if found else ((), (), (), ())
            where = numbers
            if self.shards is not None:
                pairs = zip(numbers, self.shards.counts, strict=True)
                where = tuple(number // count for number, count in pairs)
            yield _Chunk(key(where), numbers, inside, target, all(whole))

    def _read_local(
        self, along: Sequence[_Along], start: int, stop: int | None, out: Array
    ) -> _Missing:
        """Read some chunks of a region; returns what is not there."""
        store = self.array.store
        assert isinstance(store, LocalStore)
        folder = os.path.join(store.root, self.array.path)
        missing, gone = 0, False
        chunks = self._chunks(along, start, stop)
        for key, of_file in itertools.groupby(chunks, operator.attrgetter("key")):
            with self._named(key):
                try:
                    file = io.FileIO(os.path.join(folder, key))
                except (FileNotFoundError, IsADirectoryError, NotADirectoryError):  # as zarr has it
                    for chunk in of_file:
                        self._put(chunk, None, out)
                        missing += 1
                    gone = True
                    continue
                with file:
                    if self.shards is not None:
                        missing += self._read_of_shard(file, self.shards, of_file, out)
                        continue
                    for chunk in of_file:
                        size = os.fstat(file.fileno()).st_size
                        self._require_size(size)
                        if not self._read_rows(file, size, chunk, out):
                            with scratch(size) as encoded:
                                self._put(chunk, encoded[: _fill(file, 0, encoded)], out)
        return missing, gone

    def _read_of_shard(
        self, file: io.FileIO, shards: Shards, chunks: Iterable[_Chunk], out: Array
    ) -> int:
        """Read chunks of a shard that is a file; returns how many of them are not there."""
        index: Index | None = None
        missing = 0
        for chunk in chunks:
            if index is None:
                index = shards.index_of_file(file, chunk.numbers)
            with _noting(chunk.numbers):
                place = shards.place(index, chunk.numbers)
                if place is None:
                    self._put(chunk, None, out)
                    missing += 1
                    continue
                begin, end = place
                self._require_size(end - begin)
                with scratch(end - begin) as encoded:
                    self._put(chunk, encoded[: _fill(file, begin, encoded)], out)
        return missing

    def _require_size(self, nbytes: int) -> None:
        """Raise if a chunk takes more bytes than codecs make of any values, before it is read."""
        if nbytes > 2 * self._chunk_nbytes + SLACK_BYTES:
            raise ValueError(
                f"the chunk takes {nbytes} bytes, though its values are {self._chunk_nbytes}"
            )

    def _read_rows(self, file: io.FileIO, size: int, chunk: _Chunk, out: Array) -> bool:
        """Read just the rows that are wanted, where they lie side by side in file and memory."""
        target = out[chunk.target]
        sizes = self._sizes
        if self.decode is not copied or not sizes or not target.flags.c_contiguous:
            return False
        if target.shape[1:] != sizes[1:] or size != self._chunk_nbytes:
            return False
        begin = chunk.inside[0].start * (size // sizes[0])
        memory = target.reshape(-1).view(np.uint8).data
        return _fill(file, begin, memory) == len(memory)

    async def _fetch(self, chunk: _Chunk, out: Array) -> _Missing:
        """Read a chunk from any store; returns what is not there."""
        async with room_for(self._chunk_nbytes):
            found = await self._get(chunk.key, _whole(self.array.store))
            with self._named(chunk.key):
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

        with self._named(key):
            what = f"chunk {key}" if self.shards is None else f"shard {key}"
            found = await retried_alone(get, what)
        return None if found is None else found.as_numpy_array().data

    def _named(self, key: str) -> _Named:
        """Name the chunk, or the shard, that an error is about."""
        return _Named(self.array, key)

    async def _fetches_of_shards(
        self, shards: Shards, along: Sequence[_Along], out: Array
    ) -> Iterator[Coroutine[Any, Any, _Missing]]:
        """Read chunks of a region by byte ranges of their shards; what is not there."""

        def worked_out() -> tuple[_ByNumbers, _OfShards]:
            found = {chunk.numbers: chunk for chunk in self._chunks(along)}
            return found, shards.by_shard(found)

        # On threads: tens of thousands of chunks would keep the event loop busy.
        chunks, of_shards = await on_thread(worked_out)

        async def of_shard(shard: tuple[int, ...], places: list[tuple[int, ...]]) -> _Missing:
            key = chunks[places[0]].key
            with self._named(key):
                index = await shards.index(shard, lambda wanted: self._get(key, wanted))
                extents = await on_thread(extents_of, index, places)
            await together(of_extent(key, extent) for extent in extents)
            return len(places) - sum(len(each.chunks) for each in extents), index is None

        def extents_of(index: Index | None, places: list[tuple[int, ...]]) -> list[Extent]:
            extents, missing = shards.extents(index, places)
            for extent in extents:
                for place, begin, end in extent.chunks:
                    with _noting(place):
                        self._require_size(end - begin)
            for place in missing:
                self._put(chunks[place], None, out)
            return extents

        async def of_extent(key: str, extent: Extent) -> None:
            async with room_for(extent.stop - extent.start):
                found = await self._get(key, RangeByteRequest(extent.start, extent.stop))
                encoded = memoryview(b"") if found is None else found  # gone meanwhile
                each = self._chunks_of_a_task(len(extent.chunks))
                with self._named(key):
                    await together(
                        on_thread(put, encoded, extent.chunks[start : start + each])
                        for start in range(0, len(extent.chunks), each)
                    )

        def put(encoded: memoryview, some: Sequence[tuple[tuple[int, ...], int, int]]) -> None:
            for place, begin, end in some:
                with _noting(place):
                    self._put(chunks[place], encoded[begin:end], out)

        return (of_shard(*each) for each in of_shards.items())

    def _put(self, chunk: _Chunk, encoded: Encoded | None, out: Array) -> None:
        """Put the values of a chunk where they belong; one that is missing is the fill value."""
        where: tuple[Any, ...] = (*chunk.target, ...)
        target = out[where]  # a view also where there are no dims
        if encoded is None:
            fill = self.array.fill_value
            target[...] = 0 if fill is None else fill
            return
        if chunk.whole and target.flags.c_contiguous:
            self.decode(encoded, target)
            return
        with scratch(self._chunk_nbytes) as memory:
            values = np.frombuffer(memory, self._dtype).reshape(self._sizes)
            self.decode(encoded, values)
            np.copyto(target, values[chunk.inside])


class _noting:  # noqa: N801, faster than a generator, and there is one for each chunk
    """Note on an error which chunk of a shard it is about."""

    __slots__ = ("_place",)

    def __init__(self, place: tuple[int, ...]) -> None:
        self._place = place

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            error.add_note(f"chunk {self._place} of the shard")


def _note_missing(chunks: int) -> None:
    note = noting_missing.get()
    if chunks and note is not None:
        note(chunks)


def _whole(store: Store) -> OffsetByteRequest | None:
    """How to ask for a whole object: s3fs would ask for its size first, in a request of its own."""
    is_s3fs = type(getattr(innermost(store), "fs", None)).__module__.partition(".")[0] == "s3fs"
    return OffsetByteRequest(0) if is_s3fs else None


def _fill(file: io.FileIO, begin: int, memory: memoryview) -> int:
    """Fill memory from a place of a file on; returns how many bytes there were."""
    file.seek(begin)
    read = 0
    while read < len(memory) and (more := file.readinto(memory[read:])):
        read += more
    return read


def _along(start: int, stop: int, size: int) -> _Along:
    found = []
    for number in range(start // size, -(-stop // size)) if stop > start else ():
        begin = number * size
        first, last = max(start, begin), min(stop, begin + size)
        inside = slice(first - begin, last - begin)
        found.append((number, inside, last - first == size, slice(first - start, last - start)))
    return found
