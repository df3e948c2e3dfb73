import copy
import functools
import gc
import pickle
import threading

import numpy as np
import pytest
import torch
import xarray as xr

import xtorch_data as xtd
from xtorch_data.samples import label_registry as module
from xtorch_data.samples.labels import Labels


def fields(**names):
    return xr.Dataset(
        {
            name: (("time", "x"), np.arange(24.0).reshape(6, 4) + shift, {"units": "K"})
            for name, shift in names.items()
        },
        coords={"time": np.arange(6), "x": list("abcd")},
    )


def test_a_variable_whose_name_looks_suffixed_is_not_overwritten():
    ds = fields(t=0, t_x=100)
    dataset = xtd.IterableDataset(
        ds, {"time": 2, "x": -1}, inputs=["t", "t_x"], targets="t", batch_size=3
    )
    labelled = next(iter(dataset)).to_xarray()
    assert set(labelled.data_vars) == {"t_x", "t_x_x", "t_y"}
    np.testing.assert_array_equal(labelled["t_x"] + 100, labelled["t_x_x"])
    np.testing.assert_array_equal(labelled["t_x"], labelled["t_y"])


def test_first_steps_are_those_of_the_windows_along_a_dim():
    ds = xr.Dataset({"a": (("time", "x"), np.zeros((30, 12), "float32"))})
    ds = ds.assign_coords(time=np.r_[0:10, 20:40])
    dataset = xtd.MapDataset(ds, {"x": 4, "time": 5}, {"time": 2}, breaks="split")
    every = [dataset.windows[number] for number in range(len(dataset))]
    for dim in ("x", "time"):
        begins = sorted({window[dim].start for window in every})
        assert dataset.windows.first_steps(dim).tolist() == begins
    with pytest.raises(ValueError, match="no dim 'y'"):
        dataset.windows.first_steps("y")


def test_units_are_those_that_preprocess_left():
    def celsius(block):
        return block.assign(t=(block["t"] - 273.15).assign_attrs(units="degC"))

    dataset = xtd.IterableDataset(fields(t=0), {"time": 2, "x": -1}, preprocess=celsius)
    assert next(iter(dataset)).to_xarray()["t"].attrs == {"units": "degC"}
    plain = xtd.IterableDataset(fields(t=0), {"time": 2, "x": -1})
    assert next(iter(plain)).to_xarray()["t"].attrs == {"units": "K"}


def test_a_coordinate_called_sample_that_is_no_dim_is_refused():
    with pytest.raises(ValueError, match="'sample'.*rename"):
        xtd.IterableDataset(fields(t=0).assign_coords(sample=3), {"time": 2})


def test_dims_that_transforms_make_may_differ_between_parts():
    def bands(count):
        return lambda array: array.expand_dims(band=count)

    dataset = xtd.IterableDataset(
        fields(t=0), {"time": 2, "x": -1}, inputs="t", targets="t", batch_size=2,
        transform=bands(2), target_transform=bands(3),
    )  # fmt: skip
    labelled = next(iter(dataset)).to_xarray()
    assert labelled.sizes["band_x"] == 2
    assert labelled.sizes["band_y"] == 3


def test_coordinates_along_dims_that_a_transform_removed_are_left_out():
    dataset = xtd.IterableDataset(
        fields(t=0), {"time": 2, "x": -1}, inputs="t", transform=lambda array: array.mean("x")
    )
    labelled = next(iter(dataset)).to_xarray()
    assert labelled["t"].dims == ("sample", "time")
    assert "x" not in labelled.coords
    assert "time" in labelled.coords


def test_a_part_that_lacks_a_windowed_dim_is_broadcast_also_with_transforms():
    ds = fields(t=0).assign(static=("x", np.arange(4.0)))
    kwargs = {"inputs": "static", "targets": "t", "batch_size": 2}
    plain = next(iter(xtd.IterableDataset(ds, {"time": 3, "x": -1}, **kwargs)))
    for function in ("transform", "batch_transform"):
        again = xtd.IterableDataset(
            ds, {"time": 3, "x": -1}, **kwargs, **{function: lambda data: data + 1}
        )
        batch = next(iter(again))
        assert torch.equal(batch.x, plain.x + 1)


def test_a_preprocess_that_squeezes_keeps_every_sample():
    ds = xr.Dataset({"v": (("time", "level"), np.arange(15.0).reshape(5, 3))})
    dataset = xtd.IterableDataset(ds, {"time": 2}, preprocess=lambda block: block.squeeze())
    assert len(dataset.windows) == 6
    found = [batch.x.flatten().tolist() for batch in dataset]
    assert found == [[0, 3], [6, 9], [1, 4], [7, 10], [2, 5], [8, 11]]


