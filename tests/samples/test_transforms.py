"""Functions composed into one: what they are given, and what random numbers they draw."""

import pickle

import numpy as np
import pytest
import xarray as xr
from helpers import add_noise, anomaly, forecast, twice_plus_one

import xtorch_data as xtd

WINDOW = {"time": 6, "y": -1, "x": -1}


def half_noise(sample, rng):
    return sample + rng.normal(size=3).sum()


def test_functions_are_applied_in_their_order_on_data_of_any_kind():
    composed = xtd.Compose([twice_plus_one, anomaly, twice_plus_one])
    ds = forecast(6)
    for obj in (ds, ds["a"]):
        plain = 2 * ((2 * obj + 1) - (2 * obj + 1).mean("time")) + 1
        xr.testing.assert_allclose(composed(obj), plain)
    assert xtd.Compose([])(ds) is ds


def test_functions_draw_from_one_generator_in_turn():
    array = forecast(6)["a"]
    inner = xtd.Compose([half_noise, twice_plus_one])
    composed = xtd.Compose([add_noise, inner, add_noise])
    rng = np.random.default_rng(5)
    first, second, third = rng.normal(), rng.normal(size=3).sum(), rng.normal()
    plain = 2 * (array + first + second) + 1 + third
    xr.testing.assert_allclose(composed(array, np.random.default_rng(5)), plain)


@pytest.mark.parametrize("argument", ["transform", "preprocess", "batch_transform"])
def test_a_dataset_gets_what_one_function_would_give(argument):
    ds = forecast(24)

    def as_one(obj, rng):
        return add_noise(twice_plus_one(obj), rng)

    def batches(function):
        dataset = xtd.IterableDataset(
            ds, WINDOW, inputs=["a", "b"], shuffle=True, seed=3, **{argument: function}
        )
        return [batch.x for batch in dataset]

    nested = xtd.Compose([twice_plus_one, xtd.Compose([add_noise])])
    for found, plain in zip(batches(nested), batches(as_one), strict=True):
        np.testing.assert_array_equal(found, plain)


def test_inputs_and_targets_of_a_sample_draw_the_same_numbers():
    noise = xtd.Compose([add_noise, half_noise])
    dataset = xtd.IterableDataset(
        forecast(24), WINDOW, inputs="a", targets="a", transform=noise, target_transform=noise
    )
    for x, y in dataset:
        np.testing.assert_array_equal(x, y)


def test_blocks_are_kept_for_later_epochs_unless_a_function_draws_numbers():
    def cached(functions):
        dataset = xtd.IterableDataset(
            forecast(24), WINDOW, preprocess=xtd.Compose(functions), cache=True
        )
        return dataset.plan.cached

    assert cached([twice_plus_one, xtd.Compose([twice_plus_one])])
    assert not cached([twice_plus_one, xtd.Compose([add_noise])])


def test_a_composition_survives_pickling():
    composed = pickle.loads(pickle.dumps(xtd.Compose([twice_plus_one, xtd.Compose([add_noise])])))
    array = forecast(6)["a"]
    rng = np.random.default_rng(0)
    xr.testing.assert_allclose(
        composed(array, np.random.default_rng(0)), 2 * array + 1 + rng.normal()
    )


def test_workers_are_refused_a_function_inside_that_they_could_not_get():
    def local(sample):
        return sample

    dataset = xtd.IterableDataset(forecast(24), WINDOW, transform=xtd.Compose([anomaly, local]))
    with pytest.raises(TypeError, match=r"transforms\[1\] cannot be sent to worker"):
        xtd.DataLoader(dataset, num_workers=1)


def test_an_error_says_in_which_function_it_was():
    def broken(sample):
        raise KeyError("no such thing")

    with pytest.raises(KeyError) as caught:
        xtd.Compose([twice_plus_one, xtd.Compose([broken])])(forecast(6))
    notes = caught.value.__notes__
    assert "broken" in notes[0] and "transforms[0]" in notes[0] and "transforms[1]" in notes[1]


def test_the_repr_lists_functions_by_name():
    composed = xtd.Compose([twice_plus_one, xtd.Compose([add_noise])])
    assert repr(composed).split() == (
        "Compose([ twice_plus_one, Compose([ add_noise, ]), ])".split()
    )
    assert repr(xtd.Compose([])) == "Compose([])"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (twice_plus_one, "a list of functions"),
        (5, "a list of functions"),
        ([twice_plus_one, 5], r"transforms\[1\] must be a function, not 5"),
        ([None], r"transforms\[0\] must be a function, not None"),
        ([lambda sample, other: sample], r"transforms\[0\] takes one xarray object"),
        ([lambda: 5], r"transforms\[0\] takes one xarray object"),
        ([lambda *, rng: 5], r"transforms\[0\] takes one xarray object"),
    ],
)
def test_what_is_no_list_of_functions_is_refused(given, error):
    with pytest.raises(TypeError, match=error):
        xtd.Compose(given)


def test_random_functions_called_by_hand_need_a_generator():
    with pytest.raises(TypeError, match="rng"):
        xtd.Compose([add_noise])(forecast(6))
