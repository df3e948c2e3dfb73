import gc
import importlib.metadata
import math
import os
import pickle
import random
import sys
import threading
import zipfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import psutil
import pytest
import torch
import torch.utils.data
import xarray as xr
from engines_data import assert_samples, made, open_npy, open_pt, saved

import xtorch_data as xtd
from xtorch_data.report.stats import stats_of
from xtorch_data.sources.engines import NpyBackendEntrypoint, PtBackendEntrypoint


def test_an_installed_package_gives_xarray_its_engines(tmp_path):
    found = {each.name: each for each in importlib.metadata.entry_points(group="xarray.backends")}
    assert found["npy"].load() is NpyBackendEntrypoint
    assert found["pt"].load() is PtBackendEntrypoint
    np.save(tmp_path / "a.npy", np.arange(3))
    torch.save(torch.arange(3), tmp_path / "b.pt")
    for engine in ("npy", None):
        assert xr.open_dataset(tmp_path / "a.npy", engine=engine)["a"].values.tolist() == [0, 1, 2]
    for engine in ("pt", None):
        assert xr.open_dataset(tmp_path / "b.pt", engine=engine)["b"].values.tolist() == [0, 1, 2]
    assert xr.open_dataset(tmp_path, engine="pt")["sample"].values.tolist() == ["b"]


def test_no_module_hides_a_public_name():
    """Names are looked up when they are used: a module that is imported first would be found."""
    modules = {path.stem for path in Path(xtd.__file__).parent.iterdir()}
    assert not modules & set(xtd.__all__)


# .npy


# Of a lazy slice that runs backwards, xarray 2025.8 takes steps in an array from the wrong places.
BACKWARDS = tuple(map(int, xr.__version__.split(".")[:2])) > (2025, 8)


def indexers(size):
    bound = st.integers(-size, size) | st.none()
    if not BACKWARDS:
        return st.integers(0, size - 1) | st.builds(slice, bound, bound, st.sampled_from([None, 2]))
    return st.one_of(
        st.integers(-size, size - 1),
        st.slices(size),
        st.builds(slice, bound, bound, st.sampled_from([None, 1, 2, -1, -2])),
        st.lists(st.integers(-size, size - 1), max_size=5).map(lambda at: np.array(at, int)),
    )


@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=20)
def test_any_part_of_a_file_is_what_numpy_has_there(data, tmp_path):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=0, max_size=3)))
    dtype = data.draw(st.sampled_from(["f4", ">f8", "f2", ">i2", "?", "c8", "U3", "M8[ns]", "u1"]))
    order = data.draw(st.sampled_from("CF"))
    values = np.arange(math.prod(shape)).reshape(shape).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    opened = open_npy(tmp_path / "a.npy")["a"]
    expected = xr.DataArray(values)
    assert (opened.dtype, opened.dims) == (values.dtype, expected.dims)
    for _ in range(2):  # slices of lazy slices, too
        where = {dim: data.draw(indexers(size)) for dim, size in opened.sizes.items() if size}
        opened, expected = opened.isel(where), expected.isel(where)
    assert not opened.variable._in_memory
    np.testing.assert_array_equal(opened.values, expected.values)
    if opened.ndim:
        assert opened.values.flags.writeable and type(opened.values) is np.ndarray


def test_a_file_larger_than_memory_opens_and_no_more_is_read_than_asked_for(tmp_path):
    path, shape = tmp_path / "large.npy", (2**28, 256)
    large = np.lib.format.open_memmap(path, "w+", "f4", shape)  # 256 GiB of which nothing is there
    large[2**27, :3] = 1, 2, 3
    del large
    ds = open_npy(path, dims=("time", "station"))
    assert dict(ds.sizes) == {"time": 2**28, "station": 256}
    assert ds.encoding["source"] == str(path)
    assert ds["large"][2**27, :4].values.tolist() == [1, 2, 3, 0]
    ends = ds["large"].isel(time=[0, 2**27, -1], station=[2, 0]).values
    assert ends.tolist() == [[0, 0], [3, 1], [0, 0]]


