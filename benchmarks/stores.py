"""The stores: made from a seed, once, under a cache folder.

Values are a few waves that move with time plus noise, rounded to 16 bits as packed reanalyses are.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

SEED = 20
WAVES = 5
QUANTUM, OFFSET = 1 / 1024, 280.0  # 16 bits over a range of 64
ZARRS = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}
# xarray reads and writes these stores without consolidated metadata, so that nothing is left out.
OPEN = {"chunks": None, "consolidated": False}


def bench_dir() -> Path:
    """Where stores and environments are kept."""
    default = os.path.join(tempfile.gettempdir(), "xtorch_data-benchmarks")
    folder = Path(os.environ.get("XTD_BENCH_DIR") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A folder to write to that becomes `path` once it is complete."""
    unfinished = Path(tempfile.mkdtemp(dir=bench_dir()))
    try:
        yield unfinished
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def packed(values: np.ndarray) -> np.ndarray:
    """Values as 16-bit integers, without loss."""
    return np.rint((values - np.float32(OFFSET)) / np.float32(QUANTUM)).astype("int16")


@dataclass(frozen=True)
class Store:
    """One Zarr v3 store; the first dim is time."""

    name: str
    sizes: dict[str, int]
    chunks: tuple[int, ...]
    variables: int
    shards: tuple[int, ...] | None = None
    compressed: bool = True
    packed: bool = False  # int16 with scale_factor, add_offset and _FillValue
    empty: bool = False  # no chunk is written

    @property
    def names(self) -> list[str]:
        return [f"v{number:02d}" for number in range(self.variables)]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.sizes.values())

    @property
    def path(self) -> Path:
        return bench_dir() / f"{self.name}-{'x'.join(map(str, self.shape))}.zarr"

    @property
    def nbytes(self) -> int:
        """Bytes of all values as float32."""
        return math.prod(self.shape) * self.variables * 4

    def files(self) -> list[Path]:
        """The files of chunks or shards."""
        found = (path for name in self.names for path in (self.path / name / "c").rglob("*"))
        return sorted(path for path in found if path.is_file())

    def warm(self) -> int:
        """Bring the files into the page cache; their bytes."""
        return sum(len(path.read_bytes()) for path in self.files())

    def make(self) -> None:
        """Write the store unless it is there."""
        if self.path.exists():
            return
        with written(self.path) as folder, zarr.config.set(ZARRS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._coordinates().to_zarr(folder, mode="w", consolidated=False, zarr_format=3)
            group = zarr.open_group(folder, mode="a")
            for place, name in enumerate(self.names):
                self._write(group, place, name)

    def _write(self, group: zarr.Group, place: int, name: str) -> None:
        size = 2 if self.packed else 4
        blosc = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=size)
        packing = {"scale_factor": QUANTUM, "add_offset": OFFSET, "_FillValue": -32768}
        array = group.create_array(
            name,
            shape=self.shape,
            chunks=self.chunks,
            shards=self.shards,
            dtype="int16" if self.packed else "float32",
            compressors=blosc if self.compressed else None,
            dimension_names=list(self.sizes),
            fill_value=-32768 if self.packed else float("nan"),
            attributes=packing if self.packed else {},
        )
        if self.empty:
            return
        steps = max(64, self.chunks[0], (self.shards or (0,))[0])
        for start in range(0, self.shape[0], steps):
            values = self.values(place, start, min(start + steps, self.shape[0]))
            if self.packed:
                values = packed(values)
            array[start : start + steps] = values

    def _coordinates(self) -> xr.Dataset:
        time, *others = self.sizes.items()
        hours = np.arange(time[1]) * np.timedelta64(1, "h")
        coords = {time[0]: np.datetime64("2000-01-01", "ns") + hours}
        for dim, size in others:
            degrees = dim in ("latitude", "longitude")
            coords[dim] = np.linspace(0, 180, size) if degrees else np.arange(size)
        return xr.Dataset(coords=coords)

    def values(self, variable: int, start: int, stop: int) -> np.ndarray:
        """Values of some steps; the same for every layout of the same sizes."""
        waves = np.random.default_rng([SEED, variable]).uniform(0, 1, (WAVES, 4))
        along = [np.linspace(0, 2 * np.pi, size, dtype=np.float32) for size in self.shape[1:]]
        grids = np.meshgrid(*along, indexing="ij")
        places = [sum(round(1 + 5 * w) * g for w, g in zip(wave, grids)) for wave in waves]  # noqa: B905
        out = np.empty((stop - start, *self.shape[1:]), np.float32)

        def fill(row: int) -> None:
            step, field = start + row, out[row]
            rng = np.random.default_rng([SEED, variable, step])
            rng.standard_normal(out=field, dtype=np.float32)
            field *= 0.5
            for place, wave in zip(places, waves, strict=True):
                phase = np.float32(0.02 * step * (0.5 + wave[2]) + 6 * wave[3])
                field += 5 * np.cos(place + phase)
            np.rint(field / np.float32(QUANTUM), out=field)
            field *= np.float32(QUANTUM)
            field += np.float32(OFFSET)

        with ThreadPoolExecutor() as threads:  # NumPy works outside the GIL
            list(threads.map(fill, range(stop - start)))
        return out
