"""The command line, compared with what the library says."""

import errno
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from click.testing import CliRunner
from dask.system import CPU_COUNT
from helpers import forecast

import xtorch_data as xtd
import xtorch_data.datasets.verify
from xtorch_data.cli import Refused, main
from xtorch_data.datasets import verify
from xtorch_data.reading.recycled import codec_pipeline

WINDOWS = ["--input-dims", "time=8,y=-1", "--input-dims", "x=-1", "--input-overlap", "time=7"]
ARGUMENTS = {
    "input_dims": {"time": 8, "y": -1, "x": -1},
    "input_overlap": {"time": 7},
    "batch_size": 32,
    "shuffle": True,
}


@pytest.fixture(scope="module", params=["zarr", "consolidated", "netcdf", "group"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    ds = forecast(time=100).chunk(time=10)
    if request.param == "netcdf":
        ds.to_netcdf(folder / "weather.nc")
        return str(folder / "weather.nc"), []
    group = "inner" if request.param == "group" else None
    if request.param == "consolidated":
        ds.to_zarr(folder / "weather", zarr_format=2, consolidated=True)
    else:
        ds.to_zarr(folder / "weather", zarr_format=3, consolidated=False, group=group)
    return str(folder / "weather"), [] if group is None else ["--group", group]


def run(*arguments, code=0):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    if result.exit_code != code:
        raise AssertionError(result.output) from result.exception
    return result.output


def test_explain_is_that_of_the_dataset(store):
    path, more = store
    output = run("explain", path, *WINDOWS, *more, "--ranks", 2, "--workers", 3, "--json")
    found = json.loads(output)
    ds = forecast(time=100)
    expected = xtd.IterableDataset(ds, **ARGUMENTS).explain(2, 3)
    assert found["samples"] == expected.samples == 93
    assert found["batches_per_rank"] == list(expected.batches_per_rank)
    assert found["left_out"] == dict(expected.left_out)
    assert {variable["name"] for variable in found["variables"]} == {"a", "b"}
    text = run("explain", path, *WINDOWS, *more)
    assert text.startswith(f"93 of 93 samples from {path}")


def test_verify_says_by_its_exit_code_whether_all_is_there(store):
    path, more = store
    output = run("verify", path, *WINDOWS, *more, "--ranks", 2)
    assert output == (
        "93 samples: 0 repeated, 1 missing; 2 batches on each of 2 ranks\n"
        "1 left out because 2 ranks cannot share 93 equally; --uneven pad or keep\n"
    )
    output = run("verify", path, *WINDOWS, *more, "--ranks", 2, "--uneven", "keep", "--json")
    assert json.loads(output) == {
        "ok": True,
        "samples": 93,
        "repeated": 0,
        "missing": 0,
        "batches_per_rank": [2, 2],
        "drawn_from": None,
        "padding": 0,
        "left_out": 0,
        "known": [],
        "behind": [],
        "uncovered": [],
    }
    keep = ["--ranks", 2, "--uneven", "keep", "--batch-size", 46]
    output = run("verify", path, *WINDOWS, *more, *keep, code=1)
    assert "\nnot ok: rank 0 has 1 batch, rank 1 has 2 batches: " in output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--uneven", "pad"], "3 repeated because 4 ranks cannot share 93 equally; --uneven drop "),
        (["--in-order"], "3 repeated because 4 ranks cannot share 93 equally; --uneven drop or "),
        (["--drop-last", "--batch-size", 10], "12 left out in batches of fewer than 10, by --drop"),
        (
            ["--in-order", "--drop-last", "--batch-size", 10],
            "13 missing; 2 batches on each of 4 ranks\n13 left out in batches of fewer than 10",
        ),
    ],
)
def test_what_was_asked_for_is_said_and_no_failure(store, options, told):
    path, more = store
    assert told in run("verify", path, *WINDOWS, *more, "--ranks", 4, *options)


@pytest.mark.parametrize(("repeated", "missing"), [(1, 1), (0, 2)])
def test_what_was_not_asked_for_is_a_failure(store, monkeypatch, repeated, missing):
    path, more = store
    found = verify.Verification(93, repeated, missing, (2, 2))
    monkeypatch.setattr("xtorch_data.datasets.verify.counted", lambda *args: found)
    run("verify", path, *WINDOWS, *more, "--ranks", 2, code=1)


