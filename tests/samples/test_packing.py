"""Packed values that are decoded on the device are what xarray decodes, bit for bit."""

import copy
import functools
import itertools
import pickle

import dask.array
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import xarray as xr
from devices import DEVICES, SlowStream, assert_same, bits_of
from strategies import EXAMPLES, MORE

import xtorch_data as xtd
from xtorch_data.device.streams import Streams
from xtorch_data.reading import recycled as lazy
from xtorch_data.samples.packing import packed

GATHERS = ["host", "device"]

SIZES = {"time": 23, "y": 3, "x": 4}
F4, F8 = np.float32, np.float64
# What a file says of values: their dtype there, and attributes of the CF conventions.
PACKINGS = {
    "int16": ("i2", {"scale_factor": F8(0.01), "add_offset": F8(273.15), "_FillValue": -32768}),
    "int16 in float32": ("i2", {"scale_factor": F4(0.01), "add_offset": F4(273.15)}),
    "int16 by a scale alone": ("i2", {"scale_factor": F4(0.3), "_FillValue": 7}),
    "int16 with an offset alone": ("i2", {"add_offset": F8(1e6), "missing_value": -1}),
    "int16 turned over": ("i2", {"scale_factor": F8(-0.7), "_FillValue": 32767}),
    "int16 of both dtypes": ("i2", {"scale_factor": F4(0.3), "add_offset": F8(0.1)}),
    "int16 with a floating fill": ("i2", {"scale_factor": F8(0.1), "_FillValue": F4(-9999.0)}),
    "integers with a fill value": ("i2", {"_FillValue": 3}),
    "int8": ("i1", {"scale_factor": F8(0.5), "_FillValue": -128}),
    "uint8": ("u1", {"scale_factor": F8(1 / 3), "add_offset": F8(-3), "_FillValue": 255}),
    "uint16": ("u2", {"scale_factor": F8(0.01), "_FillValue": 65535}),
    "bytes as unsigned": ("i1", {"_Unsigned": "true", "scale_factor": F8(0.1), "_FillValue": -1}),
    "int16 as unsigned": ("i2", {"_Unsigned": "true", "scale_factor": F4(0.1), "_FillValue": -1}),
    "uint8 as signed": ("u1", {"_Unsigned": "false", "scale_factor": F8(0.1)}),
    "big-endian": (">i2", {"scale_factor": F8(0.01), "add_offset": F8(1), "_FillValue": -5}),
}  # fmt: skip
# These go as they are, or as xarray decodes them.
OTHERS = {
    "int32": ("i4", {"scale_factor": F8(0.01), "_FillValue": -9999}),
    "float32": ("f4", {}),
    "float64 with a fill value": ("f8", {"_FillValue": 5.0}),
    "integers": ("i2", {}),
}
ALL = PACKINGS | OTHERS


@functools.cache
def raw():
    """Every packing, with values of the whole range and some that are missing."""
    rng, variables = np.random.default_rng(0), {}
    for name, (dtype, attrs) in ALL.items():
        dtype = np.dtype(dtype)
        if dtype.kind == "f":
            values = rng.normal(size=[*SIZES.values()]).astype(dtype)
        else:
            least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
            values = rng.integers(least, most, [*SIZES.values()], endpoint=True)
            values.flat[:4] = least, most, 0, 3
        values[2:4, 0] = attrs.get("_FillValue", attrs.get("missing_value", values[2, 0, 0]))
        variables[name] = tuple(SIZES), values.astype(dtype), attrs
    return xr.Dataset(variables)


@functools.cache
def decoded():
    """The same, lazily decoded by xarray."""
    return xr.decode_cf(raw())


WINDOW, OVERLAP = {"time": 4, "x": -1}, {"time": 2}


def loaders(device="cpu", window=WINDOW, overlap=OVERLAP, ds=None, gather="host", **options):
    """A loader that decodes on the device, and a dataset that decodes on the host."""
    data = decoded() if ds is None else ds
    made = [xtd.IterableDataset(data, window, overlap, **options) for _ in range(2)]
    return xtd.DataLoader(made[0], device=device, decode="device", gather=gather), made[1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PACKINGS)
