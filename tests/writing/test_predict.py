"""predict: a model over a loader, and what it leaves as it was."""

import warnings

import iris_sample_data
import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd


def fields(steps=12):
    values = np.random.default_rng(0).normal(size=(steps, 6, 8)).astype("float32")
    return xr.Dataset(
        {"a": (("time", "y", "x"), values)}, {"time": xr.date_range("2000", periods=steps)}
    )


@pytest.fixture
def dataset():
    return xtd.MapDataset(
        fields(), {"time": 3, "y": -1, "x": -1}, {"time": 2},
        inputs=xtd.Select("a", time=slice(0, 2)), targets=xtd.Select("a", time=2),
    )  # fmt: skip


def test_of_samples_with_a_schedule_the_longest_phase_is_predicted(dataset):
    steps = xtd.Schedule({0: slice(2, 3), 4: slice(2, None)})
    window = {"time": 5, "y": -1, "x": -1}
    grows = dataset.replace(
        input_dims=window, input_overlap={"time": 4}, targets=xtd.Select("a", time=steps)
    )
    loader = xtd.DataLoader(grows, batch_size=4)

    def truth(batch):
        return batch.y

    with pytest.raises(ValueError, match="follows a Schedule, .* a phase that lacks steps"):
        xtd.predict(None, loader, forward=truth, keep="time")
    grows.set_epoch(4)
    found = xtd.predict(None, loader, forward=truth, keep="time")["a"]
    assert found.sizes["lead_time"] == 3
    np.testing.assert_array_equal(found, fields()["a"].sel(time=found["time"]))
    fixed = grows.replace(targets=xtd.Select("a", time=slice(2, 5)))
    again = xtd.predict(None, xtd.DataLoader(fixed), forward=truth, keep="time")["a"]
    np.testing.assert_array_equal(again, found)


def test_what_would_normalize_once_more_is_no_inverse(dataset):
    normalize = xtd.Normalize.fit(dataset)
    for function in (xtd.Compose([normalize, abs]), lambda block: normalize(block)):
        normalized = dataset.replace(preprocess=function)
        with pytest.raises(ValueError, match="would .* once more: give "):
            xtd.predict(Last(), xtd.DataLoader(normalized, batch_size=4), inverse=function)


def test_of_a_mixture_predictions_are_refused(dataset):
    stream = xtd.IterableDataset(dataset, batch_size=4)
    mixed = xtd.mix({"one": stream, "two": stream}, rates={"one": 1, "two": 1})
    with pytest.raises(TypeError, match="one dataset, not DataLoader of Mixture"):
        xtd.predict(Last(), xtd.DataLoader(mixed))
    with pytest.raises(TypeError, match="one dataset, not MapDataset"):
        xtd.predict(Last(), dataset)


@pytest.mark.parametrize("name", ["forecast.nc", "forecast.GRIB"])
def test_a_path_that_is_named_like_another_format_is_refused(dataset, tmp_path, name):
    with pytest.raises(ValueError, match="written as a Zarr store, .* end it with '.zarr'"):
        xtd.predict(Last(), xtd.DataLoader(dataset), tmp_path / name)
    with pytest.raises(ValueError, match="written as a Zarr store"):
        xtd.rechunk(fields(), dataset, tmp_path / name)
    assert not any(tmp_path.iterdir())