def test_ranks_without_samples_are_said_without_a_traceback(store):
    path, more = store
    few = ["--input-dims", "time=50,y=-1,x=-1", *more, "--ranks", 80]
    assert "2 samples cannot be shared by 80 ranks" in run("verify", path, *few, code=2)


def test_bounds_are_left_out_in_the_words_of_the_command_line(tmp_path):
    time = xr.date_range("2000", periods=20)
    ds = xr.Dataset(
        {
            "t2m": (("time", "x"), np.zeros((20, 3)), {"grid_mapping": "crs"}),
            "crs": ((), 0.0),
            "time_bnds": (("time", "bnds"), np.stack([time, time], axis=1)),
        },
        {"time": ("time", time, {"bounds": "time_bnds"}, {"units": "days since 2000-01-01"})},
    )
    ds.to_netcdf(tmp_path / "a.nc")
    output = run("verify", tmp_path / "a.nc", "--input-dims", "time=4", code=2)
    assert output.startswith("Error: variable 'time_bnds' of part 'x' has dtype datetime64")
    assert output.endswith("of which there are no tensors: give --inputs t2m\n")
    with pytest.raises(TypeError, match=r"tensors: give inputs=\['t2m'\], or make numbers of it"):
        xtd.IterableDataset(ds, {"time": 4})


def test_bench_reads_an_epoch(store):
    path, more = store
    found = json.loads(run("bench", path, *WINDOWS, *more, "--in-order", "--json"))
    assert (found["samples"], found["batches"], found["epoch"]) == (93, 3, 0)
    assert found["samples_per_second"] == pytest.approx(93 / found["seconds"])
    nbytes = 93 * 2 * 8 * 4 * 5 * 4
    assert found["gigabytes_per_second"] == pytest.approx(nbytes / found["seconds"] / 1e9)
    assert "samples/s" in run("bench", path, *WINDOWS, *more, "--inputs", "a", "--seconds", "0.1")


def test_rechunk_writes_a_copy_in_other_chunks(store, tmp_path):
    path, more = store
    target = tmp_path / "copy.zarr"
    arguments = ["rechunk", path, target, *WINDOWS, *more, "--inputs", "a", "--chunks", "time=25"]
    output = run(*arguments, "--copy-memory", "64 MiB")
    assert "a: chunks of time=" in output
    xr.testing.assert_equal(xtd.open_zarr(target).compute(), forecast(time=100))
    assert "FileExistsError" in run(*arguments, code=2)
    again = run("rechunk", path, tmp_path / "again.zarr", *arguments[3:], "--json")
    assert json.loads(again)["target"] == str(tmp_path / "again.zarr")
    for name, sizes in json.loads(again)["chunks"].items():
        variable = xtd.open_zarr(tmp_path / "again.zarr")[name]
        assert tuple(sizes.items()) == tuple(
            zip(variable.dims, variable.encoding["chunks"], strict=True)
        )


def test_rechunk_shows_no_secrets(store):
    path, more = store
    target = "nonesuch://me:geheim@host/x.zarr?sig=geheim"
    output = run("rechunk", path, target, *WINDOWS, *more, "--inputs", "a", code=2)
    assert "Error" in output and "geheim" not in output


