"""The independent answers that the tests compare with, and things to train on.

Nothing here uses the package: a sample is plain slicing of plain numpy, windows are xbatcher's.
"""

import asyncio
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import xbatcher
import zarr
from zarr.abc.store import SuffixByteRequest

import xtorch_data as xtd

# ---------------------------------------------------------------------------------------------
# Oracles


def used_dims(ds, names):
    """Dims that the variables `names` have, in the order of the dataset."""
    return [dim for dim in ds.sizes if any(dim in ds[name].dims for name in names)]


def xbatcher_windows(ds, names, input_dims, input_overlap=None):
    """Every window, as xbatcher lists them, with an int for the dims that are not windowed."""
    input_dims = {dim: ds.sizes[dim] if size == -1 else size for dim, size in input_dims.items()}
    generator = xbatcher.BatchGenerator(
        ds[list(names)],
        input_dims=input_dims,
        input_overlap=dict(input_overlap or {}),
        batch_dims={dim: 1 for dim in used_dims(ds, names) if dim not in input_dims},
        preload_batch=False,
    )
    windows = []
    for (selector,) in generator._batch_selectors.selectors.values():
        windows.append(
            {dim: cut if dim in input_dims else cut.start for dim, cut in selector.items()}
        )
    return windows


class Oracle:
    """A dataset in plain numpy, cut by plain slicing: what ``ds.isel`` gives, only faster."""

    def __init__(self, ds):
        ds = ds.compute()
        self.ds = ds
        self.arrays = {name: (ds[name].dims, ds[name].values) for name in ds.variables}

    def cut(self, name, *indexers):
        """Dims and values of variable `name` after one ``isel`` after another."""
        dims, values = self.arrays[name]
        for window in indexers:
            values = np.asarray(values[tuple(window.get(dim, slice(None)) for dim in dims)])
            dims = tuple(dim for dim in dims if not isinstance(window.get(dim), int))
        return dims, values

    def variable(self, name, window, kept, select=None):
        """Values of one variable in one sample, over all the windowed dims in the order `kept`."""
        dims, values = self.cut(name, window)
        sizes = [window[dim].stop - window[dim].start for dim in kept]
        values = values.transpose([dims.index(dim) for dim in kept if dim in dims])
        values = values[tuple(slice(None) if dim in dims else None for dim in kept)]
        values = np.broadcast_to(values, sizes)
        return values[tuple((select or {}).get(dim, slice(None)) for dim in kept)]

    def part(self, names, window, kept, select=None, floating=np.float32):
        """What a part's tensor holds for one sample: a name, or a list of names stacked."""
        if isinstance(names, str):
            values = self.variable(names, window, kept, select)
        else:
            stack = [self.variable(name, window, kept, select) for name in names]
            values = np.stack(stack).astype(np.result_type(*stack))
        kind = floating if values.dtype.kind == "f" else values.dtype.newbyteorder("=")
        return values.astype(kind)

    def coords(self, names, window, select=None):
        """Coordinates of one sample of the variables `names`: name to dims and values."""
        dims = set(used_dims(self.ds, names))
        return {
            name: self.cut(name, window, select or {})
            for name in self.ds.coords
            if dims.issuperset(self.ds[name].dims)
        }


def assert_labels(labels, expected):
    """Compare the coordinates of a labeled batch with those of its samples, cut one by one.

    `expected` holds a mapping of name to dims and values for each sample.
    """
    found = set(labels.coords) - {"sample"}
    # Leads, which no data has, are compared elsewhere.
    found -= {name for name in found if str(name).startswith("lead_time")}
    assert found == set(expected[0]), f"coordinates {found} instead of {set(expected[0])}"
    for name, (dims, _) in expected[0].items():
        variable = labels[name].variable
        values = variable.transpose("sample", ..., missing_dims="ignore").values
        own = [dim for dim in variable.dims if dim != "sample"]
        assert set(own) == set(dims), name
        order = [dims.index(dim) for dim in own]
        stack = np.stack([sample[name][1].transpose(order) for sample in expected])
        if "sample" not in variable.dims:  # the same for all of them
            values = np.broadcast_to(values, stack.shape)
        np.testing.assert_array_equal(values, stack, err_msg=f"coordinate {name!r}")


