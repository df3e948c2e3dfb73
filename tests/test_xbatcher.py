"""A BatchGenerator keeps its meaning: the same number, order, shape and values as it yields."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import xarray as xr
import xbatcher
from helpers import assert_once, counted, forecast, reads, samples_of, tiny_memory_allowed
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples
from xbatcher_cases import generators, grouped, true_items, true_values

import xtorch_data as xtd

SIZES = {"time": 10, "y": 6, "x": 5}


def array():
    values = np.random.default_rng(3).normal(size=tuple(SIZES.values())).astype("float32")
    return xr.DataArray(values, dims=tuple(SIZES), name="a", coords={"time": np.arange(10) * 6})


def assert_same(generator, dataset, expected=lambda item: item.values):
    samples = list(dataset)
    assert len(samples) == len(dataset) == len(generator)
    assert samples_of(samples) == list(range(len(generator)))
    for sample, item in zip(samples, generator, strict=True):
        values = expected(item)
        assert sample.x.shape == values.shape
        np.testing.assert_array_equal(sample.x.numpy(), values)


# name: input_dims, input_overlap, batch_dims
GENERATORS = {
    "no other dim": ({"time": 4, "y": 3, "x": 5}, {"time": 2}, {}),
    "no other dim, in another order": ({"x": 5, "time": 4, "y": 3}, {}, {}),
    "one other dim": ({"time": 4, "x": 2}, {"time": 3}, {}),
    "one other dim in batches": ({"time": 4, "x": 2}, {}, {"y": 2}),
    "one other dim one at a time": ({"time": 4, "x": 2}, {}, {"y": 1}),
    "two other dims": ({"x": 3}, {"x": 1}, {}),
    "two other dims, one in batches": ({"x": 3}, {}, {"time": 4}),
    "two other dims, both in batches": ({"x": 3}, {}, {"y": 4, "time": 3}),
    "two other dims, both one at a time": ({"y": 2}, {"y": 1}, {"time": 1, "x": 1}),
}


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("memory", ["500 B", "1 GiB"])
@pytest.mark.filterwarnings("ignore:(?is).*memory:UserWarning")
def test_a_generator_over_an_array_keeps_number_order_shape_and_values(name, memory):
    input_dims, overlap, batch_dims = GENERATORS[name]
    generator = xbatcher.BatchGenerator(array(), input_dims, overlap, batch_dims)
    assert_same(generator, xtd.IterableDataset(generator, batch_size=None, memory=memory))


@examples(13, 800)
@given(generators() | grouped(), st.booleans())
def test_any_generator_keeps_number_order_shape_and_values(generator, by_number):
    try:
        items = true_items(generator)
    except ValueError:  # items without a window, a dim "sample" that is stacked
        assume(False)
    kind = xtd.MapDataset if by_number else partial(xtd.IterableDataset, batch_size=None)
    with tiny_memory_allowed():
        dataset = kind(generator, dtype=np.float64, memory="2 kB")
    assert len(dataset) == len(generator) == len(items)
    sizes = [true_values(item).shape for item in items]
    assert f" {max(sizes, key=math.prod)}\n" in repr(dataset)
    found = [dataset[i][0] for i in range(len(items))] if by_number else [x for (x,) in dataset]
    for values, item in zip(found, items, strict=True):
        expected = true_values(item)
        assert values.shape == expected.shape
        np.testing.assert_array_equal(values.numpy(), expected)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_over_a_dataset_stacks_its_variables_first(name):
    input_dims, overlap, batch_dims = GENERATORS[name]
    ds = xr.Dataset({"a": array(), "b": array() * 2})
    generator = xbatcher.BatchGenerator(ds, input_dims, overlap, batch_dims)
    assert_same(
        generator,
        xtd.IterableDataset(generator, batch_size=None),
        lambda item: np.stack([item["a"].values, item["b"].values]),
    )


def test_inputs_and_targets_are_taken_from_a_generator():
    ds = xr.Dataset({"a": array(), "b": array() * 2})
    generator = xbatcher.BatchGenerator(ds, {"time": 4, "y": 6, "x": 5}, {"time": 3})
    dataset = xtd.IterableDataset(generator, inputs="a", targets=["b"], batch_size=None)
    for sample, item in zip(dataset, generator, strict=True):
        np.testing.assert_array_equal(sample.x.numpy(), item["a"].values)
        np.testing.assert_array_equal(sample.y.numpy(), item["b"].values[None])


def test_batches_stack_what_a_generator_yields():
    generator = xbatcher.BatchGenerator(array(), {"time": 4, "x": 2}, {"time": 3})
    items = [item.values for item in generator]
    dataset = xtd.IterableDataset(generator, batch_size=4, shuffle=True)
    batches = list(dataset)
    assert_once(samples_of(batches), len(items))
    for batch in batches:
        expected = np.stack([items[number] for number in batch.index.tolist()])
        np.testing.assert_array_equal(batch.x.numpy(), expected)


def test_a_generator_over_zarr_is_read_by_us(tmp_path):
    forecast(time=40, names=("a",)).to_zarr(tmp_path / "a.zarr", consolidated=False)
    ds = xr.open_zarr(tmp_path / "a.zarr", consolidated=False, chunks=None)
    generator = xbatcher.BatchGenerator(
        ds["a"], {"time": 8, "y": 4, "x": 5}, {"time": 7}, preload_batch=False
    )
    assert_same(generator, xtd.IterableDataset(generator, batch_size=None))


@pytest.mark.parametrize("argument", [{"input_dims": {"time": 4}}, {"input_overlap": {"time": 1}}])
def test_windows_are_given_once_by_the_generator_alone(argument):
    generator = xbatcher.BatchGenerator(array(), {"time": 4, "y": 6, "x": 5})
    with pytest.raises((TypeError, ValueError), match="BatchGenerator"):
        xtd.IterableDataset(generator, **argument)


# ---------------------------------------------------------------------------------------------
# concat_input_dims: an item is a group of windows


def groups(batch=8, steps=40, names=("a", "b"), **how):
    """Items of windows of 4 that overlap by 2, along a coordinate, for every place of x."""
    ds = xr.Dataset(
        {name: (("time", "x"), np.random.default_rng(5).normal(size=(steps, 3))) for name in names},
        coords={"time": np.arange(steps) * 10, "x": [7, 8, 9]},
    )
    return xbatcher.BatchGenerator(
        ds, {"time": 4}, {"time": 2}, {"time": batch}, concat_input_dims=True, **how
    )


def smaller_last():
    """As `groups`, but the last item has three windows, the others four."""
    generator = groups()
    assert [item.sizes["sample"] for item in generator] == [12, 12, 12, 12, 9]
    return generator


def equal_groups():
    generator = groups(steps=42)
    assert [item.sizes["sample"] for item in generator] == [12] * 5
    return generator


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("make", [smaller_last, equal_groups])
def test_items_of_windows_come_once_and_know_their_number(make, shuffle):
    generator = make()
    dataset = xtd.IterableDataset(generator, batch_size=None, shuffle=shuffle, memory="1 kB")
    samples = list(dataset)
    assert_once(samples_of(samples), len(generator))
    for sample in samples:
        expected = true_values(generator[int(sample.index)])
        np.testing.assert_array_equal(sample.x.numpy(), expected.astype("float32"))


def test_items_of_one_size_fit_into_batches():
    generator = equal_groups()
    (batch,) = xtd.IterableDataset(generator, inputs="b", batch_size=5)
    expected = np.stack([item["b"].values for item in generator]).astype("float32")
    np.testing.assert_array_equal(batch.x.numpy(), expected)


@pytest.mark.parametrize(
    "make",
    [
        lambda generator: xtd.IterableDataset(generator, batch_size=2),
        lambda generator: xtd.DataLoader(xtd.MapDataset(generator), batch_size=2),
        lambda generator: xtd.MapDataset(generator).fetch([0, 4]),
    ],
)
def test_items_that_differ_in_size_are_refused_in_batches(make):
    with pytest.raises(ValueError, match="fewer windows.*batch_size=None"):
        make(smaller_last())


def test_overlapping_windows_of_items_are_read_once():
    opened, counts = counted(groups().ds, {"a": (5, 3), "b": (5, 3)})
    generator = copy.copy(groups())
    generator.ds = opened
    for epoch in (1, 2):
        list(xtd.IterableDataset(generator, batch_size=None))
        assert reads(counts, "ab") == {f"{name}/c/{n}/0": epoch for name in "ab" for n in range(8)}


@pytest.mark.parametrize("make", [smaller_last, equal_groups])
def test_items_of_windows_are_labeled(make):
    generator = make()
    dataset = xtd.IterableDataset(generator, batch_size=None)
    for number, sample in enumerate(dataset):
        labels = sample.to_xarray()
        assert labels["a"].dims == ("input_batch", "x", "time")
        assert labels["time"].dims == ("input_batch", "time")
        item = generator[number].unstack("sample").transpose("input_batch", "x", "time_input")
        np.testing.assert_allclose(labels["a"].values, item["a"].values, rtol=1e-6)
        np.testing.assert_array_equal(labels["time"], item["time"].isel(x=0))
        np.testing.assert_array_equal(labels["x"], item["x"])
        window = generator.ds.isel(dataset.windows[number])
        np.testing.assert_array_equal(window["time"], np.unique(item["time"]))


def test_windows_of_an_array_with_a_coordinate_are_not_aligned_as_by_xbatcher():
    array = xr.DataArray(np.arange(8.0), dims="time", coords={"time": range(8)})
    generator = xbatcher.BatchGenerator(array, {"time": 2}, concat_input_dims=True)
    ((x,),) = xtd.IterableDataset(generator, batch_size=None)
    np.testing.assert_array_equal(x.numpy(), np.arange(8.0).reshape(4, 2))
    with pytest.warns(FutureWarning, match="join"):
        theirs = generator[0]
    assert theirs.shape == (4, 8) and theirs.isnull().sum() == 24  # as the docs say


def test_batches_of_items_are_labeled():
    generator = equal_groups()
    (batch,) = xtd.IterableDataset(generator, batch_size=5)
    labels = batch.to_xarray()
    assert labels["a"].dims == ("sample", "input_batch", "x", "time")
    for number, item in enumerate(generator):
        item = item.unstack("sample").transpose("input_batch", "x", "time_input")
        one = labels.isel(sample=number)
        np.testing.assert_allclose(one["b"].values, item["b"].values, rtol=1e-6)
        np.testing.assert_array_equal(one["time"], item["time"].isel(x=0))


def test_stacked_dims_are_labeled_as_they_were():
    generator = xbatcher.BatchGenerator(forecast(time=12), {"time": 4})
    dataset = xtd.IterableDataset(generator, batch_size=None)
    for sample, item in zip(dataset, generator, strict=True):
        assert sample.x.shape == (2, 20, 4)
        expected = item.unstack("sample").transpose("y", "x", "time")
        labels = sample.to_xarray()
        for name in ("a", "b", "time", "y", "x"):
            np.testing.assert_array_equal(labels[name], expected[name])


@pytest.mark.parametrize("memory", ["1 kB", "1 GiB"])
@pytest.mark.parametrize("how", ["preprocess", "transform", "batch_transform"])
def test_functions_apply_to_items(how, memory):
    generator = smaller_last()
    plain = [true_values(item) for item in generator]
    dataset = xtd.IterableDataset(
        generator, batch_size=None, memory=memory, **{how: lambda data: data * 2}
    )
    for sample, values in zip(dataset, plain, strict=True):
        np.testing.assert_allclose(sample.x.numpy(), values * 2, rtol=1e-6)


def test_items_that_differ_in_size_make_a_batch_of_what_a_transform_makes_equal():
    generator = smaller_last()
    dataset = xtd.IterableDataset(
        generator, inputs="a", transform=lambda item: item.mean("sample"), batch_size=5
    )
    (batch,) = dataset
    expected = np.stack([item["a"].mean("sample") for item in generator])
    np.testing.assert_allclose(batch.x.numpy(), expected, rtol=1e-6)


def test_items_are_left_out_and_drawn_like_other_samples():
    generator = smaller_last()
    wanted = [number for number, item in enumerate(generator) if item["a"].mean() > 0]
    assert 0 < len(wanted) < len(generator)
    dataset = xtd.IterableDataset(
        generator, batch_size=None, where=lambda item: bool(item["a"].mean() > 0)
    )
    assert samples_of(dataset) == wanted
    weights = np.isin(np.arange(len(generator)), wanted).astype(float)
    drawn = xtd.IterableDataset(generator, batch_size=None, shuffle=True, weights=weights)
    assert set(samples_of(drawn)) <= set(wanted)


def test_a_transform_may_change_the_dims_of_an_item():
    generator = smaller_last()
    dataset = xtd.IterableDataset(
        generator, transform=lambda item: item.mean("time_input"), batch_size=None
    )
    for sample, item in zip(dataset, generator, strict=True):
        expected = item.mean("time_input").to_array()
        np.testing.assert_allclose(sample.x.numpy(), expected, rtol=1e-6)
        assert sample.to_xarray()["a"].dims == ("item_sample",)


@pytest.mark.parametrize("how", [{"at": [200]}, {"fractions": (0.6, 0.4)}])
def test_parts_of_items_share_no_step(how):
    generator = smaller_last()
    parts = xtd.split(xtd.MapDataset(generator), "time", **how)
    items = [true_values(item).astype("float32") for item in generator]
    steps = []
    for part in parts:
        covered = [part.windows.coords(i)["time"].values for i in range(len(part))]
        steps.append(set(np.concatenate(covered)))
        for number in range(len(part)):
            (x,) = part[number]
            assert any(np.array_equal(x.numpy(), item) for item in items)
    assert not steps[0] & steps[1]


def test_a_dim_may_have_the_name_of_the_batch_dimension():
    ds = xr.Dataset(
        {"x": (("sample", "feature"), np.arange(20.0).reshape(10, 2)), "y": ("sample", range(10))},
        coords={"sample": np.arange(10) * 3},
    )
    generator = xbatcher.BatchGenerator(ds, {"sample": 4})
    dataset = xtd.IterableDataset(generator, inputs="x", targets="y")
    for batch, item in zip(dataset, generator, strict=True):
        np.testing.assert_array_equal(batch.x[0].numpy(), item["x"].values)
        np.testing.assert_array_equal(batch.to_xarray()["sample_"][0], item["sample"])


# ---------------------------------------------------------------------------------------------
# What cannot be


def test_steps_inside_concatenated_windows_are_not_selected():
    with pytest.raises(ValueError, match="concat_input_dims"):
        xtd.IterableDataset(groups(), inputs=xtd.Select("a", time=slice(0, 2)))


@pytest.mark.parametrize("dim", ["time", "x"])
def test_a_preprocess_must_keep_every_dim_of_an_item(dim):
    with pytest.raises(ValueError, match=f"preprocess must keep.*{dim}"):
        xtd.MapDataset(groups(), preprocess=lambda block: block.isel({dim: slice(1, None)}))


def test_items_without_a_window_are_refused():
    generator = xbatcher.BatchGenerator(
        array(), {"time": 4}, {"time": 1}, {"time": 1}, concat_input_dims=True
    )
    with pytest.raises(ValueError, match="empty"):
        list(generator)
    with pytest.raises(ValueError, match="without a window: along 'time'"):
        xtd.MapDataset(generator)


def test_a_function_for_xbatchers_cache_is_refused():
    generator = xbatcher.BatchGenerator(
        array(), {"time": 4}, cache={}, cache_preprocess=lambda item: item * 2
    )
    with pytest.raises(ValueError, match="cache_preprocess.*transform"):
        xtd.IterableDataset(generator)