def test_doctor_names_what_is_installed():
    found = json.loads(run("doctor", "--json", code=int(CPU_COUNT == 1)))
    assert found["versions"]["xarray"] == xr.__version__
    assert found["versions"]["xtorch_data"] == xtd.__version__
    assert (
        found["start_method_of_loader"]
        == xtd.DataLoader(
            xtd.IterableDataset(forecast(), {"time": 4}), num_workers=1
        ).multiprocessing_context.get_start_method()
    )
    assert (found["cuda"] is None) == (not torch.cuda.is_available())
    assert f"xarray {xr.__version__}" in run("doctor", code=int(CPU_COUNT == 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "/nowhere.zarr", *WINDOWS], "FileNotFoundError"),
        (["explain", "/nowhere.nc", *WINDOWS], "FileNotFoundError"),
        (["explain", "/nowhere.nc"], "--input-dims"),
        (["verify", "/nowhere.nc", "--input-dims", "time"], "DIM=STEPS, not 'time'"),
        (["bench", "/nowhere.nc", "--input-dims", "time=x"], "DIM=STEPS, not 'time=x'"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(arguments, message):
    output = run(*arguments, code=2)
    assert message in output
    assert "Traceback" not in output


def test_dims_that_do_not_fit_are_refused(store):
    path, more = store
    output = run("explain", path, "--input-dims", "height=3", *more, code=2)
    assert output.startswith("Error: --input-dims names dim 'height'")
    output = run("verify", path, *WINDOWS[:3], "x=9000", *more, code=2)
    assert output.startswith("Error: --input-dims x is 9000, larger than the dim")


def test_sizes_may_be_durations(store, tmp_path):
    path, more = store
    steps = ["--input-dims", "time=8,y=-1,x=-1", "--input-overlap", "time=7", *more, "--json"]
    times = ["--input-dims", "time=48h,y=-1,x=-1", "--input-overlap", "time=1 day 18h", *more]
    assert run("explain", path, *times, "--json") == run("explain", path, *steps)
    output = run("verify", path, "--input-dims", "time=1M", *more, code=2)
    assert output.startswith("Error: --input-dims time is '1M', which is no fixed duration")
    assert output.rstrip().endswith("labels along 'time' are 6 hours apart")
    output = run("verify", path, "--input-dims", "x=6h", *more, code=2)
    assert output.startswith("Error: --input-dims x is '6h', but dim 'x' has no labels that are")
    copies = tmp_path / "of-steps", tmp_path / "of-times"
    for copy, windows in zip(copies, (steps[:-1], times), strict=True):
        run("rechunk", path, copy, *windows)
    for name in "ab":
        one, other = (xr.open_zarr(copy)[name].encoding["chunks"] for copy in copies)
        assert one == other
    output = run("rechunk", path, tmp_path / "no", *times, "--chunks", "time=2h", code=2)
    assert "give DIM=STEPS, not 'time=2h'" in output


def test_what_fails_beyond_the_options_is_said_without_a_traceback(store, tmp_path, monkeypatch):
    path, more = store
    few = ["--input-dims", "time=50,y=-1,x=-1", *more, "--ranks", 80]
    output = run("explain", path, *few, code=2)
    assert "2 samples cannot be shared by 80 ranks" in output
    assert "Traceback" not in output

    class Odd(Exception):
        """As clients of stores have them."""

    def opened(*args, **kwargs):
        raise Odd("no credentials")

    monkeypatch.setattr(xtd, "open_zarr", opened)
    output = run("bench", "s3://some/where.zarr", *WINDOWS, code=2)
    assert output == "Error: Odd: no credentials\n"


@pytest.mark.parametrize("spelled", ["false", "False"])
def test_arguments_of_opening_are_passed_on_as_json(store, spelled):
    path, more = store
    few = ["--input-dims", "time=8", *more]
    variables = json.loads(run("explain", path, *few, "--json"))["variables"]
    assert {each["dtype"] for each in variables} == {"float32"}
    arguments = [*few, "--open", f"mask_and_scale={spelled}", "--open", 'drop_variables=["b"]']
    variables = json.loads(run("explain", path, *arguments, "--json"))["variables"]
    assert [each["name"] for each in variables] == ["a"]


def test_packed_values_stay_as_they_are_stored_if_opening_is_told_so(tmp_path):
    ds = xr.Dataset({"a": ("time", np.arange(20.0))})
    packed = {"a": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}}
    ds.to_netcdf(tmp_path / "a.nc", encoding=packed)
    ds.to_zarr(tmp_path / "a.zarr", encoding=packed, consolidated=False)
    for path in (tmp_path / "a.nc", tmp_path / "a.zarr"):
        found = []
        for more in ([], ["--open", "mask_and_scale=false"]):
            output = run("explain", path, "--input-dims", "time=8", "--json", *more)
            found += [json.loads(output)["variables"][0]["dtype"]]
        assert found[0].startswith("float")
        assert found[1] == "int16"
    engine = ["--input-dims", "time=8", "--open", "engine=h5netcdf"]
    assert run("explain", tmp_path / "a.nc", *engine).startswith("2 of 2 samples")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--open", "decode_tims=false"], "decode_tims"),
        (["--open", "decode_times"], "give KEY=VALUE, not 'decode_times'"),
        (["--open", "=3"], "give KEY=VALUE, not '=3'"),
        (["--open", "a=1", "--open", "a=2"], "a is given twice"),
        (["--engine", "zarr", "--open", "engine=h5netcdf"], "--engine zarr and --open engine=h5"),
    ],
)
def test_arguments_that_opening_does_not_take_are_named(store, given, message):
    path, more = store
    output = run("explain", path, *WINDOWS, *more, *given, code=2)
    assert message in output
    assert "Traceback" not in output


