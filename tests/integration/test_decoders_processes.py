"""Damaged chunks, decoded in a process of their own."""

import subprocess
import sys

FUZZ = """
import random, sys
import numcodecs, numpy as np, zarr.codecs
from xtorch_data.reading.decoders import decoder_of, fresh_decoder_of

values = np.random.default_rng(0).normal(size=600).astype("f4")
encoders = [numcodecs.Blosc(name, shuffle=shuffle) for name in numcodecs.blosc.list_compressors()
            for shuffle in (0, 1, 2)]
encoders += [numcodecs.Zstd(), numcodecs.LZ4(), numcodecs.GZip(), numcodecs.BZ2(),
             numcodecs.LZMA(preset=0)]
rng, ends = random.Random(7), {"values": 0, "errors": 0}
for codec in encoders:
    decode = decoder_of([codec], values.dtype)
    for data in (values, np.zeros_like(values), np.round(values)):
        encoded = bytes(codec.encode(data))
        for attempt in range(12):
            damaged = bytearray(encoded)
            for _ in range(rng.choice([1, 1, 2, 8])):
                within = rng.choice([20, len(damaged)])  # the header, too
                damaged[rng.randrange(min(within, len(damaged)))] ^= 1 << rng.randrange(8)
            if attempt % 4 == 3:
                del damaged[rng.randrange(len(damaged)):]
            guarded = np.full(values.size + 2000, 7, "f4")
            try:
                fresh = fresh_decoder_of(decode)
                if fresh is not None:
                    assert [len(each) for each in fresh([memoryview(damaged)], 2400)] == [2400]
                decode(memoryview(damaged), guarded[1000:-1000])
                ends["values"] += 1
            except Exception as error:
                assert not isinstance(error, (MemoryError, AssertionError)), codec
                ends["errors"] += 1
            assert (guarded[:1000] == 7).all() and (guarded[-1000:] == 7).all(), codec
print(ends)
"""


def test_flipped_bits_and_cuts_are_values_or_errors_and_write_nowhere_else():
    done = subprocess.run(
        [sys.executable, "-c", FUZZ], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "errors" in done.stdout
