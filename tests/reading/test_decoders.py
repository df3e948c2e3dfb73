"""Decoders of chunks, given what no encoder has made."""

import bz2
import gzip
import lzma
import tracemalloc
import zlib

import google_crc32c
import numcodecs
import numcodecs.zstd
import numpy as np
import pytest
import zarr.codecs

from xtorch_data.reading.decoders import decoder_of, fresh_decoder_of

NBYTES, BOMB = 2_000, 2**26


def streamed(begin):
    stream = begin()
    parts = [stream.compress(bytes(2**20)) for _ in range(BOMB >> 20)]
    return b"".join([*parts, stream.flush()])


def zstd_without_size(size=b"", descriptor=0):
    """A frame of zeros in blocks that repeat a byte, which says nothing of its size, or a lie."""
    most = 2**17
    blocks = BOMB // most
    headers = [(most << 3) | (1 << 1) | (place == blocks - 1) for place in range(blocks)]
    body = b"".join(header.to_bytes(3, "little") + b"\0" for header in headers)
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor, 7 << 3]) + size + body


LZMA = numcodecs.LZMA(preset=0)
ZEROS = bytes(BOMB)
BOMBS = {
    "gzip": (zarr.codecs.GzipCodec(), lambda: streamed(lambda: zlib.compressobj(9, wbits=31))),
    "gzip in members": (
        numcodecs.GZip(),
        lambda: gzip.compress(bytes(NBYTES)) + gzip.compress(ZEROS),
    ),
    "zlib": (numcodecs.Zlib(), lambda: zlib.compress(ZEROS)),
    "bz2": (numcodecs.BZ2(), lambda: bz2.compress(ZEROS)),
    "lzma": (LZMA, lambda: lzma.compress(ZEROS, preset=0)),
    "zstd": (numcodecs.Zstd(), lambda: numcodecs.zstd.compress(ZEROS)),
    "zstd without a size": (zarr.codecs.ZstdCodec(), zstd_without_size),
    "zstd that lies": (
        zarr.codecs.ZstdCodec(),
        lambda: zstd_without_size(NBYTES.to_bytes(4, "little"), 2 << 6),
    ),
    "zstd in frames": (
        numcodecs.Zstd(),
        lambda: numcodecs.zstd.compress(bytes(NBYTES)) + numcodecs.zstd.compress(ZEROS),
    ),
    "blosc": (zarr.codecs.BloscCodec(), lambda: numcodecs.Blosc().encode(ZEROS)),
    "lz4": (numcodecs.LZ4(), lambda: numcodecs.LZ4().encode(ZEROS)),
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("checksum", [False, True])
def test_no_more_is_decoded_than_a_chunk_holds(kind, checksum):
    codec, encode = BOMBS[kind]
    encoded = encode()
    codecs = [codec, zarr.codecs.Crc32cCodec()] if checksum else [codec]
    if checksum:
        encoded += google_crc32c.value(encoded).to_bytes(4, "little")
    out = np.empty(NBYTES // 4, "f4")
    decode = decoder_of(codecs, out.dtype)
    fresh = fresh_decoder_of(decode)
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, RuntimeError, OSError)):
            decode(encoded, out)
        if fresh is not None:
            with pytest.raises((ValueError, RuntimeError)):
                fresh([encoded], NBYTES)
        assert tracemalloc.get_traced_memory()[1] < 2**22 + 2 * len(encoded)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", [None, zarr.codecs.BloscCodec(), numcodecs.Zstd(), "no size"])
@pytest.mark.parametrize("checksum", [False, True])
def test_several_small_chunks_are_decoded_to_new_memory(codec, checksum):
    several = [bytes([number]) * NBYTES for number in range(3)]
    if codec == "no size":
        if tuple(map(int, numcodecs.__version__.split(".")[:2])) < (0, 16):
            pytest.skip("this numcodecs decodes no frame without a size")
        codec, frame = numcodecs.Zstd(), b"\x28\xb5\x2f\xfd\0\x38"
        header = (NBYTES << 3 | 1 << 1 | 1).to_bytes(3, "little")
        encoded = [frame + header + data[:1] for data in several]
    elif codec is None:
        encoded = list(several)
    else:
        encode = (numcodecs.Blosc() if "Blosc" in str(codec) else codec).encode
        encoded = [bytes(encode(np.frombuffer(data, "u1"))) for data in several]
    codecs = [] if codec is None else [codec]
    if checksum:
        codecs.append(zarr.codecs.Crc32cCodec())
        encoded = [each + google_crc32c.value(each).to_bytes(4, "little") for each in encoded]
    fresh = fresh_decoder_of(decoder_of(codecs, np.dtype("f4")))
    assert list(map(bytes, fresh([memoryview(each) for each in encoded], NBYTES))) == several
    for damaged in (encoded[1][:-1], b"", encoded[1] + b"1234"):
        with pytest.raises((ValueError, RuntimeError)):
            fresh([encoded[0], damaged], NBYTES)
    with pytest.raises((ValueError, RuntimeError), match="instead of|too small"):
        fresh(encoded, NBYTES - 4)


@pytest.mark.parametrize(
    "codec",
    [
        numcodecs.BZ2(),
        LZMA,
        numcodecs.LZMA(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}]),
        numcodecs.GZip(),
    ],
)
def test_what_was_encoded_is_decoded_also_in_parts(codec):
    values = np.random.default_rng(0).integers(0, 9, 500).astype("f4")
    encoded = bytes(codec.encode(values))
    out = np.empty_like(values)
    decode = decoder_of([codec], values.dtype)
    decode(memoryview(encoded), out)
    np.testing.assert_array_equal(out, values)
    for cut in (encoded[:-1], encoded[: len(encoded) // 2], b""):
        if getattr(codec, "format", None) != lzma.FORMAT_RAW or len(cut) < len(encoded) - 1:
            with pytest.raises((ValueError, OSError, EOFError, zlib.error, lzma.LZMAError)):
                decode(cut, out)
    if isinstance(codec, numcodecs.GZip):
        half = values.nbytes // 2
        data = values.tobytes()
        decode(gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(9), out)
        np.testing.assert_array_equal(out, values)
        with pytest.raises(ValueError, match="instead of 2000"):
            decode(gzip.compress(data[:half]), out)
