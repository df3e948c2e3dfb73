"""The tables of the workloads: everyone's rates beside each other's and the limit, and targets."""

from __future__ import annotations

import contextlib
import os
from importlib import metadata

import numpy as np
import pandas as pd
from s3_server import Server

from . import remote
from .contenders import CONTENDERS, STAGES
from .race import race, rounds
from .report import GIB, MIB, Table, Target, show, table
from .stores import bench_dir
from .workloads import Workload, make_workload

SLACK = 200 * 10**6  # bytes that are allowed beside `memory` and batches
BATCHES = 4
PACKAGES = ("torch", "xtorch_data", "zarr", "zarrs", "xarray", "numpy", "xbatcher", "numcodecs",
            "obstore", "s3fs")  # fmt: skip


def allowed_memory(work: Workload) -> float:
    """Peak above imports that a process may have, MiB."""
    return (work.memory + BATCHES * work.batch_nbytes + SLACK) / MIB


def table_speed(name: str, quick: bool) -> Table:
    """One workload."""
    if name == "remote" and not remote.INSTALLED:
        return remote.MISSING.format(name), []
    kind, work, count = name.split("-")[0], make_workload(name, quick), rounds(quick)
    firsts, load = 1 if quick else count, os.getloadavg()[0]
    racing = {key: each for key, each in CONTENDERS.items() if {name, kind} & set(each.groups)}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(bench_dir())) if name == "remote" else None
        frame = race(racing, work, count, firsts, server=server)
    limit, others, whole = frame.loc["limit"], frame.drop("limit"), ~frame["slow"].astype(bool)
    best = frame["rate"].filter(like="xbatcher").max()
    found = targets(name, kind, work, frame)
    handed = work.samples * work.sample_nbytes
    text = (
        f"\n### {name}\n\n{work.samples:,} samples of {work.sample_nbytes / MIB:.3g} MiB in "
        f"batches of {work.batch_size:,}: {handed / GIB:.2f} GiB handed out of "
        f"{work.store.nbytes / GIB:.2f} GiB, stored in {limit['stored'] / GIB:.2f} GiB. Medians of "
        f"{count} rounds; first epochs of {firsts} processes. Load average {load:.1f}.\n\n"
    )
    shown = {
        "first epoch, samples/s": frame.get("rate first"),
        "later epochs, samples/s": frame["rate"],
        "first batch, s": frame.get("first_batch first"),
        "in later epochs, s": frame["first_batch"],
        "CPU s, user + system": _cpu(frame).where(whole),
        "CPU s per GB": ((frame["user"] + frame["system"]) / handed * 1e9).where(whole),
        "bytes read / stored": (frame["fetched"] / frame["stored"]).where(whole),
        "peak above imports, MiB": frame["peak, MiB"],
        "× best xbatcher": frame["rate"] / best,
        "of the limit": frame["rate"] / limit["rate"],
    }
    text += table(frame.assign(**shown).drop("limit"), shown)
    text += "\nWhoever pays for every sample is timed over a few, spread over the store.\n"
    tried = (*str(limit["tried"]).split(), "copy")
    parts = ", ".join(f"{each} {limit.get(each, np.nan):.3f} s" for each in tried)
    text += f"\nThe limit: {show(limit['rate'])} samples/s; {parts.replace('_', ' ')}.\n"
    for _, each in others[others["skipped"].notna()].iterrows():
        text += f"\n{each['title']}: not measured, {each['skipped']}.\n"
    text += "\nWhere the time went, s: stages are summed over threads; wait is the consumer's.\n\n"
    text += stages(others, work) + "\n" + "".join(map(str, found))
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"{text}\nVersions: {versions}.\n", found