def test_a_preprocess_that_drops_a_dim_of_some_blocks_is_refused():
    ds = xr.Dataset({"v": (("level", "time"), np.arange(15.0).reshape(3, 5))})
    dataset = xtd.IterableDataset(
        ds, {"time": 5}, preprocess=lambda block: block.squeeze(), memory="60 B", shuffle=True
    )
    with pytest.raises(ValueError, match="'level'|the dims"):
        list(dataset)


def test_a_preprocess_may_work_in_place_on_large_windows():
    ds = xr.Dataset({"v": (("time", "x"), np.ones((2, 2_200_000)))})

    def in_place(block):
        block["v"] -= 1
        return block

    dataset = xtd.IterableDataset(ds, {"time": 2, "x": -1}, preprocess=in_place)
    assert not next(iter(dataset)).x.any()
    assert (ds["v"] == 1).all()


def test_a_batch_transform_that_reorders_samples_is_refused():
    dataset = xtd.IterableDataset(
        fields(t=0),
        {"time": 1, "x": -1},
        batch_size=4,
        batch_transform=lambda batch: batch.isel(sample=[3, 2, 1, 0]),
    )
    with pytest.raises(ValueError, match="order"):
        next(iter(dataset))


def test_a_generator_that_the_user_has_bound_is_left_alone():
    mine = np.random.default_rng(7)

    def noise(array, rng):
        return array * 0 + rng.integers(10**6)

    dataset = xtd.IterableDataset(
        fields(t=0), {"time": 2, "x": -1}, inputs="t", transform=functools.partial(noise, rng=mine)
    )
    found = sorted(batch.x.flatten()[0].item() for batch in dataset)
    again = np.random.default_rng(7)
    assert found == sorted(again.integers(10**6) for _ in dataset.windows)


def test_batches_are_not_batched_again():
    dataset = xtd.IterableDataset(fields(t=0), {"time": 2, "x": -1}, batch_size=2)
    with pytest.raises(TypeError, match="batch_size=None"):
        next(iter(torch.utils.data.DataLoader(dataset)))


def test_names_may_come_as_an_array_or_as_keys():
    ds = fields(t=0, u=1)
    for names in (
        np.array(["t", "u"]),
        {"t": 1, "u": 2}.keys(),
        ("t", "u"),
        xtd.Select(("t", "u")),
    ):
        batch = next(iter(xtd.IterableDataset(ds, {"time": 2, "x": -1}, inputs=names)))
        assert batch.x.shape == (1, 2, 2, 4)
    with pytest.raises(TypeError, match="list of names"):
        xtd.IterableDataset(ds, {"time": 2}, inputs={"t", "u"})


def test_a_lambda_cannot_be_sent_to_workers_that_begin_afresh():
    dataset = xtd.IterableDataset(fields(t=0), {"time": 2}, transform=lambda array: array)
    with pytest.raises(TypeError, match="transform cannot be sent.*lambda"):
        xtd.DataLoader(dataset, num_workers=2)


def test_labels_in_a_select_are_refused_in_words_that_name_the_dim():
    with pytest.raises(TypeError, match="'x': time=.*not labels"):
        xtd.IterableDataset(
            fields(t=0), {"time": 2}, inputs=xtd.Select("t", time=slice("2019", "2020"))
        )


def test_a_path_is_no_data_but_says_how_to_open_it():
    with pytest.raises(TypeError, match=r"open_zarr\('a.zarr'\)"):
        xtd.IterableDataset("a.zarr", {"time": 2})


def made():
    """Labels, as a dataset has them."""
    return xtd.MapDataset(fields(t=0), {"time": 2, "x": -1})._inside.definition.labels


def known(token):
    """Whether anything is kept under a token."""
    return token in module._latest or any(own == token for own, _ in module._copies)


@pytest.mark.parametrize("copied", [copy.copy, lambda labels: pickle.loads(pickle.dumps(labels))])
def test_labels_are_found_by_their_token_while_a_copy_of_them_is_there(copied):
    first = made()
    token, second = first.token, copied(first)
    third = copied(second)
    del third
    gc.collect()
    assert Labels.find(token) in (first, second)
    del first
    gc.collect()
    assert Labels.find(token) is second
    del second
    gc.collect()
    assert Labels.find(token) is None
    assert not known(token)


def test_nothing_is_kept_of_datasets_that_are_gone():
    gc.collect()
    before = len(module._copies), len(module._latest)
    tokens = {made().token for _ in range(20)}
    gc.collect()
    assert len(tokens) == 20 and not any(map(known, tokens))
    assert len(module._copies) <= before[0] and len(module._latest) <= before[1]


def test_labels_are_found_while_threads_make_copies_and_let_them_go():
    labels, failed = made(), []
    sent = pickle.dumps(labels)

    def copies():
        for _ in range(300):
            pickle.loads(sent)
            if Labels.find(labels.token) is None:
                failed.append(threading.current_thread())

    threads = [threading.Thread(target=copies) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert {token for token, _ in module._copies} >= {labels.token}
