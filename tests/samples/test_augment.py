"""Random flips: values, signs and labels are those of the data turned around, whatever was done."""

import copy
import gc
import pickle
from multiprocessing.reduction import ForkingPickler

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import xarray as xr
import xbatcher
from hypothesis import given
from strategies import examples

import xtorch_data as xtd

SIGNS = {"v": "y", "u": ["x"], "w": ["y", "x"]}
FLOATS = ["t", "u", "v", "w"]


def winds(time=6, level=3, y=8, x=10):
    """Fields on levels, one without them, a mask and an integer one, with labels of two dims."""
    rng = np.random.default_rng(5)
    dims, shape = ("time", "level", "y", "x"), (time, level, y, x)
    ds = xr.Dataset(
        {name: (dims, rng.normal(4, 2, shape).astype("f4")) for name in FLOATS},
        coords={
            "time": np.datetime64("2000-01-01", "ns") + np.arange(time) * np.timedelta64(6, "h"),
            "level": [1000.0, 500.0, 200.0][:level],
            "y": np.linspace(50.0, 43.0, y),
            "x": np.arange(x) * 0.25,
            "area": (("y", "x"), rng.normal(size=(y, x))),
        },
    )
    ds["mask"] = dims[2:], rng.random((y, x)) < 0.5
    ds["kind"] = dims, rng.integers(0, 60000, shape).astype("u2")
    return ds


def turned(ds, window, labels, part_cut, signs=SIGNS):
    """What a sample with such labels is, by plain `isel`: backwards, and with signs changed.

    Which way it was turned is told by its labels; gives the sample and its signs by variable.
    """
    sample = ds.isel(window).isel(part_cut)
    factors = dict.fromkeys(ds.data_vars, 1)
    for dim in ("y", "x"):
        whole = ds[dim].values[window[dim]]
        backwards = labels[dim].values[0] != sample[dim].values[0]
        if backwards:
            sample = sample.isel({dim: slice(None, None, -1)})
        assert len(whole) > 1
        for name, of in signs.items():
            factors[name] *= -1 if backwards and dim in of else 1
    xr.testing.assert_equal(sample.coords.to_dataset(), labels.drop_vars("sample"))
    return sample, factors


PARTS = {
    "x": ["t", "u", "v", "w"],
    "y": xtd.Select("v", y=slice(1, 3), level=1),
    "mask": "mask",
    "kind": xtd.Select(["kind"], x=slice(1, 4)),
}
WINDOW = {"level": -1, "y": 4, "x": 5}


def per_level(ds):
    return xtd.Normalize.fit(ds[FLOATS], per="level")


def whole(ds):
    return xtd.Normalize.fit(ds[FLOATS])


def half(ds):
    return xtd.Normalize({"v": 1.5, "w": -3.0}, {"v": 0.5, "w": 2.0})


NORMALIZED = {
    "as they are": [],
    "normalized": [whole],
    "per level": [per_level],
    "twice": [whole, half],
    "and per level": [half, per_level],
}


@pytest.mark.parametrize("how", NORMALIZED)
@pytest.mark.parametrize("batch_size", [7, None])
def test_a_flipped_sample_is_that_of_the_data_turned_around(how, batch_size):
    """Physical values change their sign, and are then normalized as they would have been."""
    ds = winds()
    functions = [make(ds) for make in NORMALIZED[how]]

    def normalized(name, values, sample):
        for function in functions:
            if name in function.mean:
                mean, std = (each[name] for each in (function.mean, function.std))
                if "level" in mean.dims:
                    mean, std = (
                        each.sel(level=sample["level"]).broadcast_like(values)
                        for each in (mean, std)
                    )
                values = (values - mean) / std
        return values.transpose(*sample[name].dims)

    preprocess = xtd.Compose(functions) if functions else None
    dataset = xtd.IterableDataset(
        ds, WINDOW, parts=PARTS, preprocess=preprocess, batch_size=batch_size, shuffle=True
    )
    flip = xtd.RandomFlip("y", "x", signs=SIGNS)
    seen = set()
    for batch in xtd.DataLoader(dataset, augment=flip):
        for part, dims in {"x": ["y", "x"], "y": ["y", "x"], "mask": ["y"], "kind": ["x"]}.items():
            labeled = batch.to_xarray(part)
            if batch_size is None:
                labeled = labeled.expand_dims("sample")
            for place, number in enumerate(batch.index.reshape(-1).tolist()):
                window = dataset.windows[number]
                given = PARTS[part]
                cut = given.indexers if isinstance(given, xtd.Select) else {}
                row = labeled.isel(sample=place)
                sample, factors = turned(ds, window, row.coords.to_dataset(), cut)
                for name in row.data_vars:
                    values = factors[name] * sample[name].astype("f8")
                    found = row[name].transpose(..., *sample[name].dims)
                    expected = normalized(name, values, sample)
                    if found.ndim > expected.ndim:  # broadcast along the levels
                        found = found.isel(level=0)
                    np.testing.assert_allclose(found.values, expected.values, 2e-5, 2e-5)
                seen.add((part, *(row[dim].values[0] == sample[dim].values.min() for dim in dims)))
    assert len({each[1:] for each in seen if each[0] == "x"}) == 4


