"""Options of the command line, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import click

__all__ = ["AS_JSON", "OPTIONS", "TOPOLOGY", "sizes", "with_options"]

# Values that are hardly meant as text.
PYTHON_SPELLS = {"True": "true", "False": "false", "None": "null"}


def sizes(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    """``time=8,lat=32``, in one or in several options, as a mapping."""
    return _by_dim(given, "DIM=STEPS", int)


def _lengths(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    """``time=48h,lat=32``, likewise; what has a number and more may be a duration."""

    def length(text: str) -> int | str:
        try:
            return int(text)
        except ValueError:
            if not any(map(str.isdigit, text)):
                raise
            return text.strip()

    return _by_dim(given, "DIM=48h or DIM=STEPS", length)


def _by_dim(given: tuple[str, ...], form: str, read: Callable[[str], Any]) -> dict[str, Any]:
    found = {}
    for each in _items(given):
        dim, equals, size = each.rpartition("=")
        try:
            found[dim.strip()] = read(size)
        except ValueError:
            equals = ""
        if not equals or not dim.strip():
            raise click.BadParameter(f"give {form}, not {each!r}")
    return found


def _rules(*known: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], Any]:
    """``split`` for all dims, or ``time=split,level=ignore`` by dim, as a mapping."""

    def rules(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
        found = {dim: rule for dim, _, rule in (each.rpartition("=") for each in _items(given))}
        if "" in found and len(found) > 1:
            raise click.BadParameter("give RULE for all dims, or DIM=RULE for each that has one")
        for rule in found.values():
            if rule not in known:
                one_of = f"{', '.join(known[:-1])} or {known[-1]}"
                raise click.BadParameter(f"a rule is {one_of}, not {rule!r}")
        return found.get("", found or None)

    return rules


def _boundaries(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    """``longitude=wrap,latitude=edge``, as a mapping."""
    return _by_dim(given, "DIM=RULE", str.strip) or None


def _halos(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    """``latitude=8,time=4:0``, as a mapping: on both sides, or before and behind."""

    def halo(text: str) -> int | tuple[int, ...]:
        sides = tuple(int(side) for side in text.split(":"))
        return sides[0] if len(sides) == 1 else sides

    return _by_dim(given, "DIM=STEPS or DIM=BEFORE:AFTER", halo) or None


def _names(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    return list(_items(given)) or None


def _items(given: tuple[str, ...]) -> Iterator[str]:
    return (item.strip() for each in given for item in each.split(",") if item.strip())


def _opening(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> Any:
    """``KEY=VALUE`` in each option, as a mapping; values as JSON, or as Python spells them."""
    found: dict[str, Any] = {}
    for each in given:
        key, equals, text = each.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"give KEY=VALUE, not {each!r}")
        if key in found:
            raise click.BadParameter(f"{key} is given twice")
        try:
            found[key] = json.loads(PYTHON_SPELLS.get(text, text))
        except ValueError:
            found[key] = text
    return found


OPTIONS = [
    click.argument("store"),
    click.option(
        "--input-dims", multiple=True, required=True, callback=_lengths, metavar="DIM=STEPS,…",
        help="Size of one sample along each windowed dim; -1 is the whole dim, 48h a duration.",
    ),
    click.option(
        "--input-overlap", multiple=True, callback=_lengths, metavar="DIM=STEPS,…",
        help="Overlap of neighboring windows.",
    ),
    click.option("--breaks", multiple=True, callback=_rules("split", "raise", "ignore"),
                 metavar="RULE|DIM=RULE,…",
                 help="What becomes of breaks in labels: split, raise or ignore."),
    click.option("--boundary", multiple=True, callback=_boundaries, metavar="DIM=RULE,…",
                 help="What lies beyond the ends of a dim: wrap, edge, reflect or constant."),
    click.option("--remainder", multiple=True, callback=_rules("drop", "pad", "shift"),
                 metavar="RULE|DIM=RULE,…",
                 help="What becomes of the last, partial window: drop, pad or shift."),
    click.option("--halo", multiple=True, callback=_halos, metavar="DIM=STEPS,…",
                 help="Steps that each sample has in addition, on both sides or BEFORE:AFTER."),
    click.option("--inputs", multiple=True, callback=_names, metavar="NAME,…",
                 help="Variables of the part x; by default all."),
    click.option("--targets", multiple=True, callback=_names, metavar="NAME,…",
                 help="Variables of the part y."),
    click.option("--batch-size", type=int, default=32, show_default=True),
    click.option("--shuffle/--in-order", default=True, show_default=True),
    click.option("--seed", type=int, default=0, show_default=True),
    click.option("--drop-last", is_flag=True, help="Leave out a last batch that is smaller."),
    click.option("--uneven", type=click.Choice(["drop", "pad", "keep"]), default=None,
                 help="How samples are shared that ranks cannot share equally; by default drop "
                 "if shuffled, and pad in order."),
    click.option("--memory", default="1 GiB", show_default=True,
                 help="What blocks may take in each process."),
    click.option("--engine", default=None, help="Engine of xarray.open_dataset."),
    click.option("--group", default=None, help="Group of a Zarr store or of a NetCDF file."),
    click.option("--open", "opening", multiple=True, callback=_opening, metavar="KEY=VALUE",
                 help="Another argument of xarray.open_zarr or open_dataset, as JSON or text, such "
                 "as decode_times=false; may be repeated."),
]  # fmt: skip

TOPOLOGY = [
    click.option("--ranks", type=click.IntRange(1), default=1, show_default=True),
    click.option("--workers", type=click.IntRange(0), default=0, show_default=True,
                 help="Worker processes of each rank."),
]  # fmt: skip

AS_JSON = [click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")]


def with_options(*options: Any) -> Callable[[Any], Any]:
    """Decorate a command with lists of options, in their order."""

    def decorated(command: Any) -> Any:
        for option in reversed([each for some in options for each in some]):
            command = option(command)
        return command

    return decorated
