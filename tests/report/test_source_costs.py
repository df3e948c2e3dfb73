"""What `explain` predicts of other sources, compared with what a store is asked for."""

import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from helpers import CountingStore

import xtorch_data as xtd
from xtorch_data.planning.blocks import ENOUGH_AMPLIFICATION

STEPS = 400
TIME = np.datetime64("2000-01-01", "ns") + np.arange(STEPS) * np.timedelta64(6, "h")
DAYS = np.datetime64("1999-11-01", "ns") + np.arange(170) * np.timedelta64(1, "D")
INITS = np.datetime64("1999-12-28", "ns") + np.arange(220) * np.timedelta64(12, "h")
LEADS = np.arange(12) * np.timedelta64(3, "h").astype("m8[ns]")
HOUR = {"units": "hours since 1999-01-01", "dtype": "int64"}


def stored(name, dims, labels, sizes, chunks):
    shape = tuple(sizes[dim] for dim in dims)
    values = np.random.default_rng(0).random(shape, dtype="float32")
    memory = zarr.storage.MemoryStore()
    encoding = {name: {"chunks": chunks, "compressors": None}}
    xr.Dataset({name: (dims, values)}, labels).to_zarr(
        memory, encoding=encoding, consolidated=False
    )
    store = CountingStore(memory)
    return xr.open_zarr(store, consolidated=False, chunks=None), store


@pytest.fixture
def sources():
    era5 = stored("t2m", ("time", "x"), {"time": TIME}, {"time": STEPS, "x": 2000}, (16, 2000))
    sst = stored("tos", ("time", "y"), {"time": DAYS}, {"time": 170, "y": 4000}, (30, 4000))
    labels = {"init": INITS, "lead": LEADS}
    sizes = {"init": 220, "lead": 12, "z": 900}
    gfs = stored("f", ("init", "lead", "z"), labels, sizes, (2, 6, 900))
    topo = stored("z", ("k", "l"), {}, {"k": 300, "l": 300}, (100, 300))
    opened = {"era5": era5, "sst": sst, "gfs": gfs, "topo": topo}
    for _, store in opened.values():
        store.counts.clear()
    return opened


def made(sources, **arguments):
    data = {name: ds for name, (ds, _) in sources.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # memory that is less than a sample
        return xtd.IterableDataset(
            {
                "era5": data["era5"],
                "sst": xtd.Source(data["sst"], time=xtd.AsOf(20, latency="1D")),
                "gfs": xtd.Source(
                    data["gfs"],
                    init=xtd.AsOf(1, latency="5h"),
                    lead=xtd.ValidTime("0h", "15h"),
                ),
                "topo": data["topo"],
            },
            {"time": 8, "x": -1},
            {"time": 7},
            batch_size=16,
            **arguments,
        )


def asked(sources):
    """How many chunks each store was asked for."""
    return {
        name: sum(n for key, n in store.counts.items() if "/c/" in str(key))
        for name, (_, store) in sources.items()
    }


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("memory", ["2 MiB", "6 MiB", "64 MiB"])
def test_chunks_that_are_predicted_are_those_that_are_read(sources, memory, shuffle):
    dataset = made(sources, memory=memory, shuffle=shuffle)
    explained = dataset.explain()
    for _batch in dataset:
        pass
    found = {str(v.name): v.chunk_reads for v in explained.variables}
    counted = asked(sources)
    assert found == {
        "t2m": counted["era5"],
        "sst/tos": counted["sst"],
        "gfs/f": counted["gfs"],
        "topo/z": counted["topo"],
    }
    assert all(each.exact for each in explained.sources.values())
    sst = explained.sources["sst"]
    assert sst.nbytes >= sst.nbytes_once and sst.amplification == sst.nbytes / sst.nbytes_once


def test_each_process_reads_what_it_keeps(sources):
    ranks = [
        made(sources, memory="64 MiB", shuffle=True, rank=rank, world_size=3) for rank in range(3)
    ]
    explained = ranks[0].explain()
    for dataset in ranks:
        for _batch in dataset:
            pass
    counted = asked(sources)
    for variable in explained.variables[1:]:
        assert variable.chunk_reads == counted[variable.source]
    whole = [each for each in explained.sources.values() if each.kept == "whole"]
    assert whole and all(each.amplification == 3 for each in whole)


def test_advice_says_what_memory_reads_a_source_once(sources):
    dataset = made(sources, memory="2 MiB", shuffle=True)
    explained = dataset.explain()
    assert explained.sources["sst"].amplification > ENOUGH_AMPLIFICATION
    (advice,) = [each for each in explained.advice if "'sst'" in each]
    memory = advice.split("memory='")[1].split("'")[0]
    better = dataset.replace(memory=memory).explain().sources["sst"]
    assert better.amplification <= ENOUGH_AMPLIFICATION


def test_what_is_estimated_is_near(sources, monkeypatch):
    dataset = made(sources, memory="6 MiB", shuffle=True)
    counted = dataset.explain().sources
    monkeypatch.setattr("xtorch_data.report.source_costs.COUNTED_CELLS", 0)
    found = dataset.explain().sources
    for name, each in ((name, found[name]) for name in ("sst", "gfs")):
        assert each.nbytes == pytest.approx(counted[name].nbytes, rel=0.5)
        assert each.exact is (each.kept == "whole")


def test_text_and_page_tell_of_sources(sources):
    explained = made(sources, memory="64 MiB").explain()
    text = str(explained)
    assert "sst: time=AsOf(20, latency='1D'), all of y; " in text
    assert "sst/tos: float32, chunks of time 30 × y 4000" in text
    page = explained._repr_html_()
    assert "Other sources" in page and "gfs/f" in page