def assert_batch(batch, oracle, windows, parts, kept):
    """Values and labels of a batch are those of its samples, cut by plain slicing."""
    numbers = batch.index.tolist()
    assert batch.index.dtype == torch.int64
    assert len(batch) == len(numbers)
    tensors = list(batch)
    assert len(tensors) == len(parts)
    labels = batch.to_xarray()
    np.testing.assert_array_equal(labels["sample"].values, numbers)
    names = []
    for tensor, part in zip(tensors, parts.values(), strict=True):
        expected = np.stack([oracle.part(part, windows[number], kept) for number in numbers])
        assert tensor.numpy().dtype == expected.dtype
        np.testing.assert_array_equal(tensor.numpy(), expected)
        for name in [part] if isinstance(part, str) else part:
            names.append(name)
            assert labels[name].dims == ("sample", *kept)
            values = [oracle.variable(name, windows[number], kept) for number in numbers]
            np.testing.assert_array_equal(
                labels[name].values, np.stack(values).astype(expected.dtype)
            )
    assert set(labels.data_vars) == set(names)
    assert_labels(labels, [oracle.coords(names, windows[number]) for number in numbers])


def samples_of(batches):
    """Sample numbers of some batches, one after the other."""
    return [number for batch in batches for number in np.ravel(batch.index.numpy()).tolist()]


def orders(batches):
    """Sample numbers of each batch."""
    return [tuple(np.ravel(batch.index.numpy()).tolist()) for batch in batches]


def assert_once(numbers, total):
    """Every sample of `total` is there, and none twice."""
    counts = Counter(numbers)
    assert sorted(counts) == list(range(total))
    assert set(counts.values()) == {1}


