"""Samples by number: chunks are read when they are wanted, and kept while memory lasts."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..common.buffers import Buffers
from ..common.cached import cached_property
from ..common.recorder import Recorder
from ..common.retry import is_transient
from ..gathering.assembly import Assembly
from ..gathering.stage import StageInMemory
from ..gathering.views import PieceInMemory, window_views
from ..planning.stages import WindowBox
from ..planning.windows import IntArray
from ..reading.disk_cells import OnDisk
from ..reading.recycled import mapped, with_recycled_memory
from ..reading.regions import Reader
from ..reading.variables import ReadError, SourceReader, require_whole
from ..samples.batch import Batch
from ..samples.definition import SampleDefinition
from ..samples.presence import presence_of
from ..sources.file_maps import maps_of
from ..sources.lazy_arrays import in_memory
from ..sources.npy_files import NpyFile, Stamp
from ..sources.source import layout_of
from .cells import Group, Place, Region, cells_of, unordered
from .held_cells import Cell, HeldCells
from .threads import Threads

__all__ = ["Fetched", "Fetcher"]

# Chunks of fewer bytes are read several at a time; of more, where a preprocess runs on each.
CELL_BYTES, PREPROCESSED_BYTES = 2**16, 2**20
# But so that many cells fit in memory.
CELLS_IN_MEMORY = 64


class Fetcher:
    """Reads samples by number.

    Made by a `MapDataset` in each process, for an epoch if its preprocess is random, and as long
    there. Any thread of the process may ask, and several at a time.

    Decoded chunks that are kept and read take `memory` bytes. Without `keep` none are kept for
    later samples; `on_disk` says where they are kept beyond that. Chunks are read several at a
    time up to `cell_nbytes`, by default so that many cells fit. It reads on `threads`, which are
    begun and ended by whoever gives them, or on threads of its own.
    """

    def __init__(
        self,
        samples: SampleDefinition,
        memory: int,
        epoch: int,
        retries: int,
        keep: bool = True,
        on_disk: OnDisk | None = None,
        cell_nbytes: int | None = None,
        threads: Threads | None = None,
    ) -> None:
        self._samples, self._memory, self._retries = samples, memory, retries
        self._keep = keep
        self._cell_nbytes = cell_nbytes
        self._threads = threads or Threads()
        self._blocks = Buffers(memory, total=memory)
        # A preprocess works on cells of all variables.
        data, self._maps = samples.data, dict[NpyFile, Stamp]()
        if samples.preprocess is None:
            data, self._maps = mapped(data)
        self._whole_maps = maps_of(samples.data.variables.values())
        self._data = with_recycled_memory(data, self._blocks, samples.dtypes)
        self._disk = on_disk.cells(self._data, self._blocks) if on_disk else {}
        # A preprocess gets copies, and so all variables in cells.
        self._in_memory_present = {
            name: present
            for name, present in samples.present.items()
            if samples.preprocess is None and in_memory(self._data.variables[name])
        }
        self.recorder = Recorder(epoch)
        self._groups = [self._group(names, together=True) for names in self._stored_alike()]
        self._together = range(len(self._groups))
        # The same variables, with small chunks read one by one; where it was needed.
        self._apart: Sequence[int] | None = None
        self._held = HeldCells(self._groups, memory, self._threads)
        self._lock = threading.Lock()
        if threads is None:
            weakref.finalize(self, self._threads.end)
            self._threads.begin()

    @property
    def _dims(self) -> list[Hashable]:
        return [axis.dim for axis in self._samples.windows.axes]

    def _stored_alike(self) -> list[list[Hashable]]:
        """Variables that must be read, grouped by how they are stored.

        A preprocess takes all variables of a block, so that then there is one group.
        """
        if self._samples.preprocess is not None:
            return [list(self._data.data_vars)]
        alike: dict[Hashable, list[Hashable]] = {}
        for name, variable in self._data.variables.items():
            if not in_memory(variable):
                chunks = layout_of(variable, name, self._dims).chunks
                key = tuple((dim, grid.key) for dim, grid in chunks.items())
                alike.setdefault(key, []).append(name)
        return list(alike.values())

    def _group(self, names: list[Hashable], together: bool) -> Group:
        """Some variables, with small chunks read together or one by one."""
        samples, data, dims = self._samples, self._data, self._dims
        layouts = [
            layout_of(data.variables[name], name, dims, self._nbytes_of(name)) for name in names
        ]
        small = CELL_BYTES if samples.preprocess is None else PREPROCESSED_BYTES
        small = min(small, self._memory // CELLS_IN_MEMORY)
        small = (self._cell_nbytes or small) if together else 0
        # A preprocess may take means and the like along dims that samples have whole.
        axes = samples.windows.axes if samples.preprocess is not None else ()
        whole = {axis.dim for axis in axes if axis.whole}
        windows = samples.windows
        scattered = any(axis.scattered for axis in windows.space.axes)
        apart = unordered(windows.frame, scattered)
        grids, nbytes = cells_of(layouts, dims, small, whole, apart)
        if samples.preprocess is None:
            data = xr.Dataset({name: data.variables[name] for name in names})
        source = SourceReader(
            dataset=data,
            origin=samples.origin,
            windows=samples.windows,
            recorder=self.recorder,
            executor=self._threads.work,
            graphs=self._threads.graphs,
            retries=self._retries,
            timeout=samples.read_timeout,
            blank=samples.blank,
            buffers=self._blocks,
            laid=samples.labels.laid,
        )
        preprocessor = samples.preprocessor(data, self.recorder.epoch, self.recorder)
        return Group(Reader(source, preprocessor, self._disk), grids, nbytes)

    def _nbytes_of(self, name: Hashable) -> int:
        """Bytes of a value of a variable, with what says that it is there."""
        return int(self._data.variables[name].dtype.itemsize) + (name in self._samples.present)

    def fetch(self, numbers: IntArray, epoch: int, buffers: Buffers) -> Batch:
        """A batch of samples ``numbers (sample,)``, in this order; each chunk read once if it fits.

        Random transforms depend on the epoch, besides the sample. The batch lies in memory of
        `buffers`.

        Raises
        ------
        ReadError
            If a chunk in which one of them lies cannot be read.
        ValueError
            If a memory-mapped file has changed since it was mapped.
        """
        try:
            return self._fetched(numbers, epoch, buffers, self._together)
        except ReadError as error:
            if is_transient(error):
                raise
            apart = self._groups_apart()
            if list(apart) == list(self._together):
                raise
        # It may be a chunk next to theirs, which was read with it because they are small.
        return self._fetched(numbers, epoch, buffers, apart)

    def pieces(self, pieces: Sequence[WindowBox], copied: bool = False) -> list[PieceInMemory]:
        """Some regions in memory; ReadError if they cannot be read.

        As many are read together as half of the memory holds the cells of. With `copied` they have
        memory of their own: a piece may be small beside its cells.
        """
        found: list[PieceInMemory] = []
        wanted: list[tuple[WindowBox, list[Cell]]] = []
        cells: set[Cell] = set()
        nbytes = 0
        for piece in pieces:
            own = self._cells_around(piece)
            new = [cell for cell in own if cell not in cells]
            nbytes += sum(self._groups[number].nbytes for number, _ in new)
            if wanted and 2 * nbytes > self._memory:
                found += self._of_cells(wanted, cells, copied)
                wanted, cells = [], set()
                nbytes = sum(self._groups[number].nbytes for number, _ in own)
            wanted.append((piece, own))
            cells.update(own)
        return found + self._of_cells(wanted, cells, copied)

    def _of_cells(
        self, wanted: Sequence[tuple[WindowBox, list[Cell]]], cells: Iterable[Cell], copied: bool
    ) -> list[PieceInMemory]:
        read = self._held.cells(cells)
        return [
            self._in_memory(piece, {cell: read[cell] for cell in own}, self._together, copied)
            for piece, own in wanted
        ]

    def _cells_around(self, piece: WindowBox) -> list[Cell]:
        region = {
            axis.dim: slice(*along)
            for axis, along in zip(self._samples.windows.axes, piece.region, strict=True)
        }
        return [
            (number, place)
            for number in self._together
            for place in itertools.product(*self._groups[number].around(region).values())
        ]

    def whole(self, piece: WindowBox) -> PieceInMemory:
        """A region in memory, whose cells are not kept for others; ReadError as for `pieces`."""
        wanted = self._cells_around(piece)
        [found] = self._of_cells([(piece, wanted)], wanted, copied=False)
        self._held.drop(wanted)
        return found

    def _groups_apart(self) -> Sequence[int]:
        """Numbers of the groups that are read chunk by chunk; made once there is damage."""
        with self._lock:
            if self._apart is None:
                apart = []
                for number in self._together:
                    together = self._groups[number]
                    group = self._group(together.names, together=False)
                    if group.nbytes < together.nbytes:
                        apart.append(len(self._groups))
                        self._groups.append(group)
                    else:
                        apart.append(number)
                self._apart = apart
            return self._apart

    def _fetched(
        self, numbers: IntArray, epoch: int, buffers: Buffers, groups: Sequence[int]
    ) -> Batch:
        for file, stamp in self._maps.items():
            file.require_unchanged(stamp)
        require_whole(self._whole_maps)
        recipe = self._samples
        windows = recipe.windows
        assembly = Assembly(recipe, buffers, len(numbers), epoch)
        places, starts = windows.space.numbers(numbers), windows.starts(numbers)
        done: list[IntArray] = []
        for portion in self._portions(starts, groups):
            cells = self._held.cells({cell for _, wanted in portion for cell in wanted})
            pieces, order = [], []
            before = 0
            for rows, _ in portion:
                box = tuple((int(at[rows].min()), int(at[rows].max()) + 1) for at in places)
                around = tuple(
                    (int(at[rows].min()), int(at[rows].max()) + axis.size)
                    for at, axis in zip(starts, windows.axes, strict=True)
                )
                piece = WindowBox(box, windows.frame, around)
                pieces.append(self._in_memory(piece, cells, groups))
                order.append(before + piece.place(tuple(at[rows] for at in places), len(rows)))
                before += piece.samples
            chosen = np.concatenate([rows for rows, _ in portion])
            as_asked = np.argsort(chosen, kind="stable")
            loaded = StageInMemory(windows, pieces, np.concatenate(order)[as_asked])
            assembly.add(sum(len(rows) for rows in done), loaded, loaded.locate(0, len(chosen)))
            done.append(chosen[as_asked])
            del cells, pieces, loaded  # before the next ones are read
            if not self._keep:
                self._held.drop()
        batch = assembly.finish(single=False)
        self.recorder.add(transform=assembly.transform_seconds)
        if len(done) == 1:
            return batch
        back = torch.from_numpy(np.argsort(np.concatenate(done), kind="stable"))
        found = batch.replace(dims=None, **{name: batch[name][back] for name in batch.keys()})
        found.index = batch.index[back]
        return found

    def _portions(
        self, starts: IntArray, groups: Sequence[int]
    ) -> Iterator[list[tuple[IntArray, list[Cell]]]]:
        """Samples that lie in the same cells, with these; as many as memory holds at a time."""
        axes = self._samples.windows.axes
        columns, spans = [], []
        for number in groups:
            grids = self._groups[number].grids
            for place, axis in enumerate(axes):
                if axis.dim in grids:
                    grid = grids[axis.dim]
                    columns += [grid.number(starts[place])]
                    columns += [grid.number(starts[place] + axis.size - 1)]
                    spans.append((number, axis.dim))
        count = starts.shape[1]
        if not columns:  # variables without any of the dims are one cell each
            everything: list[Cell] = [(number, ()) for number in groups]
            yield [(some, everything) for some in self._pieces(np.arange(count))]
            return
        found, of = np.unique(np.stack(columns), axis=1, return_inverse=True)
        of = of.ravel()
        rows = np.split(np.argsort(of, kind="stable"), np.cumsum(np.bincount(of))[:-1])
        portion: list[tuple[IntArray, list[Cell]]] = []
        taken: set[Cell] = set()
        nbytes = 0
        for some, signature in zip(rows, found.T.tolist(), strict=True):
            ranges: dict[int, list[range]] = {number: [] for number in groups}
            for place, (number, _) in enumerate(spans):
                first, last = signature[2 * place : 2 * place + 2]
                ranges[number].append(range(first, last + 1))
            wanted = [
                (number, cell)
                for number, each in ranges.items()
                for cell in itertools.product(*each)
            ]
            more = sum(self._groups[cell[0]].nbytes for cell in set(wanted) - taken)
            if portion and nbytes + more > self._memory:
                yield portion
                portion, taken, nbytes = [], set(), 0
                more = sum(self._groups[cell[0]].nbytes for cell in wanted)
            portion += [(each, wanted) for each in self._pieces(some)]
            taken.update(wanted)
            nbytes += more
        yield portion

    def _pieces(self, rows: IntArray) -> list[IntArray]:
        """Samples in the same cells, by the pieces that they are cut from.

        Of data in memory, a piece costs nothing, however far it reaches, unless it is noted where
        its values are present.
        """
        return np.split(rows, len(rows)) if self._in_memory_present else [rows]

    # From cells to the windows in them.

    def _in_memory(
        self,
        piece: WindowBox,
        cells: Mapping[Cell, xr.Dataset],
        groups: Sequence[int],
        copied: bool = False,
    ) -> PieceInMemory:
        """A piece of the sample space with its data, from the cells around it.

        With `copied`, cells are not held on to.
        """
        recipe = self._samples
        region = {
            axis.dim: slice(*each)
            for axis, each in zip(recipe.windows.axes, piece.region, strict=True)
        }
        data: xr.Dataset | None = None
        if self._samples.preprocess is not None:
            (number,) = groups
            data = self._groups[number].combined(region, self._around(number, region, cells))
            data = data.copy(deep=True) if copied else data
            variables: Mapping[Any, xr.Variable] = data.variables
        else:
            read: dict[Hashable, xr.Variable] = {}
            for number in groups:
                around = self._around(number, region, cells)
                read.update(self._groups[number].joined(region, around, self._blocks, copied))
            others = {
                name: variable.isel(region, missing_dims="ignore")
                for name, variable in self._data.variables.items()
                if name not in read
            }
            variables = {**others, **read, **presence_of(others, self._in_memory_present)}
            if recipe.transforms:
                cut = self._data.isel(region, missing_dims="ignore")
                data = cut.assign({n: v for n, v in variables.items() if n not in cut.coords})
                data = data.assign_coords({n: v for n, v in read.items() if n in cut.coords})
        plain = [part for part in recipe.parts if part.name not in recipe.transforms]
        views = window_views(recipe.windows, recipe.sample_dims, plain, variables)
        if not recipe.transforms:
            return PieceInMemory(piece, views)
        assert data is not None
        names = {n for part in recipe.parts if part not in plain for n in part.arrays}
        return PieceInMemory(piece, views, data[[n for n in data.data_vars if n in names]])

    def _around(
        self, number: int, region: Region, cells: Mapping[Cell, xr.Dataset]
    ) -> dict[Place, xr.Dataset]:
        """The cells of a group which a region touches."""
        numbers = self._groups[number].around(region).values()
        return {place: cells[number, place] for place in itertools.product(*numbers)}


class Fetched(Sequence[tuple[torch.Tensor, ...]]):
    """Samples that were fetched together, and the batch that they are views of.

    The views are made when somebody asks for one: our loader takes the batch.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    @cached_property
    def _samples(self) -> list[tuple[torch.Tensor, ...]]:
        return list(zip(*(tensor.unbind() for tensor in self.batch), strict=True))

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, place: Any) -> Any:
        return self._samples[place]
