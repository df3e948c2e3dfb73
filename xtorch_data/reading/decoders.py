"""Decoders of chunks, outside the GIL, into memory that is there."""

from __future__ import annotations

import bz2
import contextlib
import functools
import lzma
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import dask.system
import google_crc32c
import numcodecs
import numcodecs.blosc
import numcodecs.lz4
import numcodecs.zstd
import numpy as np
import numpy.typing as npt
import zarr.codecs

__all__ = [
    "Decoder",
    "Encoded",
    "FreshDecoder",
    "copied",
    "decoder_of",
    "fresh_decoder_of",
    "scratch",
]

Array = npt.NDArray[Any]
Encoded: TypeAlias = bytes | bytearray | memoryview
# Fills a contiguous array with what was encoded.
Decoder: TypeAlias = Callable[[Encoded, Array], None]
# Returns what was encoded as several chunks, each of which must have so many bytes.
FreshDecoder: TypeAlias = Callable[[Sequence[Encoded], int], list[Encoded]]


def decoder_of(codecs: Sequence[Any], dtype: np.dtype[Any]) -> Decoder | None:
    """Decoder of chunks that codecs have made of bytes in C order; None if there is none here.

    The codecs are of zarr or numcodecs, in the order of encoding.
    """
    if codecs and type(codecs[-1]) is zarr.codecs.Crc32cCodec:
        inner = decoder_of(codecs[:-1], dtype)
        return None if inner is None else functools.partial(_verified, inner)
    if not codecs:
        return copied
    *shuffles, last = codecs
    decode = _of_codec(last)
    if decode is None or len(shuffles) > 1:
        return None
    if not shuffles:
        return decode
    # As HDF5 compresses, whose chunks kerchunk and VirtualiZarr refer to.
    [shuffle] = shuffles
    if type(shuffle) is not numcodecs.Shuffle or shuffle.elementsize != dtype.itemsize:
        return None
    return functools.partial(_shuffled, decode)


def fresh_decoder_of(decode: Decoder) -> FreshDecoder | None:
    """Decoder of the same to new memory, if that is faster for few bytes."""
    if isinstance(decode, functools.partial) and decode.func is _verified:
        inner = fresh_decoder_of(*decode.args)
        return None if inner is None else functools.partial(_fresh_verified, inner)
    return None if isinstance(decode, functools.partial) else _FRESH_DECODERS.get(decode)


# Memory for a chunk as it is stored, or of which a part is wanted, used again; only so many threads
# decode at the same time.
_idle: deque[memoryview] = deque(maxlen=2 * dask.system.CPU_COUNT)


@contextlib.contextmanager
def scratch(nbytes: int) -> Iterator[memoryview]:
    """Memory of some bytes, for a while."""
    try:
        memory = _idle.pop()
    except IndexError:
        memory = memoryview(b"")
    if len(memory) < nbytes:
        memory = np.empty(nbytes, np.uint8).data
    try:
        yield memory[:nbytes]
    finally:
        _idle.append(memory)


# Each with a check that a chunk holds what it should: decoders are satisfied with less.


def _require(nbytes: int, wanted: int) -> None:
    if nbytes != wanted:
        raise ValueError(f"the chunk holds {nbytes} bytes instead of {wanted}")


def copied(encoded: Encoded, out: Array) -> None:
    """Decode what is not encoded."""
    _require(len(encoded), out.nbytes)
    out.reshape(-1).view(np.uint8)[...] = np.frombuffer(encoded, np.uint8)


def _fresh_copied(several: Sequence[Encoded], nbytes: int) -> list[Encoded]:
    for encoded in several:
        _require(len(encoded), nbytes)
    return list(several)


def _verified(decode: Decoder, encoded: Encoded, out: Array) -> None:
    """Decode what a checksum stands behind."""
    decode(_content(encoded), out)


def _fresh_verified(decode: FreshDecoder, several: Sequence[Encoded], nbytes: int) -> list[Encoded]:
    return decode([_content(encoded) for encoded in several], nbytes)


def _content(encoded: Encoded) -> Encoded:
    """Content before a checksum, which must be right."""
    content, checksum = encoded[:-4], encoded[-4:]
    if google_crc32c.value(bytes(content)) != int.from_bytes(checksum, "little"):
        raise ValueError("the chunk does not have the checksum it should have")
    return content


# Sizes of the content and of the whole, in the header.
# https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
_BLOSC_SIZES = struct.Struct("<4xI4xI")


def _blosc(encoded: Encoded, out: Array) -> None:
    _require_blosc(encoded, out.nbytes)
    numcodecs.blosc.decompress(encoded, out)


def _fresh_blosc(several: Sequence[Encoded], nbytes: int) -> list[Encoded]:
    for encoded in several:
        _require_blosc(encoded, nbytes)
    return [numcodecs.blosc.decompress(encoded) for encoded in several]


def _require_blosc(encoded: Encoded, nbytes: int) -> None:
    if len(encoded) < _BLOSC_SIZES.size:
        raise ValueError(f"the chunk is cut: it has {len(encoded)} bytes")
    size, stored = _BLOSC_SIZES.unpack_from(encoded)
    _require(size, nbytes)
    if stored != len(encoded):  # the decoder would read on behind the end
        raise ValueError(f"the chunk is cut: it has {len(encoded)} bytes")