def test_nothing_is_held_open_or_mapped(tmp_path):
    np.save(tmp_path / "held.npy", np.ones((100, 100)))
    torch.save(torch.ones(100, 100), tmp_path / "held.pt")
    process = psutil.Process()
    gc.collect()  # what other tests have left open
    before = process.num_fds()
    opened = [open_npy(tmp_path / "held.npy"), open_pt(tmp_path / "held.pt")]
    for ds in opened:
        assert ds["held"][3:5].values.shape == (2, 100)
        assert len(pickle.dumps(ds)) < 5000
    gc.collect()
    assert process.num_fds() == before
    assert "held.npy" not in Path("/proc/self/maps").read_text()


def test_the_fields_of_records_are_variables(tmp_path):
    records = np.zeros(5, [("open", "f4"), ("volume", ">i8"), ("bid", "f8", (2,))])
    records["open"], records["volume"] = np.arange(5) / 2, np.arange(5)
    records["bid"] = np.arange(10).reshape(5, 2)
    np.save(tmp_path / "prices.npy", records)
    ds = open_npy(tmp_path / "prices.npy", dims="time", drop_variables="volume")
    assert {name: each.dims for name, each in ds.items()} == {
        "open": ("time",),
        "bid": ("time", "bid_dim_0"),
    }
    np.testing.assert_array_equal(ds["open"][::-2].values, records["open"][::-2])
    np.testing.assert_array_equal(ds["bid"][1:3, 1].values, records["bid"][1:3, 1])


def test_dates_in_coarse_units_become_seconds_and_an_index_if_named_as_their_dim(tmp_path):
    days = np.arange("2020-01-01", "2020-01-11", dtype="M8[D]")
    np.save(tmp_path / "time.npy", days)
    ds = open_npy(tmp_path / "time.npy", dims=["time"])
    assert ds.indexes["time"].dtype == "M8[s]"
    assert (ds["time"].values == days).all()


def objects(path):
    np.save(path, np.array([{}, None], object), allow_pickle=True)


def cut_off(path):
    np.save(path, np.zeros(1000))
    os.truncate(path, 4000)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (objects, "Python objects.*pickle"),
        (cut_off, "not a whole .npy file"),
        (lambda path: path.write_bytes(b""), "not a whole .npy file"),
        (lambda path: path.write_bytes(b"PK and more than that"), "not a whole .npy file"),
        (lambda path: np.save(path, np.zeros(3, "V2")), "raw bytes"),
        (lambda path: np.save(path, np.zeros(3, [("a", [("b", "i4")])])), "records inside records"),
    ],
)
def test_what_is_no_plain_array_is_refused_by_name(write, message, tmp_path):
    write(tmp_path / "bad.npy")
    with pytest.raises(ValueError, match=f"(?s)bad.npy.*{message}"):
        open_npy(tmp_path / "bad.npy")


HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (7, 3)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 3)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': 'ab'}",
    "{'descr': '<f8', 'fortran_order': 'x', 'shape': (2, 3)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (2,)}",
    "{'descr': 'garbage', 'fortran_order': False, 'shape': (2, 3)}",
    "{'descr': '<f8'}",
    "{'descr",
    "(" * 5000,
    "__import__('os').remove('bad.npy')",
    "\x00\xff",
)


def test_a_header_that_lies_is_refused_by_name(tmp_path):
    path = tmp_path / "bad.npy"
    for header in HEADERS:
        data = f"{header}\n".encode("latin1")
        length = len(data).to_bytes(2, "little")
        path.write_bytes(b"\x93NUMPY\x01\x00" + length + data + bytes(48))
        with pytest.raises(ValueError, match=r"bad\.npy") as info:
            open_npy(path)
        assert type(info.value) is ValueError, header


