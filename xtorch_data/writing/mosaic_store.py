"""The Zarr store of a mosaic: written tile by tile, and marked incomplete until it is closed."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..common.text import number_of
from ..common.user_warnings import warn_user
from ..planning.field import Field
from ..planning.index_maps import IntArray
from .copy_tasks import Task, VariableCopy
from .mosaic_chunks import chunks_of, shards_of
from .mosaic_layout import MosaicLayout, Values
from .mosaic_writable import (
    filled,
    require_chunks,
    require_coords,
    require_fits,
    require_names,
    require_text,
)
from .notes import first_note, leave_note, note_at, notes_at
from .partial_sums import Tile, folder_beside
from .ranks import Ranks
from .zarr_target import WHOLE, Target, not_computed, quiet

__all__ = ["Mode", "MosaicStore"]

Mode = Literal["w-", "w", "a"]
MAKER = "xtorch_data.Mosaic"
# Seconds to wait for another process to let go of the store, when all have left their sums.
PATIENCE = 60.0
# Seconds in which what another process writes at the same moment is there, where no locks are.
SETTLED = 1.0
# What of an encoding changes values.
ENCODED = {"dtype", "scale_factor", "add_offset", "_FillValue", "missing_value", "units"}


class MosaicStore:
    """Made by a `Mosaic` with a path, and as long as this is open; its thread touches it."""

    def __init__(
        self,
        path: Any,
        mode: Mode,
        layout: MosaicLayout,
        encoding: Mapping[Any, Mapping[str, Any]],
        memory: int,
        blend: str | None,
        ranks: Ranks,
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {list(get_args(Mode))}, not {mode!r}")
        require_names(layout, encoding)
        self._layout, self._encoding, self._memory = layout, encoding, memory
        self._blend, self._mode, self._ranks = blend, mode, ranks
        self.folder = folder_beside(path)
        self._target = Target(path, None, what="result", maker=MAKER)
        self._stack = contextlib.ExitStack()
        self.is_left = False  # whether this process has left its sums for the last one before
        begun = ranks.first(self._joined if ranks.apart else self._opened)
        whole = begun is not None and WHOLE in begun
        self.is_left, self._begun = self.is_left or whole, None if whole else begun
        self.field = layout.field
        self.done = np.zeros(layout.field.tiles, dtype=bool)
        self._lacking: npt.NDArray[np.bool_] | None = None
        self._created = False
        self._arrays: dict[str, Any] | None = None  # once there are some
        if self._begun is not None:
            self.field = layout.field.tiled(self._begun["tile"])
            self.catch_up()

    def _opened(self) -> dict[str, Any] | None:
        """What is known of a store that goes on; the first rank keeps it from others."""
        self._stack.enter_context(self._target.held())
        try:
            begun = self._target.unfinished(self._mode)
            self._target.sweep()
            if begun is not None:
                self._target.require_like(begun, self._known())
                if WHOLE in begun:
                    self._target.finish()
            elif self._mode == "w" and self._ranks.size > 1:
                self._target.reserve()
        except BaseException:
            self._stack.close()
            raise
        return begun

    def _joined(self) -> dict[str, Any] | None:
        """The mark of a store that other processes may have begun, which do not wait."""
        rank, size = self._ranks.rank, self._ranks.size
        if self._mode == "w":
            raise ValueError(
                f"this is rank {rank} of {size}, and without torch.distributed ranks cannot wait "
                "for one of them to replace a store: remove it before, and give mode='w-' or 'a'; "
                "or call torch.distributed.init_process_group first. A dataset with rank=0, "
                "world_size=1 is alone"
            )
        self._stack.enter_context(self._target.held(share=True))
        try:
            begun = self._target.unfinished(self._mode, join=True)
            self._target.join(self._known())
            whole = begun is not None and WHOLE in begun
            if self._mode == "w-" and (whole or self._note(rank, "began") is not None):
                raise FileExistsError(
                    f"rank {rank} of {size} has begun {self} before: mode='a' goes on with it"
                )
            if whole:
                self._target.finish()
                return begun
            leave_note(self._target.place(f"{rank} began"), {})
            self.is_left = self._note(rank, "left") is not None
            self._target.lock.share()
        except BaseException:
            self._stack.close()
            raise
        return begun

    def _known(self) -> dict[str, Any]:
        """What must be the same for a store to go on."""
        layout = self._layout
        ranks = {"ranks": self._ranks.size} if self._ranks.apart else {}
        return {
            **ranks,
            "names": list(map(str, layout.part.variables)),
            "sizes": list(layout.field.sizes),
            "blend": str(self._blend),
            "samples": layout.field.digest(layout.samples),
        }

    def __str__(self) -> str:
        return str(self._target)

    def read_done(self) -> None:
        """Find out which tiles are complete, whoever wrote them."""
        count = len(self._layout.part.variables)
        record = self._target.done[:].reshape(count, *self.field.tiles)
        self.done = (record != 0).all(axis=0)

    def lacking(self, samples: IntArray | slice) -> Any:
        """For some samples, whether a tile that they touch was incomplete at the last look."""
        return True if self._lacking is None else self._lacking[samples]

    def begin(
        self,
        dtype: np.dtype[Any],
        others: Mapping[Hashable, int],
        finished: Callable[[tuple[slice, ...], Values], xr.Dataset],
    ) -> Field:
        """Work out what there is to begin with, and return the field in tiles.

        The first rank writes it at once. `finished` makes the Dataset of a region, as it will be
        written.
        """
        layout, names = self._layout, list(map(str, self._layout.part.variables))
        lead = tuple(others.values())
        chunks, shards = self._chunks(dtype, lead)
        if self._begun is None:
            sizes = [1] * len(layout.field.sizes)
            for unit in (shards.get(name) or chunks[name] for name in names):
                sizes = [math.lcm(one, other) for one, other in zip(sizes, unit, strict=True)]
            at, tile = 0, []
            for each in layout.field.dims:
                tile.append(min(sizes[at], each.length))
                at += len(each.shape)
            self.field = layout.field.tiled(tile)
            self.done = np.zeros(self.field.tiles, dtype=bool)
        first = (0,) * len(self.field.dims)
        shape = (len(names), *lead, *self.field.tile_shape(first))
        sample = finished(self.field.region(first), np.zeros(shape, dtype))
        self._dims = dims = (*others, *layout.dims)
        require_text(others)
        encoding = {name: dict(each) for name, each in self._encoding.items()}
        self._fills = True
        template = {}
        for name in names:
            own = sample.variables.get(name)
            if own is None or own.dims != dims or own.shape != shape[1:]:
                raise ValueError(
                    f"inverse must keep variable {name!r} with its dims {dims}, but made "
                    f"{'none' if own is None else own.dims} of it: what is written chunk by chunk "
                    "has the shape of the field"
                )
            kept, fills = filled(name, own.dtype, encoding.get(name, {}))
            encoding[name], self._fills = kept, self._fills and fills
            nothing = not_computed((*lead, *layout.field.sizes), own.dtype)
            template[name] = xr.Variable(dims, nothing, own.attrs, own.encoding)
        inside = dict(zip(layout.dims, self.field.region(first), strict=True))
        require_coords(sample, names, layout.coords, inside)
        whole = layout.coords.compute().assign_attrs(sample.attrs)
        made = whole.assign(template)
        cuts = tuple((0, size) for size in lead) + self._cuts()
        copies = [
            VariableCopy(
                name,
                dict(zip(dims, (*lead, *chunks[name]), strict=True)),
                shards.get(name) and dict(zip(dims, (*lead, *shards[name]), strict=True)),
                cuts,
            )
            for name in names
        ]
        known = {
            "tile": [each.tile for each in self.field.dims],
            "predictions": [dtype.str, dict(others)],
            **self._known(),
        }
        apart = self._ranks.apart
        self._first: Any = whole, copies, made, encoding, {}, known, self._mode == "w", apart
        self._names = sorted(names)
        if self._ranks.rank == 0 or apart:
            self.create()
        return self.field

    def create(self) -> None:
        """Write what there is to begin with, unless that was done."""
        if not self._created and not (self._ranks.apart and self._target.begun):
            with quiet():
                self._target.begin(*self._first)
            self._created = True

    @property
    def ready(self) -> bool:
        """Whether tiles can be written: not before the first rank has begun."""
        if self._arrays is None and (self._created or self._target.begun):
            if not self._created or self._ranks.apart:  # another may have begun it since
                self._target.require_same(*self._first[:-2])
            # What is stored as it is goes past xarray, which takes ten times as long.
            encoded = {name for name in self._names if ENCODED & {*self._encoding.get(name, {})}}
            plain = [name for name in self._names if name not in encoded]
            self._arrays = {name: self._target.array(name) for name in plain}
            self._record = self._target.done
        return self._arrays is not None

    def _cuts(self) -> tuple[tuple[int, ...], ...]:
        found: list[tuple[int, ...]] = []
        for each in self.field.dims:
            found.append(tuple(each.extent(tile)[0] for tile in range(each.tiles)) + (each.length,))
            found += [(0, size) for size in each.shape[1:]]
        return tuple(found)

    def _chunks(self, dtype: np.dtype[Any], lead: tuple[int, ...]) -> tuple[Any, Any]:
        """Chunks and shards of each variable, along the dims of the field."""
        layout = self._layout
        chunks: dict[Hashable, tuple[int, ...]] = {}
        shards: dict[Hashable, tuple[int, ...] | None] = {}
        itemsize = dtype.itemsize * math.prod(lead)
        count = len(lead) + len(layout.field.sizes)
        for name in layout.part.variables:
            own = dict(self._encoding.get(name, {}))
            for key in ("chunks", "shards"):
                if own.get(key) is not None:
                    own[key] = require_chunks(str(name), key, own[key], count)[len(lead) :]
            given = own.get("chunks")
            chunks[name] = chunks_of(layout, name, given, itemsize, self._memory)
            if own.get("shards") is not None:
                shards[name] = own["shards"]
            elif given is None and "shards" not in own:
                shards[name] = shards_of(layout, name, chunks[name], itemsize, self._memory)
        return chunks, shards

    def write(self, tile: Tile, dataset: xr.Dataset) -> None:
        """Write a tile that is complete, and record it; once it is `ready`."""
        assert self._arrays is not None
        region = [slice(0, dataset.sizes[dim]) for dim in self._dims]
        inside = self.field.region(tile)
        region[len(region) - len(inside) :] = inside
        number = int(np.ravel_multi_index(tile, self.field.tiles))
        for place, name in enumerate(self._names):
            where = dict(zip(self._dims, region, strict=True))
            task = Task(place * self.done.size + number, name, where)
            array = self._arrays.get(name)
            if array is not None:
                array[tuple(region)] = dataset.variables[name].values
            else:
                require_fits(name, dataset.variables[name].values, self._encoding[name])
                self._target.write(task, dataset.variables[name])
            self._record[task.number] = 1
        self.done[tile] = True

    # What ranks exchange in the end: it lies with the record, and goes with it.

    def keep(self, name: str, values: npt.NDArray[Any]) -> None:
        """Keep an array of this rank for others."""
        self._target.keep(f"{self._ranks.rank} {name}", values)

    def kept(self, rank: int, name: str) -> npt.NDArray[Any]:
        """An array of some rank."""
        return np.asarray(self._target.kept(f"{rank} {name}"))

    # Processes that do not wait: each leaves what it has, and the last one completes the store.

    @property
    def predictions(self) -> tuple[str, dict[Hashable, int]] | None:
        """Dtype of sums and other dims, by whoever has begun; None if nobody has."""
        known = self._target.mark if self._ranks.apart else self._begun or {}
        dtype, others = known.get("predictions", (None, {}))
        return None if dtype is None else (dtype, dict(others))

    def leave_tiles(self, tiles: Sequence[Tile]) -> None:
        """Tell which tiles this process has kept for the last one; it has added all it will."""
        numbers = [[int(at) for at in tile] for tile in tiles]
        leave_note(self._target.place(f"{self._ranks.rank} left"), {"tiles": numbers})
        self.is_left = True

    def left(self, rank: int) -> list[Tile]:
        """The tiles that a process has kept for the last one."""
        note = self._note(rank, "left")
        assert note is not None
        return [tuple(tile) for tile in note["tiles"]]

    def _note(self, rank: int, name: str) -> dict[str, Any] | None:
        return note_at(self._target.place(f"{rank} {name}"))

    @property
    def _waiting(self) -> list[int]:
        """Ranks that have not left theirs."""
        places = [self._target.place(f"{rank} left") for rank in range(self._ranks.size)]
        waiting = [rank for rank, note in enumerate(notes_at(places)) if note is None]
        return [] if self._target.is_whole else waiting  # asked second, as its end takes all away

    def is_last(self) -> bool:
        """Tell whether all have left theirs, and this process is to complete the store."""
        lock, until = self._target.lock, time.monotonic() + PATIENCE
        left = not self._waiting
        while left and not self._target.is_finished and time.monotonic() < until:
            if lock.take_alone():
                if not self._target.is_whole:
                    if not lock.works and not self._claimed():
                        break
                    self._target.sweep()
                    return True
                if lock.works:  # whoever completed it was killed
                    self._target.finish()
            time.sleep(0.01)
        self._stack.close()
        return False

    def _claimed(self) -> bool:
        """Claim to complete the store; False if another process was first."""
        place, mine = self._target.place("completes"), {"rank": self._ranks.rank}
        if first_note(place, mine) != mine:
            return False
        time.sleep(SETTLED)
        return note_at(place) == mine

    def catch_up(self) -> None:
        """Find out which tiles others have completed, and of which samples."""
        self.read_done()
        self._lacking = self.field.touching(~self.done).reshape(-1)

    def completed(self) -> xr.Dataset:
        """The result, which another process has completed; ValueError if none has."""
        if (found := self.so_far()) is not None:
            raise ValueError(found[0])
        return self._opened_result()

    def so_far(self) -> tuple[str, xr.Dataset] | None:
        """A line on what is to come, and the store as it is, marked; None if it is complete."""
        waiting = self._waiting
        if self._target.is_finished:
            self._lacking = np.zeros(math.prod(self.field.shape), dtype=bool)
            return None
        if waiting:
            names = f"rank{'s' * (len(waiting) > 1)} {', '.join(map(str, waiting[:8]))}"
            more = f" and {len(waiting) - 8:,} more" if len(waiting) > 8 else ""
            why = (
                f"{names}{more} of {self._ranks.size} have not closed theirs; the last one to do "
                "so completes it"
            )
        else:
            why = "another process completes it, or mode='a' goes on where that was killed"
        return f"{self} is not complete: {why}", self._target.open()

    def finish(self, missing: int, nothing: Callable[[Tile], xr.Dataset]) -> xr.Dataset:
        """Complete the store and open it; `missing` samples were never added.

        `nothing` makes the Dataset of a tile of which no sample came.
        """

        def finished() -> None:
            if not self._fills:
                self.read_done()
                for tile in zip(*np.nonzero(~self.done), strict=True):
                    where = tuple(int(each) for each in tile)
                    self.write(where, nothing(where))
            self._target.finish()
            self._stack.close()

        self._ranks.first(finished)
        self.done[...] = True
        if missing and self._begun is not None:
            warn_user(
                f"{number_of(missing, 'sample')} of chunks of {self} that were not complete when "
                "it was opened were not added since: what they alone predict is missing"
            )
        return self._opened_result()

    def _opened_result(self) -> xr.Dataset:
        # Names of other variables that attributes have, such as a grid mapping, are no more theirs.
        opened = self._target.opened()
        return opened.set_coords([name for name in opened if name in self._layout.coords.variables])

    def leave(self) -> None:
        """Leave the store as it is."""
        self._stack.close()
