"""Data on a web server, through fsspec: credentials, and a server that does not answer."""

import base64
import json
import logging
import signal
import subprocess
import sys
import traceback
import warnings

import fsspec
import numpy as np
import pytest
import xarray as xr
from web import WebServer

import xtorch_data as xtd
from xtorch_data.common import retry

aiohttp = pytest.importorskip("aiohttp")

SECRET = "GeHeImGeHeIm"
VALUES = np.random.default_rng(0).normal(size=(40, 3000)).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store and a NetCDF file of the same values."""
    path = tmp_path_factory.mktemp("web")
    ds = xr.Dataset({"a": (("time", "x"), VALUES)})
    encoding = {"a": {"chunks": (4, 3000), "compressors": None}}
    with warnings.catch_warnings():  # not in the specification yet, but HTTP cannot list
        warnings.filterwarnings("ignore", "Consolidated metadata")
        ds.to_zarr(path / "d.zarr", encoding=encoding, consolidated=True, zarr_format=3)
    ds.to_netcdf(path / "d.nc", engine="h5netcdf", encoding={"a": {"chunksizes": (4, 3000)}})
    return path


# Who asks

BASIC = "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode()
WAYS = {
    "userinfo": (lambda host: f"http://me:{SECRET}@{host}/d.zarr", {}),
    "header": (
        lambda host: f"http://{host}/d.zarr",
        {"headers": {"Authorization": f"Bearer {SECRET}"}},
    ),
    "header of the client": (
        lambda host: f"http://{host}/d.zarr",
        {"client_kwargs": {"headers": {"Authorization": f"Bearer {SECRET}"}}},
    ),
    "query": (lambda host: f"http://{host}/d.nc?sig={SECRET}&token={SECRET}", {}),
}  # fmt: skip


def is_known(path, headers):
    """Whether a request brings the secret, in the one way or the other."""
    return headers.get("Authorization") in (BASIC, f"Bearer {SECRET}") or SECRET in path


@pytest.mark.parametrize("way", WAYS)
def test_credentials_work_and_nothing_shows_them(folder, way, caplog, capsys, recwarn, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)
    caplog.set_level(logging.DEBUG, "xtorch_data")
    address, options = WAYS[way]
    said, refusing = [], []
    with WebServer(folder, lambda *request: is_known(*request) and not refusing) as server:
        with pytest.raises(aiohttp.ClientResponseError, match="403"):  # it does ask
            xtd.open_zarr(f"http://{server.host}/d.zarr")
        given = address(server.host)
        if way == "query":
            file = fsspec.open(given, block_size=4096, cache_type="none").open()
            ds = xr.open_dataset(file, engine="h5netcdf", cache=False)
            ds.encoding["source"] = given
        else:
            ds = xtd.open_zarr(given, storage_options=options)
        arguments = {"inputs": "a", "shuffle": True, "memory": "200 kB"}
        dataset = xtd.IterableDataset(ds, {"time": 4, "x": -1}, **arguments)
        for batch in dataset:
            for number, x in zip(batch.index.tolist(), batch.x, strict=True):
                np.testing.assert_array_equal(x, VALUES[4 * number : 4 * number + 4])
        numbered = xtd.MapDataset(ds, {"time": 4, "x": -1}, inputs="a")
        np.testing.assert_array_equal(numbered[3][0], VALUES[12:16])
        for each in (dataset, numbered, dataset.explain(), dataset.stats(), batch):
            said += [repr(each), str(each), getattr(each, "_repr_html_", str)()]
        said += [json.dumps(each.state_dict()) for each in (dataset, xtd.DataLoader(dataset))]
        refusing.append(True)
        for on_error in ("raise", "skip"):
            with pytest.raises(xtd.ReadError) as caught:
                list(xtd.IterableDataset(ds, {"time": 4, "x": -1}, on_error=on_error, **arguments))
            said += traceback.format_exception(caught.value)
        with pytest.raises(xtd.ReadError) as caught:
            xtd.MapDataset(ds, {"time": 4, "x": -1}, inputs="a", memory="1 kB")[5]
        said += [*traceback.format_exception(caught.value), dataset.stats().__repr__()]
        if way != "query":
            with pytest.raises(Exception, match="403") as refused:
                xtd.open_zarr(given, storage_options=options)
            said += traceback.format_exception(refused.value)
        refusing.clear()
        ds.close()
    assert server.host in "".join(said)
    said += [caplog.text, *capsys.readouterr(), *(str(each.message) for each in recwarn)]
    for text in said:
        assert SECRET not in text and BASIC not in text, text


# A server that does not answer

CLIENT = """
import sys, fsspec, xarray as xr, xtorch_data as xtd

how, kind, host = sys.argv[1:]
if how == "netcdf":
    file = fsspec.open(f"http://{host}/d.nc", block_size=4096, cache_type="none").open()
    ds = xr.open_dataset(file, engine="h5netcdf", cache=False)
else:
    ds = xr.open_zarr(f"http://{host}/d.zarr")
dataset = getattr(xtd, kind)(ds, {"time": 4, "x": -1}, inputs="a")
print("made", flush=True)
sys.stdin.readline()
dataset[0] if kind == "MapDataset" else list(dataset)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "kind"), [("dask", "IterableDataset"), ("netcdf", "MapDataset")])
def test_ctrl_c_ends_a_process_that_waits_for_a_server(folder, how, kind):
    with WebServer(folder) as server:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLIENT, how, kind, server.host],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout.readline() == "made\n"
            server.silent.set()
            process.stdin.write("\n")
            process.stdin.flush()
            assert server.asked.wait(60)
            process.send_signal(signal.SIGINT)
            # Two seconds where nothing else runs; the client would wait for minutes.
            _, said = process.communicate(timeout=100)
        finally:
            process.kill()
            process.communicate()
    assert process.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
