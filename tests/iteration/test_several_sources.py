"""Streams of several sources: the same samples as by number, and each chunk read once."""

import gc
import threading
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import zarr
from helpers import CountingStore

import xtorch_data as xtd
from xtorch_data.iteration.companions import Companions

STEPS = 240


def stored(ds, chunks):
    """A dataset in chunks, and how often each chunk of it is read."""
    memory = zarr.storage.MemoryStore()
    encoding = {
        name: {
            "chunks": tuple(chunks.get(dim, ds.sizes[dim]) for dim in each.dims),
            "compressors": None,
        }
        for name, each in ds.data_vars.items()
    }
    ds.to_zarr(memory, encoding=encoding, consolidated=False)
    store = CountingStore(memory)
    opened = xr.open_zarr(store, consolidated=False, chunks=None)
    store.counts.clear()
    return opened, store.counts


def numbered(shape, dims, name, coords):
    values = np.arange(np.prod(shape), dtype="f4").reshape(shape)
    return xr.Dataset({name: (dims, values)}, coords=coords)


def workload():
    """Six-hourly fields, a daily and an hourly series, an archive of forecasts, a static field."""
    time = xr.date_range("2000-01-01", periods=STEPS, freq="6h")
    days = xr.date_range("1999-11-01", periods=STEPS // 4 + 60)
    hours = xr.date_range("1999-12-20", periods=STEPS * 6 + 300, freq="h")
    inits = xr.date_range("1999-12-25", periods=STEPS // 2 + 20, freq="12h")
    leads = pd.to_timedelta(np.arange(0, 16) * 3, "h")
    made = {
        "era": stored(
            numbered((STEPS, 4, 5), ("time", "y", "x"), "t", {"time": time}), {"time": 16}
        ),
        "daily": stored(numbered((len(days), 3), ("time", "k"), "s", {"time": days}), {"time": 30}),
        "hourly": stored(numbered((len(hours),), ("time",), "q", {"time": hours}), {"time": 100}),
        "gfs": stored(
            numbered((len(inits), 16), ("init", "lead"), "f", {"init": inits, "lead": leads}),
            {"init": 4, "lead": 5},
        ),
        "topo": stored(numbered((8, 9), ("v", "w"), "z", {}), {"v": 3}),
    }
    data = {name: each for name, (each, _) in made.items()}
    counts = {name: each for name, (_, each) in made.items()}
    data["daily"] = xtd.Source(data["daily"], time=xtd.AsOf(20, latency="1D"))
    data["hourly"] = xtd.Source(data["hourly"], time=xtd.AsOf(48, latency="0h"))
    data["gfs"] = xtd.Source(
        data["gfs"], init=xtd.AsOf(1, latency="5h"), lead=xtd.ValidTime("0h", "21h")
    )
    return data, counts


def samples_of(data, **arguments):
    return xtd.MapDataset(data, {"time": 4, "y": -1, "x": -1}, {"time": 3}, inputs="t", **arguments)


def parts(batch, place):
    return {name: batch[name][place] for name in batch.keys()}


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("memory", ["30 kB", "100 kB", "1 MiB"])
def test_streams_have_the_samples_that_are_fetched_by_number(shuffle, memory):
    data, _ = workload()
    samples = samples_of(data)
    seen = []
    for batch in xtd.IterableDataset(samples, batch_size=7, shuffle=shuffle, memory=memory):
        numbers = batch.index.tolist()
        seen += numbers
        expected = samples.fetch(numbers)
        assert batch.keys() == expected.keys() == ["x", "daily", "hourly", "gfs", "topo"]
        for name in batch.keys():
            assert torch.equal(batch[name], expected[name])
    assert sorted(seen) == list(range(len(samples)))


def test_in_order_each_chunk_of_each_source_is_read_once(monkeypatch):
    pieces, begun = Companions.pieces, Counter()

    def every_other_one_late(companions, place, boxes):
        begun[place] += 1
        if begun[place] % 2:  # a thread that waits for a core, while others go on
            time.sleep(0.03)
        return pieces(companions, place, boxes)

    # Memory has no room for the cells of a later block beside those that this one needs again.
    monkeypatch.setattr(Companions, "pieces", every_other_one_late)
    data, counts = workload()
    dataset = xtd.IterableDataset(samples_of(data), batch_size=8, memory="90 kB")
    assert len(dataset.plan.grid) > 1
    assert not dataset.plan.beside.resident or dataset.plan.beside.resident == (3,)
    list(dataset)
    for name, found in counts.items():
        assert found, name
        assert set(found.values()) == {1}, name


def test_shuffled_what_fits_a_quarter_of_the_memory_is_read_once_in_all_epochs():
    data, counts = workload()
    dataset = xtd.IterableDataset(samples_of(data), batch_size=8, shuffle=True, memory="300 kB")
    kept = [list(data)[1:][place] for place in dataset.plan.beside.resident]
    assert "daily" in kept
    for _ in range(3):
        list(dataset)
    for name in kept:
        assert set(counts[name].values()) == {1}, name


@pytest.mark.parametrize("batch_size", [None, 1, 5])
def test_single_samples_transforms_and_preprocess_by_source(batch_size):
    data, _ = workload()
    plain = samples_of(data)
    samples = samples_of(
        data,
        preprocess={"era": lambda block: block + 1, "daily": lambda block: block * 2},
        transform={"hourly": lambda sample: sample.max("time"), "x": lambda sample: -sample},
    )
    for batch in xtd.IterableDataset(samples, batch_size=batch_size, shuffle=True):
        numbers = batch.index.reshape(-1).tolist()
        expected = plain.fetch(numbers)
        found = {name: batch[name] if batch_size else batch[name][None] for name in batch.keys()}
        assert torch.equal(found["x"], -(expected.x + 1))
        assert torch.equal(found["daily"], expected.daily * 2)
        assert torch.equal(found["hourly"], expected.hourly.amax(-1))
        assert torch.equal(found["topo"], expected.topo)


def test_transforms_and_windows_of_every_source_are_counted():
    data, _ = workload()

    def slowly(sample):
        time.sleep(0.002)
        return sample.max("time")

    stream = xtd.IterableDataset(samples_of(data, transform={"hourly": slowly}), batch_size=7)
    count = sum(len(batch) for batch in stream)
    stats = stream.stats()
    assert stats.transform >= 0.002 * count > stats.gather
    assert stats.paths["windows transformed"] == count
    plain = xtd.IterableDataset(samples_of(data), batch_size=7)
    windows = sum(len(batch) for batch in plain) * len(data)
    told = plain.stats().paths
    assert sum(times for way, times in told.items() if way.startswith("windows")) == windows


def test_labels_are_those_of_each_source():
    data, _ = workload()
    samples = samples_of(data)
    batch = samples.fetch([3, 30])
    tree = batch.to_xarray()
    assert list(tree.children) == ["era", "daily", "hourly", "gfs", "topo"]
    for place, number in enumerate([3, 30]):
        for name, source in data.items():
            ds = source.ds if isinstance(source, xtd.Source) else source
            expected = ds.isel(samples.windows.of(name)[number], missing_dims="ignore").load()
            found = tree[name].to_dataset().isel(sample=place).drop_vars("sample")
            for each in expected.data_vars:
                np.testing.assert_array_equal(found[each].values, expected[each].values)
            for each in expected.coords:
                np.testing.assert_array_equal(found[each].values, expected[each].values)
    assert batch.to_xarray("daily")["s"].dims == ("sample", "time", "k")


def test_ranks_and_resumed_epochs_have_each_sample_once():
    data, _ = workload()
    samples = samples_of(data)
    how = {"batch_size": 5, "shuffle": True, "memory": "100 kB", "uneven": "keep"}
    found = []
    for rank in range(3):
        dataset = xtd.IterableDataset(samples, rank=rank, world_size=3, **how)
        batches = iter(dataset)
        found += [number for _ in range(4) for number in next(batches).index.tolist()]
        state = dataset.state_dict()
        batches.close()
        resumed = xtd.IterableDataset(samples, rank=rank, world_size=3, **how)
        resumed.load_state_dict(state)
        found += [number for batch in resumed for number in batch.index.tolist()]
    assert sorted(found) == list(range(len(samples)))


def test_no_thread_outlives_what_reads(monkeypatch):
    data, _ = workload()
    dataset = xtd.IterableDataset(samples_of(data), batch_size=3)
    batches = iter(dataset)
    next(batches)
    batches.close()
    del batches, dataset
    gc.collect()
    for each in threading.enumerate():
        if each.name.startswith("xtorch_data-"):
            each.join(10)
    assert not [each for each in threading.enumerate() if each.name.startswith("xtorch_data-")]


def test_damage_of_another_source_is_raised_with_its_name():
    data, _ = workload()
    broken = data["topo"].chunk().map_blocks(_fail, template=data["topo"].chunk())
    samples = samples_of({**data, "topo": broken}, retries=0)
    with pytest.raises(xtd.ReadError, match="'z'"):
        list(xtd.IterableDataset(samples, batch_size=4, retries=0))
    with pytest.raises(ValueError, match="on_error='skip'"):
        xtd.IterableDataset(samples, on_error="skip")


def _fail(block):
    if block.sizes["v"]:
        raise OSError("the disk is broken")
    return block


def test_what_only_one_source_can_have_is_refused():
    data, _ = workload()
    with pytest.raises(TypeError, match="mapping of their names to functions"):
        samples_of(data, preprocess=lambda block: block)
    with pytest.raises(ValueError, match="names source 'era5'; the sources are"):
        samples_of(data, preprocess={"era5": lambda block: block})
    with pytest.raises(ValueError, match="transform=.part: function."):
        xtd.IterableDataset(samples_of(data), batch_transform=lambda batch: batch)
    with pytest.raises(ValueError, match="several sources, .*'era', 'daily'"):
        xtd.MapDataset(data, {"time": 4}, inputs=["t", "daily/s"])
    with pytest.raises(ValueError, match="source 'daily' has no data variable 'tos'.*'s'"):
        xtd.MapDataset(data, {"time": 4}, inputs="t", targets="daily/tos")
    with pytest.raises(ValueError, match="no data variable 'u'"):
        xtd.MapDataset(data, {"time": 4}, inputs="u")
    with pytest.raises(ValueError, match="no part has a variable of the first source"):
        xtd.MapDataset(data, {"time": 4}, parts={"x": "daily/s"})
    with pytest.raises(ValueError, match="comes first, and gives the samples"):
        xtd.MapDataset({"daily": data["daily"], "era": data["era"]}, {"time": 4})
    with pytest.raises(ValueError, match="source 'x' makes a part of its own name"):
        xtd.MapDataset({"era": data["era"], "x": data["topo"]}, {"time": 4})
    with pytest.raises(ValueError, match="must be an identifier"):
        xtd.MapDataset({"a b": data["era"]}, {"time": 4})
    with pytest.raises(ValueError, match="there are no sources"):
        xtd.MapDataset({}, {"time": 4})


def test_errors_of_several_sources_at_once_are_all_heard(caplog):
    """The first one is raised; of the others, asyncio would say that nobody has asked."""
    times = pd.date_range("2000-01-01", periods=20)
    a, b = (xr.DataArray(np.zeros(20, "f4"), {"time": times}, name=name) for name in "ab")
    damaged = False

    def function(block):
        if damaged:
            raise RuntimeError("damaged")
        return block

    samples = xtd.MapDataset(
        {"a": a, "b": b}, {"time": 2}, preprocess=dict.fromkeys("ab", function)
    )
    damaged = True
    for _ in range(5):
        with pytest.raises(RuntimeError, match="damaged"):
            list(xtd.IterableDataset(samples, batch_size=2))
        gc.collect()
    assert not [each for each in caplog.records if each.name == "asyncio"]
