"""Random stores: whatever the format, codecs, chunks, dtypes and packing, samples are `isel`'s."""

from collections import Counter

import numpy as np
import pytest
from helpers import (
    Oracle,
    assert_batch,
    chunk_reads,
    samples_of,
    tiny_memory_allowed,
    xbatcher_windows,
)
from hypothesis import event, given
from strategies import any_stores, cases, examples

import xtorch_data as xtd

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Zarr V3 specification",
    "ignore:saving variable",
    "ignore:.*separate the stored chunks",
)


@examples(6, 500)
@given(cases(any_stores()))
def test_samples_of_any_store_are_those_of_isel_and_reads_those_that_were_predicted(case):
    stored = case.stored
    event(f"{stored.storage}, {stored.opener}")
    with stored.open() as ds, tiny_memory_allowed():
        oracle = Oracle(ds)
        stored.counts.clear()
        if _has_no_common_dtype(ds, case):
            with pytest.raises(TypeError, match="no integer dtype"):
                xtd.IterableDataset(ds, **case.arguments)
            return
        dataset = xtd.IterableDataset(ds, **case.arguments)
        batches = list(dataset)
        read = Counter(stored.counts)
        windows = xbatcher_windows(ds, case.names(ds), case.input_dims, case.input_overlap)
        numbers = samples_of(batches)
        left = len(windows) % case.batch_size if case.drop_last else 0
        assert len(numbers) == len(set(numbers)) == len(windows) - left
        for batch in batches:
            assert_batch(batch, oracle, windows, case.parts(ds), list(case.input_dims))
        samples = xtd.MapDataset(
            ds,
            case.input_dims,
            case.input_overlap,
            breaks="ignore",
            inputs=case.inputs,
            targets=case.targets,
        )
        for number in {0, len(windows) // 2, len(windows) - 1}:
            for found, part in zip(samples[number], case.parts(ds).values(), strict=True):
                expected = oracle.part(part, windows[number], list(case.input_dims))
                assert found.numpy().dtype == expected.dtype
                np.testing.assert_array_equal(found.numpy(), expected)
        assert read or stored.opener != "counted" or not numbers
        predicted = chunk_reads(dataset.plan, 0, dataset.plan.intervals(0, 0, 1))
        for name in case.names(ds):
            of_variable = sum(n for key, n in read.items() if key.split("/")[0] == name)
            assert of_variable <= predicted[name], (name, read)


def _has_no_common_dtype(ds, case):
    """Whether a part stacks integers that numpy would make floating."""
    for names in case.parts(ds).values():
        if not isinstance(names, str):
            kinds = [ds[name].dtype for name in names]
            if np.result_type(*kinds).kind == "f" and all(kind.kind != "f" for kind in kinds):
                return True
    return False
