"""What a notebook shows: well-formed, safe, small, and made without reading."""

import re

import dask.array
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from helpers import counted, fields, forecast, numbered
from pages import page_of

import xtorch_data as xtd
from xtorch_data.datasets import verify
from xtorch_data.report.explanation import Explanation

HOSTILE = "<script>alert('x')</script>&\"'<b>"


@pytest.fixture(scope="module")
def hostile():
    names = [f"{HOSTILE}{number}{'_long' * 100}" for number in range(60)]
    values = np.zeros((20, 4, 5))
    return xr.Dataset(
        {name: (("time", 3, ("a", "tuple")), values) for name in names},
        coords={"time": np.arange(20) * 10**15, "letters": xr.Variable((3,), list("abcd"))},
        attrs={HOSTILE: HOSTILE * 1000},
    )


def all_of(ds, **arguments):
    """A dataset of each kind, its plan and explanation, a batch and a single sample."""
    stream = xtd.IterableDataset(ds, batch_size=4, **arguments)
    single = next(iter(xtd.IterableDataset(ds, batch_size=None, **arguments)))
    samples = xtd.MapDataset(ds, **arguments)
    return stream, samples, stream.plan, stream.explain(), next(iter(stream)), single


def test_hostile_and_endless_names_are_text_in_a_small_page(hostile):
    for obj in all_of(hostile, input_dims={"time": 8, 3: 2}, input_overlap={"time": 7}):
        page = page_of(obj)
        assert "b" not in page.tags
        assert any("<script>alert('x')</script>" in text for text in page.texts)
    source = forecast()
    source.encoding["source"] = HOSTILE
    assert HOSTILE in "".join(page_of(xtd.IterableDataset(source, {"time": 4})).texts)


def test_a_page_says_what_was_asked_for():
    ds = forecast()
    dataset = xtd.IterableDataset(
        ds,
        {"time": 8, "y": -1},
        {"time": 6},
        inputs=["a", "b"],
        targets=xtd.Select("a", time=-1),
        transform=abs,
        preprocess=negative,
        batch_size=16,
        shuffle=True,
        seed=77,
        memory="3 MiB",
        where=xr.DataArray(np.arange(27) > 3, dims="time"),
        rank=1,
        world_size=3,
        retries=5,
    )
    page = page_of(dataset)
    says = " ".join(page.texts)
    for text in (
        "115 of 135, 20 left out by where",
        f"{len(dataset)} of 16 samples, on rank 1 of 3",
        "seed 77",
        "3.00 MiB",
        "5 more tries",
        "negative",
        "abs",
        "data in memory",
    ):
        assert text in says, text
    rows = "|".join(page.cells)
    assert "time|8|6|27|60|2000-01-01 to 2000-01-15 18:00" in rows
    assert "y|4|0|1|4|50 to 40" in rows
    assert "x|each place|5|5|0 to 1" in rows
    assert "x|a, b|after transform|float32" in rows
    assert "y|a|y 4|float32" in rows
    assert "xarray.Dataset" in says
    assert "longitude" in says  # a coordinate


def negative(block):
    return -block


def test_a_batch_says_what_it_holds_and_where_it_is_from():
    ds = forecast()
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "x": 2}, inputs=["a", "b"], targets="b", batch_size=20
    )
    batch = next(iter(dataset))
    page = page_of(batch)
    rows = "|".join(page.cells)
    assert "x|a, b|sample 20 × variable 2 × time 8 × x 2|float32|cpu|2.50 kiB" in rows
    assert "y|b|sample 20 × time 8 × x 2|float32|cpu|1.25 kiB" in rows
    assert "time|2000-01-01 to 2000-01-02 18:00|2000-01-05 to 2000-01-06 18:00" in rows.replace(
        "||", "|"
    )
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …" in "".join(page.texts)
    other = batch.replace(y=torch.zeros(20, dtype=torch.bfloat16))
    assert "y|b|20|bfloat16" in "|".join(page_of(other).cells)
    other.skipped = (3, 4)
    assert "skipped" in "".join(page_of(other).texts)


def test_results_and_loaders_say_what_they_are(capsys):
    ds = forecast(time=24)
    dataset = xtd.IterableDataset(ds, {"time": 8}, batch_size=20)
    list(dataset)
    stats, counts = dataset.stats(), xtd.verify(dataset, world_size=2)
    assert capsys.readouterr().out == f"{counts}\n"
    assert (repr(stats), repr(counts)) == (str(stats), str(counts))
    assert "60 samples in 3 batches" in "".join(page_of(stats).texts)
    assert "60 samples: 0 repeated, 0 missing; 2 batches" in "".join(page_of(counts).texts)
    samples = xtd.MapDataset(ds, {"time": 8})
    parts = xtd.split(samples, "time", at=["2000-01-03"])
    page_of(parts)
    windows = repr(samples.windows)
    loader = xtd.DataLoader(dataset, device="cpu")
    of = f"IterableDataset {windows}, batches of 20, in order"
    assert repr(loader) == f"<xtorch_data.DataLoader of {of}, no workers, on cpu>"
    assert "60 of 60" in "".join(page_of(loader).texts)
    subset = xtd.DataLoader(torch.utils.data.Subset(samples, [3]), num_workers=1)
    of = f"Subset with 1 sample of MapDataset {windows}"
    assert repr(subset) == f"<xtorch_data.DataLoader of {of}, 1 worker, on the CPU>"
    page_of(subset)


