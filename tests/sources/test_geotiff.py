"""GeoTIFFs through rioxarray: the values of isel, each tile decoded once."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import assert_once

import xtorch_data as xtd

rasterio = pytest.importorskip("rasterio")
arrays = pytest.importorskip("rioxarray._io")

DATES, BANDS, SIZE, TILE = 5, 3, 96, 32
WINDOW = {"band": -1, "y": 16, "x": 16}
FORMATS = Path(__file__).parents[2] / "docs" / "how-to" / "formats.md"


@pytest.fixture(scope="module")
def values():
    """By date, band, y and x; some of it missing."""
    found = np.random.default_rng(0).integers(1, 4000, (DATES, BANDS, SIZE, SIZE), dtype="u2")
    found[:, :, :20, :20] = 0
    return found


@pytest.fixture(scope="module")
def paths(values, tmp_path_factory):
    """A file for each date."""
    folder = tmp_path_factory.mktemp("scenes")
    found = []
    for number, scene in enumerate(values):
        found.append(folder / f"{number}.tif")
        with rasterio.open(
            found[-1], "w", driver="GTiff", count=BANDS, height=SIZE, width=SIZE, dtype="uint16",
            nodata=0, transform=rasterio.transform.from_origin(0, 60, 1, 1), interleave="band",
            tiled=True, blockxsize=TILE, blockysize=TILE, compress="deflate",
        ) as file:  # fmt: skip
            file.write(scene)
    return found


@pytest.fixture
def decoded(monkeypatch):
    """How often each tile of each file is asked for."""
    counts, before = Counter(), arrays.RasterioArrayWrapper._getitem

    def after(self, key):
        places = [
            np.unique(np.arange(size)[along] // step).tolist()
            for along, size, step in zip(key, self.shape, (1, TILE, TILE), strict=True)  # fmt: skip
        ]
        file = str(self.manager._args or self.manager)
        counts.update((file, b, y, x) for b in places[0] for y in places[1] for x in places[2])
        return before(self, key)

    monkeypatch.setattr(arrays.RasterioArrayWrapper, "_getitem", after)
    return counts


def stack(paths, **options):
    opened = xr.open_mfdataset(
        paths, engine="rasterio", combine="nested", concat_dim="time", **options
    )
    return opened.drop_vars("spatial_ref")


def truth_of(values):
    dims = ("time", "band", "y", "x")
    return xr.DataArray(np.where(values == 0, np.nan, values).astype("f4"), dims=dims)


def assert_patches(dataset, expected):
    numbers = []
    for batch in dataset:
        for number, patch in zip(batch.index.tolist(), batch.x.numpy(), strict=True):
            wanted = expected.isel(dataset.windows[number]).values
            np.testing.assert_array_equal(patch, wanted)
            numbers.append(number)
    assert_once(numbers, len(dataset.windows))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("lock", [None, False])
def test_patches_of_a_stack_are_those_of_isel_and_each_tile_is_decoded_once(
    paths, values, decoded, shuffle, lock
):
    dataset = xtd.IterableDataset(
        stack(paths, lock=lock), WINDOW, {"y": 8, "x": 8}, inputs="band_data", batch_size=9,
        shuffle=shuffle,
    )  # fmt: skip
    decoded.clear()
    assert_patches(dataset, truth_of(values))
    assert set(decoded.values()) == {1}
    assert len(decoded) == DATES * BANDS * (SIZE // TILE) ** 2
    [variable] = dataset.explain().variables
    assert variable.path == "by dask"
    assert variable.chunks == {"time": 1, "band": 1, "y": TILE, "x": TILE}


@pytest.mark.parametrize("names", [{}, {"y": "latitude", "x": "longitude"}])
def test_a_single_file_is_read_by_its_tiles_also_where_its_dims_are_renamed(
    paths, values, decoded, names
):
    ds = xr.open_dataset(paths[0], engine="rasterio").drop_vars("spatial_ref").rename(names)
    window = {names.get(dim, dim): size for dim, size in WINDOW.items()}
    dataset = xtd.IterableDataset(ds, window, inputs="band_data", batch_size=4, shuffle=True)
    [variable] = dataset.explain().variables
    assert variable.path == "by its backend"
    assert list(variable.chunks.values()) == [1, TILE, TILE]
    decoded.clear()
    assert_patches(dataset, truth_of(values)[0].rename(names))
    assert set(decoded.values()) == {1}


def test_a_stack_goes_to_another_process(paths, values):
    dataset = xtd.IterableDataset(stack(paths, lock=False), WINDOW, inputs="band_data")
    assert_patches(pickle.loads(pickle.dumps(dataset)), truth_of(values))


def test_the_docs_say_how_they_are_read():
    text = FORMATS.read_text()
    for row in (
        '| [GeoTIFF](geotiff.md) | `xr.open_dataset(path, engine="rasterio")` | by its backend',
        '(geotiff.md) | `xr.open_mfdataset(paths, engine="rasterio", …)` | by dask',
    ):
        assert row in text
