"""Parts of a split share no step of any source: walked over sample by sample."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2000-01-01", "ns")


def times(hours):
    return START + np.asarray(hours) * HOUR


def series(hours, name):
    values = np.arange(len(hours), dtype="f4")
    return xr.Dataset({name: ("time", values)}, coords={"time": times(hours)})


@st.composite
def cases(draw):
    """A series every six hours, one of another cadence as of its anchors, and one at its times."""
    steps = draw(st.integers(60, 120))
    first = series(np.arange(steps) * 6, "t")
    cadence = draw(st.sampled_from([1, 6, 24]))
    begin = -draw(st.integers(14, 20)) * 24
    other = series(np.arange(begin, steps * 6 + 1, cadence), "s")
    size = draw(st.integers(2, 8))
    cut = draw(st.integers(1, size - 1))
    samples = xtd.MapDataset(
        {
            "first": first,
            "asof": xtd.Source(
                other,
                time=xtd.AsOf(
                    draw(st.integers(1, 12)),
                    latency=f"{draw(st.sampled_from([0, 3, 30]))}h",
                    label=draw(st.sampled_from(["point", "left"])),
                ),
            ),
            "same": series(np.arange(steps) * 6, "q"),
        },
        {"time": size},
        {"time": draw(st.integers(0, size - 1))},
        inputs=xtd.Select("t", time=slice(0, cut)),
        targets=xtd.Select("t", time=slice(cut, size)),
    )
    return first, other, samples, cut


def labels_of(part, first, other, cut):
    """By sample: times of the targets, and of all that is read."""
    for number in range(len(part)):
        window = part.windows[number]["time"]
        own = first["time"].values[window]
        beside = other["time"].values[part.windows.of("asof")[number]["time"]]
        same = first["time"].values[part.windows.of("same")[number]["time"]]
        yield own[cut:], np.concatenate([own, beside, same])


@given(cases(), st.data())
@examples(20)
def test_parts_read_nothing_that_lies_in_another(case, data):
    first, other, samples, cut = case
    assume(len(samples))
    steps = first.sizes["time"]
    at = sorted(data.draw(st.sets(st.integers(8, steps - 8), min_size=1, max_size=2)))
    edges = first["time"].values[at]
    gap = data.draw(st.sampled_from([0, 3, "1D"]))
    by = data.draw(st.sampled_from(["windows", "targets"]))
    try:
        parts = xtd.split(samples, "time", at=list(edges), gap=gap, by=by)
    except ValueError as error:
        assert "has no sample" in str(error)
        return
    bounds = [first["time"].values[0] - 10_000 * HOUR, *edges, first["time"].values[-1] + HOUR]
    distance = 0 * HOUR if gap == 0 else 18 * HOUR if gap == 3 else 24 * HOUR
    kept = set()
    for place, part in enumerate(parts):
        low, high = bounds[place], bounds[place + 1]
        limit = high - (distance if place + 1 < len(parts) else 0 * HOUR)
        for targets, everything in labels_of(part, first, other, cut):
            wanted = targets if by == "targets" else everything
            assert (wanted >= low).all()
            assert (everything < high).all()
            assert (wanted < limit).all()
        kept |= {(part.windows[n]["time"].start) for n in range(len(part))}
    # And every sample that may be in a part is.
    for targets, everything in labels_of(samples, first, other, cut):
        start = int(np.searchsorted(first["time"].values, targets[0])) - cut
        inside = any(
            ((targets if by == "targets" else everything) >= bounds[place]).all()
            and (
                everything < bounds[place + 1] - (distance if place + 2 < len(bounds) else 0 * HOUR)
            ).all()
            for place in range(len(bounds) - 1)
        )
        assert (start in kept) == inside


@given(cases(), st.integers(2, 4))
@examples(8)
def test_training_folds_read_nothing_of_the_fold_that_is_tested_on(case, folds):
    first, other, samples, cut = case
    assume(len(samples))
    try:
        found = list(xtd.kfold(samples, "time", folds))
    except ValueError as error:
        assert "has no sample" in str(error)
        return
    for train, test in found:
        tested = np.concatenate([every for _, every in labels_of(test, first, other, cut)])
        own = tested[np.isin(tested, first["time"].values)]
        for _, everything in labels_of(train, first, other, cut):
            inside = (everything >= own.min()) & (everything <= own.max())
            assert not inside.any()


def test_parts_with_sources_are_found_again_and_cut_again():
    first, other = series(np.arange(200) * 6, "t"), series(np.arange(-240, 1200, 24), "s")
    samples = xtd.MapDataset(
        {"a": first, "b": xtd.Source(other, time=xtd.AsOf(4, latency="0h"))}, {"time": 4}
    )
    train, test = xtd.split(samples, "time", at=times(720))
    assert len(train) + len(test) < len(samples)
    again = test.replace(dtype="f8")
    assert len(again) == len(test)
    assert [again.windows.of("b")[n] for n in range(9)] == [
        test.windows.of("b")[n] for n in range(9)
    ]
    early, late = xtd.split(train, "time", fractions=(0.5, 0.5))
    assert len(early) and len(late)
    last = max(early.windows[n]["time"].stop for n in range(len(early)))
    begins = min(late.windows.of("b")[n]["time"].start for n in range(len(late)))
    assert other["time"].values[begins] > first["time"].values[last - 1]


def test_halos_of_finer_grids_reach_into_no_other_part():
    coarse = xr.Dataset({"t": (("y", "x"), np.zeros((20, 4)))}, coords={"y": np.arange(20.0)})
    fine = xr.Dataset({"z": ("y", np.arange(60.0))}, coords={"y": np.arange(60) / 3 - 1 / 3})
    for halo in (0, 1, 4):
        samples = xtd.MapDataset(
            {"coarse": coarse, "fine": xtd.Source(fine, y=xtd.Within(halo=halo))},
            {"y": 2, "x": -1},
        )
        south, north = xtd.split(samples, "y", at=[10.0])
        cells = [
            {
                fine["y"].values[place]
                for n in range(len(part))
                for place in range(*part.windows.of("fine")[n]["y"].indices(60))
            }
            for part in (south, north)
        ]
        assert max(cells[0]) < 9.5 <= min(cells[1])
        assert len(north) == 5 - (halo > 0) - (halo > 0)  # at both ends, but for halo 0


def test_a_coordinate_is_cut_by_targets_where_steps_are_as_of():
    first, other = series(np.arange(100) * 6, "t"), series(np.arange(-240, 600, 24), "s")
    first = first.assign_coords(storm=("time", np.arange(100) // 10))
    samples = xtd.MapDataset(
        {"a": first, "b": xtd.Source(other, time=xtd.AsOf(4, latency="0h"))},
        {"time": 4},
        targets="t",
    )
    with pytest.raises(ValueError, match="'b' has steps as of the anchor.*by='targets'"):
        xtd.split(samples, "storm", fractions=(0.5, 0.5))
    parts = xtd.split(samples, "storm", fractions=(0.5, 0.5), by="targets")
    assert all(map(len, parts))


def test_a_part_that_is_empty_names_the_sources_that_empty_it():
    first, other = series(np.arange(40) * 6, "t"), series(np.arange(-240, 600, 24), "s")
    fixed = xr.DataArray(np.zeros(3), dims="k", name="f")
    samples = xtd.MapDataset(
        {"a": first, "b": xtd.Source(other, time=xtd.AsOf(4, latency="0h")), "c": fixed},
        {"time": 4},
    )
    with pytest.raises(ValueError, match="have of 'b' lies in other parts"):
        xtd.split(samples, "time", fractions=(0.9, 0.1))


def test_first_steps_are_of_the_first_source():
    first, other = series(np.arange(40) * 6, "t"), series(np.arange(-240, 600, 24), "s")
    samples = xtd.MapDataset(
        {"a": first, "b": xtd.Source(other, time=xtd.AsOf(4, latency="0h"))}, {"time": 4}
    )
    with pytest.raises(ValueError, match=r"first source.*of\('b'\)\[i\]"):
        samples.windows.of("b").first_steps("time")
    assert samples.windows.of("a").first_steps("time").tolist() == list(range(0, 40, 4))
