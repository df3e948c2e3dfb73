"""The command line, compared with what the library says."""

import json
import subprocess
import sys

import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from helpers import forecast

import xtorch_data as xtd
from xtorch_data.cli import main
from xtorch_data.suggest import usable_cores

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
    output = run("verify", path, *WINDOWS, *more, "--ranks", 2, code=1)
    assert output == "93 samples: 0 repeated, 1 missing; 2 batches on each of 2 ranks\n"
    output = run("verify", path, *WINDOWS, *more, "--ranks", 2, "--uneven", "keep", "--json")
    assert json.loads(output) == {
        "samples": 93,
        "repeated": 0,
        "missing": 0,
        "batches_per_rank": [2, 2],
        "drawn_from": None,
    }


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


def test_doctor_names_what_is_installed():
    found = json.loads(run("doctor", "--json", code=int(usable_cores() == 1)))
    assert found["versions"]["xarray"] == xr.__version__
    assert found["versions"]["xtorch_data"] == xtd.__version__
    assert (found["cuda"] is None) == (not torch.cuda.is_available())
    assert f"xarray {xr.__version__}" in run("doctor", code=int(usable_cores() == 1))


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
    assert "input_dims names dim 'height'" in output


def test_it_is_a_module_too():
    command = [sys.executable, "-m", "xtorch_data", "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == f"xtorch-data, version {xtd.__version__}\n"