def targets(name: str, kind: str, work: Workload, frame: pd.DataFrame) -> list[Target]:
    """The targets of a workload."""
    rates, limit = frame["rate"], frame.loc["limit"]
    first = frame.get("rate first", pd.Series(np.nan, frame.index))
    best = rates.filter(like="xbatcher").max()
    found = []

    def add(what: str, wanted: float, ratio: float, key: str, when: str = "",
            at_most: bool = False) -> None:  # fmt: skip
        text = f"{key}, {what}" if key in ORDERS else what
        found.append(Target(name, text, wanted, ratio, at_most, spent(frame.loc[key], when)))

    for key in ORDERS:
        of_limit = rates[key] / limit["rate"]
        if kind in ("forecast", "chunks"):
            wanted = 20 if work.store.chunks[0] >= 16 else 8
            add("of the best xbatcher", wanted, rates[key] / best, key)
        if kind == "forecast":
            add("of the limit", 0.85 if key == "shuffled" else 0.9, of_limit, key)
        if kind in ("forecast", "long"):
            wanted = 0.7 if kind == "forecast" else 0.9
            add("first epoch, of the limit", wanted, first[key] / limit["rate"], key, " first")
        if kind in ("patches", "giant"):
            add("of the limit", 0.8, of_limit, key)
        if kind == "stations":
            add("million samples/s", 5, rates[key] / 1e6, key)
        if kind == "packed":
            ratio = rates[f"{key}, unpacked"] / rates[key]
            add("times as long as unpacked", 1.5, ratio, key, at_most=True)
        if kind == "remote":
            fetching = work.samples / (limit["fetch"] + limit["copy"])
            add("of fetching alone + copying", 0.9, rates[key] / fetching, key)
            add("of the limit (decoding, too)", 0.9, of_limit, key)
        if "first_batch first" in frame:
            # From the opened store to the first batch, in reads of the first pool when shuffled.
            pool = limit["read"] / work.store.nbytes * frame["pool first"]["shuffled"]
            opened = (frame["first_batch first"] - frame["opening first"])[key]
            add("first batch, pool reads", 2, opened / pool, key, " first", at_most=True)
        allowed = allowed_memory(work)
        add("peak above imports, MiB", allowed, frame["peak, MiB"][key], key, at_most=True)
    if kind == "forecast":
        copying = work.samples / limit["copy"]
        add("cache=True, of memcpy", 0.9, rates["cached"] / copying, "cached")
    if "insitubatch" in frame.index:
        theirs, cached = first["insitubatch"], rates["insitubatch"]
        what = "first epoch, of insitubatch's first"
        add(what, 2, first["shuffled"] / theirs, "shuffled", " first")
        add("later epochs, of insitubatch's cached", 1, rates["shuffled"] / cached, "shuffled")
    return found


ORDERS = ("shuffled", "in order")


def spent(of: pd.Series, when: str) -> str:
    """Where the time of a contender of ours went, in a line."""
    if pd.isna(of.get(f"wait{when}")):
        return of["skipped"] if isinstance(of["skipped"], str) else ""
    parts = ", ".join(f"{stage} {of[stage + when]:.2f}" for stage in STAGES)
    cpu = f"{of['user' + when]:.2f} + {of['system' + when]:.2f}"
    return f"{of['seconds' + when]:.2f} s: {parts}; CPU {cpu}"


def stages(frame: pd.DataFrame, work: Workload) -> str:
    """Where the time of each contender of ours went, in first and in later epochs."""
    parts = []
    for when in (" first", ""):
        part = frame[[name for name in frame if name.endswith(" first") == bool(when)]]
        part = part.rename(columns=lambda name: name.removesuffix(" first"))
        titles = frame["title"] + f", {when.strip() or 'later'}"
        parts.append(part.assign(title=titles) if "wait" in part else part.iloc[:0])
    every = pd.concat(parts)
    every = every[every["wait"].notna()]
    every["decoded / data"] = every["decoded"] / work.store.nbytes
    every["first pool, MiB"] = every["pool"] / MIB
    every["CPU, user + system"] = _cpu(every)
    names = ("CPU, user + system", "opening", "decoded / data", "first pool, MiB", "most at once")
    return table(every, ("seconds", *STAGES, *names, "failed", "slowed", "retries", "paths"))


def _cpu(frame: pd.DataFrame) -> pd.Series:
    both = zip(frame["user"], frame["system"], strict=True)
    return pd.Series([f"{user:.2f} + {system:.2f}" for user, system in both], frame.index)
