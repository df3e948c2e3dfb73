"""Random xbatcher generators, and what they yield."""

import copy
import warnings

import numpy as np
import xarray as xr
import xbatcher
from hypothesis import strategies as st


@st.composite
def data(draw):
    """A DataArray or a Dataset, in memory or of dask, with coordinates or without."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    dims = draw(st.permutations(["time", "y", "x", "z"]))[: draw(st.integers(1, 4))]
    if draw(st.integers(0, 7)) == 0:
        dims[0] = "sample"
    sizes = {dim: draw(st.integers(1, 11 - 2 * len(dims))) for dim in dims}
    coords = {}
    for dim, size in sizes.items():
        if draw(st.booleans()):
            calendar = xr.date_range("2001-02-26", periods=size, calendar="noleap", use_cftime=True)
            coords[dim] = (dim, calendar if dim == "time" else rng.normal(size=size), {"a": dim})
        if draw(st.booleans()):
            coords[f"{dim}_label"] = (dim, rng.normal(size=size))
    if len(dims) > 1 and draw(st.booleans()):
        coords["area"] = (dims[:2], rng.normal(size=[sizes[dim] for dim in dims[:2]]))
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    variables = {}
    for name in names:
        own = draw(st.permutations(dims))
        if name != "a":
            own = own[: draw(st.integers(0, len(dims)))]
        dtype = draw(st.sampled_from(["float64", "float32", "int16"]))
        values = rng.integers(-99, 99, size=[sizes[dim] for dim in own]).astype(dtype)
        variables[name] = (own, values, {"units": name})
    ds = xr.Dataset(variables, coords)
    if draw(st.booleans()):
        ds = ds.chunk({dim: draw(st.integers(1, size)) for dim, size in sizes.items()})
    return ds["a"] if draw(st.booleans()) else ds


@st.composite
def generators(draw):
    """Any generator; also such as xbatcher makes, but not all of whose items it can make."""
    ds = draw(data())
    dims = draw(st.permutations(list(ds.sizes)))
    inner = dims[: draw(st.integers(0, len(dims)))]
    # Small ones, so that there are many windows; more often whole dims would be drawn.
    input_dims = {dim: draw(st.integers(1, max(1, ds.sizes[dim] // 2))) for dim in inner}
    batch_dims = {}
    for dim in draw(st.permutations(dims)):
        if draw(st.booleans()):
            least, most = input_dims.get(dim, 1), ds.sizes[dim]
            batch_dims[dim] = draw(st.integers(least, max(least, most // 2)) | st.just(most))
    overlap = {
        dim: draw(st.integers(0, size - 1) | st.integers(-1, size - 1))
        for dim, size in (batch_dims | input_dims).items()
        if draw(st.integers(0, 2))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dims in both that make no difference
        return xbatcher.BatchGenerator(
            ds,
            input_dims,
            overlap,
            batch_dims,
            concat_input_dims=draw(st.booleans()),
            preload_batch=draw(st.booleans()),
        )


def true_items(generator):
    """What a generator yields, without what xbatcher does to windows of arrays with coordinates."""
    if generator.concat_input_dims and isinstance(generator.ds, xr.DataArray):
        generator = copy.copy(generator)
        generator.ds = generator.ds.drop_vars(list(generator.ds.coords))
    return list(generator)


def true_values(item):
    """The values of an item: those of a Dataset stacked by xarray."""
    return item.values if isinstance(item, xr.DataArray) else item.to_array().values


@st.composite
def grouped(draw):
    """Generators whose items are groups of overlapping windows, the last often a smaller one."""
    dims = ["time", "y"][: draw(st.integers(1, 2))]
    sizes = {dim: draw(st.integers(6, 14)) for dim in dims}
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    array = xr.DataArray(rng.normal(size=(*sizes.values(), 2)), dims=(*dims, "x"), name="a")
    coords = {dim: (dim, np.arange(size) * 10) for dim, size in sizes.items()}
    ds = xr.Dataset({"a": array, "b": array.isel(x=0)}, coords)
    input_dims = {dim: draw(st.integers(1, 4)) for dim in dims}
    batch_dims = {dim: draw(st.integers(size, 6)) for dim, size in input_dims.items()}
    overlap = {dim: draw(st.integers(0, size - 1)) for dim, size in input_dims.items()}
    ds = draw(st.sampled_from([ds, ds[["a"]], array]))
    return xbatcher.BatchGenerator(ds, input_dims, overlap, batch_dims, concat_input_dims=True)


def labelled_items(generator):
    """What a generator yields, with coordinates: a DataArray's windows labeled as a Dataset's."""
    ds = generator.ds
    if not (generator.concat_input_dims and isinstance(ds, xr.DataArray)):
        return list(generator)
    generator = copy.copy(generator)
    generator.ds = ds.to_dataset(name="only")
    return [item["only"].rename(ds.name) for item in generator]


def assert_same_item(found, expected, concat):
    """Two items are the same, with names, attributes and coordinates.

    Where windows are concatenated, xbatcher leaves a coordinate that has the same values in all of
    them without the dim of the windows.
    """
    if not concat:
        xr.testing.assert_identical(found, expected)
        return
    assert set(found.coords) == set(expected.coords)
    names = [n for n in found.coords if found[n].dims != expected[n].dims]
    for name in names:
        assert set(expected[name].dims) < set(found[name].dims) - {"sample"} | {"input_batch"}
        common = expected[name].variable.set_dims(found[name].sizes)
        np.testing.assert_array_equal(found[name].values, common.values)
    xr.testing.assert_identical(found.drop_vars(names), expected.drop_vars(names))