def test_arguments_that_do_not_fit_a_file_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 3)))
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    np.save(tmp_path / "r.npy", np.zeros(3, [("b", "i4")]))
    for dims in ("time", ("time",), ("x", "x"), ("x", "y", "z")):
        with pytest.raises(ValueError, match=r"2 different dims .*a.npy.*\(4, 3\)"):
            open_npy(tmp_path / "a.npy", dims=dims)
    with pytest.raises(ValueError, match="archive"):
        open_npy(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="records of"):
        open_npy(tmp_path / "r.npy", name="x")
    with pytest.raises(FileNotFoundError, match="none.npy"):
        open_npy(tmp_path / "none.npy")
    with pytest.raises(ValueError, match="local"):
        open_npy("s3://bucket/a.npy")
    with pytest.raises(TypeError, match="paths"):
        open_npy(b"\x93NUMPY")
    assert list(open_npy(tmp_path / "a.npy", name="b")) == ["b"]


def test_a_file_that_changes_while_it_is_in_use_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(1000))
    ds = open_npy(tmp_path / "a.npy")
    os.truncate(tmp_path / "a.npy", 5000)
    with pytest.raises(ValueError, match=r"a.npy was cut off"):
        ds["a"][:3].load()
    np.save(tmp_path / "a.npy", np.zeros(1000, "i8"))
    with pytest.raises(ValueError, match=r"a.npy holds another array"):
        ds["a"][:3].load()


# .pt


def test_a_folder_of_dicts_is_a_dataset_with_a_variable_for_each_entry(tmp_path):
    xs = [torch.randn(3, 5) for _ in range(4)]
    folder = saved(
        tmp_path / "train",
        [{"x": x.requires_grad_(), "y": n, "weight": n / 2} for n, x in enumerate(xs)],
    )
    (folder / "notes.txt").write_text("no sample")
    ds = open_pt(folder, dims={"x": ("channel", "step")})
    assert ds["sample"].values.tolist() == ["s000", "s001", "s002", "s003"]
    assert {name: (each.dims, str(each.dtype)) for name, each in ds.items()} == {
        "x": (("sample", "channel", "step"), "float32"),
        "y": (("sample",), "int64"),
        "weight": (("sample",), "float64"),
    }
    assert not any(each.variable._in_memory for each in ds.values())
    expected = torch.stack(xs).detach().numpy()
    np.testing.assert_array_equal(ds["x"].values, expected)
    part = ds["x"].isel(sample=[3, 0, 3], channel=slice(None, None, -2), step=[4, 1])
    np.testing.assert_array_equal(part.values, expected[[3, 0, 3], ::-2][..., [4, 1]])
    np.testing.assert_array_equal(ds["x"].sel(sample="s002")[1].values, expected[2, 1])
    assert ds["x"][0:0].values.shape == (0, 3, 5)
    assert ds["y"].values.tolist() == [0, 1, 2, 3]
    assert ds["weight"].values.tolist() == [0, 0.5, 1, 1.5]
    assert open_pt(folder, chunks={})["x"].chunks == ((1, 1, 1, 1), (3,), (5,))


def test_a_pattern_or_a_list_of_files_serves_as_well(tmp_path):
    for label in ("cat", "dog"):
        saved(tmp_path / label, [torch.full((2,), n) for n in range(3)])
    both = open_pt(tmp_path / "*" / "*.pt")
    assert both["sample"].values.tolist() == [
        f"{label}/s00{n}" for label in ("cat", "dog") for n in range(3)
    ]
    assert list(both) == [tmp_path.name]
    some = open_pt([tmp_path / "dog" / "s002.pt", tmp_path / "dog" / "s000.pt"], name="x")
    assert some["sample"].values.tolist() == ["s002", "s000"]
    assert some["x"].values.tolist() == [[2, 2], [0, 0]]