@given(st.data())
@examples(20)
def test_tensors_of_any_kind_are_flipped_as_numpy_flips_them(data):
    """All samples of which a coin says so, for each of one to three dims on its own."""
    dtype = data.draw(st.sampled_from(["f4", "f8", "i1", "i8", "u1", "u2", "u4", "u8", "?", "c8"]))
    sizes = {dim: data.draw(st.integers(1, 4), label=dim) for dim in ("a", "b", "c")}
    dims = data.draw(st.permutations(["a", "b", "c"]).flatmap(_beginnings), label="dims")
    stacked = data.draw(st.booleans(), label="stacked")
    samples = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    values = rng.integers(0, 100, (samples, *sizes.values())).astype(dtype)
    ds = xr.Dataset({name: (("n", *sizes), values + name) for name in (0, 1)})
    ds = ds.rename({0: "p", 1: "q"}).astype(dtype)
    names = ["p", "q"] if stacked else "q"
    dataset = xtd.MapDataset(ds, dict.fromkeys(sizes, -1), inputs=names, dtype=torch.float64)
    batch = dataset.fetch(range(samples))
    coins = batch.uniform(len(dims)).numpy()
    batch = dataset.fetch(range(samples))  # which nobody has asked for numbers
    before = batch.x.clone()
    found = xtd.RandomFlip(*dims, p=0.4)(batch)
    assert torch.equal(batch.x, before) and found.dims("x") == batch.dims("x")
    expected = before.numpy().copy()
    for row in range(samples):
        axes = [
            batch.dims("x").index(dim) - 1
            for dim, coin in zip(dims, coins[row], strict=True)
            if coin < np.float32(0.4)
        ]
        expected[row] = np.flip(expected[row], axes)
    assert found.x.dtype == before.dtype
    assert np.array_equal(found.x.numpy(), expected)