@contextlib.contextmanager
def tiny_memory_allowed():
    """Silence the warning that a sample is larger than the memory budget."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?is).*(memory|budget)", category=UserWarning)
        yield


def in_a_process(script, *arguments, timeout=60, warnings_as_errors=True):
    """Run a script in an interpreter of its own; end it and all its workers if it hangs."""
    options = ["-W", "error"] if warnings_as_errors else []
    process = subprocess.Popen(
        [sys.executable, *options, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"hung after {timeout} s; it said\n{out}\n{err}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Script:
    """A script that runs as the main one of a process of the fork server.

    Torch and the package are imported there already, which takes longer than most scripts. It
    serves where no worker processes are started and nothing is said of how the interpreter ends.

    Parameters
    ----------
    path : pathlib.Path
        The script.
    *arguments
        Its arguments.
    folder : pathlib.Path
        Where it runs and what it prints is kept; of its own for each that runs at the same time.
    environment : mapping, optional
        More environment variables.
    warnings_as_errors : bool
        Whether every warning is an error.
    """

    def __init__(self, path, *arguments, folder, environment=None, warnings_as_errors=True):
        self._outputs = folder / "stdout.txt", folder / "stderr.txt"
        self._process = multiprocessing.get_context("forkserver").Process(
            target=_as_main,
            args=(str(path), list(map(str, arguments)), *self._outputs, environment or {}),
            kwargs={"warnings_as_errors": warnings_as_errors},
            daemon=True,
        )
        self._process.start()

    def kill(self):
        """End it at once."""
        self._process.kill()

    def wait(self, timeout=60):
        """What it printed and how it ended."""
        self._process.join(timeout)
        hung = self._process.is_alive()
        if hung:
            self._process.kill()
            self._process.join()
        out, err = (path.read_text() if path.exists() else "" for path in self._outputs)
        assert not hung, f"hung after {timeout} s; it said\n{out}\n{err}"
        return subprocess.CompletedProcess([], self._process.exitcode, out, err)


def _as_main(path, arguments, out, err, environment, warnings_as_errors):
    os.environ.update(environment)
    for number, output in ((1, out), (2, err)):
        with open(output, "wb") as file:
            os.dup2(file.fileno(), number)
    os.chdir(Path(out).parent)
    if warnings_as_errors:
        warnings.simplefilter("error")
        # As in pyproject.toml: of extension modules built for an older NumPy.
        warnings.filterwarnings("ignore", "numpy.ndarray size changed", RuntimeWarning)
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


# ---------------------------------------------------------------------------------------------
# Data


def forecast(time=60, y=4, x=5, names=("a", "b"), dtype="float32"):
    """Random fields over time, with index coords and a two-dimensional one, in memory."""
    rng = np.random.default_rng(7)
    return xr.Dataset(
        {name: (("time", "y", "x"), rng.normal(size=(time, y, x)).astype(dtype)) for name in names},
        coords={
            "time": np.datetime64("2000-01-01", "ns") + np.arange(time) * np.timedelta64(6, "h"),
            "y": np.linspace(50.0, 40.0, y),
            "x": np.arange(x) * 0.25,
            "longitude": (("y", "x"), rng.normal(size=(y, x))),
        },
    )


def in_chunks(ds, storage, path):
    """A forecast as it is, as arrays of dask, or in a Zarr store."""
    if storage == "dask":
        return ds.chunk(time=7, y=4)
    if storage == "zarr":
        ds.drop_vars("longitude").chunk(time=7, y=4).to_zarr(path, consolidated=False)
        return xtd.open_zarr(path, consolidated=False)
    return ds


def numbered(samples, dims=("time",)):
    """One variable ``a`` whose value at each place is the number of the place."""
    sizes = samples if isinstance(samples, tuple) else (samples,)
    values = np.arange(np.prod(sizes), dtype="int64").reshape(sizes)
    return xr.Dataset({"a": (dims, values)})


# ---------------------------------------------------------------------------------------------
# Stores


class CountingStore(zarr.storage.WrapperStore):
    """Counts how often the bytes of each chunk are asked for, and may take its time."""

    def __init__(self, store, counts=None, delay=0.0):
        super().__init__(store)
        self.counts = Counter() if counts is None else counts
        self.delay = delay

    def _with_store(self, store):
        return type(self)(store, self.counts, self.delay)

    async def get(self, key, prototype, byte_range=None):
        data = not key.endswith(("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"))
        if data and not isinstance(byte_range, SuffixByteRequest):  # the index of a shard
            self.counts[key] += 1
            if self.delay:
                await asyncio.sleep(self.delay)
        return await super().get(key, prototype, byte_range)


# ---------------------------------------------------------------------------------------------
# Transforms. At module level, so that worker processes find them.


def twice_plus_one(sample):
    return sample * 2 + 1


def anomaly(sample):
    return sample - sample.mean("time")


def first_and_sum(item):
    return torch.tensor([float(item["time"].dt.dayofyear[0]), float(item.sum())])


def add_noise(sample, rng):
    return sample + rng.normal()


# ---------------------------------------------------------------------------------------------
# Reads, counted


def counted(ds, chunks, delay=0.0):
    """A dataset behind a store that counts, its chunks by variable, and the counts."""
    memory = zarr.storage.MemoryStore()
    encoding = {name: {"chunks": tuple(chunks[name]), "compressors": None} for name in ds.data_vars}
    ds.to_zarr(memory, encoding=encoding, consolidated=False, zarr_format=3)
    store = CountingStore(memory, delay=delay)
    opened = xr.open_zarr(store, consolidated=False, chunks=None)
    store.counts.clear()
    return opened, store.counts


def reads(counts, names):
    """Reads of each chunk of data variables; coordinates do not count."""
    return {key: count for key, count in counts.items() if key.split("/")[0] in names}


def chunks_of(ds, chunks, names):
    """Number of chunks of each of some variables."""
    return {
        name: int(
            np.prod(
                [
                    -(-ds.sizes[dim] // size)
                    for dim, size in zip(ds[name].dims, chunks[name], strict=True)
                ]
            )
        )
        for name in names
    }


# 8 x 8 points: 256 bytes a step and variable
FIELDS = {"y": 8, "x": 8}
WINDOW = {"time": 8, "y": 8, "x": 8}


def fields(steps, names=("a", "b")):
    return forecast(time=steps, names=names, **FIELDS)


def chunk_reads(plan, epoch, intervals):
    """Chunks of each variable that a plan reads for intervals of a line; 0 if it has no chunks."""
    from xtorch_data.planning.stages import reads as reads_of_stages

    counts, _ = reads_of_stages(plan.stages(epoch, intervals), plan.frame)
    return {
        layout.name: int(count) if layout.in_chunks else 0
        for layout, count in zip(plan.layouts, counts, strict=True)
    }
