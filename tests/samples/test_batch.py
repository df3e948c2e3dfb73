"""What a batch can do: unpack, name its parts, travel, move, and go back to xarray."""

import copy
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import forecast, numbered
from torch.utils.data import default_collate

import xtorch_data as xtd


@pytest.fixture
def ds():
    return forecast(time=30)


@pytest.fixture
def dataset(ds):
    return xtd.IterableDataset(
        ds, {"time": 8, "x": 5}, {"time": 6}, inputs=["a", "b"], targets="a", batch_size=6,
        shuffle=True,
    )  # fmt: skip


@pytest.fixture
def batch(dataset):
    return next(iter(dataset))


def test_a_batch_is_public_and_unpacks_to_its_parts_in_order(batch):
    assert isinstance(batch, xtd.Batch)
    x, y = batch
    assert isinstance(x, torch.Tensor)
    assert torch.equal(x, batch.x)
    assert torch.equal(y, batch.y)
    assert x.shape == (6, 2, 8, 5)
    assert y.shape == (6, 8, 5)


def test_without_targets_a_batch_unpacks_to_one_part(ds):
    (x,) = next(iter(xtd.IterableDataset(ds, {"time": 8}, inputs="a", batch_size=3)))
    assert x.shape == (3, 8)


def test_parts_go_by_key_and_by_attribute(batch):
    assert torch.equal(batch["x"], batch.x)
    assert torch.equal(batch["y"], batch.y)
    with pytest.raises(KeyError, match="z"):
        batch["z"]
    with pytest.raises(AttributeError, match="z"):
        _ = batch.z
    with pytest.raises(
        KeyError, match=r"batch\.x or batch\['x'\], and of one sample batch\.x\[0\]"
    ):
        batch[0]
    assert not hasattr(batch, "static")


def test_length_is_the_number_of_samples_and_index_their_numbers(batch):
    assert len(batch) == 6
    assert batch.index.shape == (6,)
    assert batch.index.dtype == torch.int64
    assert batch.index.device.type == "cpu"


def test_a_part_cannot_take_the_name_of_something_else_that_a_batch_has():
    for name in ("index", "skipped", "repeated", "to", "to_xarray", "pin_memory", "replace"):
        with pytest.raises(ValueError, match=name):
            xtd.IterableDataset(numbered(8), {"time": 2}, parts={name: "a"})
    dataset = xtd.IterableDataset(numbered(8), {"time": 2}, parts={"arrival": "a"})
    assert next(iter(dataset)).arrival.shape == (1, 2)


def test_tensors_are_contiguous_and_can_be_written_to(batch):
    for tensor in batch:
        assert tensor.is_contiguous()
        tensor += 1
        assert tensor.numpy().flags.writeable


def test_replace_puts_a_prediction_in_the_place_of_a_part_with_the_same_labels(batch):
    prediction = batch.y * 2 + 1
    other = batch.replace(y=prediction)
    assert isinstance(other, xtd.Batch)
    assert torch.equal(other.y, prediction)
    assert torch.equal(other.x, batch.x)
    assert torch.equal(other.index, batch.index)
    assert not torch.equal(batch.y, prediction)
    labels, plain = other.to_xarray("y"), batch.to_xarray("y")
    np.testing.assert_array_equal(labels["a"].values, prediction.numpy())
    xr.testing.assert_equal(labels.drop_vars("a"), plain.drop_vars("a"))


def test_replace_takes_a_prediction_that_needs_gradients(batch):
    prediction = (batch.y.clone().requires_grad_() * 3).float()
    labels = batch.replace(y=prediction).to_xarray("y")
    np.testing.assert_array_equal(labels["a"].values, prediction.detach().numpy())