def _beginnings(dims):
    return st.integers(1, len(dims)).map(lambda count: dims[:count])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_signs_change_in_the_precision_of_the_tensors(dtype):
    ds = winds()
    dataset = xtd.MapDataset(
        ds, WINDOW, inputs=["t", "v"], dtype=dtype, preprocess=xtd.Normalize({"v": 0.7}, {"v": 0.3})
    )
    batch = dataset.fetch(range(12))
    found = xtd.RandomFlip("y", p=1, signs={"v": "y"})(batch)
    assert found.x.dtype == dtype
    back = found.x.flip(3).double()
    assert torch.equal(back[:, 0], batch.x[:, 0].double())
    expected = -batch.x[:, 1].double() - 2 * 0.7 / 0.3
    torch.testing.assert_close(back[:, 1], expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_two_flips_of_all_give_back_what_there_was():
    """The second one knows by the labels where the first one left the statistics of each level."""
    ds = winds()
    dataset = xtd.MapDataset(ds, WINDOW, inputs=FLOATS, targets="v", preprocess=per_level(ds))
    batch = dataset.fetch(range(6))
    flip = xtd.RandomFlip("y", "x", p=1, signs=SIGNS)
    once, twice = flip(batch), flip(flip(batch))
    assert not once.to_xarray().coords.equals(batch.to_xarray().coords)
    xr.testing.assert_allclose(twice.to_xarray(), batch.to_xarray(), atol=1e-5)
    xr.testing.assert_identical(twice.to_xarray().coords, batch.to_xarray().coords)


def test_levels_that_are_samples_have_the_statistics_of_each():
    ds = winds()
    normalize = per_level(ds)
    dataset = xtd.MapDataset(ds, {"y": 4, "x": -1}, inputs="v", preprocess=normalize)
    batch = dataset.fetch([11, 2, 5, 0])
    found = xtd.RandomFlip("y", p=1, signs={"v": "y"})(batch)
    labeled, before = found.to_xarray(), batch.to_xarray()
    physical = normalize.inverse(labeled)["v"]
    expected = -normalize.inverse(before)["v"].values[:, ::-1]
    np.testing.assert_allclose(physical.values, expected, rtol=1e-4, atol=1e-5)
    assert np.array_equal(labeled["y"].values, before["y"].values[:, ::-1])
    assert np.array_equal(labeled["area"].values, before["area"].values[:, ::-1])
    assert len(set(labeled["level"].values)) > 1


def test_a_component_changes_its_sign_in_a_part_without_the_dim():
    """The wind in the middle of a mirrored map is that of the map."""
    dataset = xtd.MapDataset(winds(), WINDOW, inputs="v", targets=xtd.Select("v", y=2))
    batch = dataset.fetch(range(4))
    found = xtd.RandomFlip("y", p=1, signs={"v": "y"})(batch)
    assert torch.equal(found.x, -batch.x.flip(2)) and torch.equal(found.y, -batch.y)


def test_windows_of_an_item_of_a_generator_are_flipped_where_dims_are_apart():
    ds = winds()[["t"]].isel(level=0, time=0, drop=True).drop_vars("area")
    generator = xbatcher.BatchGenerator(
        ds, {"y": 4, "x": 5}, batch_dims={"y": 8, "x": 10}, concat_input_dims=True
    )
    dataset = xtd.IterableDataset(generator, batch_size=1)
    before = next(iter(dataset))
    found = xtd.RandomFlip("y", p=1)(before)
    axis = before.dims("x").index("y")
    assert torch.equal(found.x, before.x.flip(axis))
    labels = found.to_xarray()["y"]
    assert np.array_equal(labels, before.to_xarray()["y"].values[..., ::-1])


def test_dims_that_are_stacked_in_one_cannot_be_flipped():
    generator = xbatcher.BatchGenerator(winds()[["t"]].drop_vars("area"), {"y": 4, "x": 5})
    batch = next(iter(xtd.IterableDataset(generator)))
    assert ("time", "level") in batch.dims("x")
    with pytest.raises(ValueError, match="'time': several dims are stacked in one"):
        xtd.RandomFlip("time", p=1)(batch)


def test_where_no_coin_falls_so_tensors_are_the_same():
    batch = xtd.MapDataset(winds(), WINDOW, parts=PARTS).fetch(range(5))
    found = xtd.RandomFlip("y", "x", p=0, signs=SIGNS)(batch)
    assert [found[part] is batch[part] for part in batch.keys()] == [True] * 4


def test_tensors_that_lie_channels_last_stay_so():
    ds = winds().isel(level=0)
    batch = xtd.MapDataset(ds, {"y": 4, "x": 5}, inputs=FLOATS).fetch(range(8))
    batch = batch.to("cpu", memory_format=torch.channels_last)
    found = xtd.RandomFlip("y", signs={"v": "y"})(batch)
    assert found.x.is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------------------------------------
# What is refused


def loader(augment, **options):
    options = {"inputs": FLOATS, "batch_size": 4} | options
    return xtd.DataLoader(xtd.IterableDataset(winds(), WINDOW, **options), augment=augment)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((), {}), ValueError, "takes the dims to flip along"),
        ((("y", "y"), {}), ValueError, "dim 'y' is named twice"),
        (((["y"],), {}), TypeError, r"by its name, not as \['y'\]"),
        ((("y",), {"p": 1.5}), ValueError, "p must be from 0 to 1, not 1.5"),
        ((("y",), {"p": float("nan")}), ValueError, "p must be from 0 to 1"),
        ((("y",), {"p": True}), TypeError, "p must be a number from 0 to 1, not True"),
        ((("y",), {"p": "0.5"}), TypeError, "p must be a number"),
        ((("y",), {"signs": ["v"]}), TypeError, "signs must be a mapping"),
        ((("y",), {"signs": {"v": "x"}}), ValueError, r"signs\['v'\] names dim 'x'.*\['y'\]"),
        ((("y",), {"signs": {"v": []}}), ValueError, r"signs\['v'\] names no dim"),
        ((("y",), {"odd": "v"}), ValueError, "odd names 'v', which is not in signs"),
    ],
)
def test_what_cannot_be_meant_is_refused_when_a_flip_is_made(arguments, error, message):
    with pytest.raises(error, match=message):
        xtd.RandomFlip(*arguments[0], **arguments[1])