def _shuffled(decode: Decoder, encoded: Encoded, out: Array) -> None:
    """Decode first bytes of all values, then second ones and so on, and put them together."""
    with scratch(out.nbytes) as memory:
        columns = np.frombuffer(memory, np.uint8).reshape(out.itemsize, -1)
        decode(encoded, columns)
        target = out.reshape(-1).view(np.uint8).reshape(-1, out.itemsize)
        for place, column in enumerate(columns):  # by NumPy, which lets go of the GIL meanwhile
            target[:, place] = column


def _zstd(encoded: Encoded, out: Array) -> None:
    size, _ = _zstd_header(encoded)
    if size is not None:
        _require(size, out.nbytes)
    numcodecs.zstd.decompress(encoded, out)  # not more than there is room for, nor less


def _fresh_zstd(several: Sequence[Encoded], nbytes: int) -> list[Encoded]:
    if all(_is_one_block(encoded, nbytes) for encoded in several):
        return [numcodecs.zstd.decompress(encoded) for encoded in several]
    # As much memory would be taken as all frames say together, or as one that says nothing likes.
    found = np.empty((len(several), nbytes), np.uint8)
    for encoded, out in zip(several, found, strict=True):
        _zstd(encoded, out)
    return [out.data for out in found]


def _zstd_header(encoded: Encoded) -> tuple[int | None, int]:
    """Size of the content of a frame, if its header says, and where the header ends.

    https://datatracker.ietf.org/doc/html/rfc8878#name-frame-header
    """
    if encoded[:4] != b"\x28\xb5\x2f\xfd" or len(encoded) < 6:
        raise ValueError("the chunk does not begin as a frame of Zstandard does")
    descriptor = encoded[4]
    single = descriptor >> 5 & 1
    at = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    width = (single, 2, 4, 8)[descriptor >> 6]
    if not width:
        return None, at
    size = int.from_bytes(encoded[at : at + width], "little") + (256 if width == 2 else 0)
    return size, at + width


def _is_one_block(encoded: Encoded, nbytes: int) -> bool:
    """Whether a frame says that its content has so many bytes, and is one block and all there is.

    Small chunks are such frames.
    """
    size, at = _zstd_header(encoded)
    if size != nbytes:
        return False
    header = int.from_bytes(encoded[at : at + 3], "little")
    block = 1 if header & 6 == 2 else header >> 3  # of one byte that is repeated
    checksum = encoded[4] & 4
    return header & 1 == 1 and at + 3 + block + checksum == len(encoded)


def _lz4(encoded: Encoded, out: Array) -> None:
    _require(int.from_bytes(encoded[:4], "little"), out.nbytes)
    numcodecs.lz4.decompress(encoded, out)


class _Stream(Protocol):
    """A decompressor of Python: of a stream, and what stands behind its end is `unused_data`."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: Any, max_length: int) -> bytes: ...


def _streamed(
    begin: Callable[[], _Stream], several: bool, padding: bool, encoded: Encoded, out: Array
) -> None:
    """Decode a stream, or several one after the other, never to more than there is room for."""
    target = out.reshape(-1).view(np.uint8).data
    filled, left = 0, memoryview(encoded)
    while True:
        stream = begin()
        # One more than may come, so that a stream of the right size comes to its end.
        found = stream.decompress(left, len(target) - filled + 1)
        if len(found) > len(target) - filled:
            raise ValueError(f"the chunk holds more than {out.nbytes} bytes")
        if not stream.eof:
            raise ValueError(f"the chunk is cut: it has {len(encoded)} bytes")
        target[filled : filled + len(found)] = found
        filled += len(found)
        left = memoryview(stream.unused_data)
        if padding and not left[:1].tobytes().strip(b"\0"):
            left = memoryview(bytes(left).lstrip(b"\0"))
        if not several or not len(left):
            break
    _require(filled, out.nbytes)


_gzip = functools.partial(
    _streamed, functools.partial(zlib.decompressobj, zlib.MAX_WBITS + 16), True, True
)
_zlib = functools.partial(_streamed, zlib.decompressobj, False, False)
_bz2 = functools.partial(_streamed, bz2.BZ2Decompressor, True, False)


def _of_codec(codec: Any) -> Decoder | None:
    if type(codec) is numcodecs.LZMA:
        if codec.format == lzma.FORMAT_RAW:  # without a header
            begin = functools.partial(lzma.LZMADecompressor, codec.format, filters=codec.filters)
            return functools.partial(_streamed, begin, False, False)
        begin = functools.partial(lzma.LZMADecompressor, codec.format)
        return functools.partial(_streamed, begin, True, False)
    return _DECODERS.get(type(codec))


_DECODERS: dict[type, Decoder] = {
    zarr.codecs.BloscCodec: _blosc,
    zarr.codecs.ZstdCodec: _zstd,
    zarr.codecs.GzipCodec: _gzip,
    numcodecs.Blosc: _blosc,
    numcodecs.Zstd: _zstd,
    numcodecs.GZip: _gzip,
    numcodecs.Zlib: _zlib,
    numcodecs.LZ4: _lz4,
    numcodecs.BZ2: _bz2,
}
# Of decoders that spend more on memory which is there than on that of a small chunk.
_FRESH_DECODERS: dict[Decoder, FreshDecoder] = {
    copied: _fresh_copied,
    _blosc: _fresh_blosc,
    _zstd: _fresh_zstd,
}