def test_replace_refuses_a_part_that_is_not_there_and_a_shape_without_labels(batch):
    with pytest.raises((KeyError, ValueError, TypeError), match="z"):
        batch.replace(z=batch.y)
    with pytest.raises(ValueError, match="part 'y' must have the 6 samples"):
        batch.replace(y=batch.y[:3])
    with pytest.raises(ValueError, match="'y' has shape"):
        batch.replace(y=batch.y[:, 0]).to_xarray("y")
    with pytest.raises(TypeError, match="part 'y' must be a tensor, not ndarray"):
        batch.replace(y=batch.y.numpy())


def test_to_xarray_of_a_part_that_is_not_there_says_so(batch):
    with pytest.raises((KeyError, ValueError), match="z"):
        batch.to_xarray("z")


def test_to_xarray_tells_the_place_of_each_sample(ds, dataset, batch):
    labels = batch.to_xarray("x")
    assert isinstance(labels, xr.Dataset)
    np.testing.assert_array_equal(labels["sample"].values, batch.index.numpy())
    assert labels["time"].dims == ("sample", "time")
    assert labels["x"].dims == ("x",) and "x" in labels.indexes  # there is one window
    assert labels["y"].dims == ("sample",)
    for place, number in enumerate(batch.index.tolist()):
        plain = ds.isel(dataset.windows[number])
        one = labels.isel(sample=place)
        np.testing.assert_array_equal(one["a"].values, plain["a"].values)
        np.testing.assert_array_equal(one["time"].values, plain["time"].values)
        assert one["y"].item() == plain["y"].item()
        np.testing.assert_array_equal(one["longitude"].values, plain["longitude"].values)


def test_labels_keep_their_attributes(ds):
    ds["a"].attrs["units"] = "K"
    ds["x"].attrs["units"] = "degrees_east"
    dataset = xtd.IterableDataset(ds, {"time": 8, "x": 5}, inputs="a")
    labels = next(iter(dataset)).to_xarray()
    assert labels["a"].attrs == {"units": "K"}
    assert labels["x"].attrs == {"units": "degrees_east"}


def assert_same(batch, other):
    assert isinstance(other, xtd.Batch)
    assert torch.equal(batch.index, other.index)
    for tensor, same in zip(batch, other, strict=True):
        assert torch.equal(tensor, same)
    xr.testing.assert_identical(batch.to_xarray(), other.to_xarray())


def test_a_pickled_batch_keeps_its_labels(batch):
    assert_same(batch, pickle.loads(pickle.dumps(batch)))


@pytest.mark.parametrize(
    "dtype",
    "u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8 ? c8 c16 bfloat16".split(),
)
def test_batches_of_every_dtype_can_be_copied_and_sent(dtype):
    special = {"dtype": torch.bfloat16} if dtype == "bfloat16" else {}
    values = np.array([0, 1, 2**7, 255]).astype("f4" if special else dtype)
    ds = xr.Dataset({"a": ("time", values)})
    (batch,) = xtd.IterableDataset(ds, {"time": 4}, **special)
    for found in (
        pickle.loads(pickle.dumps(batch)),
        copy.deepcopy(batch),
        ForkingPickler.loads(ForkingPickler.dumps(batch)),
    ):
        assert found.x.dtype == batch.x.dtype
        np.testing.assert_array_equal(found.to_xarray()["a"], values[None])
    assert batch.x.dtype == found.x.dtype  # it is left as it was


def test_a_copied_batch_is_one_of_its_own(batch):
    other = copy.deepcopy(batch)
    assert_same(batch, other)
    other.x.zero_()
    assert not torch.equal(batch.x, other.x)


def test_a_pickled_batch_does_not_carry_the_data(tmp_path):
    forecast(time=4000, names=("a",)).to_zarr(tmp_path / "a.zarr", consolidated=False)
    ds = xtd.open_zarr(tmp_path / "a.zarr", consolidated=False)
    batch = next(iter(xtd.IterableDataset(ds, {"time": 4}, batch_size=2)))
    # the data are 320 kB, the time labels 32 kB
    assert len(pickle.dumps(batch)) < 100_000