def test_dims_and_variables_that_no_part_has_are_refused_when_a_loader_is_made():
    with pytest.raises(ValueError, match=r"dim 'latitude', which no part has.*\['level', 'y', 'x'"):
        loader(xtd.RandomFlip("latitude"))
    with pytest.raises(ValueError, match="dim 'time', which no part has"):  # not windowed
        loader(xtd.RandomFlip("y", "time"))
    with pytest.raises(ValueError, match="variable 'v10', which no part has"):
        loader(xtd.RandomFlip("y", signs={"v10": "y"}))
    with pytest.raises(ValueError, match="variable 'v', which no part has"):
        loader(xtd.RandomFlip("y", signs={"v": "y"}), inputs="t")
    with pytest.raises(ValueError, match="'kind', which is of dtype uint16 in part 'x'"):
        loader(xtd.RandomFlip("y", signs={"kind": "y"}), inputs=["kind"])
    loader(xtd.RandomFlip("y", signs={"kind": "y"}), inputs=["t", "kind"])  # which are floating


def test_what_a_transform_leaves_is_looked_at_in_the_first_batch():
    def mean(sample):
        return sample.mean("y")

    with pytest.raises(ValueError, match=r"dim 'y', which no part has"):
        next(iter(loader(xtd.RandomFlip("y"), transform=mean)))
    batch = next(iter(loader(xtd.RandomFlip("x", p=1), transform=mean)))
    plain = next(iter(loader(None, transform=mean)))
    assert torch.equal(batch.x, plain.x.flip(-1))


@pytest.mark.parametrize("where", ["preprocess", "transform", "batch_transform"])
def test_statistics_of_places_along_a_flipped_dim_are_refused(where):
    """A value that is normalized for one latitude is not what another latitude would make of it."""
    ds = winds()
    normalize = xtd.Normalize.fit(ds[FLOATS], per=["y", "level"])
    message = rf"'t' of part 'x' along 'y': {where} \(Normalize\).*without per='y'"
    with pytest.raises(ValueError, match=message):
        loader(xtd.RandomFlip("x", "y"), **{where: normalize})
    loader(xtd.RandomFlip("x", signs={"u": "x"}), **{where: normalize})


def test_statistics_per_a_label_along_a_flipped_dim_are_refused_too():
    ds = winds().assign_coords(belt=("y", [0, 0, 0, 0, 1, 1, 1, 1]))
    per = xr.DataArray([1.0, 2.0], dims="belt", coords={"belt": [0, 1]})
    normalize = xtd.Normalize({"v": per}, {"v": per})
    dataset = xtd.MapDataset(ds, WINDOW, inputs="v", preprocess=normalize)
    with pytest.raises(ValueError, match="'v' of part 'x' along 'y'"):
        xtd.DataLoader(dataset, augment=xtd.RandomFlip("y"))
    found = next(iter(xtd.DataLoader(dataset, augment=xtd.RandomFlip("x", p=1, signs={"v": "x"}))))
    plain = next(iter(xtd.DataLoader(dataset)))
    torch.testing.assert_close(found.x, -plain.x.flip(-1) - 2)


def knots(block):
    return block.assign(v=block["v"] * 1.94)


