"""Mosaics of several ranks, and of processes that are killed."""

import datetime
import os

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
import xarray as xr
from helpers import in_a_process

import xtorch_data as xtd
from xtorch_data.sources.source import UNFINISHED

RANKS = 3


def source(folder):
    """A store of chunks that windows overlap."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "a": (("time", "y"), rng.normal(size=(20, 8)).astype("float32")),
            "kind": (("time", "y"), np.arange(160).reshape(20, 8)),
        },
        coords={"time": xr.date_range("2000-01-01", periods=20), "y": np.arange(8.0)},
    )
    chunks = {"chunks": (5, 4)}
    ds.to_zarr(folder / "source.zarr", consolidated=False, encoding={"a": chunks, "kind": chunks})
    return folder / "source.zarr"


def samples(path, name):
    if name == "events":  # of which neighbors overlap, and two are the same
        ds = xtd.open_zarr(path)
        steps = {"time": [3, 17, 4, 3, 8, 16, 2, 9], "y": [2, 6, 3, 2, 5, 3, 6, 6]}
        centers = {dim: ds[dim].values[at] for dim, at in steps.items()}
        return xtd.MapDataset(ds, {"time": 4, "y": 3}, centers=centers, inputs="a", targets="a")
    overlap = {"time": 2, "y": 2} if name == "a" else {}
    return xtd.MapDataset(
        xtd.open_zarr(path), {"time": 4, "y": 4}, overlap, inputs=name, targets=name
    )


def _rank(rank, folder, name, case, results):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    told = None
    try:
        dataset = samples(folder / "source.zarr", name)
        blend = None if name == "kind" else "hann"
        mode = "w" if case == "replaces" else "w-"
        if case == "predict":
            loader = xtd.DataLoader(dataset, batch_size=2, shuffle=True, uneven="pad")
            xtd.predict(
                None, loader, folder / "field.zarr", forward=lambda b: b.y, blend=blend, mode=mode
            )
        else:
            with xtd.Mosaic(dataset, folder / "field.zarr", blend=blend, mode=mode) as mosaic:
                of_all = case == "twice"
                mine = range(0 if of_all else rank, len(dataset), 1 if of_all else RANKS)
                if case == "idle":  # the first rank has nothing to do
                    mine = [n for n in range(len(dataset)) if 1 + n % (RANKS - 1) == rank]
                for number in mine:
                    batch = dataset.fetch([number])
                    mosaic.add(batch, batch.y)
            assert mosaic.explain().written == mosaic.explain().chunks
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    results.put((rank, told))
    torch.distributed.destroy_process_group()


def together(folder, name, case):
    """Let ranks lay a field; what each of them was told, if anything."""
    start = torch.multiprocessing.get_context("forkserver")
    results = start.Queue()
    ranks = [
        start.Process(target=_rank, args=(rank, folder, name, case, results))
        for rank in range(RANKS)
    ]
    for each in ranks:
        each.start()
    told = dict(results.get(timeout=90) for _ in ranks)
    for each in ranks:
        each.join(30)
        assert each.exitcode == 0
    return [told[rank] for rank in range(RANKS)]


@pytest.mark.parametrize("name", ["a", "kind"])
@pytest.mark.parametrize("case", ["shares", "idle", "predict", "replaces"])
def test_ranks_lay_a_field_together(name, case, tmp_path):
    expected = xr.open_zarr(source(tmp_path), consolidated=False).load()[[name]]
    if case == "replaces":
        xtd.open_zarr(tmp_path / "source.zarr").to_zarr(tmp_path / "field.zarr", consolidated=False)
    assert together(tmp_path, name, case) == [None] * RANKS
    result = xtd.open_zarr(tmp_path / "field.zarr").load()
    assert UNFINISHED not in result.attrs and list(result) == [name]
    xr.testing.assert_allclose(result, expected)
    assert result[name].dtype == expected[name].dtype
    assert sorted(os.listdir(tmp_path / "field.zarr")) == sorted([name, "time", "y", "zarr.json"])
    assert {*os.listdir(tmp_path)} - {"ranks"} == {"field.zarr", "source.zarr"}


def test_a_sample_of_two_ranks_is_told_to_all(tmp_path):
    source(tmp_path)
    told = together(tmp_path, "a", "twice")
    assert told == ["ValueError: sample 0 was added by two ranks"] * RANKS
    assert UNFINISHED in xr.open_zarr(tmp_path / "field.zarr", consolidated=False).attrs


def test_ranks_lay_predictions_around_events_together(tmp_path):
    ds = xr.open_zarr(source(tmp_path), consolidated=False).load()
    assert together(tmp_path, "events", "shares") == [None] * RANKS
    result = xtd.open_zarr(tmp_path / "field.zarr").load()["a"]
    there = xr.zeros_like(ds["a"], dtype=bool)
    for window in samples(tmp_path / "source.zarr", "events").windows:
        there[window] = True
    inside = there.sel(time=result["time"], y=result["y"]).values
    assert inside.sum() == there.sum() < inside.size
    assert (np.isfinite(result.values) == inside).all()
    same = ds["a"].sel(time=result["time"], y=result["y"])
    np.testing.assert_allclose(result.values[inside], same.values[inside], rtol=1e-5)


def test_what_is_there_is_refused_on_each_rank(tmp_path):
    source(tmp_path)
    xtd.open_zarr(tmp_path / "source.zarr").to_zarr(tmp_path / "field.zarr", consolidated=False)
    told = together(tmp_path, "a", "shares")
    assert all("FileExistsError" in each and "mode='w' replaces it" in each for each in told)


def test_a_process_that_is_killed_leaves_a_store_that_goes_on_and_nothing_else(tmp_path):
    path = source(tmp_path)
    script = """
        import os, signal, sys
        import xtorch_data as xtd
        dataset = xtd.MapDataset(
            xtd.open_zarr(sys.argv[1]), {"time": 4, "y": 4}, {"time": 2, "y": 2},
            inputs="a", targets="a", memory="100 B",
        )
        mosaic = xtd.Mosaic(dataset, sys.argv[2], blend="mean", encoding={"a": {"chunks": (5, 4)}})
        for number in range(15):
            batch = dataset.fetch([number])
            mosaic.add(batch, batch.y)
        assert mosaic.explain().set_aside
        os.kill(os.getpid(), signal.SIGKILL)
    """
    found = in_a_process(script, path, tmp_path / "field.zarr", warnings_as_errors=False)
    assert found.returncode == -9, found.stderr
    assert sorted(os.listdir(tmp_path)) == ["field.zarr", "source.zarr"]
    with pytest.raises(ValueError, match="has not finished"):
        samples(tmp_path / "field.zarr", "a")
    dataset = samples(path, "a").replace(memory="1 MiB")
    asked = []

    def forward(batch):
        asked.extend(batch.index.tolist())
        return batch.y

    loader = xtd.DataLoader(dataset, batch_size=1)
    encoding = {"a": {"chunks": (5, 4)}}
    result = xtd.predict(
        None, loader, tmp_path / "field.zarr", forward=forward, blend="mean", mode="a",
        encoding=encoding,
    )  # fmt: skip
    assert 0 < len(asked) < len(dataset)
    xr.testing.assert_allclose(result.load(), xtd.open_zarr(path)[["a"]].load())
