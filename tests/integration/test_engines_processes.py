"""The two engines in other processes."""

import numpy as np
import psutil
import pytest
from engines_data import assert_samples, made, open_npy
from helpers import in_a_process
from strategies import MORE

import xtorch_data as xtd


def test_xarray_finds_the_engines_without_importing_torch():
    """It imports all engines there are to open any file, also where nobody trains."""
    done = in_a_process(
        """
        import sys
        import xtorch_data.sources.engines
        print({"torch", "zarr", "dask", "xbatcher"} & set(sys.modules))
        print(xtorch_data.verify.__name__, "verify" in dir(xtorch_data))
        try:
            xtorch_data.nothing
        except AttributeError as error:
            print(error)
        """
    )
    assert done.stdout.splitlines() == [
        "set()",
        "verify True",
        "module 'xtorch_data' has no attribute 'nothing'",
    ], done.stderr


@pytest.mark.parametrize("context", ["fork", "forkserver"] + ["spawn"] * (MORE > 1))
def test_both_engines_serve_workers_however_they_start(context, tmp_path):
    ds, values = made(tmp_path)
    dataset = xtd.IterableDataset(
        ds,
        {"feature": -1, "which": -1},
        inputs=xtd.Select("features", which=0),
        targets=xtd.Select("labels", feature=0),
        batch_size=7,
        shuffle=True,
        memory="2 kB",
    )
    assert_samples(((*batch, batch.index) for batch in dataset), values)
    loader = xtd.DataLoader(dataset, num_workers=2, multiprocessing_context=context)
    assert_samples(((*batch, batch.index) for batch in loader), values)


@pytest.mark.parametrize("kind", ["IterableDataset", "MapDataset"])
def test_private_memory_of_workers_does_not_grow_with_the_data_they_have_read(kind, tmp_path):
    """The data is 64 MB; pages of a map that are read must not stay as memory of the process."""
    np.save(tmp_path / "a.npy", np.ones((2**16, 256), "f4"))
    ds = open_npy(tmp_path / "a.npy", dims=("time", "x"))
    own = {"batch_size": 512} if kind == "IterableDataset" else {}
    dataset = getattr(xtd, kind)(ds, {"x": -1}, inputs="a", memory="4 MB", **own)
    loader = xtd.DataLoader(
        dataset,
        num_workers=2,
        multiprocessing_context="fork",
        persistent_workers=True,
        **({} if own else {"batch_size": 512}),
    )
    sizes = []
    for _ in range(4):
        for _ in loader:
            pass
        children = psutil.Process().children()
        sizes.append(sum(child.memory_full_info().uss for child in children))
    del loader
    assert sizes[-1] - sizes[0] < 32e6


def test_both_engines_serve_samples_by_number(tmp_path):
    ds, values = made(tmp_path)
    dataset = xtd.MapDataset(
        ds,
        {"feature": -1, "which": -1},
        inputs=xtd.Select("features", which=0),
        targets=xtd.Select("labels", feature=0),
        memory="2 kB",
    )
    loader = xtd.DataLoader(
        dataset,
        batch_size=7,
        shuffle=True,
        num_workers=2,
        multiprocessing_context="fork",
    )
    assert_samples(((*batch, batch.index) for batch in loader), values)