def test_values_are_those_that_xarray_decodes(name, device):
    whole = decoded()[name].values
    expected = np.stack(
        [whole[time : time + 4, y] for y in range(3) for time in range(0, 23 - 4 + 1, 2)]
    )
    ways = [*itertools.product(GATHERS, [torch.float32, torch.float64, torch.float16])]
    for gather, dtype in ways if MORE > 1 else ways[::2]:
        loader, _ = loaders(device, inputs=name, batch_size=5, gather=gather, dtype=dtype)
        found = torch.cat([batch.x for batch in loader])
        assert found.dtype == dtype
        with np.errstate(over="ignore"):  # float16 ends at 65504
            values = torch.from_numpy(expected.astype(torch.empty(0, dtype=dtype).numpy().dtype))
        assert torch.equal(bits_of(found), bits_of(values))
        assert name == "int16 in float32" or found.isnan().any() == np.isnan(expected).any()


NUMBERS = st.floats(-1e4, 1e4, width=32).filter(bool)


@st.composite
def encodings(draw):
    """A dtype, and what a file may say of its values, in the dtypes that files have."""
    dtype = np.dtype(draw(st.sampled_from(["i1", "u1", "i2", "u2", ">i2", ">u2"])))
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    attrs = {}
    for name in ("scale_factor", "add_offset"):
        kind = draw(st.sampled_from([None, np.float32, np.float64, float]))
        if kind is not None:
            attrs[name] = kind(draw(NUMBERS))
    whole = draw(st.integers(least, most))
    for name in ("_FillValue", "missing_value"):
        kind = draw(st.sampled_from([None, dtype.newbyteorder("=").type, float, int, np.float32]))
        if kind is not None:
            attrs[name] = kind(whole)
    if draw(st.booleans()):
        attrs["_Unsigned"] = draw(st.sampled_from(["true", "false"]))
    hypothesis.assume(attrs.keys() - {"_Unsigned"})
    return dtype, attrs, draw(st.sampled_from([torch.float32, torch.float64, torch.float16]))


@hypothesis.settings(max_examples=EXAMPLES)
@hypothesis.given(encodings())
def test_whatever_a_file_says_of_its_values_they_are_those_that_xarray_decodes(encoding):
    dtype, attrs, floating = encoding
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = np.linspace(least, most, 999).astype(dtype)
    fill = attrs.get("_FillValue", attrs.get("missing_value"))
    if fill is not None:
        values[:3] = fill
    try:
        ds = xr.decode_cf(xr.Dataset({"v": ("x", values, attrs)}))
        expected = ds["v"].values
    except (KeyError, OverflowError, ValueError):  # of a fill value that is no such integer
        hypothesis.reject()
    hypothesis.assume(expected.dtype.kind == "f")
    dataset = xtd.IterableDataset(ds, {"x": -1}, inputs="v", dtype=floating)
    [batch] = xtd.DataLoader(dataset, device="cpu", decode="device")
    with np.errstate(over="ignore"):
        expected = torch.from_numpy(expected.astype(batch.x.numpy().dtype))
    assert torch.equal(bits_of(batch.x), bits_of(expected))