class Last(torch.nn.Module):
    """The last step plus a number; notes in which mode it ran."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.ones(()))
        self.drop = torch.nn.Dropout(0.5)
        self.seen = []

    def forward(self, x):
        self.seen.append((self.training, torch.is_inference_mode_enabled()))
        return self.drop(x[:, -1] + self.bias)


@pytest.mark.parametrize("shuffle", [False, True])
def test_predictions_have_the_labels_of_their_targets(dataset, shuffle):
    loader = xtd.DataLoader(dataset, batch_size=4, shuffle=shuffle)
    result = xtd.predict(Last(), loader)
    expected = fields().isel(time=slice(1, -1)) + 1
    expected["time"] = fields()["time"][2:]
    xr.testing.assert_equal(result, expected)


def test_the_model_is_left_in_the_mode_it_was_in(dataset):
    model = Last()
    model.drop.eval()
    xtd.predict(model, xtd.DataLoader(dataset, batch_size=4))
    assert model.training and not model.drop.training
    assert set(model.seen) == {(False, True)}
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()

    def fails(batch):
        raise RuntimeError("as meant")

    with pytest.raises(RuntimeError, match="as meant"):
        xtd.predict(model, xtd.DataLoader(dataset, batch_size=4), forward=fails)
    assert model.training and not model.drop.training


def test_forward_takes_the_batch_and_may_name_more_dims(dataset):
    loader = xtd.DataLoader(dataset, batch_size=4)

    def forward(batch):
        return torch.stack([batch.y, 2 * batch.y], 1), ("sample", "member", ...)

    result = xtd.predict(None, loader, forward=forward)
    assert result["a"].dims == ("member", "time", "y", "x")
    xr.testing.assert_equal(result.isel(member=1), 2 * fields().isel(time=slice(2, None)))


def test_what_the_loader_leaves_out_is_missing_with_a_warning(dataset):
    loader = xtd.DataLoader(dataset, batch_size=4, drop_last=True)
    with pytest.warns(UserWarning, match="did not yield 2 samples of the dataset"):
        result = xtd.predict(Last(), loader)
    assert np.isnan(result["a"][8:]).all() and not np.isnan(result["a"][:8]).any()


def test_streams_and_loaders_of_torch_serve_as_well(dataset):
    stream = xtd.IterableDataset(dataset, batch_size=4)
    expected = xtd.predict(Last(), xtd.DataLoader(dataset, batch_size=4))
    xr.testing.assert_equal(xtd.predict(Last(), stream), expected)
    plain = torch.utils.data.DataLoader(stream, batch_size=None)
    xr.testing.assert_equal(xtd.predict(Last(), plain), expected)
    with pytest.raises(TypeError, match=r"loader must be an xtorch_data\.DataLoader"):
        xtd.predict(Last(), dataset)
    with pytest.raises(TypeError, match="yields them"):
        xtd.predict(Last(), torch.utils.data.DataLoader(dataset, batch_size=4))


def test_a_bar_counts_batches(dataset, capsys):
    pytest.importorskip("tqdm")
    with xtd.set_options(progress=True):
        xtd.predict(Last(), xtd.DataLoader(dataset, batch_size=4))
    assert "predict: 100%" in capsys.readouterr().err


@pytest.mark.parametrize("written", [False, True])
def test_of_a_real_ocean_the_patches_blend_to_what_they_were(written, tmp_path):
    """Sea surface temperatures, packed and with land masked."""
    path = iris_sample_data.path + "/ostia_monthly.nc"
    with warnings.catch_warnings(), xr.open_dataset(path) as ds:
        warnings.simplefilter("ignore")
        samples = xtd.MapDataset(
            ds, {"time": 6, "latitude": 18, "longitude": 108}, {"time": 3, "longitude": 54},
            boundary={"longitude": "wrap"}, halo={"longitude": 4}, inputs="surface_temperature",
            targets="surface_temperature",
        )  # fmt: skip
        normalize = xtd.Normalize.fit(samples)
        samples = samples.replace(preprocess=normalize)
        loader = xtd.DataLoader(samples, batch_size=8, shuffle=True)
        place = [tmp_path / "predicted.zarr"] if written else []
        result = xtd.predict(
            torch.nn.Identity(), loader, *place, blend="hann", inverse=normalize
        ).load()
        expected = ds.isel(time=slice(0, result.sizes["time"]))
        name = "surface_temperature"
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5)
        assert result[name].attrs == expected[name].attrs
        for each in expected[name].coords:
            assert result[each].equals(expected[each]), each


def test_what_a_model_returns_beside_predictions_is_refused(dataset):
    loader = xtd.DataLoader(dataset, batch_size=4)
    for more in [(), (torch.zeros(2),), (torch.zeros(2), torch.zeros(2))]:
        with pytest.raises(TypeError, match="this is a tuple of Tensor"):
            xtd.predict(lambda x, more=more: (x[:, -1], *more), loader)
