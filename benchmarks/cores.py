"""What more cores could reach: CPU time is shared by cores, time under the GIL is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .contenders import IN_ORDER, ORDERED, SHUFFLED, Ours
from .race import race, rounds
from .report import GIB, Table, costs
from .workloads import make_workload

LOOKS = 250  # a second
CORES = (16, 64)
NAMES = ("forecast-1", "forecast-16", "forecast-64", "patches-field", "stations")


@dataclass
class Watched(Ours):
    """An epoch after another one, while py-spy looks who holds the GIL."""

    def epoch(self) -> Iterator[Any]:
        for _ in super().epoch():
            pass
        with tempfile.TemporaryDirectory() as folder:
            stacks = Path(folder, "stacks")
            command = [str(Path(sys.executable).with_name("py-spy")), "record", "--gil",
                       "--nonblocking", "--format", "raw", "--rate", str(LOOKS), "--duration",
                       "600", "--output", str(stacks), "--pid", str(os.getpid())]  # fmt: skip
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as spy:
                time.sleep(2)  # until it looks; who sleeps holds nothing
                begun, used = time.perf_counter(), time.process_time()
                yield from super().epoch()
                self.wall = time.perf_counter() - begun
                self.cpu = time.process_time() - used
                spy.send_signal(signal.SIGINT)
            found = [line.rpartition(" ") for line in stacks.read_text().splitlines()]
        # A stack, and how often it was seen; asking for the end of py-spy is not the epoch's.
        self.gil = sum(int(count) for stack, _, count in found if "signal" not in stack) / LOOKS

    def details(self) -> dict[str, Any]:
        handed = self.work.samples * self.work.sample_nbytes / GIB
        return {
            "GiB/s": handed / self.wall,
            "CPU s per GiB": self.cpu / handed,
            "GIL s per GiB": self.gil / handed,
        }


def table_cores(quick: bool) -> Table:
    """CPU seconds and seconds under the GIL of each GiB, and what follows for more cores."""
    frames = []
    for name in NAMES:
        work = make_workload(name, quick)
        racing = {
            key: Watched(f"{name}, {title.rpartition(', ')[2]}", how=how)
            for key, title, how in (("shuffled", SHUFFLED, {"shuffle": True}),
                                    ("in order", IN_ORDER, ORDERED))
        }  # fmt: skip
        frames.append(race(racing, work, rounds(quick, 3), check=False))
    frame = pd.concat(frames)
    columns = ["GiB/s", "CPU s per GiB", "GIL s per GiB"]
    for cores in CORES:
        # A second has so many CPU seconds, and one under the GIL.
        bound = pd.DataFrame({"cpu": cores / frame[columns[1]], "gil": 1 / frame[columns[2]]})
        frame[f"at most with {cores} cores"] = bound.min(axis=1)
        columns.append(f"at most with {cores} cores")
    text = (
        f"Batches on the host, in one process. py-spy looks {LOOKS} times a second who holds the "
        "GIL. With more cores there are more CPU seconds in a second, but not more seconds under "
        "the GIL: that is the bound, in GiB/s, which memory and disks may not let anybody reach. "
        "It is a low one: where few cores are busy, who holds the GIL may wait for a core. Workers "
        "are processes, each with a GIL of its own."
    )
    return costs("cores", text, frame, columns)
