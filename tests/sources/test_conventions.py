"""Bounds of cells and grid mappings, which describe other variables."""

import warnings

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd
from xtorch_data.sources.conventions import descriptive, fields


@pytest.fixture
def ds():
    shapes = {
        "t2m": ("time", "lat"),
        "z": ("level", "time", "lat"),
        "orography": ("lat",),
        "lat_bnds": ("lat", "bnds"),
        "crs": (),
        "count": ("time", "lat"),
    }
    sizes = {"time": 12, "lat": 3, "level": 4, "bnds": 2}
    found = xr.Dataset(
        {name: (dims, np.ones([sizes[dim] for dim in dims])) for name, dims in shapes.items()},
        {"lat": ("lat", np.arange(3.0), {"bounds": "lat_bnds"}), "time": np.arange(12)},
    )
    found["count"] = found["count"].astype("i4")
    found["t2m"].attrs["grid_mapping"] = "crs"
    found["z"].encoding["grid_mapping"] = "crs: lat lon"  # as decode_coords="all" leaves it
    return found


def test_what_others_name_describes_them(ds):
    assert descriptive(ds) == {"lat_bnds", "crs", "lat", "lon"}
    assert fields(ds, ["time", "lat"]) == ["t2m", "z"]
    assert fields(ds, ["lat"]) == ["t2m", "z", "orography"]
    assert fields(ds, ["bnds"]) == []


WINDOW = {"time": 4, "lat": -1}


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_bounds_that_multiply_samples_are_warned_of_once(ds, kind):
    chosen = ["t2m", "lat_bnds", "crs"]
    with pytest.warns(UserWarning) as caught:
        dataset = kind(ds, WINDOW, inputs=chosen, targets="count")
    assert len(dataset.windows) == 2 * 3
    (warning,) = caught
    assert "2 samples of each window" in str(warning.message)
    assert "the dim 'bnds', which is only that of bounds: 'lat_bnds'" in str(warning.message)
    assert "inputs=['t2m']" in str(warning.message)
    assert warning.filename == __file__
    with warnings.catch_warnings(action="error"):  # also of parts of it
        xtd.split(dataset, "time", fractions=(0.5, 0.5))


def test_a_function_for_where_makes_it_no_second_warning(ds):
    with pytest.warns(UserWarning) as caught:
        xtd.IterableDataset(ds, WINDOW, inputs=["t2m", "lat_bnds"], where=lambda window: True)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "inputs",
    [
        ["t2m", "orography"],  # lacks a windowed dim, or one whose places are samples
        ["lat_bnds"],  # who wants the bounds themselves
        ["t2m", "z"],  # as of a forecast of many members and what was observed
    ],
)
@pytest.mark.parametrize("window", [WINDOW, {"lat": -1}])
def test_other_dims_that_some_variables_lack_are_not_warned_of(ds, inputs, window):
    with warnings.catch_warnings(action="error"):
        window = {dim: size for dim, size in window.items() if dim in ds[inputs].dims}
        xtd.IterableDataset(ds, window, inputs=inputs)
        xtd.IterableDataset(
            ds, {**window, "bnds": 2}, inputs=list(dict.fromkeys([*inputs, "lat_bnds"]))
        )


def test_a_dataset_shows_what_it_repeats_along_dims_whose_places_are_samples(ds):
    told = "repeated at each place of 'level', which they lack: ['t2m', 'orography']"
    dataset = xtd.IterableDataset(ds, WINDOW, inputs=["t2m", "z"], targets="orography")
    assert told in repr(dataset)
    assert told in repr(xtd.MapDataset(ds, WINDOW, parts={"a": ["t2m", "z"], "b": "orography"}))
    for inputs in (["t2m", "orography"], "z", ["lat_bnds"]):
        window = {dim: size for dim, size in WINDOW.items() if dim in ds[inputs].dims}
        assert "repeated" not in repr(xtd.IterableDataset(ds, window, inputs=inputs))