PARTS = [
    {"inputs": [*PACKINGS], "targets": "int16"},
    {"inputs": [*ALL], "targets": xtd.Select(["int8", "uint16"], time=slice(1, None, 2))},
    {"inputs": xtd.Select(["int16", "int8", "int16 in float32"], time=0), "targets": "integers"},
    {"inputs": xtd.Select([*ALL], time=[0, 1, 3]), "targets": xtd.Select("int16", time=[3, 0, 1])},
    {"parts": {"a": ["float32", "int16"], "b": "int32", "c": "int16", "d": ["uint16"]}},
]
HOW = [
    {"batch_size": 6},
    {"batch_size": 6, "shuffle": True, "memory": "30 kB", "seed": 3},
    {"batch_size": None, "shuffle": True},
    {"batch_size": 5, "cache": True, "drop_last": True, "dtype": torch.bfloat16},
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gather", GATHERS)
@pytest.mark.parametrize("parts", range(len(PARTS)))
def test_batches_are_those_of_the_host(parts, gather, device):
    ways = [*itertools.product(HOW, [OVERLAP, {"time": -1}])]
    for how, overlap in ways if MORE > 1 else ways[::3] + ways[4:5]:
        loader, expected = loaders(device, overlap=overlap, gather=gather, **PARTS[parts], **how)
        for _ in range(2):  # the second epoch may come from what is kept
            assert_same(loader, expected)


@pytest.mark.parametrize("gather", GATHERS)
def test_a_loader_can_be_copied_and_sent(gather):
    loader, expected = loaders(inputs=["int16"], batch_size=4, gather=gather)
    for made in (copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        assert_same(made, expected)
    assert_same(loader, expected)
    again = pickle.loads(pickle.dumps(loader))  # without the streams of this process
    assert not again._transfer._devices
    assert_same(again, expected)


def test_copies_that_are_late_are_decoded_when_they_are_there(monkeypatch):
    monkeypatch.setattr(Streams, "of", staticmethod(lambda device: SlowStream(0)))
    options = {"inputs": ["int16", "uint8"], "batch_size": 4, "shuffle": True}
    assert_same(*loaders(**options))


def test_variables_that_lack_dims_are_broadcast():
    ds = decoded().assign(
        static=decoded()["int8"].isel(time=0, drop=True),
        series=decoded()["uint8"].isel(y=0, x=0, drop=True),
    )
    for gather, inputs in itertools.product(
        GATHERS, [["int16", "static", "series"], ["static", "series"], "static"]
    ):
        loader, expected = loaders(ds=ds, inputs=inputs, batch_size=4, gather=gather)
        assert_same(loader, expected)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores as they are found: chunked, compressed, cut lazily."""
    folder, found = tmp_path_factory.mktemp("packed"), {}
    names = ["int16", "int16 in float32", "uint8", "big-endian", "float32"]
    ds = raw()[names].rename({name: name.replace(" ", "_") for name in names})
    ds.to_netcdf(folder / "a.nc", encoding={name: {"chunksizes": (5, 3, 4)} for name in ds})
    for version in (2, 3):
        ds.to_zarr(
            folder / f"{version}.zarr", zarr_format=version, consolidated=False,
            encoding={name: {"chunks": (5, 3, 4)} for name in ds},
        )  # fmt: skip
        found[f"zarr {version}"] = xtd.open_zarr(folder / f"{version}.zarr", consolidated=False)
    found["netcdf4"] = xr.open_dataset(folder / "a.nc", engine="netcdf4")
    yield found
    for each in found.values():
        each.close()


@pytest.mark.parametrize("store", ["zarr 2", "zarr 3", "netcdf4"])
@pytest.mark.parametrize("gather", GATHERS)
def test_stores_are_read_packed(stores, store, gather, monkeypatch):
    monkeypatch.setattr(lazy, "PIECE", 7)
    for ds in (stores[store], stores[store].isel(time=slice(2, 20), y=[0, 2])):
        loader, expected = loaders(
            ds=ds, gather=gather, batch_size=4, shuffle=True, targets="int16"
        )
        assert_same(loader, expected)
        ours, theirs = loader.dataset.stats(), expected.stats()
        assert ours.bytes_read < theirs.bytes_read * 0.8
        ways = {path for path in theirs.paths if path.startswith("read")}
        assert ways == {path for path in ours.paths if path.startswith("read")}


def test_an_epoch_goes_on_where_it_was_left_however_it_is_decoded():
    """The order is the same, so that a state serves both."""
    options = {"inputs": ["int16", "int8"], "batch_size": 3, "shuffle": True, "memory": "3 kB"}
    whole = [batch.index.tolist() for batch in loaders(**options)[1]]
    for first, then in itertools.permutations([0, 1]):
        left, gone_on = loaders(**options)[first], loaders(**options)[then]
        taken = [batch.index.tolist() for _, batch in zip(range(4), left, strict=False)]
        gone_on.load_state_dict(left.state_dict())
        rest = [batch.index.tolist() for batch in gone_on]
        assert taken + rest == whole
        # and the epoch after it is a whole one
        assert len([*gone_on]) == len(whole)


@pytest.mark.parametrize("gather", GATHERS)
def test_blocks_take_half_of_the_memory(gather):
    ds = decoded()[["int16"]]
    loader, expected = loaders(ds=ds, gather=gather, shuffle=True, memory="4 kB")
    packed_plan = expected.plan.held_as(loader._transfer.packed.samples.layouts)
    assert expected.plan.stage_nbytes > 0
    assert 0.4 < packed_plan.stage_nbytes / expected.plan.stage_nbytes < 0.6
    stages = [*expected.plan.stages(0, expected.plan.intervals(0, 0, 1))]
    assert len(stages) > 1
    for load in (load for stage in stages for load in stage.loads):
        assert 2 * packed_plan.nbytes(load) == expected.plan.nbytes(load)


def test_chunks_that_cannot_be_read_are_left_out_as_on_the_host(tmp_path):
    raw()[["int16", "int8"]].to_zarr(
        tmp_path, zarr_format=3, consolidated=False, encoding={"int16": {"chunks": (5, 3, 4)}}
    )
    chunk = tmp_path / "int16" / "c" / "2" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    for gather in GATHERS:
        ds = xtd.open_zarr(tmp_path, consolidated=False)
        loader, expected = loaders(ds=ds, gather=gather, batch_size=4, on_error="skip", retries=0)
        expected = list(expected)
        assert any(batch.skipped for batch in expected)
        assert_same(loader, expected)


def identity(block):
    return block


def test_what_cannot_be_decoded_there_is_refused_when_the_loader_is_made(tmp_path):
    def loader(ds=None, made=xtd.IterableDataset, options={}, **kwargs):  # noqa: B006
        dataset = made(decoded() if ds is None else ds, WINDOW, **options)
        return xtd.DataLoader(dataset, **{"device": "cpu", "decode": "device", **kwargs})

    for argument in ("preprocess", "transform", "batch_transform"):
        with pytest.raises(ValueError, match=rf"decode='device'\): {argument} takes"):
            loader(options={argument: identity})
    with pytest.raises(ValueError, match="num_workers=0"):
        loader(num_workers=2)
    with pytest.raises(ValueError, match="decode='device'.*MapDataset"):
        loader(made=xtd.MapDataset, sampler=[0, 1])
    with pytest.raises(ValueError, match="decode='device'.*folder"):
        loader(options={"cache": tmp_path})
    with pytest.raises(ValueError, match="give device=, too"):
        loader(device=None)
    with pytest.raises(ValueError, match="decode must be"):
        loader(decode="gpu")
    for ds, reason in [
        (decoded().compute(), "is in memory"),
        (decoded().chunk(), "is decoded in the graph of dask"),
        (decoded()[["int32"]], "is stored as int32, not as integers of 8 or 16 bits"),
        (decoded()[["float64 with a fill value"]], "is stored as float64"),
    ]:
        with pytest.raises(ValueError, match=f"no variable is packed: .*{reason}"):
            loader(ds=ds)


def test_what_is_not_packed_is_decoded_as_it_is_read():
    ds = decoded()
    ds = ds.assign(lazily=ds["int16"].chunk(time=5), held=ds["int8"].compute())
    names = ["int16", "lazily", "held", "int32", "float32"]
    found = packed(xtd.IterableDataset(ds, WINDOW, inputs=names)._inside.definition)
    assert [(group.part.variables, len(group.packings)) for group in found.groups["x"]] == [
        (("int16",), 1),
        (("lazily", "held", "int32", "float32"), 0),
    ]
    for gather in GATHERS:
        assert_same(*loaders(ds=ds, inputs=names, gather=gather, batch_size=4))
    assert isinstance(ds["lazily"].data, dask.array.Array)
