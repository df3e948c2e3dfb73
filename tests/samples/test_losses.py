"""What other sources leave out is told in full, of parts of splits as well, and warned of once."""

import warnings

import numpy as np
import pytest
import xarray as xr
from several_data import DAILY, DAYS, HOURS, era5, samples, sst

import xtorch_data as xtd
from xtorch_data.samples.facts import functions_of
from xtorch_data.samples.losses import losses_of


def with_hole(days=slice(20, 23)):
    """Days of which some are missing, in the middle."""
    return sst(np.delete(DAYS, np.r_[days]))


def holed(**options):
    return {"sst": xtd.Source(with_hole(), time=DAILY, **options)}


def lost_in_loop(labels, steps, anchors):
    """By anchor: whether too little is known of days, and whether their last ones cross a hole."""
    few, crossing = [], []
    for anchor in anchors:
        ends = np.append(labels[1:], labels[-1] + np.timedelta64(1, "D"))
        known = labels[ends + np.timedelta64(1, "D") <= anchor]
        few.append(len(known) < steps)
        last = known[-steps:]
        crossing.append(not few[-1] and bool((np.diff(last) > np.timedelta64(36, "h")).any()))
    return np.array(few), np.array(crossing)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_breaks_of_a_source_are_warned_of_once():
    _, crossing = lost_in_loop(with_hole().time.values, 5, HOURS[5:-2])
    with pytest.warns(UserWarning, match="breaks in its labels") as found:
        dataset = samples(others=holed())
    (warning,) = found
    assert f"{crossing.sum()} windows along 'time' are left out" in str(warning.message)
    assert warning.filename.endswith("several_data.py")  # the user's own line
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.replace(memory="2 GiB")
        xtd.split(dataset, "time", fractions=(0.5, 0.5))
        xtd.IterableDataset(dataset, batch_size=4)
        samples(others=holed(breaks="ignore"))


def test_other_losses_are_told_without_a_warning():
    late = {"sst": xtd.Source(sst(DAYS[10:]), time=DAILY)}
    few, _ = lost_in_loop(DAYS[10:], 5, HOURS[5:-2])
    dataset = samples(others=late)  # warnings are errors
    assert f"{few.sum()} windows along 'time' left out: fewer than 5 known at the anchor" in repr(
        dataset
    )


def test_a_source_through_which_most_is_lost_is_warned_of():
    late = {"sst": xtd.Source(sst(DAYS[25:]), time=DAILY)}
    few, _ = lost_in_loop(DAYS[25:], 5, HOURS[5:-2])
    with pytest.warns(UserWarning, match=f"leaves out {few.sum()} of {len(few)} windows") as found:
        samples(others=late)
    assert "fewer than 5 known at the anchor" in str(found[0].message)


def test_the_repr_has_the_parts_and_rules_of_all_sources(quiet):
    source = xtd.Source(sst().assign(other=("k", np.zeros(3))), time=DAILY)
    dataset = samples(others={"sst": source})
    text = repr(dataset)
    assert "sst: ['sst/tos', 'sst/other'] (2, 5, 3)" in text
    assert "sst: time=AsOf(5, latency='1D', label='left'), all of k; from" in text
    page = dataset._repr_html_()
    for word in ("Other sources", "Data of era5", "Data of sst", "sst/tos"):
        assert word in page


def test_a_sample_has_the_bytes_of_all_parts():
    dataset = samples(dtype="float64")
    nbytes = sum(tensor.numpy().nbytes for tensor in dataset[0])
    assert dataset._inside.definition.nbytes == nbytes


