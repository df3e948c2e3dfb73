import warnings

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache") / "v.zarr"
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "a": (("time", "x"), rng.normal(size=(120, 6)).astype("f4")),
            "b": (("time", "x"), rng.normal(size=(120, 6))),
            "static": ("x", rng.normal(size=6)),
        }
    )
    encoding = {"a": {"chunks": (10, 6)}, "b": {"chunks": (16, 3)}}
    ds.to_zarr(path, encoding=encoding, consolidated=False)
    return path, ds


def epochs_of(dataset, epochs):
    return [
        [(batch.index.tolist(), batch.x.clone(), batch.y.clone()) for batch in dataset]
        for _ in range(epochs)
    ]


@given(
    shuffle=st.booleans(),
    memory=st.sampled_from([1, 800, 2_000, 3_600, 8_000, 10**6]),
    window=st.integers(1, 20),
    overlap=st.integers(0, 19),
    with_transform=st.booleans(),
)
@examples(4, 80)
def test_batches_are_the_same_with_and_without_a_cache(
    store, shuffle, memory, window, overlap, with_transform
):
    path, _ = store
    ds = xr.open_zarr(path, chunks=None, consolidated=False).isel(time=slice(0, 48))  # 3.5 kB

    def make(cache):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="one sample takes")
            return xtd.IterableDataset(
                ds,
                {"time": window, "x": -1},
                {"time": min(overlap, window - 1)},
                inputs=["a", "b", "static"],
                targets="b",
                preprocess=lambda block: block * 2,
                transform=(lambda sample: sample + 1) if with_transform else None,
                batch_size=7,
                shuffle=shuffle,
                memory=memory,
                cache=cache,
            )

    for plain, cached in zip(epochs_of(make(False), 3), epochs_of(make(True), 3), strict=True):
        for (index, *tensors), (cached_index, *cached_tensors) in zip(plain, cached, strict=True):
            assert index == cached_index
            assert all(map(torch.equal, tensors, cached_tensors))


class Counting(zarr.storage.WrapperStore):
    """Counts the chunks that are asked for."""

    reads = 0

    async def get(self, key, *args, **kwargs):
        if "/c/" in key:
            type(self).reads += 1
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize("shuffle", [False, True])
def test_what_fits_is_read_in_the_first_epoch_only(store, shuffle):
    path, _ = store
    ds = xr.open_zarr(Counting(zarr.storage.LocalStore(path)), chunks=None, consolidated=False)
    dataset = xtd.IterableDataset(
        ds, {"time": 8}, {"time": 7}, inputs="a", shuffle=shuffle, cache=True, memory="40 kB"
    )
    reads = []
    for _ in range(3):
        Counting.reads = 0
        list(dataset)
        reads.append(Counting.reads)
    assert reads[0] >= 12
    assert reads[1:] == [0, 0]
    stats = dataset.stats()
    assert (stats.blocks_read, stats.bytes_read) == (0, 0)
    assert stats.blocks_cached == len(dataset.plan.grid)


def test_a_part_is_kept_of_what_does_not_fit(store):
    path, _ = store
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    dataset = xtd.IterableDataset(
        ds, {"time": 1, "x": -1}, inputs="a", shuffle=True, cache=True, memory=1800
    )
    for _ in range(3):
        list(dataset)
    stats = dataset.stats()
    assert 0 < stats.blocks_cached < len(dataset.plan.grid)
    assert stats.blocks_read + stats.blocks_cached == len(dataset.plan.grid)
    assert dataset._inside.reader._cache.nbytes <= 1800


def test_random_preprocess_is_not_kept(store):
    path, _ = store
    ds = xr.open_zarr(path, chunks=None, consolidated=False)
    dataset = xtd.IterableDataset(
        ds,
        {"time": 8, "x": -1},
        inputs="a",
        preprocess=lambda block, rng: block + rng.normal(),
        cache=True,
    )
    first, second = ([batch.x.clone() for batch in dataset] for _ in range(2))
    assert not any(map(torch.equal, first, second))