@pytest.mark.parametrize("old", [False, True])
def test_one_file_is_a_dataset_without_the_dim_of_samples(old, tmp_path):
    values = torch.arange(12.0).reshape(4, 3)
    new = {"_use_new_zipfile_serialization": not old}
    torch.save(values, tmp_path / "a.pt", **new)
    torch.save({"x": values, "y": values[:, 0] > 3}, tmp_path / "b.pt", **new)
    one = open_pt(tmp_path / "a.pt", dims=("time", "x"))
    assert one["a"].dims == ("time", "x")
    np.testing.assert_array_equal(one["a"][1:3, [2, 0]].values, values[1:3, [2, 0]])
    two = open_pt(tmp_path / "b.pt", dims={"x": ("time", "x_"), "y": ["time"]})
    assert two["y"].values.tolist() == [False, False, True, True]


@pytest.mark.parametrize(
    ("dtype", "in_memory"),
    [
        (torch.bfloat16, "float32"),
        (torch.float8_e4m3fn, "float32"),
        (torch.float16, "float16"),
        (torch.float64, "float64"),
        (torch.complex64, "complex64"),
        (torch.uint8, "uint8"),
        (torch.bool, "bool"),
    ],
)
def test_tensors_of_any_dtype_keep_their_values(dtype, in_memory, tmp_path):
    values = torch.linspace(0, 4, 12).reshape(3, 4).to(dtype)
    ds = open_pt(saved(tmp_path / "x", [values, values.T.contiguous().T]))
    assert ds["x"].dtype == in_memory
    expected = values.to(torch.float32) if in_memory == "float32" else values
    np.testing.assert_array_equal(ds["x"].values, np.stack([expected.numpy()] * 2))
    np.testing.assert_array_equal(ds["x"][1, ::-1, [2, 0]].values, expected.numpy()[::-1, [2, 0]])


def test_views_and_conjugates_are_the_values_they_show(tmp_path):
    turned = torch.complex(torch.arange(3.0), torch.ones(3)).conj()
    ds = open_pt(saved(tmp_path / "x", [{"a": turned, "b": torch.arange(10)[::3].flip(0)}]))
    assert ds["a"].values.tolist() == [[0 - 1j, 1 - 1j, 2 - 1j]]
    assert ds["b"].values.tolist() == [[9, 6, 3, 0]]


def test_tensors_that_share_memory_or_have_none_are_those_of_torch(tmp_path):
    base = torch.arange(60.0).reshape(6, 10)
    content = {
        "part": base[2:, ::3],
        "turned": base.T,
        "repeated": torch.tensor([[1.5], [2.5]]).expand(2, 4),
        "bits": torch.linspace(0, 1, 8).bfloat16().reshape(4, 2).T,
        "nothing": base[:0],
        "number": 7,
    }
    torch.save(content, tmp_path / "a.pt")
    ds = open_pt(tmp_path / "a.pt")
    for name, tensor in content.items():
        expected = torch.as_tensor(tensor)
        expected = expected.float() if name == "bits" else expected
        np.testing.assert_array_equal(ds[name].values, expected.numpy())


@pytest.mark.parametrize("how", ["as it was", "the other way round", "no order", "compressed"])
def test_a_file_of_another_machine_or_tool_has_the_values_that_torch_loads(tmp_path, how):
    torch.save({"a": torch.arange(300.0), "b": torch.arange(7)}, tmp_path / "written.pt")
    kind = zipfile.ZIP_DEFLATED if how == "compressed" else zipfile.ZIP_STORED
    path = tmp_path / "a.pt"
    with (
        zipfile.ZipFile(tmp_path / "written.pt") as written,
        zipfile.ZipFile(path, "w", kind) as new,
    ):
        for record in written.namelist():
            content = written.read(record)
            if record.endswith("/byteorder"):
                if how == "no order":
                    continue
                if how == "the other way round":
                    content = b"big" if sys.byteorder == "little" else b"little"
            new.writestr(record, content)
    ds, expected = open_pt(path), torch.load(path, weights_only=True)
    for name in ("a", "b"):
        np.testing.assert_array_equal(ds[name].values, expected[name].numpy())
    assert (ds["a"].values.tolist() == list(range(300))) == (how != "the other way round")