def test_a_warning_is_a_note_without_code(tmp_path, capsys):
    ds = xr.Dataset({"a": (("time", "x"), np.zeros((4000, 160 * 128), "float32"))})
    chunks = {"a": {"chunks": (4000, 128)}}
    ds.to_zarr(tmp_path / "a", encoding=chunks, compute=False, consolidated=False)
    windows = ["--input-dims", "time=1,x=-1", "--memory", "1 MiB"]
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "a"), *windows])
    out, err = capsys.readouterr()
    assert ended.value.code == 0
    assert err.startswith("Note: an epoch decodes ")
    assert err.count("\n") == 1
    assert "Note" not in out


@pytest.fixture(scope="module")
def summers(tmp_path_factory):
    """A store of ten summers, and its data."""
    ds = forecast(time=3653, y=2, x=2).assign_coords(time=xr.date_range("2000-01-01", periods=3653))
    ds = ds.isel(time=ds["time"].dt.season == "JJA")
    path = tmp_path_factory.mktemp("summers") / "summers"
    ds.to_zarr(path, consolidated=False)
    return str(path), ds


SUMMERS = ["--input-dims", "time=31,y=-1,x=-1", "--input-overlap", "time=30"]


@pytest.mark.parametrize("command", ["explain", "verify", "bench", "rechunk"])
def test_breaks_are_one_note_beside_the_output(command, summers, tmp_path, capsys):
    path, ds = summers
    target = [str(tmp_path / "copy"), "--no-verify"] if command == "rechunk" else []
    with pytest.raises(SystemExit) as ended:
        main([command, path, *target, *SUMMERS, "--json"])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    notes = [line for line in err.splitlines() if line.startswith("Note: ")]
    assert len(notes) == 1 and "9 breaks" in notes[0] and "--breaks='split'" in notes[0]
    assert "Warning" not in err
    if command == "explain":
        with pytest.warns(UserWarning, match="9 breaks"):
            expected = xtd.IterableDataset(ds, {"time": 31, "y": -1, "x": -1}, {"time": 30})
        along = expected.explain().breaks["time"]
        assert found["left_out"]["breaks"] == along.left_out == 9 * 30
        assert found["breaks"]["time"]["count"] == 9
        told = found["breaks"]["time"]["breaks"]
        assert told[0] == {
            "before": "2000-08-31", "after": "2001-06-01", "step": 92, "left_out": 30,
        }  # fmt: skip
        assert found["breaks"]["time"]["longest"][0]["steps"] == 92


@pytest.mark.parametrize(
    "given, samples",
    [
        (["split"], 10 * 62),
        (["ignore"], 920 - 30),
        (["time=split"], 10 * 62),
        (["time=ignore,y=split"], 920 - 30),
        (["time=ignore", "--breaks", "y=raise"], 920 - 30),
    ],
)
def test_a_rule_for_breaks_holds_for_all_dims_or_for_some(given, samples, summers, capsys):
    path, _ = summers
    with pytest.raises(SystemExit):
        main(["explain", path, *SUMMERS, "--json", "--breaks", *given])
    out, err = capsys.readouterr()
    assert json.loads(out)["samples"] == samples
    assert not err


@pytest.mark.parametrize(
    "given, message",
    [
        (
            ["raise"],
            "9 breaks, the first between 2000-08-31 and 2001-06-01, and --breaks='raise'",
        ),
        (["drop"], "a rule is split, raise or ignore, not 'drop'"),
        (["split,time=ignore"], "give RULE for all dims, or DIM=RULE"),
        (["height=split"], "--breaks names dim 'height', which the samples do not have"),
    ],
)
def test_rules_for_breaks_that_do_not_fit_are_refused(given, message, summers):
    path, _ = summers
    output = run("explain", path, *SUMMERS, "--breaks", *given, code=2)
    assert message in " ".join(output.split())


