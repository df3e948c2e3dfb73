"""What tests of the cache on disk share, in one process and in several."""

from typing import ClassVar

import numpy as np
import xarray as xr
import zarr

from xtorch_data.reading.disk_cache import entry_name


class Counting(zarr.storage.WrapperStore):
    """Counts the chunks that are asked for."""

    reads = 0
    keys: ClassVar[list[str]] = []

    async def get(self, key, *args, **kwargs):
        if "/c/" in key:
            type(self).reads += 1
            type(self).keys.append(key)
        return await super().get(key, *args, **kwargs)


def opened(path):
    return xr.open_zarr(Counting(zarr.storage.LocalStore(path)), chunks=None, consolidated=False)


def epoch_of(dataset):
    """Sample numbers and tensors of an epoch; when it ends, all is written."""
    Counting.reads = 0
    found = {
        number: tensors
        for batch in dataset
        for number, *tensors in zip(batch.index.tolist(), *(t.clone() for t in batch), strict=True)
    }
    dataset._inside.on_disk.cache.wait()
    return found


def entries(folder):
    return sorted(folder.glob("*/*/*.cell"))


def values_of(number, nbytes=1000):
    return np.full(nbytes, number, "u1")


def kept(cache, number, nbytes=1000):
    out = np.empty(nbytes, "u1")
    found = cache.read(entry_name(b"%d" % number), out)
    assert not found or (out == number).all()
    return found


def filled(cache, numbers, nbytes=1000):
    for number in numbers:
        cache.offer(entry_name(b"%d" % number), values_of(number, nbytes))
        cache.wait()
    return cache