class Thing:
    pass


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants:UserWarning")  # torch's
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list"),
        ({"x": torch.ones(2), "id": "a"}, "'id' is a str.*drop_variables"),
        ({"x": {"y": torch.ones(2)}}, "'x' is a dict"),
        ({1: torch.ones(2)}, "entry 1"),
        ({}, "no tensor"),
        ({"x": torch.ones(2).to_sparse()}, "'x' is sparse"),
        (Thing(), "could run any code"),
        ({"x": np.ones(2)}, "could run any code"),
    ],
)
def test_what_is_no_sample_is_refused_by_name(content, message, tmp_path):
    with pytest.raises(ValueError, match=f"(?s)s000.pt.*{message}"):
        open_pt(saved(tmp_path / "bad", [content]))


def test_a_damaged_file_of_tensors_is_refused_by_name(tmp_path):
    path, rng = tmp_path / "a.pt", random.Random(3)
    content = {"x": torch.arange(6.0), "y": torch.ones(2)}
    torch.save(content, path)
    zipped = path.read_bytes()
    torch.save(content, path, _use_new_zipfile_serialization=False)
    refused = 0
    for whole in (zipped, path.read_bytes()):
        for _ in range(60):
            damaged = bytearray(whole[: rng.choice([len(whole), rng.randrange(len(whole))])])
            for _ in range(3):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            path.write_bytes(damaged)
            try:
                open_pt(path).load()
            except ValueError as error:
                assert type(error) is ValueError
                assert "a.pt" in str(error)
                refused += 1
    assert refused > 60


def test_entries_that_hold_no_tensor_can_be_left_out(tmp_path):
    folder = saved(tmp_path / "x", [{"x": torch.ones(2), "id": "a"}, {"x": torch.ones(2)}])
    ds = open_pt(folder, drop_variables="id")
    assert list(ds) == ["x"] and ds["x"].values.sum() == 4


def test_arguments_that_do_not_fit_a_folder_are_refused(tmp_path):
    dicts = saved(tmp_path / "dicts", [{"x": torch.ones(2, 3)}])
    plain = saved(tmp_path / "plain", [torch.ones(2, 3)])
    for folder, dims in [
        (dicts, ("a", "b")),
        (dicts, {"z": ("a",)}),
        (dicts, {"x": ("a",)}),
        (plain, {"x": ("a", "b")}),
        (plain, ("a",)),
    ]:
        with pytest.raises(ValueError, match="dims"):
            open_pt(folder, dims=dims)
    with pytest.raises(ValueError, match="name='a'"):
        open_pt(dicts, name="a")
    for options in ({"name": "sample"}, {"dims": ("sample", "b")}):
        with pytest.raises(ValueError, match="'sample' is the dim along the files"):
            open_pt(plain, **options)
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "none", tmp_path / "no*.pt", []):
        with pytest.raises(FileNotFoundError):
            open_pt(nothing)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"x": torch.ones(4)}, r"'x' is torch.float32 of shape \(4,\)"),
        ({"x": torch.ones(3, dtype=torch.float64)}, "'x' is torch.float64"),
        ({"z": torch.ones(3)}, r"entries \['z'\]"),
        ({"x": torch.ones(3), "z": torch.ones(3)}, r"entries \['x', 'z'\]"),
        (torch.ones(3), "entries"),
        (None, "No such file"),
        (b"", "s001.pt"),
        (b"not a file of torch", "s001.pt"),
    ],
)
def test_a_file_unlike_the_first_or_missing_is_named_when_it_is_read(sample, message, tmp_path):
    folder = saved(tmp_path / "x", [{"x": torch.ones(3)}, sample, {"x": torch.ones(3)}])
    if isinstance(sample, bytes):
        (folder / "s001.pt").write_bytes(sample)
    ds = open_pt(folder)
    if sample is None:
        (folder / "s001.pt").unlink()
    assert ds["x"][::2].values.shape == (2, 3)
    with pytest.raises((ValueError, FileNotFoundError), match="s001.pt") as found:
        ds["x"].load()
    assert found.match(message)
    dataset = xtd.IterableDataset(ds, {"x_dim_0": -1}, inputs="x")
    with pytest.raises(xtd.ReadError, match="s001.pt"):
        list(dataset)
    dataset = xtd.IterableDataset(ds, {"x_dim_0": -1}, inputs="x", on_error="skip")
    seen = [batch.to_xarray()["sample"].values.tolist() for batch in dataset]
    assert {name for names in seen for name in names} == {"s000", "s002"}
    assert dataset.stats().skipped == 1