def test_to_moves_the_parts_and_keeps_labels(batch):
    for other in (batch.to("cpu"), batch.to(torch.device("cpu"), non_blocking=True)):
        assert_same(batch, other)
    meta = batch.to("meta")
    assert {tensor.device.type for tensor in meta} == {"meta"}
    assert meta.index.device.type == "cpu"
    assert meta.x.shape == batch.x.shape


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA")
def test_pin_memory_without_an_accelerator_is_an_error_and_not_silence(batch):
    with pytest.raises(RuntimeError):
        batch.pin_memory()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_pinned_and_moved_batches_keep_labels(dataset, batch):
    pinned = batch.pin_memory()
    assert all(tensor.is_pinned() for tensor in pinned)
    assert_same(batch, pinned)
    moved = pinned.to("cuda", non_blocking=True)
    assert {tensor.device.type for tensor in moved} == {"cuda"}
    assert_same(batch, moved.to("cpu"))
    xr.testing.assert_identical(moved.to_xarray(), batch.to_xarray())
    for one in xtd.DataLoader(dataset, device="cuda"):
        assert {tensor.device.type for tensor in one} == {"cuda"}


def test_a_batch_shows_its_parts_in_its_repr(batch):
    text = repr(batch)
    assert "x" in text
    assert "y" in text
    assert len(text) < 2000


# ---------------------------------------------------------------------------------------------
# Repeated samples


def padded(**options):
    """The last of 4 ranks, of 10 samples: it has the last one, and two that the first has."""
    options = {"batch_size": 3} | options
    return xtd.IterableDataset(numbered(10), {"time": 1}, rank=3, world_size=4, **options)


def test_on_one_rank_no_sample_is_repeated(batch):
    assert (batch.repeated.dtype, batch.repeated.shape) == (torch.bool, (6,))
    assert not batch.repeated.any()
    assert batch.repeated.device.type == "cpu"


@pytest.mark.parametrize("size", [3, None])
def test_which_samples_are_repeated_goes_wherever_a_batch_goes(size):
    batches = list(padded(batch_size=size))
    for again in (
        lambda batch: batch,
        copy.copy,
        copy.deepcopy,
        lambda batch: pickle.loads(pickle.dumps(batch)),
        lambda batch: ForkingPickler.loads(ForkingPickler.dumps(batch)),
        lambda batch: batch.to("meta"),
        lambda batch: batch.replace(x=batch.x + 1),
    ):
        found = list(map(again, batches))
        assert [n for batch in found for n in batch.index.reshape(-1).tolist()] == [9, 0, 1]
        marks = [mark for batch in found for mark in batch.repeated.reshape(-1).tolist()]
        assert marks == [False, True, True]
        assert all(batch.repeated.shape == batch.index.shape for batch in found)
        assert {batch.repeated.device.type for batch in found} == {"cpu"}


def test_single_samples_are_stacked_with_what_is_repeated():
    for batches in (
        [default_collate(list(padded(batch_size=None)))],
        list(torch.utils.data.DataLoader(padded(batch_size=None), batch_size=3)),
    ):
        [batch] = batches
        assert batch.repeated.tolist() == [False, True, True]


def test_labels_of_repeated_samples_are_those_of_any_samples():
    [batch] = padded()
    labels = batch.to_xarray()
    assert set(labels.variables) == {"a", "sample"}
    assert labels["sample"].values.tolist() == [9, 0, 1]


# ---------------------------------------------------------------------------------------------
# One sample at a time


def test_default_collate_stacks_samples_into_batches(ds):
    dataset = xtd.IterableDataset(ds, {"time": 8}, inputs=["a", "b"], targets="a", batch_size=None)
    samples = [sample for _, sample in zip(range(4), dataset, strict=False)]
    x, y = default_collate(samples)
    assert x.shape == (4, 2, 8)
    assert torch.equal(x, torch.stack([sample.x for sample in samples]))
    assert torch.equal(y, torch.stack([sample.y for sample in samples]))