def shifted(block):
    return block.assign(v=block["v"] + 1)


@pytest.mark.parametrize("where", ["preprocess", "transform", "batch_transform"])
def test_a_sign_is_not_changed_after_a_function_that_nobody_knows(where):
    flip = {"p": 1, "signs": {"v": "y"}}
    for function in (knots, xtd.Compose([knots, whole(winds())])):
        with pytest.raises(ValueError, match=rf"{where} \(knots\).*RandomFlip\(…, odd=\['v'\]\)"):
            loader(xtd.RandomFlip("y", **flip), **{where: function})
        with pytest.raises(ValueError, match="nobody knows how"):  # given in another way
            next(iter(loader(lambda b: xtd.RandomFlip("y", **flip)(b), **{where: function})))
    loader(xtd.RandomFlip("y", signs={"u": "y"}, odd="u"), **{where: knots})
    loader(xtd.RandomFlip("y"), **{where: knots})
    found = next(iter(loader(xtd.RandomFlip("y", **flip, odd=["v"]), **{where: knots})))
    plain = next(iter(loader(None, **{where: knots})))
    assert torch.equal(found.x[:, 2], -plain.x[:, 2].flip(2))


def test_a_promise_holds_before_values_are_normalized_but_not_after():
    normalize = xtd.Normalize({"v": 3.0}, {"v": 2.0})
    flip = xtd.RandomFlip("y", p=1, signs={"v": "y"}, odd="v")
    before = xtd.Compose([knots, normalize])
    found, plain = (next(iter(loader(each, preprocess=before))) for each in (flip, None))
    torch.testing.assert_close(found.x[:, 2], -plain.x[:, 2].flip(2) - 3)
    with pytest.raises(ValueError, match="0 stands for a mean: normalize 'v' with a mean of 0"):
        loader(flip, preprocess=xtd.Compose([normalize, knots]))
    around_zero = xtd.Normalize({"v": 0.0}, {"v": 2.0})
    loader(flip, preprocess=xtd.Compose([around_zero, knots]))


def test_a_class_made_of_normalize_that_does_other_things_is_not_taken_for_it():
    class Clipped(xtd.Normalize):
        def __call__(self, obj):
            return super().__call__(obj).clip(-1, 1)

    with pytest.raises(ValueError, match="nobody knows how"):
        loader(
            xtd.RandomFlip("y", signs={"v": "y"}),
            preprocess=Clipped({"v": 3.0}, {"v": 2.0}),
        )


def test_values_that_do_not_vary_are_divided_by_one():
    ds = winds().assign(v=lambda each: xr.full_like(each["v"], 3.0))
    dataset = xtd.MapDataset(ds, WINDOW, inputs="v", preprocess=whole(ds))
    found = xtd.RandomFlip("y", p=1, signs={"v": "y"})(dataset.fetch([0]))
    torch.testing.assert_close(found.x, torch.full_like(found.x, -6.0))


def test_a_batch_that_has_lost_its_labels_is_not_flipped():
    dataset = xtd.MapDataset(winds(), WINDOW, inputs="v")
    sent = bytes(ForkingPickler.dumps(dataset.fetch([0])))
    del dataset
    gc.collect()
    with pytest.raises(RuntimeError, match="lost its labels"):
        xtd.RandomFlip("y")(pickle.loads(sent))


def test_a_tensor_of_another_shape_is_not_flipped_along_a_guess():
    batch = xtd.MapDataset(winds(), WINDOW, inputs="v", targets="t").fetch(range(3))
    with pytest.raises(ValueError, match="part 'y' has shape"):
        xtd.RandomFlip("y")(batch.replace(y=batch.y[..., :2, 0]))


# ---------------------------------------------------------------------------------------------
# Coins


def flips_of(batches):
    """By sample number, whether it runs backwards along each dim."""
    found = {}
    for batch in batches:
        labels = batch.to_xarray()
        # Of the data, y descends and x ascends.
        backwards = [labels["y"][:, 0] < labels["y"][:, 1], labels["x"][:, 0] > labels["x"][:, 1]]
        found.update(zip(batch.index.tolist(), np.stack(backwards, 1).tolist(), strict=True))
    return found