@pytest.fixture(scope="module")
def globe(tmp_path_factory):
    """A store of one map around the globe."""
    path = tmp_path_factory.mktemp("globe") / "globe"
    coords = {"y": np.linspace(85, -85, 18), "longitude": np.arange(0, 360, 10.0)}
    ds = xr.Dataset({"a": (("y", "longitude"), np.zeros((18, 36), "f4"))}, coords)
    ds.to_zarr(path, consolidated=False)
    return str(path)


GLOBE = ["--input-dims", "y=4,longitude=8"]


@pytest.mark.parametrize(
    "given, samples",
    [
        ([], 4 * 4),
        (["--boundary", "longitude=wrap,y=edge"], 5 * 5),
        (["--remainder", "shift"], 5 * 5),
        (["--remainder", "y=shift"], 5 * 4),
        (["--halo", "y=2"], 3 * 4),
        (["--halo", "y=0:2", "--halo", "longitude=1"], 4 * 3),
        (["--halo", "y=9", "--boundary", "y=reflect", "--remainder", "drop"], 4 * 4),
    ],
)
def test_windows_may_reach_beyond_the_ends(given, samples, globe, capsys):
    with pytest.raises(SystemExit):
        main(["explain", globe, *GLOBE, "--json", *given])
    out, err = capsys.readouterr()
    assert json.loads(out)["samples"] == samples
    assert not err


@pytest.mark.parametrize(
    "given, message",
    [
        (["--boundary", "wrap"], "give DIM=RULE, not 'wrap'"),
        (["--boundary", "y=round"], "--boundary y must be one of ['wrap', 'edge', 'reflect'"),
        (["--boundary", "x=edge"], "--boundary names dim 'x', which is not in --input-dims"),
        (["--remainder", "last"], "a rule is drop, pad or shift, not 'last'"),
        (["--remainder", "y=pad"], "--boundary y is one of ['wrap', 'edge', 'reflect'"),
        (["--halo", "y=some"], "give DIM=STEPS or DIM=BEFORE:AFTER, not 'y=some'"),
        (["--halo", "y=1:2:3"], "--halo y is a number of steps, or (before, behind)"),
        (["--halo", "y=-1"], "--halo y must not be negative"),
    ],
)
def test_rules_for_the_ends_that_do_not_fit_are_refused(given, message, globe):
    output = run("explain", globe, *GLOBE, *given, code=2)
    assert message in " ".join(output.split())


def test_steps_in_no_window_are_told_with_what_would_cover_them(globe):
    found = run("verify", globe, *GLOBE)
    assert "2 steps of 'y', 4 steps of 'longitude'; --remainder='shift', or --boundary" in found


def test_doctor_says_what_is_slow_and_why(tmp_path, monkeypatch):
    forecast(time=4).to_zarr(tmp_path / "a", consolidated=False, zarr_format=3)
    pipeline = codec_pipeline(xtd.open_zarr(tmp_path / "a", consolidated=False)["a"].variable)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=64 * 2**20))
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    found = json.loads(run("doctor", "--json", code=1))
    assert any("64.00 MiB" in text and "--shm-size" in text for text in found["findings"])
    assert found["codec_pipelines"]["others"] == zarr.config.get("codec_pipeline.path")
    assert pipeline.endswith(found["codec_pipelines"]["xtorch_data.open_zarr"].split(".")[-1])


def test_there_may_be_no_room_for_the_output_and_any_terminal(tmp_path, monkeypatch):
    forecast().to_zarr(tmp_path / "a.zarr", consolidated=False)
    arguments = ["explain", str(tmp_path / "a.zarr"), "--input-dims", "time=8"]

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("click.echo", full)
        with pytest.raises(Refused, match="cannot be written: No space left"):
            main(arguments, standalone_mode=False)
    for environment in ({"COLUMNS": "10"}, {"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C"}):
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            assert run(*arguments).startswith("140 of 140 samples")
