"""What samples are, said once: compared with the short form, and with plain isel."""

import copy
import inspect
import pickle
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import assert_once, forecast, samples_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from torch.utils.data import RandomSampler

import xtorch_data as xtd

WHAT = {
    "input_dims": {"time": 8, "y": -1, "x": -1},
    "input_overlap": {"time": 6},
    "inputs": xtd.Select(["a", "b"], time=slice(0, 6)),
    "targets": xtd.Select("a", time=slice(6, 8)),
}
HOW = {"batch_size": 4, "shuffle": True, "seed": 3}


def doubled(block):
    return 2 * block


def same(one, other):
    """Both yield the same batches."""
    pairs = list(zip(one, other, strict=True))
    assert pairs
    for first, second in pairs:
        assert torch.equal(first.index, second.index)
        assert all(map(torch.equal, first, second))


@pytest.fixture
def ds():
    return forecast(time=40)


# The samples of a MapDataset in epochs.


@pytest.mark.parametrize(
    "how",
    [
        {},
        HOW,
        {"batch_size": None},
        {"batch_size": 3, "drop_last": True, "rank": 1, "world_size": 2},
        {"shuffle": True, "weights": np.arange(17), "batch_size": 5},
        {"batch_size": 4, "batch_transform": doubled},
        {"batch_size": 2, "uneven": "pad", "rank": 0, "world_size": 3, "memory": "20 kB"},
    ],
)
def test_samples_said_once_are_those_of_the_short_form(ds, how):
    samples = xtd.MapDataset(ds, **WHAT)
    short = xtd.IterableDataset(ds, **WHAT, **how)
    stream = xtd.IterableDataset(samples, **how)
    assert len(stream) == len(short)
    assert repr(stream) == repr(short)
    same(short, stream)
    same(short.replace(), xtd.DataLoader(samples, **how))
    assert stream.state_dict() == short.state_dict()


def test_a_loader_of_samples_is_a_stream_and_one_with_a_sampler_is_not(ds):
    samples = xtd.MapDataset(ds, **WHAT)
    loader = xtd.DataLoader(samples, **HOW)
    assert isinstance(loader.dataset, xtd.IterableDataset)
    same(loader, xtd.IterableDataset(ds, **WHAT, **HOW))
    drawn = xtd.DataLoader(samples, batch_size=4, sampler=RandomSampler(samples))
    assert drawn.dataset is samples
    assert_once(samples_of(drawn), 17)
    ones = list(xtd.DataLoader(samples, batch_size=None))
    assert [tuple(batch.x.shape) for batch in ones] == [(2, 6, 4, 5)] * 17


def test_a_loader_goes_on_where_a_stream_of_the_same_samples_was(ds):
    loader = xtd.DataLoader(xtd.MapDataset(ds, **WHAT), **HOW)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    rest = samples_of(batches)
    for other in (xtd.IterableDataset(ds, **WHAT, **HOW), xtd.MapDataset(ds, **WHAT)):
        again = xtd.DataLoader(other, **(HOW if isinstance(other, xtd.MapDataset) else {}))
        again.load_state_dict(state)
        assert samples_of(again) == rest