def test_numbers_have_the_form_that_they_need():
    ds = forecast(time=8, y=1, x=1)
    one = xtd.IterableDataset(ds, {"time": 8})
    [batch] = one
    alone = xtd.IterableDataset(ds, {"time": 8}, batch_size=None)
    [sample] = alone
    assert repr(one.windows).startswith("<1 sample (")
    assert repr(batch).startswith("<Batch of 1 sample (")
    assert repr(sample).startswith("<Batch of one sample (")
    assert "  samples one at a time, in order" in repr(alone)
    assert "1 sample, one at a time" in "".join(page_of(alone).texts)
    assert "1 sample in 1 batch" in str(one.stats())
    assert str(verify.counted(one, 1, 0)) == ("1 sample: 0 repeated, 0 missing; 1 batch on 1 rank")
    for each in (one, batch, one.plan, one.explain(), one.stats(), alone, sample, alone.explain()):
        found = re.findall(r"\b1 \w+s\b|None|\b0 B\b", repr(each))
        assert not found, each


def test_tab_completion_has_what_is_for_users():
    datasets = xtd.IterableDataset, xtd.MapDataset
    both = {"epoch", "plan", "plot", "replace", "retries", "set_epoch", "where", "windows"}
    stream = "batch_size explain load_state_dict on_error rank shuffle state_dict stats world_size"
    own = {*stream.split()}, {"cache", "fetch"}
    for kind, expected in zip(datasets, own, strict=True):
        dataset = kind(forecast(), {"time": 8})
        assert {name for name in dir(dataset) if not name.startswith("_")} == both | expected
        assert {"__iter__", "__len__"} & set(dir(dataset))
    public = {name for name in dir(xtd) if not name.startswith("_")}
    assert public == {*xtd.__all__, "xbatcher"}
    assert "__version__" in dir(xtd)


def test_nothing_is_read(tmp_path):
    opened, counts = counted(fields(200), {"a": (7, 8, 8), "b": (16, 32, 24)})
    dataset = xtd.IterableDataset(
        opened, {"time": 4, "y": -1, "x": -1}, {"time": 3}, shuffle=True, memory="1 MiB"
    )
    samples = xtd.MapDataset(opened, {"time": 4})
    counts.clear()
    for obj in (dataset, dataset.plan, dataset.explain(), samples):
        page_of(obj)
    assert not counts
    # Coordinates that are not in memory stay where they are.
    ds = forecast(time=20).assign_coords(mask=(("y", "x"), np.ones((4, 5))))
    ds.to_zarr(tmp_path / "c.zarr", consolidated=False)
    lazy = xtd.open_zarr(tmp_path / "c.zarr", consolidated=False)
    dataset = xtd.IterableDataset(lazy, {"time": 4, "y": -1, "x": -1}, batch_size=2)
    page_of(next(iter(dataset)))
    page_of(dataset)
    assert not dataset.windows._labels.coords["mask"].variable._in_memory


def test_a_petabyte_has_a_page_at_once():
    data = dask.array.zeros((10**6, 721, 1440), chunks=(200, 721, 1440), dtype="float32")
    ds = xr.Dataset({"t": (("time", "lat", "lon"), data)})
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "lat": 32, "lon": 32}, {"time": 7}, memory="64 GiB"
    )
    assert "989,993,070" in "".join(page_of(dataset).texts)
    assert "trillion" not in repr(dataset.plan)
    assert repr(dataset.plan).startswith("<xtorch_data.Plan of 989,993,070 samples")


def test_odd_data_has_a_page():
    pairs = pd.MultiIndex.from_product([[0, 1], ["u", "v"]], names=["m", "n"])
    days = xr.date_range("0001-01-30", periods=2, calendar="360_day", use_cftime=True)
    values = xr.Dataset({"a": ("time", [1.0, 2.0])})
    for ds in (
        numbered(5),
        numbered((1, 1), ("y", "x")),
        values.assign_coords(time=np.array(["NaT", "2000"], "datetime64[s]")),
        values.assign_coords(time=days),
        values.assign_coords(time=np.array([1, 2], "timedelta64[s]")),
        values.assign_coords(time=[b"x", b"y"], s=3),
        xr.Dataset({"a": ("p", np.zeros(4))}, xr.Coordinates.from_pandas_multiindex(pairs, "p")),
    ):
        for obj in all_of(ds, input_dims={next(iter(ds.sizes)): 1}):
            page_of(obj)
    for obj in all_of(xr.Dataset({"a": ((), 1.0)}), input_dims={}):
        page_of(obj)


def test_the_page_of_an_explanation_has_its_lines_variables_and_advice():
    ds = forecast().chunk(time=5)
    explained = xtd.IterableDataset(ds, {"time": 4}, {"time": 3}, batch_size=10**9).explain(1, 3)
    page = page_of(explained)
    assert isinstance(explained, Explanation)
    says = "".join(page.texts)
    for advice in explained.advice:
        assert advice in says
    assert page.tags.count("details") == 3  # the words are one of them
    assert page.tags.count("li") == len(explained.advice)
