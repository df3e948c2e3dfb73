"""A contender in a process of its own: JSON lines in, JSON lines out.

`check` compares an epoch with plain `isel`; `epoch` times one, opening included if it is the first.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any

import numpy as np

from .contenders import Contender, contenders, versions
from .stores import OPEN
from .workloads import make_workload

# Samples, and bytes of samples, compared in a check, spread over the epoch; counted is every one.
# The process of those which are timed from the start is thrown away after its check, so that it may
# hold all the data.
COMPARED = {True: 2_000, False: 64}
COMPARED_BYTES = 2**31


def make(config: dict[str, Any]) -> Contender:
    """The contender that a configuration names."""
    workload = make_workload(config["workload"], config["quick"], config["endpoint"])
    return contenders()[config["contender"]](workload, **config.get("options", {}))


def check(contender: Contender) -> dict[str, Any]:
    """Compare the samples of an epoch with plain `isel`; raise if one differs or is missing."""
    import xarray as xr

    work = contender.workload
    data = xr.open_zarr(work.store.path, **OPEN)[work.store.names]
    if contender.firsts:
        data.load()
    contender.open()
    most = min(COMPARED[contender.firsts], COMPARED_BYTES // work.sample_nbytes)
    share = most / contender.expected
    rng = np.random.default_rng(0)
    seen, compared = [], 0
    for batch in contender.epoch():
        numbers, values = contender.look(batch)
        seen.append(np.array(numbers))
        if values.shape[1:] != work.sample_shape or values.dtype != np.float32:
            raise AssertionError(f"samples are {values.dtype} {values.shape[1:]}")
        chosen = rng.random(len(numbers)) < share
        for row in np.flatnonzero(chosen).tolist():
            cut = data.isel(work.indexers(int(numbers[row])))
            expected = cut.to_array().transpose("variable", *work.input_dims).to_numpy()
            if not np.array_equal(values[row], expected.astype(np.float32), equal_nan=True):
                raise AssertionError(f"sample {numbers[row]} differs from isel")
            compared += 1
    found = np.concatenate(seen)
    if len(found) != contender.expected or len(np.unique(found)) != len(found):
        raise AssertionError(
            f"{len(found)} samples, {len(np.unique(found))} different; expected "
            f"{contender.expected}"
        )
    if not compared:
        raise AssertionError("no sample was compared")
    return {"samples": len(found), "compared": compared}


def epoch(contender: Contender, is_first: bool) -> dict[str, Any]:
    """Run one epoch and time it."""
    begin = time.perf_counter()
    if is_first:
        contender.open()
    samples, first_batch, batch = 0, None, None
    for batch in contender.epoch():
        if first_batch is None:
            first_batch = time.perf_counter() - begin
        samples += contender.count(batch)
    seconds = time.perf_counter() - begin
    details = contender.details()
    if isinstance(batch, dict):  # the limit times itself
        details = batch
        seconds = batch["seconds"]
    elif samples != contender.expected:
        raise AssertionError(f"{samples} samples, expected {contender.expected}")
    return {
        "seconds": seconds,
        "first_batch": first_batch,
        "samples": samples,
        "details": details,
    }


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints does not disturb the answers
    contender = make(json.loads(sys.argv[1]))

    def answer(found: dict[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    for module in contender.modules:
        importlib.import_module(module)
    answer({"versions": versions(contender.modules)})
    is_first = True
    for line in sys.stdin:
        if json.loads(line) == "check":
            answer(check(contender))
        else:
            answer(epoch(contender, is_first))
        is_first = False


if __name__ == "__main__":
    main()
