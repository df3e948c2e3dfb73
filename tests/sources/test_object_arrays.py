"""Arrays of pandas and of Python objects: numbers where that is exact, else told what to do."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import xtorch_data as xtd

N = 20
NONE = [None, 1] * 10
NUMBERS = {
    "Int64": (pd.array([1, 0] * 10, dtype="Int64"), np.int64, [1, 0] * 10),
    "Int16": (pd.array([1, 0] * 10, dtype="Int16"), np.int16, [1, 0] * 10),
    "Int64 with NA": (pd.array(NONE, dtype="Int64"), np.float32, [np.nan, 1] * 10),
    "UInt8 with NA": (pd.array(NONE, dtype="UInt8"), np.float32, [np.nan, 1] * 10),
    "boolean": (pd.array([True, False] * 10, dtype="boolean"), np.bool_, [True, False] * 10),
    "boolean with NA": (pd.array([None, True] * 10, dtype="boolean"), np.float32, [np.nan, 1] * 10),
    "Float32": (pd.array(np.arange(N), dtype="Float32"), np.float32, np.arange(N)),
    "Float64 with NA": (pd.array([None, 2] * 10, dtype="Float64"), np.float32, [np.nan, 2] * 10),
    "sparse": (pd.arrays.SparseArray([0, 1.5] * 10), np.float32, [0, 1.5] * 10),
    "objects, whole": (np.array([1, 2**40] * 10, object), np.int64, [1, 2**40] * 10),
    "objects, true": (np.array([True, False] * 10, object), np.bool_, [True, False] * 10),
    "objects, mixed": (np.array([1, 0.5] * 10, object), np.float32, [1, 0.5] * 10),
    "objects, some missing": (np.array(NONE, object), np.float32, [np.nan, 1] * 10),
    "objects, all missing": (np.array([None] * N, object), np.float32, [np.nan] * N),
}  # fmt: skip


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("made", [xtd.IterableDataset, xtd.MapDataset])
def test_numbers_of_pandas_and_python_are_tensors(kind, made):
    values, dtype, numbers = NUMBERS[kind]
    ds = xr.Dataset({"n": ("t", values), "b": ("t", np.arange(N, dtype="f4"))})
    parts = {"x": "n", "other": "b"}
    for data, kwargs in [(ds, {"parts": parts}), (ds["n"], {}), (ds, {"targets": "n"})]:
        dataset = made(data, {"t": 4}, **kwargs)
        part = "y" if "targets" in kwargs else "x"
        if made is xtd.MapDataset:
            batch = dataset.fetch(range(len(dataset)))
            found = [batch[part]]
        else:
            found = [batch[part] for batch in dataset]
        found = torch.cat(found).numpy().ravel()
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.asarray(numbers, dtype))
    assert ds["n"].dtype == values.dtype  # the user's own is as it was


PERIODS = pd.period_range("2000-01-31", periods=N, freq="D")
REFUSED = {
    # values, what is advised, and the numbers that come of it
    "category": (pd.Categorical(list("ab") * 10), ".data.codes", [0, 1] * 10),
    "period": (PERIODS, ".data.day_of_year", PERIODS.day_of_year),
    "interval": (pd.interval_range(0, N), ".data.mid", np.arange(N) + 0.5),
    "aware dates": (
        pd.date_range("2000", periods=N, tz="UTC"), "pd.to_datetime", np.arange(1, N + 1)
    ),
    "days": (
        np.array([datetime.date(2000, 1, day + 1) for day in range(N)], object),
        "pd.to_datetime",
        np.arange(1, N + 1),
    ),
    "text": (np.array(["a", "b"] * 10), "block['n'] == 'a'", [1, 0] * 10),
    "text of objects": (np.array(["a", "b"] * 10, object), "block['n'] == 'a'", [1, 0] * 10),
    "text of pandas": (pd.array(["a", "b"] * 10, dtype="string"), "block['n'] == 'a'", [1, 0] * 10),
    "bytes": (np.array([b"a", b"b"] * 10), "block['n'] == b'a'", [1, 0] * 10),
    "decimals": (
        np.array([decimal.Decimal("0.5")] * N, object), "block['n'].astype(float)", [0.5] * N
    ),
    "too large": (
        np.array([None, 2**53 + 1] * 10, object), "block['n'].astype(float)", [np.nan, 2.0**53] * 10
    ),
    "dates": (xr.date_range("2000", periods=N), "block['n'].dt.dayofyear", np.arange(1, N + 1)),
    "dates of a calendar": (
        xr.date_range("2000-01-01", periods=N, calendar="noleap", use_cftime=True),
        "block['n'].dt.dayofyear",
        np.arange(1, N + 1),
    ),
    "durations": (
        np.arange(N).astype("m8[h]").astype("m8[s]"), "np.timedelta64", np.arange(N)
    ),
    "records": (np.zeros(N, [("a", "f4"), ("b", "i2")]), ".values['a']", [0] * N),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:DatetimeIndex.values")  # within xarray
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_number_is_refused_with_a_remedy_that_works(kind):
    values, advice, numbers = REFUSED[kind]
    ds = xr.Dataset({"n": ("t", values)})
    for made in (xtd.IterableDataset, xtd.MapDataset):
        with pytest.raises(TypeError, match="variable 'n' of part 'x' has dtype") as caught:
            made(ds, {"t": 4}, inputs="n")
    message = str(caught.value)
    assert advice in message
    assert ("dayofyear" in message) == (kind in ("dates", "dates of a calendar"))
    names = {"np": np, "pd": pd, "ds": ds}
    kwargs = {}
    _, _, remedy = message.partition("such as ")
    if kind == "category":
        remedy = message.partition("categories, ")[2].partition(", or make")[0]
    if remedy.startswith("preprocess="):
        kwargs["preprocess"] = eval(remedy.removeprefix("preprocess="), names)
    else:
        ds = eval(remedy, names)
    found = [batch.x for batch in xtd.IterableDataset(ds, {"t": 4}, inputs="n", **kwargs)]
    np.testing.assert_allclose(torch.cat(found).numpy().ravel().astype(float), numbers)


@pytest.mark.filterwarnings("ignore:DatetimeIndex.values")  # within xarray
@pytest.mark.parametrize("kind", [*REFUSED, *NUMBERS])
def test_labels_of_any_kind_do_no_harm(kind):
    labels = {**REFUSED, **NUMBERS}[kind][0]
    if kind == "records":
        pytest.skip("xarray makes no index of records")
    ds = xr.Dataset({"v": (("t", "x"), np.arange(2.0 * N).reshape(N, 2))}, {"t": ("t", labels)})
    for dims in ({"t": 4}, {"x": 2}):
        dataset = xtd.IterableDataset(ds, dims, batch_size=2, breaks="ignore")
        for batch in dataset:
            for number, x in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
                np.testing.assert_array_equal(x[0], ds["v"].isel(dataset.windows[number]))
            batch.to_xarray()
        repr(dataset), dataset._repr_html_(), str(dataset.explain()), dataset.windows.coords(1)
        state = dataset.state_dict()
        dataset.load_state_dict(state)
        if not ds.indexes["t"].is_unique:
            with pytest.raises(ValueError, match="more than once"):
                xtd.split(dataset, "t", fractions=(0.5, 0.5))
            continue
        train, test = xtd.split(dataset, "t", fractions=(0.5, 0.5))
        assert len(list(train)) and len(list(test))