def test_what_belongs_to_the_samples_is_not_taken_with_them(ds):
    samples = xtd.MapDataset(ds, **WHAT)
    for name, value in {**WHAT, "preprocess": doubled, "where": np.ones(17, bool)}.items():
        with pytest.raises(TypeError, match=rf"{name} cannot be given.*replace\({name}=…\)"):
            xtd.IterableDataset(samples, **{name: value})
    with pytest.raises(TypeError, match="'input': did you mean 'inputs'"):
        xtd.IterableDataset(ds, {"time": 8}, input="a")
    for given_, message in (
        ({"seed": 3, "sampler": [1, 2]}, "seed where indices come from a sampler"),
        ({"generator": torch.Generator()}, "generator without a sampler.*seed="),
        ({"weights": np.ones(17)}, "shuffle=True"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            xtd.DataLoader(samples, **given_)


def test_what_says_the_same_as_the_dataset_is_let_pass(ds):
    """Trainers make loaders again, with everything that torch's loader has."""
    stream = xtd.IterableDataset(ds, **WHAT, **HOW)
    given_ = {"batch_size": 4, "shuffle": True, "drop_last": False, "sampler": None}
    loader = xtd.DataLoader(stream, **given_, generator=None, collate_fn=None)
    same(loader, stream.replace())
    for wrong in ({"batch_size": 5}, {"drop_last": True}, {"sampler": [1]}, {"collate_fn": list}):
        with pytest.raises(TypeError, match=f"does not take {next(iter(wrong))}"):
            xtd.DataLoader(stream, **wrong)


def test_the_signature_shows_all_and_the_documentation_tells_all():
    found = inspect.signature(xtd.IterableDataset).parameters
    assert {"inputs", "parts", "where", "dtype", "batch_size", "uneven"} <= found.keys()
    assert not any(each.kind is each.VAR_KEYWORD for each in found.values())
    own = set(inspect.signature(xtd.MapDataset).parameters) - {"others"}
    assert own <= found.keys()


# Other options.


def test_replaced_options_are_those_of_a_dataset_made_with_them(ds):
    samples = xtd.MapDataset(ds, **WHAT)
    changes = {"preprocess": doubled, "input_overlap": {"time": 7}, "dtype": torch.float64}
    wanted = xtd.MapDataset(ds, **{**WHAT, **changes})
    for replace in (samples.replace, lambda **options: _copy_replace(samples, **options)):
        found = replace(**changes)
        assert type(found) is xtd.MapDataset
        assert len(found) == len(wanted) == 33
        for number in (0, 17, 32):
            assert all(map(torch.equal, found[number], wanted[number]))
    assert samples[0][0].dtype == torch.float32  # as it was
    stream = xtd.IterableDataset(ds, **WHAT, **HOW).replace(**changes, batch_size=7)
    same(stream, xtd.IterableDataset(ds, **{**WHAT, **changes}, **{**HOW, "batch_size": 7}))


def _copy_replace(dataset, **options):
    if hasattr(copy, "replace"):  # Python 3.13
        return copy.replace(dataset, **options)
    return dataset.__replace__(**options)


def test_defaults_that_depend_on_others_follow_them(ds):
    stream = xtd.IterableDataset(ds, **WHAT)
    for shuffle in (True, False):
        plan = stream.replace(shuffle=shuffle).plan
        assert plan.uneven == xtd.IterableDataset(ds, **WHAT, shuffle=shuffle).plan.uneven
    assert stream.replace(shuffle=True, uneven="keep").replace(shuffle=False).plan.uneven == "keep"


def test_other_data_and_other_epochs(ds):
    samples = xtd.MapDataset(ds, **WHAT)
    found = samples.replace(ds=ds + 1)
    assert torch.equal(found[3][0], samples[3][0] + 1)
    stream = xtd.IterableDataset(samples, **HOW)
    list(stream)
    again = stream.replace()
    assert (stream.epoch, again.epoch) == (1, 0)
    same(again, xtd.IterableDataset(samples, **HOW))


def test_options_that_there_are_not_are_refused(ds):
    samples = xtd.MapDataset(ds, **WHAT)
    with pytest.raises(TypeError, match="'bogus'"):
        xtd.IterableDataset(samples, bogus=None)
    with pytest.raises(TypeError, match="'batchsize': did you mean 'batch_size'"):
        xtd.IterableDataset(samples).replace(batchsize=3)
    with pytest.raises(TypeError, match="does not take batch_size, which belongs to epochs"):
        samples.replace(batch_size=3)
    with pytest.raises(ValueError, match="input_overlap.*must be less"):
        samples.replace(input_overlap={"time": 8})


class Negative(xtd.MapDataset):
    """A dataset whose samples by number are not those of a stream."""

    def fetch(self, indices, epoch=None):
        batch = super().fetch(indices, epoch)
        return batch.replace(x=-batch.x)


def test_samples_that_a_subclass_makes_otherwise_have_no_stream(ds):
    samples = Negative(ds, **WHAT)
    for made in (xtd.IterableDataset, lambda samples: xtd.DataLoader(samples, batch_size=2)):
        with pytest.raises(TypeError, match="Negative overrides fetch.*give a sampler"):
            made(samples)
    [batch, *_] = xtd.DataLoader(samples, batch_size=2, sampler=range(17))
    plain = xtd.MapDataset(ds, **WHAT)
    assert torch.equal(batch.x[1], -plain[1][0])


class Named(xtd.MapDataset):
    """A dataset of a user, with an argument and an attribute of its own."""

    def __init__(self, name, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.name = name


def test_datasets_of_users_stay_what_they_are(ds):
    named = Named("era", ds, **WHAT)
    found = named.replace(preprocess=doubled)
    assert type(found) is Named and found.name == "era"
    train, _ = xtd.split(found, "time", fractions=(0.5, 0.5))
    assert type(train) is Named and train.name == "era"
    assert torch.equal(train[1][0], 2 * named[1][0])


# Parts of a split.


@st.composite
def cuts(draw):
    length = draw(st.integers(20, 60))
    at = sorted(draw(st.sets(st.integers(6, length - 6), min_size=1, max_size=2)))
    return length, at, draw(st.integers(1, 4)), draw(st.integers(1, 3))


@given(case=cuts(), reverse=st.booleans())
@examples(30)
def test_parts_keep_their_labels_whatever_is_replaced(case, reverse):
    """An independent answer: windows of which all labels lie in the part."""
    length, at, size, stride = case
    days = xr.date_range("2001-01-01", periods=length)
    ds = xr.Dataset({"v": ("time", np.arange(float(length)))}, {"time": days})
    if reverse:
        ds = ds.isel(time=slice(None, None, -1))
    labels = ds["time"].values
    begins = [0, *at, length]
    parts = xtd.split(
        xtd.MapDataset(ds, {"time": 1}, inputs="v"), "time", at=[labels[i] for i in at]
    )
    # Other windows of the same data, and the same windows of data that goes on before and behind.
    more = xr.date_range("2000-12-20", periods=length + 30)
    longer = xr.Dataset({"v": ("time", np.arange(-12.0, length + 18))}, {"time": more})
    if reverse:
        longer = longer.isel(time=slice(None, None, -1))
    for place, part in enumerate(parts):
        own = set(labels[begins[place] : begins[place + 1]])
        if size > len(own):
            continue
        options = {"input_dims": {"time": size}, "input_overlap": {"time": max(0, size - stride)}}
        for data in (ds, longer):
            step = size - options["input_overlap"]["time"]
            wanted = [
                start
                for start in range(0, data.sizes["time"] - size + 1, step)
                if set(data["time"].values[start : start + size]) <= own
            ]
            if not wanted:
                with pytest.raises(ValueError, match="no sample of the part"):
                    part.replace(ds=data, **options)
                continue
            found = part.replace(ds=data, **options)
            assert [found.windows[i]["time"].start for i in range(len(found))] == wanted
            for i, start in enumerate(wanted[:3]):
                np.testing.assert_array_equal(found[i][0], data["v"][start : start + size])


def test_a_part_of_a_part_of_two_dims(ds):
    first, _ = xtd.split(xtd.MapDataset(ds, **WHAT), "time", fractions=(0.7, 0.3))
    second, _ = xtd.split(first, "time", fractions=(0.6, 0.4))
    found = second.replace(preprocess=doubled)
    assert len(found) == len(second)
    for number in range(len(found)):
        assert torch.equal(found[number][0], 2 * second[number][0])
        assert found.windows[number] == second.windows[number]


def test_parts_of_data_without_labels_are_found_by_position_or_not_at_all():
    ds = xr.Dataset({"v": ("time", np.arange(30.0))})
    train, val = xtd.split(
        xtd.MapDataset(ds, {"time": 2}, inputs="v"), "time", fractions=(0.5, 0.5)
    )
    found = val.replace(ds=ds + 100)
    assert [float(found[i][0][0]) for i in range(3)] == [116, 118, 120]
    with pytest.raises(ValueError, match="found again by its labels along 'time'"):
        train.replace(ds=xr.Dataset({"v": ("time", np.arange(31.0))}))
    with pytest.raises(ValueError, match="found again by its labels"):
        train.replace(ds=ds.assign_coords(time=np.arange(30)))


def test_a_part_that_is_not_in_other_data_is_told(ds):
    train, _ = xtd.split(xtd.MapDataset(ds, **WHAT), "time", fractions=(0.7, 0.3))
    with pytest.raises(ValueError, match="no sample of the part.*2000-01-01.*in the new data"):
        train.replace(ds=ds.assign_coords(time=ds.time + np.timedelta64(3650, "D")))


def test_copies_go_their_own_way_and_keep_what_they_are_given_as(ds):
    stream = xtd.IterableDataset(xtd.MapDataset(ds, **WHAT), **HOW)
    list(stream)
    made = copy.copy(stream)
    assert made.epoch == 1
    next(iter(made))
    assert (stream.epoch, made.epoch) == (1, 2)
    for again in (pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream)):
        assert torch.equal(
            next(iter(again.replace(preprocess=doubled))).x,
            2 * next(iter(stream.replace())).x,
        )


def test_labels_of_another_precision_are_the_same_and_others_are_told():
    degrees = np.arange(-9, 9.01, 0.1)
    values = {"v": ("lat", np.arange(181.0))}
    single = xr.Dataset(values, {"lat": degrees.astype("f4")})
    double = xr.Dataset(values, {"lat": degrees})
    parts = xtd.split(xtd.MapDataset(single, {"lat": 1}), "lat", fractions=(0.3, 0.4, 0.3))
    for part in parts:
        found = part.replace(ds=double)
        assert [float(x) for x, *_ in found] == [float(x) for x, *_ in part]
        assert len(found.replace(ds=single.isel(lat=slice(None, None, -1)))) == len(part)
    east = xr.Dataset({"v": ("lon", np.arange(36.0))}, {"lon": np.arange(36) * 10.0})
    west = east.assign_coords(lon=(east.lon + 180) % 360 - 180).sortby("lon")
    _, part, _ = xtd.split(xtd.MapDataset(east, {"lon": 1}), "lon", at=[90.0, 270.0])
    with pytest.raises(ValueError, match="260.0 along 'lon', which is -100.0 in the new data"):
        part.replace(ds=west)
    days = xr.date_range("2001-01-01", periods=181)
    dated = xr.Dataset({"v": ("lat", np.arange(181.0))}, {"lat": days})
    train, _ = xtd.split(xtd.MapDataset(dated, {"lat": 1}), "lat", fractions=(0.5, 0.5))
    with pytest.raises(ValueError, match="2001-01-01.* along 'lat', cannot be found among labels"):
        train.replace(ds=dated.assign_coords(lat=np.arange(181)))


def test_normalization_is_fitted_to_a_part_and_given_to_all(ds):
    """The way of the guide: define once, split, fit, stream."""
    samples = xtd.MapDataset(ds, **WHAT)
    train, val = xtd.split(samples, "time", fractions=(0.6, 0.4))
    normalize = xtd.Normalize.fit(train)
    train, val = train.replace(preprocess=normalize), val.replace(preprocess=normalize)
    steps = sorted({s for w in map(train.windows.__getitem__, range(len(train))) for s in
                    range(w["time"].start, w["time"].stop)})  # fmt: skip
    mean, std = ds["a"][steps].values.mean(), ds["a"][steps].values.std()
    for batch in xtd.DataLoader(val, batch_size=3):
        for x, number in zip(batch.x, batch.index.tolist(), strict=True):
            window = ds["a"][val.windows[number]["time"]].values
            np.testing.assert_allclose(x[0], ((window - mean) / std)[:6], rtol=1e-4, atol=1e-5)


# Which samples there are.


def test_samples_by_number_count_those_that_where_keeps(ds):
    keep = np.random.default_rng(2).random(17) > 0.5
    samples = xtd.MapDataset(ds, **WHAT, where=keep)
    every = xtd.MapDataset(ds, **WHAT)
    numbers = np.flatnonzero(keep)
    assert len(samples) == len(numbers)
    for position, number in enumerate(numbers):
        assert all(map(torch.equal, samples[position], every[number]))
    assert torch.equal(samples[-1][0], every[numbers[-1]][0])
    batch = samples.fetch([2, 0, 2])
    assert batch.index.tolist() == numbers[[2, 0, 2]].tolist()
    with pytest.raises(IndexError, match=f"out of range for {len(numbers)} samples"):
        samples[len(numbers)]
    np.testing.assert_array_equal(samples.where.values.ravel(), keep)
    assert samples_of(xtd.DataLoader(samples, batch_size=2)) == numbers.tolist()
    sampler = xtd.ChunkSampler(samples, seed=1)
    assert_once(sampler, len(numbers))
    chosen = xtd.DataLoader(samples, batch_size=3, sampler=sampler)
    assert sorted(samples_of(chosen)) == numbers.tolist()
    again = pickle.loads(pickle.dumps(samples))
    assert torch.equal(again[1][0], samples[1][0])


@given(data=st.data())
@examples(30)
def test_positions_and_numbers_of_tables_along_any_axes(data):
    """Compared with flatnonzero of the table, written out."""
    sizes = {"t": 7, "y": 3, "x": 4}
    ds = xr.Dataset({"v": (tuple(sizes), np.arange(84.0).reshape(7, 3, 4))})
    dims = data.draw(st.lists(st.sampled_from(["t", "y", "x"]), min_size=1, unique=True))
    shape = [sizes[dim] for dim in dims]
    bits = data.draw(st.lists(st.booleans(), min_size=int(np.prod(shape)), max_size=84))
    mask = xr.DataArray(np.reshape(bits[: int(np.prod(shape))], shape), dims=dims)
    whole = mask.broadcast_like(ds["v"]).transpose(*sizes).values
    numbers = np.flatnonzero(whole)
    if not len(numbers):
        with pytest.raises(ValueError, match="where leaves none"):
            xtd.MapDataset(ds, {}, inputs="v", where=mask)
        return
    samples = xtd.MapDataset(ds, {}, inputs="v", where=mask)
    assert len(samples) == len(numbers)
    order = np.random.default_rng(0).permutation(len(numbers))
    batch = samples.fetch(order)
    np.testing.assert_array_equal(batch.index, numbers[order])
    np.testing.assert_array_equal(batch.x, numbers[order])
    kept = samples.plan.kept
    np.testing.assert_array_equal(kept.positions(numbers[order]), order)
    assert_once(xtd.ChunkSampler(samples, seed=4), len(numbers))


def test_a_function_is_asked_once_and_its_answers_go_along(ds):
    asked = []

    def wanted(window):
        asked.append(1)
        return bool(window["a"].isel(time=0, y=0, x=0) > 0)

    samples = xtd.MapDataset(ds, **WHAT, where=wanted)
    assert len(asked) == 17
    numbers = [n for n in range(17) if ds["a"][2 * n, 0, 0] > 0]
    for made in (samples.replace(preprocess=doubled), samples.replace(memory="1 MiB")):
        assert [int(made.fetch([i]).index) for i in range(len(made))] == numbers
    stream = xtd.IterableDataset(samples, **HOW)
    assert sorted(samples_of(stream)) == numbers
    train, val = xtd.split(samples, "time", fractions=(0.5, 0.5))
    for part in (train, val):
        starts = {part.windows[int(part.fetch([i]).index)]["time"].start for i in range(len(part))}
        assert starts <= {2 * n for n in numbers}
        assert len(part.replace(dtype="f8")) == len(part)
    assert len(asked) == 17
    with pytest.raises(ValueError, match="where was given for 17 windows.*33 others"):
        samples.replace(input_overlap={"time": 7})
    assert len(samples.replace(input_overlap={"time": 7}, where=None)) == 33
    with pytest.raises(ValueError, match="where was given for other data"):
        samples.replace(ds=-ds)
    assert len(asked) == 17


def test_weights_go_along_and_are_refused_for_other_windows(ds):
    weights = np.where(np.arange(17) % 3 == 0, 1.0, 0.0)
    stream = xtd.IterableDataset(ds, **WHAT, shuffle=True, weights=weights, batch_size=4)
    wanted = {n for n in range(17) if n % 3 == 0}
    for made in (stream.replace(preprocess=doubled), stream.replace(seed=8)):
        assert set(samples_of(made)) <= wanted
    with pytest.raises(ValueError, match="weights was given for 17 windows"):
        stream.replace(input_overlap={"time": 7})
    with pytest.raises(ValueError, match="weights was given for other targets"):
        stream.replace(targets=xtd.Select("a", time=slice(0, 2)))
    with pytest.raises(ValueError, match="weights was given for other data"):
        stream.replace(ds=ds + 1)
    with pytest.raises(ValueError, match="needs shuffle=True"):
        stream.replace(shuffle=False)
    assert_once(samples_of(stream.replace(weights=None, shuffle=False)), 17)


def test_masks_of_a_part_are_of_its_own_numbers(ds):
    train, _ = xtd.split(xtd.MapDataset(ds, **WHAT), "time", fractions=(0.6, 0.4))
    keep = np.arange(len(train)) % 2 == 0
    found = train.replace(where=keep)
    assert len(found) == keep.sum()
    for position, number in enumerate(np.flatnonzero(keep)):
        assert torch.equal(found[position][0], train[int(number)][0])


# Functions.


def test_a_function_for_any_part(ds):
    parts = {"x": ["a", "b"], "mask": xtd.Select("a", time=0), "y": "b"}
    functions = {"mask": lambda sample: sample > 0, "y": doubled}
    samples = xtd.MapDataset(ds, {"time": 8, "y": -1, "x": -1}, parts=parts, transform=functions)
    plain = xtd.MapDataset(ds, {"time": 8, "y": -1, "x": -1}, parts=parts)
    for number in (0, 3):
        x, mask, y = samples[number]
        assert torch.equal(x, plain[number][0])
        assert torch.equal(mask, plain[number][1] > 0) and mask.dtype == torch.bool
        assert torch.equal(y, 2 * plain[number][2])
    [batch] = xtd.DataLoader(samples, batch_size=99)
    assert batch["mask"].dtype == torch.bool


@pytest.mark.parametrize(
    "returned", [lambda s: s.values, lambda s: None, lambda s: torch.tensor(s.values)]
)
def test_functions_that_lose_the_labels_are_refused_at_once(ds, returned):
    how = {"input_dims": {"time": 8, "y": -1, "x": -1}, "inputs": "a"}
    message = "transform returns an xarray object, as it is given, not"
    with pytest.raises(TypeError, match=message):
        xtd.MapDataset(ds, **how, transform=returned)
    with pytest.raises(TypeError, match=f"batch_{message}"):
        xtd.IterableDataset(ds, **how, batch_transform=lambda batch: returned(batch["a"]))


def test_functions_for_parts_that_there_are_not_are_refused(ds):
    def made(**given_):
        return xtd.MapDataset(ds, {"time": 8}, inputs="a", targets="b", **given_)

    with pytest.raises(ValueError, match=r"transform\['z'\] works on part 'z', but.*'x', 'y'"):
        made(transform={"z": doubled})
    with pytest.raises(ValueError, match="'y' has two functions"):
        made(transform={"y": doubled}, target_transform=doubled)
    with pytest.raises(TypeError, match=r"transform\['x'\] must be a function"):
        made(transform={"x": 3})
    both = made(transform={"x": doubled}, target_transform=doubled)
    assert torch.equal(both[0][1], 2 * made()[0][1])


def east(block):
    return block.assign_coords(x=block.x + 180.0)


def test_labels_that_preprocess_changes_are_told(ds):
    message = "preprocess changes the coordinate 'x'.*labels of the data.*'x': …"
    with pytest.warns(UserWarning, match=message) as told:
        xtd.MapDataset(ds, **WHAT, preprocess=east)
    assert told[0].filename == __file__
    xtd.MapDataset(east(ds), **WHAT, preprocess=doubled)


def warned(make):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        made = make()
    return made, [str(each.message) for each in found]


def test_what_is_made_of_a_dataset_warns_of_what_is_new_alone(ds, tmp_path):
    kept = str(tmp_path)
    samples, first = warned(lambda: xtd.MapDataset(ds, **WHAT, memory="60 B", cache=kept))
    assert len(first) == 2 and kept in first[0] and "more than memory=60 B" in first[1]
    train, _ = xtd.split(samples, "time", fractions=(0.7, 0.3))

    def more():
        small = train.replace(preprocess=doubled)
        return small, xtd.DataLoader(small, batch_size=2, shuffle=True, memory="60 B", cache=kept)

    (small, loader), found = warned(more)
    assert not found
    assert not warned(lambda: loader.dataset.replace(seed=3, shuffle=False))[1]
    assert not warned(lambda: copy.copy(loader.dataset).replace(batch_size=4))[1]
    [less] = warned(lambda: small.replace(memory="50 B"))[1]
    assert "more than memory=50 B" in less
    assert len(warned(lambda: xtd.MapDataset(ds, **WHAT, memory="60 B", cache=kept))[1]) == 2


def test_labels_that_another_preprocess_changes_are_told_again(ds):
    samples, first = warned(lambda: xtd.MapDataset(ds, **WHAT, preprocess=east))
    again = warned(lambda: samples.replace(targets=None))[1]
    other = warned(lambda: samples.replace(preprocess=lambda block: east(block)))[1]
    assert len(first) == len(other) == 1 and not again


# Epochs.


def test_an_epoch_that_is_set_of_the_samples_is_that_of_their_streams(ds):
    samples = xtd.MapDataset(ds, **WHAT)
    wanted = xtd.IterableDataset(ds, **WHAT, **HOW)
    orders = [samples_of(wanted) for _ in range(4)]
    samples.set_epoch(3)  # before there is a stream
    assert samples_of(xtd.DataLoader(samples, **HOW)) == orders[3]
    for loader in (
        xtd.DataLoader(samples, **HOW),
        xtd.IterableDataset(samples, **HOW),
        xtd.IterableDataset(samples).replace(**HOW),
    ):
        samples.set_epoch(2)
        assert samples_of(loader) == orders[2]
        assert samples_of(loader) == orders[3]
        for _ in range(2):
            samples.set_epoch(1)
            assert loader.state_dict()["epoch"] == 1
            assert samples_of(loader) == orders[1]


def test_random_numbers_of_a_sample_are_the_same_by_number_and_in_a_stream(ds):
    def noisy(sample, rng):
        return sample + rng.normal()

    samples = xtd.MapDataset(ds, **WHAT, transform=noisy)
    samples.set_epoch(0)
    for batch in xtd.DataLoader(samples, batch_size=4):
        for x, number in zip(batch.x, batch.index.tolist(), strict=True):
            assert torch.equal(x, samples[number][0])
