"""The command line: what an epoch costs, proof that it is whole, its speed, a better copy."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from importlib import metadata
from typing import Any

import click

from .cli_options import AS_JSON, OPTIONS, TOPOLOGY, sizes, with_options
from .common.redact import printable, printable_lines, redacted, words_of
from .common.spelling import spelling
from .common.text import jsonable

__all__ = ["main"]

PACKAGES = (
    "torch", "xarray", "xbatcher", "zarr", "zarrs", "dask", "numpy", "netCDF4", "h5netcdf", "s3fs",
    "obstore", "tqdm",
)  # fmt: skip
# Shared memory that a few workers take for batches of some megabytes.
ENOUGH_SHARED_MEMORY = 2**30


class Refused(click.ClickException):
    """Error of what cannot be opened or planned, shown as a message without a traceback."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(printable_lines(message))


class Commands(click.Group):
    """Commands whose usage errors show what was typed without control characters."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """The context of the command line."""
        with _usage_printable():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _usage_printable():
            return super().invoke(ctx)


@contextmanager
def _usage_printable() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        said = error.format_message()
        if printable_lines(said) == said:
            raise
        raise click.UsageError(printable_lines(said), error.ctx) from error


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="xtorch_data")
def main() -> None:
    """Look at what a data loader will do with a store, and how fast.

    Exit codes: 0, as it should be; 1, verify or doctor found something; 2, it cannot be done.
    """


def _dataset(
    store: str, engine: str | None, group: str | None, opening: Mapping[str, Any], **arguments: Any
) -> Any:
    """The dataset that the options describe."""
    import xtorch_data as xtd

    from .samples.tensor_dtypes import NoTensorsError

    with _refusing():
        ds = _opened(store, engine, group, opening)
    try:
        with _refusing_arguments(), _telling():
            return xtd.IterableDataset(ds, rank=0, world_size=1, **arguments)
    except NoTensorsError as error:  # whose message speaks Python
        option = {"x": "--inputs", "y": "--targets"}[error.part]
        instead = (
            f": give {option} {','.join(map(printable, error.usable))}" if error.usable else ""
        )
        raise Refused(f"{error.fact}{instead}") from error
    except TypeError as error:
        raise Refused(words_of(error)) from error


@contextmanager
def _refusing_arguments() -> Iterator[None]:
    """Say what is wrong with arguments by the names that their options have."""
    try:
        with spelling(_option):
            yield
    except ValueError as error:
        raise Refused(redacted(str(error))) from error


def _option(argument: str, *keys: Any) -> str:
    """An option as it is typed, such as ``--input-dims x``."""
    return " ".join([f"--{argument.replace('_', '-')}", *map(printable, keys)])


@contextmanager
def _telling() -> Iterator[None]:
    """Say what a program is warned of, without where in the program that is."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in found:
        click.echo(f"Note: {printable_lines(str(each.message))}", err=True)


@contextmanager
def _refusing() -> Iterator[None]:
    """Say what went wrong with a store in a message, whatever its client raises."""
    try:
        yield
    except click.ClickException:
        raise
    except Exception as error:
        raise Refused(words_of(error)) from error


def _opened(store: str, engine: str | None, group: str | None, opening: Mapping[str, Any]) -> Any:
    import xarray as xr

    import xtorch_data as xtd

    some = dict(opening)
    for name, value in ("engine", engine), ("group", group):
        if value is not None and some.setdefault(name, value) != value:
            raise Refused(f"--{name} {value} and --open {name}={some[name]} differ")
    engine = some.pop("engine", None)
    is_zarr = engine is None and (
        "://" in store or os.path.isdir(store) or store.rstrip("/").endswith(".zarr")
    )
    if engine == "zarr" or is_zarr:
        if "://" not in store and not os.path.exists(store):
            raise FileNotFoundError(f"there is no {printable(redacted(store))}")
        return xtd.open_zarr(store, **some)
    return xr.open_dataset(store, engine=engine, **some)


@main.command()
@with_options(OPTIONS, TOPOLOGY, AS_JSON)
def explain(ranks: int, workers: int, as_json: bool, **options: Any) -> None:
    """Say what an epoch will read, and what would make it less, from metadata alone."""
    dataset = _dataset(**options)
    with _refusing_arguments():  # fewer samples than ranks
        found = dataset.explain(world_size=ranks, num_workers=workers)
    _print(found, asdict(found), as_json)


@main.command()
@with_options(OPTIONS, TOPOLOGY, AS_JSON)
def verify(ranks: int, workers: int, as_json: bool, **options: Any) -> None:
    """Count what all ranks and workers would get; exit with 1 if that is not what was asked for."""
    from .datasets.verify import counted

    dataset = _dataset(**options)
    with _refusing_arguments():
        dataset.plan.require_shares(ranks)
    with spelling(_option):
        found = counted(dataset, ranks, workers)
    uneven = found.samples % ranks if dataset.plan.uneven == "drop" else 0
    short = found.left_out - uneven  # by --drop-last
    text = str(found)
    for count, what, other in ((uneven, "left out", "pad"), (found.padding, "repeated", "drop")):
        if count:
            text += (
                f"\n{count} {what} because {ranks} ranks cannot share {found.samples} equally; "
                f"--uneven {other} or keep"
            )
    if short > 0:
        size = dataset.batch_size
        text += f"\n{short} left out in batches of fewer than {size}, by --drop-last"
    counts = asdict(found)
    del counts["datasets"]  # of a mixture, which no command makes
    _print(text, {"ok": found.ok, **counts}, as_json)
    if not found:
        raise SystemExit(1)


