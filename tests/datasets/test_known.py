"""`verify` says from labels alone whether as-of steps were known, compared with plain loops."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from several_data import DAILY, DAYS, HOURS, era5, gfs, samples, series, sst

import xtorch_data as xtd
from xtorch_data.planning.index_maps import term_of
from xtorch_data.planning.windows import Windows


def least_spare(dataset, step):
    """How long before its anchor the newest day of a sample was known, at least: by a loop."""
    spare = []
    for number in range(len(dataset.windows)):
        anchor = HOURS[dataset.windows[number]["time"]][step]
        newest = DAYS[dataset.windows.of("sst")[number]["time"]][-1]
        spare.append(pd.Timestamp(anchor) - pd.Timestamp(newest) - pd.Timedelta("2D"))
    return min(spare)


def test_every_window_is_looked_at():
    dataset = samples()
    found = xtd.verify(dataset)
    (known,) = found.known
    assert found and (known.source, known.dim, known.late) == ("sst", "time", 0)
    assert known.windows == len(dataset.windows)
    assert pd.Timedelta(known.latest) == least_spare(dataset, 5)
    assert f"{len(dataset)} windows of sst" in str(found)


@pytest.mark.parametrize("rule", ["point", "left"])
def test_a_release_after_the_anchor_is_never_in_a_sample(rule):
    """Where a step is known exactly at some anchors, and a step more would be too late."""
    found = xtd.verify(
        samples(others={"sst": xtd.Source(sst(), time=xtd.AsOf(3, latency="6h", label=rule))})
    )
    assert found and found.known[0].latest == "0 days 00:00:00"


def test_forecasts_are_known_from_their_init():
    source = xtd.Source(
        gfs(), init_time=xtd.AsOf(1, latency="5h"), lead_time=xtd.ValidTime("0h", "12h")
    )
    found = xtd.verify(samples(others={"sst": xtd.Source(sst(), time=DAILY), "gfs": source}))
    assert found and [each.source for each in found.known] == ["sst", "gfs"]
    assert found.known[1].latest == "0 days 01:00:00"


def test_parts_of_a_split_are_proven_window_by_window():
    for part in xtd.split(samples(), "time", fractions=(0.6, 0.4)):
        found = xtd.verify(part)
        assert found and found.known[0].windows == len(part.windows)


def corrupted(dataset, source, numbers):
    """The dataset with the windows of a source, by number, a step later than they were."""
    plan = dataset.plan
    space = plan.windows.space
    frames = list(space.frames)
    (along,) = frames[source].maps
    ((axis, term),) = along.terms.items()
    begins = term.at(np.arange(len(term)))
    begins[numbers] += 1
    frames[source] = replace(frames[source], maps=(replace(along, terms={axis: term_of(begins)}),))
    windows = Windows(replace(space, frames=tuple(frames)))
    dataset._inside.plan = replace(plan, grid=replace(plan.grid, windows=windows))
    return dataset


def test_a_wrong_table_fails():
    # Days that end at an anchor's midnight: there a step more was not known.
    source = xtd.Source(sst(), time=xtd.AsOf(3, latency="0h", label="left"))
    dataset = corrupted(samples(xtd.IterableDataset, others={"sst": source}), 1, [0, 7])
    found = xtd.verify(dataset)
    assert not found and found.known[0].late == 2
    anchor = HOURS[dataset.windows[0]["time"]][5]
    assert f"2 of {len(dataset.windows)} windows of sst not known" in str(found)
    assert str(anchor.astype("M8[us]")) in str(found)


def test_more_windows_than_are_looked_at_together(monkeypatch):
    monkeypatch.setattr("xtorch_data.datasets.known.TOGETHER", 7)
    source = xtd.Source(sst(), time=xtd.AsOf(3, latency="0h", label="left"))
    whole = samples(xtd.IterableDataset, others={"sst": source})
    assert xtd.verify(whole)
    last = len(whole.windows) - 1
    found = xtd.verify(corrupted(whole, 1, [last]))
    assert found.known[0].late == 1 and "not ok" in found._repr_html_()


@pytest.mark.parametrize(
    ("anchor", "ok"),
    [({"time": 3}, True), ({"time": 5}, True), ({"time": 6}, False), ({"time": -1}, False)],
)
def test_an_anchor_behind_the_inputs_is_told(anchor, ok):
    found = xtd.verify(samples(anchor=anchor))
    assert bool(found) is ok and bool(found.behind) is not ok
    if not ok:
        assert "later than the last step of x, 5" in str(found)


def test_the_anchor_is_never_behind_inputs_unasked():
    for inputs in (xtd.Select("t2m", time=[0, 3]), xtd.Select("t2m", time=2), "t2m"):
        assert not xtd.verify(samples(inputs=inputs)).behind


def test_numbers_are_anchors_too():
    years = np.arange(1900, 2000)
    first, other = series("a", years, ("year",)), series("b", years + 0.5, ("year",))
    dataset = xtd.MapDataset(
        {"a": first, "b": xtd.Source(other, year=xtd.AsOf(2, latency=1, of="year"))},
        {"year": 4},
        inputs="a",
    )
    found = xtd.verify(dataset)
    assert found and found.known[0].latest == "0.5"


def test_one_source_says_nothing():
    found = xtd.verify(xtd.MapDataset(era5(), {"time": 8}))
    assert found.known == () and "known" not in str(found)
