"""Windows beyond the ends of the data, from worker processes."""

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd

pytestmark = pytest.mark.compat

FIELD = np.random.default_rng(0).normal(size=(6, 12, 24)).astype("f4")


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("north", ["reflect", "constant"])
def test_workers_give_the_samples_of_padded_arrays(context, north, tmp_path):
    ds = xr.Dataset(
        {"field": (("time", "north", "longitude"), FIELD)},
        {"north": np.linspace(82.5, -82.5, 12), "longitude": np.arange(0, 360, 15.0)},
    )
    ds.to_zarr(tmp_path / "a", encoding={"field": {"chunks": (2, 5, 7)}}, consolidated=False)
    samples = xtd.MapDataset(
        xtd.open_zarr(tmp_path / "a"),
        {"north": 4, "longitude": 8},
        boundary={"longitude": "wrap", "north": north},
        halo={"north": 1, "longitude": 2},
        inputs="field",
    )
    values = {"constant_values": np.nan} if north == "constant" else {}
    padded = np.pad(FIELD, ((0, 0), (0, 0), (2, 2)), mode="wrap")
    padded = np.pad(padded, ((0, 0), (1, 1), (0, 0)), mode=north, **values)
    loader = xtd.DataLoader(
        samples, batch_size=5, shuffle=True, num_workers=2, multiprocessing_context=context
    )
    seen = []
    for batch in loader:
        labels = batch.to_xarray()["longitude"].values
        for place, number in enumerate(batch.index.tolist()):
            time, row, column = np.unravel_index(number, (6, 3, 3))
            cut = padded[time, 4 * row : 4 * row + 6, 8 * column : 8 * column + 12]
            np.testing.assert_array_equal(batch.x[place].numpy(), cut)
            eastward = np.arange(8 * column - 2, 8 * column + 10) % 24 * 15.0
            np.testing.assert_array_equal(labels[place], eastward)
            seen.append(number)
    assert sorted(seen) == list(range(54))