@main.command()
@with_options(OPTIONS, AS_JSON)
@click.option("--seconds", type=click.FloatRange(min=0.0, min_open=True), default=10.0,
              show_default=True, help="How long to read, at most one epoch.")  # fmt: skip
def bench(seconds: float, as_json: bool, **options: Any) -> None:
    """Read batches, and say how fast, and which stage limits."""
    from .common.progress import bar

    dataset = _dataset(**options)
    nbytes, end = 0, time.perf_counter() + seconds
    with _refusing(), bar(len(dataset), "batch", "reading") as done:
        with closing(iter(dataset)) as batches:
            for batch in batches:
                nbytes += sum(tensor.nbytes for tensor in batch)
                done(1)
                if time.perf_counter() > end:
                    break
    stats = dataset.stats()
    figures = {
        "samples_per_second": stats.samples / stats.seconds,
        "gigabytes_per_second": nbytes / stats.seconds / 1e9,
        "limited_by": stats.limited_by,
        **asdict(stats),
    }
    text = (
        f"{figures['samples_per_second']:,.0f} samples/s, "
        f"{figures['gigabytes_per_second']:.3f} GB/s of batches\n{stats}"
    )
    _print(text, figures, as_json)


@main.command()
@with_options(OPTIONS[:1], [click.argument("target")], OPTIONS[1:])
@click.option("--copy-memory", default="1 GiB", show_default=True, help="Of copying.")
@click.option("--chunks", multiple=True, callback=sizes, metavar="DIM=STEPS,…",
              help="Steps of a chunk along dims; along others they are chosen.")  # fmt: skip
@click.option("--verify/--no-verify", default=True, show_default=True,
              help="Read everything back and compare.")  # fmt: skip
@with_options(AS_JSON)
def rechunk(
    target: str,
    copy_memory: str,
    chunks: dict[str, int],
    verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Copy a store to another, TARGET, in chunks that fit the windows; again, to go on with it."""
    import xtorch_data as xtd

    dataset = _dataset(**options)
    with _refusing():
        ds = _opened(*(options[name] for name in ("store", "engine", "group", "opening")))
        copy = xtd.rechunk(ds, dataset, target, chunks=chunks, verify=verify, memory=copy_memory)
    found = {
        name: dict(zip(variable.dims, variable.encoding["chunks"], strict=True))
        for name, variable in copy.data_vars.items()
    }
    lines = []
    for name, steps in found.items():
        sizes = ", ".join(f"{printable(dim)}={size}" for dim, size in steps.items())
        lines.append(f"{printable(name)}: chunks of {sizes}")
    _print("\n".join(lines), {"target": redacted(target), "chunks": found}, as_json)


@main.command()
@with_options(AS_JSON)
def doctor(as_json: bool) -> None:
    """Say what is installed and usable here; exit with 1 if something is slow or missing."""
    import torch.multiprocessing
    import zarr
    from dask.system import CPU_COUNT

    versions = {name: _version(name) for name in ("xtorch_data", *PACKAGES)}
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    shared = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None
    start_method = torch.multiprocessing.get_start_method(allow_none=True)
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": CPU_COUNT,
        "start_method": start_method or torch.multiprocessing.get_all_start_methods()[0],
        "start_method_of_loader": "forkserver",
        "codec_pipelines": {
            "xtorch_data.open_zarr": "zarrs.ZarrsCodecPipeline",
            "others": str(zarr.config.get("codec_pipeline.path")),
        },
        "shared_memory": shared,
        "cuda": accelerator,
        "versions": versions,
        "findings": list(_findings(accelerator, shared, versions)),
    }
    lines = [
        f"Python {found['python']} on {found['platform']}, {found['cores']} cores",
        *(f"  {name} {version or 'is not installed'}" for name, version in versions.items()),
        f"CUDA: {accelerator or 'none'}",
        f"workers start by forkserver, those of a plain torch loader by {found['start_method']}",
        *(
            f"Zarr opened by {who} is decoded by {path}"
            for who, path in found["codec_pipelines"].items()
        ),
        *(found["findings"] or ["Nothing to complain about."]),
    ]
    _print("\n".join(lines), found, as_json)
    if found["findings"]:
        raise SystemExit(1)


def _findings(
    accelerator: str | None, shared: int | None, versions: Mapping[str, str | None]
) -> Iterator[str]:
    """Findings about what is slow or missing here."""
    from dask.system import CPU_COUNT

    from .common.text import format_bytes

    if accelerator is None and os.path.exists("/dev/nvidia0"):
        yield "there is a GPU of NVIDIA, but this torch cannot use it: install its CUDA build"
    if shared is not None and shared < ENOUGH_SHARED_MEMORY:
        yield (
            f"/dev/shm has {format_bytes(shared)} left, in which workers hand batches over: "
            "give a container more with --shm-size, or use no workers"
        )
    if versions["zarrs"] is None:
        yield "zarrs is missing: shards and rare codecs are decoded several times slower"
    if versions["netCDF4"] is None and versions["h5netcdf"] is None:
        yield "no library for NetCDF: pip install 'xtorch_data[netcdf]'"
    if CPU_COUNT == 1:
        yield "one core only: nothing can be read while a model computes"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _print(text: Any, figures: Mapping[str, Any], as_json: bool) -> None:
    """Print what was found, or the figures that it is made of as JSON."""
    shown = str(text)
    if as_json:  # which leaves one control character as it is
        shown = json.dumps(jsonable(figures), indent=2).replace("\x7f", "\\u007f")
    try:
        click.echo(printable_lines(shown))
    except OSError as error:
        if error.errno == errno.EPIPE:  # who read it has enough, which click takes for an end
            raise
        raise Refused(f"what was found cannot be written: {error.strerror}") from error
