"""Copies by a cluster, and by a process that is killed."""

import asyncio
import signal
import textwrap
import warnings

import numpy as np
import pytest
import xarray as xr
from helpers import Script
from rechunk_data import dataset_over, fields

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED
from xtorch_data.writing.rechunk_run import Runner
from xtorch_data.writing.zarr_target import Target


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store of a chunk for each step."""
    path = tmp_path_factory.mktemp("source") / "fields.zarr"
    ds = fields()
    chunks = {
        name: {**each.encoding, "chunks": (1, *each.shape[1:])}
        for name, each in ds.variables.items()
        if each.ndim == 3
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Zarr V3 specification")
        ds.to_zarr(path, encoding=chunks, consolidated=False, zarr_format=2)
    return path


@pytest.fixture(scope="module")
def source(path):
    return xr.open_zarr(path, chunks=None, consolidated=False)


@pytest.mark.slow
def test_a_cluster_copies_for_its_client(source, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    write, wrote = Target.write, set()

    def write_there(self, task, variable):
        wrote.add(distributed.get_worker().address)  # raises where there is none
        write(self, task, variable)

    monkeypatch.setattr(Target, "write", write_there)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
    ):
        ds = source[["t2m", "packed"]].drop_vars("angle")
        for name, data in {"lazy": ds, "dask": ds.chunk(time=40)}.items():
            copy = xtd.rechunk(data, dataset_over(ds), tmp_path / name, memory="4 MiB")
            xr.testing.assert_identical(copy.compute(), ds.compute())
        # In a task, which would wait for others without giving its thread back, it is not used.
        assert (
            cluster and distributed.get_client().submit(lambda: Runner()._client is None).result()
        )
    assert len(wrote) == 1


def test_a_client_on_the_loop_of_the_user_is_left_alone(source, tmp_path):
    distributed = pytest.importorskip("distributed")
    ds = source[["t2m"]].drop_vars("angle").isel(time=slice(0, 60))

    async def main():
        async with distributed.Client(processes=False, asynchronous=True, dashboard_address=":0"):
            return xtd.rechunk(ds, dataset_over(ds), tmp_path / "copy.zarr")

    xr.testing.assert_identical(asyncio.run(main()).compute(), ds.compute())


INTERRUPTED = """
    import os, signal, sys
    import xarray as xr
    import xtorch_data as xtd
    from xtorch_data.writing.zarr_target import Target

    ds = xr.open_zarr(sys.argv[1], chunks=None, consolidated=False)
    dataset = xtd.IterableDataset(
        ds, {"time": 48}, {"time": 47}, inputs=["t2m"], shuffle=True, memory="256 KiB"
    )
    write, written = Target.write, []

    def write_and_die(self, task, variable):
        write(self, task, variable)
        written.append(task)
        if len(written) == 12:
            os.kill(os.getpid(), signal.SIGKILL)

    Target.write = write_and_die
    xtd.rechunk(ds, dataset, sys.argv[2], memory="1 MiB")
"""


def test_a_killed_copy_goes_on_with_the_same_call(path, source, tmp_path, monkeypatch):
    target = tmp_path / "copy.zarr"
    (tmp_path / "script.py").write_text(textwrap.dedent(INTERRUPTED))
    ended = Script(tmp_path / "script.py", path, target, folder=tmp_path).wait()
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    half = xr.open_zarr(target, chunks=None, consolidated=False)
    assert UNFINISHED in half.attrs
    with pytest.raises(ValueError, match="has not finished"):
        dataset_over(half)
    record = Target(target, None).done[:]
    before = np.count_nonzero(record)
    assert 8 <= before <= 12  # but for those at work at the time
    written = []
    write = Target.write
    monkeypatch.setattr(
        Target, "write", lambda self, task, each: written.append(task) or write(self, task, each)
    )
    for other in (source.assign_attrs(title="other"), source.drop_vars("angle")):
        with pytest.raises(FileExistsError, match="unfinished copy of something else"):
            xtd.rechunk(other, dataset_over(source), target, memory="1 MiB")
    with pytest.raises(FileExistsError, match="chunks"):
        xtd.rechunk(source, dataset_over(source), target, memory="1 MiB", chunks={"time": 7})
    assert not written
    copy = xtd.rechunk(source, dataset_over(source), target, memory="1 MiB")
    assert len(written) == len(record) - before
    assert not {task.number for task in written} & set(np.flatnonzero(record).tolist())
    xr.testing.assert_identical(copy.compute(), source.compute())
