"""rechunk: a copy of some data in chunks that fit the windows of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..common.progress import bar
from ..common.redact import hiding_secrets
from ..datasets.iterable import IterableDataset
from ..datasets.map import MapDataset
from ..planning.chunk_fitting import DEFAULT_MEMORY, copied_in, fitted, shards_of
from ..planning.plan import Plan
from ..reading.identity import identities
from ..samples.arguments import as_bytes
from ..sources.lazy_arrays import in_memory
from ..sources.source import as_source, layout_of, with_graphs_shown
from .copy_tasks import Task, VariableCopy, tasks
from .identity import checksum
from .rechunk_run import Call, Runner
from .zarr_target import Target, quiet

__all__ = ["rechunk"]

# Smaller variables are written as a whole, at the beginning.
SMALL_BYTES = 2**16
# So are those of other kinds: what they are stored as cannot be told from a part.
KINDS = "fciubmM"
# What of an encoding may not keep values.
ENCODED = ("dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "units")
# Rereads of the source that are not worth fewer threads.
FEW_REREADS = 1.1


def rechunk(
    ds: Any,
    dataset: IterableDataset | MapDataset,
    path: Any,
    *,
    chunks: Mapping[Any, int] | None = None,
    shards: Mapping[Any, int] | bool | None = None,
    encoding: Mapping[Any, Mapping[str, Any]] | None = None,
    memory: int | str = DEFAULT_MEMORY,
    verify: bool = True,
    progress: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset | xr.DataArray:
    """Copy data to a Zarr store whose chunks fit the windows of a dataset.

    Where chunks do not fit the windows, every epoch decodes many times what it uses; a copy is made
    once. All variables, coordinates, attributes and encodings are kept: packed integers stay
    packed, calendars and fill values what they are. What is copied at once are whole chunks or
    shards, so that nothing is written twice, by the threads of this process or by the cluster of
    the active ``dask.distributed`` client.

    If it is interrupted, even killed, the same call goes on where it was. Where it cannot be told
    that the data has not changed, as in memory, what was copied is compared with it first. Until it
    is finished, no dataset takes the store as data.

    Parameters
    ----------
    ds : xarray.Dataset, xarray.DataArray, zarr.Array or zarr.Group
        The data to copy, however opened.
    dataset : IterableDataset or MapDataset
        A dataset over it, for whose windows, order and memory the copy is made.
    path : str, path or zarr store
        Where to, as `xarray.Dataset.to_zarr` takes it. With a cluster, a place that all its workers
        can reach.
    chunks : mapping of Hashable to int, optional
        Steps of a chunk along dims; along others they are chosen.
    shards : mapping of Hashable to int or bool, optional
        Steps of a shard along dims, a multiple of those of chunks; along others a shard is one
        chunk long. By default there are shards where chunks would be very many files; True and
        False say so for all variables.
    encoding : mapping, optional
        By variable, what `xarray.Dataset.to_zarr` takes, such as ``{"compressors": …}``; the rest
        is kept. Chunks are compressed by Blosc with Zstandard by default.
    memory : int or str
        Bytes, or text such as ``"1 GiB"``, that copying may take in each process. The more, the
        fewer chunks of the source have to be read more than once.
    verify : bool
        Whether to read everything back at the end, and to compare checksums with those taken of
        the source when it was copied. The first region is compared at once.
    progress : bool, optional
        Whether to show a bar; by default in a terminal or notebook if it takes a while.
    storage_options : mapping, optional
        For fsspec, if `path` is a URL.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        The copy, opened by `open_zarr`; an array if `ds` was one.

    Raises
    ------
    FileExistsError
        If there is something at `path` that is not the unfinished copy of the same data by the
        same arguments, or if another call is copying into it.
    ValueError, TypeError
        If arguments do not fit the data, or an encoding does not keep its values.
    RuntimeError
        If what was written is not what is read back.

    Examples
    --------
    >>> import tempfile
    >>> ds = xr.Dataset({"t2m": (("time", "x"), np.zeros((1000, 50), "float32"))})
    >>> dataset = IterableDataset(ds, input_dims={"time": 100}, input_overlap={"time": 99})
    >>> fitting = rechunk(ds, dataset, tempfile.mkdtemp() + "/fitting.zarr")
    >>> fitting["t2m"].encoding["chunks"]
    (1000, 50)
    """
    if not isinstance(dataset, (IterableDataset, MapDataset)):
        raise TypeError(
            "dataset must be an xtorch_data.IterableDataset or MapDataset, not "
            f"{type(dataset).__name__}"
        )
    source, nbytes, encoding = as_source(ds), as_bytes(memory), encoding or {}
    # Also what was opened without decoding: it is encoded again as it was.
    data = with_graphs_shown(xr.decode_cf(source.dataset))
    _require_writable(data)
    _require_known(data, dataset.plan, chunks or {}, shards, encoding)
    names = [
        name
        for name, each in data.variables.items()
        if name not in data.dims and each.nbytes > SMALL_BYTES and each.dtype.kind in KINDS
    ]
    target, runner = Target(path, storage_options), Runner()
    with quiet(), hiding_secrets(), target.held():
        whole = data.drop_vars(names).compute()
        planned = _planned(data, names, dataset.plan, nbytes, chunks or {}, shards, runner)
        content = _content(data, names)
        copies = target.begin(whole, planned, data, encoding, content)
        target.sweep()
        if verify:
            _verify_whole(target, whole)
        begun = target.content()
        unsure = {
            each for each in names if content[each] is None or content[each] != begun.get(str(each))
        }
        copying = _Copying(runner, target, data, list(tasks(copies, data)), progress)
        copying.require_same(unsure)
        copying.copy(check=verify)
        if verify:
            copying.verify()
        opened = target.finish()
    return (
        opened if source.single is None else opened[source.single].rename(getattr(ds, "name", None))
    )


# What fits.


def _require_writable(data: xr.Dataset) -> None:
    """Raise ValueError for what Zarr cannot hold."""
    for name, variable in data.variables.items():
        for label in (name, *variable.dims):
            if not isinstance(label, str):
                raise ValueError(f"Zarr names variables and dims by text, not {label!r}")
        if len(set(variable.dims)) < variable.ndim:
            raise ValueError(f"variable {name!r} has a dim twice: {variable.dims}")
    for name, index in data.xindexes.items():
        if isinstance(index, xr.indexes.PandasMultiIndex):
            raise ValueError(
                f"{name!r} is a MultiIndex, which Zarr cannot hold: ds.reset_index({name!r}) makes "
                "plain coordinates of it"
            )


def _require_known(
    data: xr.Dataset,
    plan: Plan,
    chunks: Mapping[Any, int],
    shards: Mapping[Any, int] | bool | None,
    encoding: Mapping[Any, Mapping[str, Any]],
) -> None:
    """Raise ValueError if arguments name what is not there."""
    if any(axis.scattered for axis in plan.windows.space.axes):
        raise ValueError(
            "chunks are fit to windows that follow each other, and those of dataset lie around "
            "events: give a dataset without centers, of the same input_dims"
        )
    for axis in plan.windows.axes:
        if axis.dim not in data.dims:
            raise ValueError(
                f"the windows of dataset have dim {axis.dim!r}, but ds has {list(data.dims)}"
            )
    sizes = {"chunks": chunks, "shards": shards if isinstance(shards, Mapping) else {}}
    for argument, given in sizes.items():
        for dim, size in given.items():
            if dim not in data.dims:
                raise ValueError(f"{argument} names dim {dim!r}; the dims are {list(data.dims)}")
            if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{argument}[{dim!r}] must be a positive integer, not {size!r}")
    for name, each in encoding.items():
        if name not in data.variables:
            raise ValueError(f"encoding names {name!r}; the variables are {list(data.variables)}")
        for key in ("chunks", "shards"):
            if key in each:
                raise ValueError(
                    f"give {key}={{dim: steps}} instead of encoding[{name!r}][{key!r}]"
                )


def _planned(
    data: xr.Dataset,
    names: Sequence[Any],
    plan: Plan,
    memory: int,
    chunks: Mapping[Any, int],
    shards: Mapping[Any, int] | bool | None,
    runner: Runner,
) -> list[VariableCopy]:
    """Chunks, shards, and regions that are copied at once, for as many threads as can be used."""
    layouts = {
        name: layout_of(data.variables[name], name, data.variables[name].dims) for name in names
    }
    sizes = fitted(plan, layouts.values(), memory=memory, given=chunks).sizes
    sharded: dict[Any, Mapping[Hashable, int] | None] = {}
    for name, layout in layouts.items():
        if isinstance(shards, Mapping):
            sharded[name] = _given_shards(name, sizes[name], shards)
        elif shards is False:
            sharded[name] = None
        else:
            sharded[name] = shards_of(layout, sizes[name], memory, always=bool(shards))
    total = sum(layout_bytes := [data.variables[name].nbytes for name in names])
    found = []
    for threads in runner.possible_threads():
        grids = [
            copied_in(layout, sharded[name] or sizes[name], memory // threads)
            for name, layout in layouts.items()
        ]
        reads = sum(
            grid.amplification * nbytes for grid, nbytes in zip(grids, layout_bytes, strict=True)
        )
        found.append((round(reads / max(1, total), 1), threads, grids))
        if found[-1][0] <= FEW_REREADS:
            break
    _, runner.threads, grids = min(found, key=lambda each: each[0])
    units = {name: sharded[name] or sizes[name] for name in names}
    return [
        VariableCopy(
            name,
            sizes[name],
            sharded[name],
            tuple(
                tuple(int(cut[place]) * units[name][dim] for place in range(len(cut)))
                for dim, cut in zip(layouts[name].chunks, grid.cuts, strict=True)
            ),
        )
        for name, grid in zip(names, grids, strict=True)
    ]


def _given_shards(
    name: str, sizes: Mapping[Hashable, int], shards: Mapping[Any, int]
) -> Mapping[Hashable, int] | None:
    for dim, size in sizes.items():
        if shards.get(dim, size) % size:
            raise ValueError(
                f"shards[{dim!r}]={shards[dim]} is no multiple of the chunks of {name!r}, which "
                f"have {size} steps along it: chunks={{{dim!r}: …}} chooses others"
            )
    return {dim: shards.get(dim, size) for dim, size in sizes.items()}


# Copying, and reading back.


def _content(data: xr.Dataset, names: Sequence[Any]) -> dict[Any, str | None]:
    """What tells the values of variables from any others, of those of which that is known."""
    lazy = {name: data.variables[name] for name in names if not in_memory(data.variables[name])}
    found: dict[Any, str | None] = dict.fromkeys(names)
    for name, told in identities(lazy).items():
        if told.exception() is None:  # else they are compared themselves
            found[name] = told.result().hex()
    return found


@dataclass(frozen=True, eq=False)
class _Copying:
    """A copy that has begun; made by `rechunk`, and used on its thread."""

    runner: Runner
    target: Target
    data: xr.Dataset
    tasks: Sequence[Task]
    progress: bool | None

    def require_same(self, names: Set[Any]) -> None:
        """Raise FileExistsError if what was copied of some variables is not what they are now."""
        record = self.target.done[:]
        left = [task for task in self.tasks if record[task.number] and task.name in names]

        def call(task: Task) -> Call:
            return Call(_checksum_of, task, (self._part(task),))

        for task, found in self._run("comparing", left, call) if left else ():
            if found + 1 != record[task.number]:
                raise FileExistsError(
                    f"{self.target} is the unfinished copy of other values: the data has changed "
                    f"since it was begun, as {task} shows. Remove it, or give another path"
                )

    def copy(self, check: bool) -> None:
        """Copy the regions that are not in the record, and record them.

        With `check`, the first region of each variable is compared at once.
        """
        record = self.target.done
        done = record[:]
        left = [task for task in self.tasks if not done[task.number]]
        first = {task.name: task.number for task in reversed(left)} if check else {}

        def call(task: Task) -> Call:
            compare = first.get(task.name) == task.number
            return Call(_copied, task, (self.target, self._part(task), compare))

        for task, found in self._run("rechunking", left, call, len(self.tasks) - len(left)):
            record[task.number] = found + 1

    def verify(self) -> None:
        """Read everything back; RuntimeError where it differs, which is copied again then."""
        record, opened = self.target.done, self.target.open()
        expected = record[:]
        wrong = []

        def call(task: Task) -> Call:
            written = opened.variables[task.name].isel(task.region)
            return Call(_read_back, task, (written, self.data.variables[task.name].dtype))

        for task, found in self._run("verifying", self.tasks, call):
            if found is None or found + 1 != expected[task.number]:
                record[task.number] = 0
                wrong.append(task)
        if wrong:
            raise RuntimeError(
                f"{len(wrong)} of {len(self.tasks)} regions in {self.target} are not what was "
                f"written, the first of them {min(wrong, key=lambda task: task.number)}; the same "
                "call writes them again"
            )

    def _part(self, task: Task) -> xr.Variable:
        return self.data.variables[task.name].isel(task.region)

    def _run(
        self, doing: str, tasks: Sequence[Task], call: Callable[[Task], Call], done: int = 0
    ) -> Iterator[tuple[Task, Any]]:
        """What calls for some tasks return, as they come, with a bar."""
        with bar(done + len(tasks), "region", doing, self.progress) as shown:
            shown(done)
            for task, found in self.runner.run(map(call, tasks)):
                yield task, found
                shown(1)


def _checksum_of(task: Task, part: xr.Variable) -> int:
    """The checksum of a region of the source."""
    with hiding_secrets():
        return checksum(part.copy(deep=False).load())


def _copied(task: Task, target: Target, part: xr.Variable, check: bool) -> int:
    """Read a region and write it; returns its checksum as it is decoded."""
    with hiding_secrets():  # a cluster's workers write errors to their logs
        try:
            # A copy: what is read must not stay in the user's dataset.
            variable = part.copy(deep=False).load()
            target.write(task, variable)
        except Exception as error:
            error.add_note(f"while {task} was copied to {target}; the same call goes on")
            raise
    found = checksum(variable)
    if check:
        written = target.open().variables[task.name].isel(task.region)
        if found != checksum(written, variable.dtype):
            raise ValueError(_lossy(str(task), part))
    return found


def _lossy(what: str, variable: xr.Variable) -> str:
    encoding = {key: variable.encoding[key] for key in ENCODED if key in variable.encoding}
    return (
        f"{what} is not what it was once it is written and read back: its encoding {encoding} does "
        "not keep the values; ds.drop_encoding() is written as it is"
    )


def _verify_whole(target: Target, whole: xr.Dataset) -> None:
    """Raise ValueError if a variable that was written as a whole is not what it was."""
    opened = target.open()
    for name, variable in whole.variables.items():
        if checksum(variable) != checksum(opened.variables[name], variable.dtype):
            raise ValueError(_lossy(repr(name), variable))


def _read_back(task: Task, part: xr.Variable, dtype: np.dtype[Any]) -> int | None:
    """The checksum of a region, as it was before it was written; None if it cannot be read."""
    try:
        return checksum(part, dtype)
    except MemoryError:
        raise
    except Exception:
        return None