def test_torchs_own_batching_works_on_samples(ds):
    dataset = xtd.IterableDataset(ds, {"time": 8}, inputs="a", targets="b", batch_size=None)
    whole = next(iter(xtd.IterableDataset(
        ds, {"time": 8}, inputs="a", targets="b", batch_size=60
    )))  # fmt: skip
    loader = torch.utils.data.DataLoader(dataset, batch_size=25)
    assert len(loader) == 3
    batches = list(loader)
    assert torch.equal(torch.cat([x for x, _ in batches]), whole.x)
    assert torch.equal(torch.cat([y for _, y in batches]), whole.y)


def test_a_sample_alone_goes_back_to_xarray(ds):
    dataset = xtd.IterableDataset(ds, {"time": 8, "x": 5}, inputs=["a"], batch_size=None)
    for _, sample in zip(range(6), dataset, strict=False):
        labels = sample.to_xarray()
        assert labels["sample"].item() == sample.index.item()
        plain = ds.isel(dataset.windows[sample.index.item()])
        np.testing.assert_array_equal(labels["a"].values.reshape(8, 5), plain["a"].values)
        np.testing.assert_array_equal(np.ravel(labels["time"].values), plain["time"].values)


# ---------------------------------------------------------------------------------------------
# Random numbers and names of dims


def test_random_numbers_are_those_of_the_samples(ds):
    """In every batch size and order, alone or together; every call and epoch has others."""

    def numbers(dataset, calls=2):
        found = {}
        for batch in dataset:
            for call in range(calls):
                drawn = batch.uniform(3).reshape(-1, 3)
                assert drawn.dtype == torch.float32
                for number, row in zip(batch.index.reshape(-1).tolist(), drawn, strict=True):
                    found[number, call] = tuple(row.tolist())
        return found

    def make(**options):
        return xtd.IterableDataset(ds, {"time": 8}, **{"batch_size": 4, "seed": 5} | options)

    first = numbers(make())
    assert len({value for row in first.values() for value in row}) == len(first) * 3
    assert numbers(make(batch_size=7, shuffle=True)) == first
    assert numbers(make(batch_size=None)) == first
    assert numbers(make(seed=6)) != first
    dataset = make()
    dataset.set_epoch(2)
    second = numbers(dataset)
    assert not set(second.values()) & set(first.values())
    # A MapDataset has the seed 0, and the epoch that is asked for.
    samples = xtd.MapDataset(ds, {"time": 8})
    expected = numbers(make(seed=0))
    assert numbers([samples.fetch([2, -1, 0])]).items() <= expected.items()
    dataset = make(seed=0)
    dataset.set_epoch(3)
    assert numbers([samples.fetch([5], epoch=3)]).items() <= numbers(dataset).items()


def test_a_single_sample_has_a_row_of_random_numbers(ds):
    batch = next(iter(xtd.IterableDataset(ds, {"time": 8}, batch_size=None)))
    assert batch.uniform(3).shape == (3,)


def test_batches_made_of_a_batch_never_draw_its_numbers_again(dataset, batch):
    other = next(iter(xtd.IterableDataset(forecast(time=30), {"time": 8, "x": 5}, {"time": 6},
        inputs=["a", "b"], targets="a", batch_size=6, shuffle=True)))  # fmt: skip
    expected = [other.uniform(2) for _ in range(4)]
    found = [batch.uniform(2), batch.replace(x=batch.x + 1).uniform(2)]
    found += [batch.to("cpu").uniform(2), batch.uniform(2)]
    for one, another in zip(found, expected, strict=True):
        assert torch.equal(one, another)


