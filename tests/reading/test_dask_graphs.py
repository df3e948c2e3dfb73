"""Data of dask: graphs computed block by block, on threads of this process."""

import collections
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr
from dask_data import GRAPHS, HERE, assert_windows_of, dataset_of, fields

from xtorch_data.reading import dask_graphs as graphs


class Counted:
    """How often each chunk of a source was computed, in this process."""

    def __init__(self):
        self.times = collections.Counter()
        self._lock = threading.Lock()

    def of(self, array):
        def note(values, block_info=None):
            with self._lock:
                self.times[block_info[0]["chunk-location"]] += 1
            return values

        return array.map_blocks(note, dtype=array.dtype, meta=array._meta)


@pytest.mark.parametrize("kind", GRAPHS)
@pytest.mark.parametrize("memory", ["700 B", "1 GiB"])
def test_windows_of_any_graph_are_those_of_its_result(kind, memory):
    made = GRAPHS[kind](fields().chunk(time=9, x=3))
    dataset = dataset_of(made, memory=memory)
    batches = list(dataset)
    assert_windows_of(GRAPHS[kind](fields()), batches, list(made.data_vars))
    assert set(dataset.stats().paths) >= {HERE}


def test_chunks_of_the_source_are_computed_once_for_all_variables_of_a_block():
    """Also for variables without time, which come with the first block and are kept."""
    source, counted = fields().chunk(time=10), Counted()
    a = xr.DataArray(counted.of(source["a"].data), source["a"].coords, ["time", "x"])
    ds = xr.Dataset({"double": 2 * a, "square": a**2, "mean": a.mean("time"), "std": a.std("time")})
    batches = list(dataset_of(ds))
    assert dict(counted.times) == {(place, 0): 1 for place in range(6)}
    plain = fields()["a"]
    ds = xr.Dataset({"double": 2 * plain, "square": plain**2})
    both = [plain.mean("time"), plain.std("time")]
    ds = ds.assign({n: v.expand_dims(time=60) for n, v in zip(["m", "s"], both, strict=True)})
    assert_windows_of(ds, batches, list(ds))


@pytest.mark.parametrize("scheduler", ["synchronous", dask.get])
def test_a_scheduler_that_dask_was_told_is_obeyed(scheduler):
    names = set()

    def note(values):
        names.add(threading.current_thread().name.rpartition("_")[0])
        return values

    ds = fields().chunk(time=10)[["a"]]
    ds["a"].data = ds["a"].data.map_blocks(note, dtype="f4", meta=np.empty((0, 0), "f4"))
    list(dataset_of(ds))
    assert names == {"xtorch_data-dask"}
    names.clear()
    with dask.config.set(scheduler=scheduler):
        list(dataset_of(ds))
    assert names == {"xtorch_data-work"}


def test_threads_are_as_many_as_dask_was_told():
    with dask.config.set(num_workers=3), graphs.threads_for_graphs() as threads:
        assert threads._max_workers == 3
    with ThreadPoolExecutor(1, "mine") as pool, dask.config.set(pool=pool):
        found = graphs.DaskCompute(None, None).here([dask.delayed(threading.current_thread)()])
    assert found[0].name.startswith("mine")