# In training


def test_a_file_is_loaded_once_an_epoch_for_all_its_entries(tmp_path, monkeypatch):
    folder = saved(tmp_path / "x", [{"x": torch.ones(3), "y": n} for n in range(40)])
    ds = open_pt(folder)
    loaded, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kw: loaded.append(args) or load(*args, **kw))
    dataset = xtd.IterableDataset(
        ds, {"x_dim_0": -1}, inputs="x", targets=xtd.Select("y", x_dim_0=0), shuffle=True
    )
    for _ in range(2):
        loaded.clear()
        labels = [int(y) for _, y in dataset]
        assert sorted(labels) == list(range(40))
        # What is still mapped from before need not be loaded again.
        assert len(loaded) <= 40
    ds.load()
    assert len(set(loaded)) == len(loaded)


def test_both_engines_serve_samples_by_number(tmp_path):
    ds, values = made(tmp_path)
    dataset = xtd.MapDataset(
        ds,
        {"feature": -1, "which": -1},
        inputs=xtd.Select("features", which=0),
        targets=xtd.Select("labels", feature=0),
        memory="2 kB",
    )
    loader = xtd.DataLoader(
        dataset,
        batch_size=7,
        shuffle=True,
    )
    assert_samples(((*batch, batch.index) for batch in loader), values)


@pytest.mark.parametrize(
    ("where", "reads"),
    [
        ({}, False),
        ({"time": slice(-5, None, -3), "x": slice(1, 4)}, False),
        ({"time": [9, 3, 3, 70, 41, 0]}, True),
    ],
)
def test_samples_by_number_are_taken_from_the_map_itself(where, reads, tmp_path):
    """A read would copy tens of kilobytes around each; the file would be read many times over."""
    values = np.arange(400).reshape(100, 4).astype(">i4")
    np.save(tmp_path / "v.npy", values)
    ds = open_npy(tmp_path / "v.npy", dims=("time", "x")).isel(where)
    expected = xr.DataArray(values, dims=("time", "x")).isel(where)
    dataset = xtd.MapDataset(ds, {"time": 2, "x": -1}, {"time": 1}, inputs="v")
    for x, n in [(dataset[n][0], n) for n in (3, 0, len(dataset) - 1)]:
        np.testing.assert_array_equal(x.numpy(), expected.isel(time=slice(n, n + 2)).values)
    assert (stats_of(dataset._inside.recorder).bytes_read > 0) == reads
    assert len(pickle.dumps(dataset)) < 10_000


def test_any_number_of_threads_may_read(tmp_path):
    ds, values = made(tmp_path)
    wrong = []

    def read(first):
        for n in [*range(first, 60), *range(first)]:
            if not (ds["labels"][n].values == [n, -n]).all():
                wrong.append(n)
            if not (ds["features"][n].values == values[n]).all():
                wrong.append(n)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(0, 60, 15)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