def test_a_coin_depends_on_seed_epoch_and_sample_alone():
    def make(**options):
        options = {"inputs": "t", "seed": 3} | options
        dataset = xtd.IterableDataset(winds(40), WINDOW, **options)
        return xtd.DataLoader(dataset, augment=xtd.RandomFlip("y", "x"))

    first = flips_of(make(batch_size=1))
    for options in [{"batch_size": 7}, {"batch_size": 160, "shuffle": True, "memory": "9 kB"}]:
        each = make(**options)
        assert flips_of(each) == first
        second = flips_of(each)
        assert second != first and second.keys() == first.keys()
    assert flips_of(make(batch_size=7, seed=4)) != first
    coins = np.array([*first.values()])
    assert len(coins) == 40 * 4
    assert (abs(coins.mean(0) - 0.5) < 0.12).all()  # three deviations
    assert abs((coins[:, 0] == coins[:, 1]).mean() - 0.5) < 0.12


def test_p_is_how_often_a_sample_is_flipped():
    dataset = xtd.MapDataset(winds(200), WINDOW, inputs="t")
    batch = dataset.fetch(range(800))
    found = flips_of([xtd.RandomFlip("y", "x", p=0.1)(batch)])
    assert (abs(np.array([*found.values()]).mean(0) - 0.1) < 0.032).all()


def test_a_flip_can_be_copied_and_sent():
    flip = xtd.RandomFlip("y", p=0.25, signs={"v": "y"}, odd=["v"])
    batch = xtd.MapDataset(winds(), WINDOW, inputs="v").fetch(range(8))
    expected = flip(copy.deepcopy(batch))
    for other in (pickle.loads(pickle.dumps(flip)), copy.deepcopy(flip)):
        assert torch.equal(other(copy.deepcopy(batch)).x, expected.x)
        assert repr(other) == "RandomFlip('y', p=0.25, signs={'v': ['y']}, odd=['v'])"


def test_a_flipped_sample_is_drawn_where_it_lies():
    pytest.importorskip("matplotlib")
    ds = winds().isel(level=0, y=0, drop=True)[["t"]]
    batch = xtd.MapDataset(ds, {"x": 5}, inputs="t").fetch([3])
    found = xtd.RandomFlip("x", p=1)(batch)
    (line,) = found.plot(0)[0, 0].lines
    (plain,) = batch.plot(0)[0, 0].lines
    drawn, expected = (sorted(zip(*each.get_data(), strict=True)) for each in (line, plain))
    assert drawn == expected


def test_parts_that_would_not_lie_to_each_other_as_before_are_refused():
    ds = xr.Dataset({name: (("lat",), np.arange(8.0)) for name in "am"})
    window = {"lat": 8}

    def loader(x, y):
        parts = {"x": xtd.Select("a", lat=x), "y": xtd.Select("m", lat=y)}
        samples = xtd.MapDataset(ds, window, parts=parts)
        return xtd.DataLoader(samples, augment=xtd.RandomFlip("lat", p=1.0))

    with pytest.raises(ValueError, match="'lat', of which parts have other steps, 'x' 0 to 4"):
        loader(slice(0, 5), 5)
    with pytest.raises(ValueError, match=r"of which part 'x' has the steps \[0, 3, 7\]"):
        loader([0, 3, 7], slice(0, 8))
    with pytest.raises(ValueError, match=r"of which part 'y' has the steps \[3, 0, 4, 7\]"):
        loader(slice(0, 8), [3, 0, 4, 7])
    [batch] = loader([0, 2, 5, 7], slice(0, 8))
    assert batch.x.tolist() == [[7, 5, 2, 0]]
    [batch] = loader(slice(0, 8), slice(2, 6))  # around one middle
    assert batch.x.tolist() == [[7, 6, 5, 4, 3, 2, 1, 0]]
    assert batch.y.tolist() == [[5, 4, 3, 2]]


def test_a_flip_is_for_batches():
    with pytest.raises(TypeError, match="augment= of xtorch_data.DataLoader"):
        xtd.RandomFlip("lat")(xr.DataArray([1.0], dims="lat"))