def test_random_numbers_travel_with_a_batch(dataset, batch):
    batch.uniform(1)
    copies = [copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))]
    copies.append(pickle.loads(bytes(ForkingPickler.dumps(batch))))
    expected = batch.uniform(2)
    for other in copies:
        assert torch.equal(other.uniform(2), expected)


def test_random_numbers_are_where_the_tensors_are(batch):
    assert batch.to("meta").uniform(2).device.type == "meta"
    for wrong, error in [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="n must be"):
            batch.uniform(wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_random_numbers_on_a_gpu_are_the_same_bits(batch):
    other = copy.deepcopy(batch).to("cuda").uniform(5)
    assert other.device.type == "cuda" and torch.equal(other.cpu(), batch.uniform(5))


def test_dims_are_those_of_to_xarray(ds, batch):
    assert batch.dims("x") == ("sample", "variable", "time", "x")
    assert batch.dims("y") == ("sample", "time", "x")
    for part in batch.keys():
        own = batch.to_xarray(part)["a"].dims
        assert tuple(dim for dim in batch.dims(part) if dim != "variable") == own
        assert len(batch.dims(part)) == batch[part].ndim
    single = next(iter(xtd.IterableDataset(ds, {"time": 8, "x": -1}, batch_size=None)))
    assert single.dims("x") == ("variable", "time", "x")
    cut = xtd.Select("a", x=2)
    batch = next(iter(xtd.IterableDataset(ds, {"x": -1, "time": 8}, parts={"point": cut})))
    assert batch.dims("point") == ("sample", "time")
    with pytest.raises(KeyError, match="no part 'y'"):
        batch.dims("y")
    with pytest.raises(ValueError, match=r"part 'point' has shape \(1,\).*\(sample, time\)"):
        batch.replace(point=batch.point[:, 0]).dims("point")


def test_a_transform_names_its_own_dims(ds):
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "x": 5}, inputs="a", transform=lambda s: s.mean("x").expand_dims("member")
    )
    assert next(iter(dataset)).dims("x") == ("sample", "member", "time")


def test_predictions_may_have_more_dims_which_are_named(ds):
    dataset = xtd.MapDataset(
        ds, {"time": 8, "x": 5}, {"time": 6}, inputs="a", targets=xtd.Select(["a", "b"], time=7)
    )
    batch = dataset.fetch([0, 3])
    members = torch.stack([batch.y, 2 * batch.y, 3 * batch.y], dim=2)
    dims = {"y": ("sample", "variable", "member", ...)}
    labeled = batch.replace(y=members, dims=dims).to_xarray("y")
    plain = batch.to_xarray("y")
    for member in range(3):
        xr.testing.assert_equal(labeled.isel(member=member), (member + 1) * plain)
    assert labeled["a"].dims == ("sample", "member", "x")
    named = batch.replace(y=members, dims={"y": ("sample", "variable", "member", "x")})
    assert named.dims("y") == ("sample", "variable", "member", "x")
    both = named.to_xarray()
    assert both["b"].dims == both["a_y"].dims == ("sample", "member", "x")
    copied = ForkingPickler.loads(ForkingPickler.dumps(named))
    assert copied.dims("y") == named.dims("y")


def test_dims_that_do_not_fit_are_refused(batch):
    y = torch.zeros(6, 2, 8, 5)
    for dims, message in [
        ({"y": ("member", "sample", "time", "x")}, "begin with"),
        ({"y": ("sample", "member", "time")}, r"has shape \(6, 2, 8, 5\), which does not fit dims"),
        ({"y": ("sample", "time", "time", "x")}, "must be different"),
        ({"x": ("sample", ...)}, "dims name part 'x', which is not replaced"),
    ]:
        with pytest.raises(ValueError, match=message):
            batch.replace(y=y, dims=dims)
    with pytest.raises(TypeError, match="sequence of names"):
        batch.replace(y=y, dims={"y": "member"})
    with pytest.raises(ValueError, match="does not fit its labels"):
        batch.replace(y=y).to_xarray("y")
