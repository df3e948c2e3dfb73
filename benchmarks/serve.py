"""The other end of `Child`: a contender is checked and timed; what it needs it imports itself."""

from __future__ import annotations

import os
import pickle
import sys
import time
from typing import Any

import numpy as np

from .contenders import Contender
from .stores import OPEN
from .workloads import Workload

# Samples, and bytes of samples, compared in a check, spread over the epoch; counted is every one.
COMPARED = {True: 2_000, False: 64}
COMPARED_BYTES = 2**31


class Entry:
    """A contender over a workload, in a process of its own."""

    def __init__(self, contender: Contender, work: Workload) -> None:
        self.contender, self.work, self.opened = contender, work, False
        contender.ready(work)

    def check(self) -> None:
        """Compare the samples of an epoch with plain `isel`; raise if one differs or is missing."""
        import xarray as xr

        contender, work = self.contender, self.work
        self._open()
        data = contender.truth(xr.open_zarr(work.store.path, **OPEN)[work.store.names])
        if contender.firsts:  # its process is thrown away then, so that it may hold all the data
            data.load()
        wanted = contender.expected()
        most = min(COMPARED[contender.firsts], COMPARED_BYTES // work.sample_nbytes)
        rng, seen, compared = np.random.default_rng(0), [], 0
        for batch in contender.epoch():
            numbers, values = map(np.asarray, contender.parts(batch))
            seen.append(numbers.copy())
            assert values.shape[1:] == work.sample_shape and values.dtype == np.float32, values
            for row in np.flatnonzero(rng.random(len(numbers)) < most / wanted).tolist():
                cut = data.isel(work.indexers(int(numbers[row])))
                expected = cut.to_array().transpose("variable", *work.input_dims).to_numpy()
                expected = expected.astype(np.float32)
                np.testing.assert_allclose(values[row], expected, rtol=contender.tolerance)
                compared += 1
        found = np.concatenate(seen)
        different = len(np.unique(found))
        assert len(found) == different == wanted, f"{len(found)}, {different} of {wanted} samples"
        assert compared, "no sample was compared"

    def epoch(self) -> dict[str, Any]:
        """Run one epoch and time it."""
        begin = time.perf_counter()
        self._open()
        samples, first_batch, batch = 0, 0.0, None
        for batch in self.contender.epoch():
            now = time.perf_counter() - begin
            first_batch = first_batch or now
            samples += self.contender.count(batch)
            if now > self.contender.enough:
                break
        seconds, batch = time.perf_counter() - begin, None
        wanted = self.contender.expected()
        whole = seconds <= self.contender.enough
        assert samples == wanted or not (whole and wanted), f"{samples} of {wanted} samples"
        found = {"seconds": seconds, "first_batch": first_batch, **self.contender.details()}
        return {**found, "samples": samples, "rate": samples / found["seconds"]}

    def _open(self) -> None:
        if not self.opened:
            self.contender.open(self.work)
        self.opened = True


def main() -> None:
    """Answer until standard input ends."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not disturb the answers
    entry = Entry(*pickle.load(questions))
    answer = None
    while True:
        pickle.dump(answer, answers, protocol=4)
        answers.flush()
        try:
            method = pickle.load(questions)
        except EOFError:
            return
        answer = getattr(entry, method)()


if __name__ == "__main__":
    main()