def test_functions_of_all_sources_are_told():
    dataset = samples(preprocess={"sst": lambda ds: ds + 1}, transform={"sst": lambda da: da * 2})
    named = [argument for argument, *_ in functions_of(dataset._inside.definition)]
    assert named == ["preprocess['sst']", "transform['sst']"]


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.2, 0.8), (0.7, 0.3)])
def test_losses_of_parts_lie_between_their_windows(quiet, fractions):
    dataset = samples(others={"sst": xtd.Source(with_hole(), time=DAILY, breaks=None)})
    few, crossing = lost_in_loop(with_hole().time.values, 5, HOURS[5:-2])
    for part in xtd.split(dataset, "time", fractions=fractions):
        starts = [part.windows[n]["time"].start for n in range(len(part.windows))]
        kept = np.isin(np.arange(len(few)), starts)
        lost = few | crossing
        expected = {}
        for at in np.flatnonzero(lost):
            before = next((n for n in range(at, -1, -1) if not lost[n]), None)
            behind = next((n for n in range(at, len(lost)) if not lost[n]), None)
            if (before is None or kept[before]) and (behind is None or kept[behind]):
                reason = "fewer than 5 known at the anchor" if few[at] else "breaks in its labels"
                expected[reason] = expected.get(reason, 0) + 1
        of_part = part._inside.definition
        found = losses_of(of_part.losses, of_part.breaks.laid, of_part.windows)
        assert {each.reason: each.count for each in found} == expected


def left_out(dataset):
    explained = dataset.explain()
    assert explained.samples + sum(explained.left_out.values()) == explained.windows
    return explained.left_out


def test_explain_counts_losses_by_source(quiet):
    few, crossing = lost_in_loop(with_hole().time.values, 5, HOURS[5:-2])
    stored = samples(xtd.IterableDataset, others=holed())
    assert left_out(stored)["sst"] == few.sum() + crossing.sum()
    assert f"{few.sum() + crossing.sum()} by sst" in str(stored.explain())
    kept = np.arange(len(stored.windows)) % 3 > 0
    masked = samples(xtd.IterableDataset, others=holed(), where=kept)
    assert left_out(masked)["where"] == (~kept).sum()


def test_explain_counts_breaks_of_the_first_source_beside(quiet):
    """A break at which another source has nothing either is still one of the first."""
    labels = np.delete(HOURS, np.r_[30:36])
    first = era5(labels)
    others = {"sst": xtd.Source(sst(DAYS[25:]), time=DAILY)}
    both = samples(xtd.IterableDataset, first=first, others=others, breaks="split")
    alone = xtd.IterableDataset(first, {"time": 8}, {"time": 7}, breaks="split")
    assert left_out(both)["breaks"] == left_out(alone)["breaks"] > 0
    assert left_out(both)["sst"] == len(alone.windows) - len(both.windows) > 0


def forecasts(missing=5):
    inits = np.datetime64("2000-01-01", "ns") + np.arange(10) * np.timedelta64(1, "D")
    leads = np.arange(4) * np.timedelta64(1, "D").astype("m8[ns]")
    first = xr.Dataset({"f": (("init", "lead"), np.zeros((10, 4)))}, {"init": inits, "lead": leads})
    first = first.assign_coords(valid=first.init + first.lead)
    times = np.delete(
        np.datetime64("2000-01-01", "ns") + np.arange(13) * np.timedelta64(1, "D"), missing
    )
    analysis = xr.Dataset({"a": ("time", np.arange(12.0))}, {"time": times})
    return {"fc": first, "an": xtd.Source(analysis, time=xtd.At("valid"))}, times


def test_samples_that_are_left_out_one_by_one_are_counted(quiet):
    sources, times = forecasts()
    dataset = xtd.IterableDataset(sources, {"lead": 1}, inputs="f")
    valid = sources["fc"].valid.values
    lacking = int((~np.isin(valid, times)).sum())
    assert left_out(dataset) == {
        "halo": 0,
        "breaks": 0,
        "an": lacking,
        "split": 0,
        "where": 0,
        "uneven": 0,
        "drop_last": 0,
    }
    for part in xtd.split(dataset, "init", fractions=(0.5, 0.5)):
        left_out(part)


def test_a_source_named_like_another_reason(quiet):
    dataset = samples(
        xtd.IterableDataset,
        others={"where": xtd.Source(with_hole(), time=DAILY)},
        where=np.arange(len(samples(others=holed()).windows)) > 3,
    )
    found = left_out(dataset)
    assert found["where"] == 4 and found["source where"] > 0
