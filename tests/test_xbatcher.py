"""A BatchGenerator keeps its meaning: the same number, order, shape and values as it yields."""

import numpy as np
import pytest
import xarray as xr
import xbatcher
from helpers import assert_once, forecast, samples_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

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


@st.composite
def generators(draw):
    dims = draw(st.permutations(list(SIZES)))[: draw(st.integers(1, 3))]
    input_dims = {dim: draw(st.integers(1, SIZES[dim])) for dim in dims}
    overlap = {
        dim: draw(st.integers(0, size - 1))
        for dim, size in input_dims.items()
        if draw(st.booleans())
    }
    others = draw(st.permutations([dim for dim in SIZES if dim not in dims]))
    batch_dims = {dim: draw(st.integers(1, SIZES[dim])) for dim in others if draw(st.booleans())}
    return xbatcher.BatchGenerator(array(), input_dims, overlap, batch_dims)


@examples(40)
@given(generators())
def test_any_generator_over_an_array_keeps_number_order_shape_and_values(generator):
    assert_same(generator, xtd.IterableDataset(generator, batch_size=None))


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


def test_concatenated_input_dims_are_refused_in_clear_words():
    generator = xbatcher.BatchGenerator(
        array(), {"x": 2}, batch_dims={"time": 2}, concat_input_dims=True
    )
    with pytest.raises((NotImplementedError, ValueError), match="concat_input_dims"):
        xtd.IterableDataset(generator)
