"""Values of another dtype than their variable declares are those of isel, or an error."""

import dask.array
import numpy as np
import pytest
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

import xtorch_data as xtd
from xtorch_data.sources.declared_dtypes import as_declared

VALUES = np.arange(1, 181, dtype="f8").reshape(30, 6)


class Lying(BackendArray):
    """What a backend reads that declares another dtype."""

    def __init__(self, values, declared):
        self.values, self.shape, self.dtype = values, values.shape, np.dtype(declared)

    def __getitem__(self, key):
        support = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, support, self.values.__getitem__)


def lying(how, declared, values):
    if how == "backend":
        lazy = indexing.LazilyIndexedArray(Lying(values, declared))
        return xr.Dataset({"v": xr.Variable(("time", "x"), lazy)})
    whole = dask.array.from_array(values, chunks=(7, 3))

    def made(block, block_info=None):
        late = block_info[0]["chunk-location"][0] > 1
        return block if how == "dask" or late else block.real.astype(declared)

    meta = np.empty((0, 0), declared)
    return xr.Dataset({"v": (("time", "x"), whole.map_blocks(made, dtype=declared, meta=meta))})


def samples(kind, ds, **kwargs):
    dataset = kind(ds, {"time": 4, "x": -1}, inputs="v", **kwargs)
    if kind is xtd.MapDataset:
        return [(dataset.windows[i], dataset[i][0].numpy()) for i in range(len(dataset))]
    return [
        (dataset.windows[number], x.numpy())
        for batch in dataset
        for number, x in zip(batch.index.tolist(), batch.x, strict=True)
    ]


HOW = ["dask", "backend", "in later blocks"]
KINDS = {
    "in order": (xtd.IterableDataset, {"memory": "400 B"}),
    "at once": (xtd.IterableDataset, {}),
    "shuffled": (xtd.IterableDataset, {"memory": "400 B", "shuffle": True}),
    "by number": (xtd.MapDataset, {}),
    "transformed": (xtd.IterableDataset, {"memory": "400 B", "transform": lambda sample: sample}),
    "skipping": (xtd.IterableDataset, {"memory": "400 B", "on_error": "skip"}),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_cannot_be_what_was_declared_are_an_error(how, kind):
    made, kwargs = KINDS[kind]
    for declared, values in {
        "i4": VALUES + 0.25,
        "i8": np.where(VALUES > 90, np.nan, VALUES),
        "i2": VALUES.astype("i4") + 2**15,
        "f4": VALUES.astype("i8") + 2**24,
        "?": VALUES,
        "f8": VALUES * 1j,
    }.items():
        with pytest.raises(xtd.ReadError, match=f"'v' from .* declared, .*dtype='{values.dtype}'"):
            samples(made, lying(how, declared, values), **kwargs)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_values_that_can_be_are_those_of_isel(how, kind):
    made, kwargs = KINDS[kind]
    for declared, values in {
        "i4": VALUES,
        "f4": VALUES / 3,
        "f8": VALUES.astype("i2"),
        "f2": VALUES * 1e5,
        "u1": VALUES.astype("i8"),
    }.items():
        ds = lying(how, declared, values)
        if declared == "f2" and how != "backend":
            continue  # dask would make infinite ones of some as it puts chunks together
        found = samples(made, ds, **kwargs)
        assert len(found) == 7
        for window, sample in found:
            truth = ds["v"].isel(window).values
            truth = truth.astype("f4") if truth.dtype.kind == "f" else truth
            np.testing.assert_array_equal(sample, truth)


@pytest.mark.parametrize("late", ["i8", "f8"])
def test_a_preprocess_that_gives_more_in_later_blocks_is_told(late):
    ds = xr.Dataset({"v": ("time", np.arange(1, 31, dtype="i4"))})

    def wider(block):
        return block.astype(late) * 2**20 if block["v"].values.max() > 20 else block

    dataset = xtd.IterableDataset(ds, {"time": 4}, preprocess=wider, memory="64 B")
    with pytest.raises(TypeError, match=f"dtype {np.dtype(late)}.*int32"):
        list(dataset)


def test_the_largest_integer_is_no_float():
    assert as_declared(np.array([2.0**62]), np.dtype("i8")) == 2**62
    for value, declared in [(2.0**63, "i8"), (-1.0, "u4"), (0.5, "?")]:
        with pytest.raises(TypeError):
            as_declared(np.array([value]), np.dtype(declared))
