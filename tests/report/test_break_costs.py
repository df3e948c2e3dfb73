"""What is told of breaks, compared with windows that are listed one by one."""

import itertools
import re
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from pages import page_of

import xtorch_data as xtd


def series(jumps, length=200, **more):
    """Days, of which some are missing before each of the steps in `jumps`."""
    step = np.ones(length, dtype=int)
    for position, missing in jumps.items():
        step[position] += missing
    days = np.datetime64("2000-01-01", "s") + (np.cumsum(step) - 1) * np.timedelta64(1, "D")
    sizes = {"time": length, **more}
    values = np.zeros(tuple(sizes.values()), "float32")
    return xr.DataArray(values, coords={"time": days}, dims=tuple(sizes), name="flow")


def day_of(data, step):
    return str(data["time"].values[step].astype("datetime64[D]"))


def windows_and_losses(length, jumps, size, stride):
    """Begins of windows, and how many each break leaves out: all that begin, one by one."""
    begins, lost = [], dict.fromkeys(jumps, 0)
    for start, stop in itertools.pairwise([0, *jumps, length]):
        for begin in range(start, stop, stride):
            if begin + size <= stop:
                begins.append(begin)
            elif begin + size <= length:
                lost[stop] += 1
    return begins, lost


several_jumps = st.lists(st.integers(1, 199), min_size=1, max_size=9, unique=True)


@given(several_jumps.map(sorted), st.integers(2, 30), st.integers(1, 30), st.integers(1, 3))
def test_windows_left_out_are_told_by_break(jumps, size, stride, gauges):
    stride = min(stride, size)
    data = series(dict.fromkeys(jumps, 3), gauge=gauges)
    begins, lost = windows_and_losses(200, jumps, size, stride)

    dataset = xtd.IterableDataset(data, {"time": size}, {"time": size - stride}, breaks="split")
    explained = dataset.explain()

    found = explained.breaks["time"]
    assert [dataset.windows[number]["time"].start for number in range(len(begins))] == begins
    assert [(each.step, each.left_out) for each in found.breaks] == list(lost.items())
    assert [(each.before, each.after) for each in found.breaks] == [
        (day_of(data, step - 1), day_of(data, step)) for step in jumps
    ]
    assert (found.count, found.windows) == (len(jumps), len(begins))
    assert found.left_out == sum(lost.values())
    assert explained.left_out["breaks"] == found.left_out * gauges
    assert explained.windows == (len(begins) + found.left_out) * gauges
    assert explained.windows - sum(explained.left_out.values()) == explained.samples
    if stride == 1:  # those that fit by position
        assert found.windows + found.left_out == 200 - size + 1


@given(several_jumps.map(sorted), st.integers(2, 20), st.integers(20, 180))
def test_of_a_part_breaks_count_that_lie_between_its_windows(jumps, size, cut):
    data = series(dict.fromkeys(jumps, 3))
    begins, lost = windows_and_losses(200, jumps, size, 1)
    dataset = xtd.MapDataset(data, {"time": size}, {"time": size - 1}, breaks="split")
    at = data["time"].values[cut]
    try:
        parts = xtd.split(dataset, "time", at=[at])
    except ValueError as error:
        assert "has no sample" in str(error)
        return
    for part in parts:
        mine = {part.windows[number]["time"].start for number in range(len(part))}
        expected = []
        for jump in jumps:
            before = [begin for begin in begins if begin < jump][-1:]
            after = [begin for begin in begins if begin >= jump][:1]
            if mine.issuperset(before + after):
                expected.append((jump, lost[jump]))
        explained = xtd.IterableDataset(part).explain()
        found = explained.breaks.get("time")
        assert [(each.step, each.left_out) for each in found.breaks] if found else [] == expected
        assert explained.left_out["breaks"] == sum(count for _, count in expected)
        # Far from its ends, that is what of all windows in the part by position is not there.
        low, high = (0, cut) if part is parts[0] else (cut, 200)
        if all(min(abs(jump - low), abs(jump - high)) >= size for jump in jumps):
            by_position = high - low - size + 1
            assert explained.left_out["breaks"] == by_position - len(part)


def test_losses_along_several_dims_are_those_of_the_product():
    data = series({50: 2, 120: 5}, level=40).assign_coords(level=np.r_[0:20, 30:50])
    overlap = {"time": 9, "level": 3}
    dataset = xtd.IterableDataset(data, {"time": 10, "level": 4}, overlap, breaks="split")
    explained = dataset.explain()
    times, levels = (200 - 9, 200 - 9 - 2 * 9), (40 - 3, 40 - 3 - 3)
    assert explained.windows == times[0] * levels[0]
    assert explained.samples == times[1] * levels[1] == len(dataset.windows)
    assert explained.left_out["breaks"] == explained.windows - explained.samples
    assert {dim: found.count for dim, found in explained.breaks.items()} == {"time": 2, "level": 1}
    assert explained.breaks["level"].breaks[0].after == "30"


def test_longest_stretches_are_those_of_the_labels():
    data = series({50: 2, 60: 1, 120: 5})
    dataset = xtd.IterableDataset(data, {"time": 11}, {"time": 10}, breaks="split")
    found = dataset.explain().breaks["time"].longest  # ten steps have no window
    assert [(each.first, each.last, each.steps) for each in found] == [
        (day_of(data, 120), day_of(data, 199), 80),
        (day_of(data, 60), day_of(data, 119), 60),
        (day_of(data, 0), day_of(data, 49), 50),
    ]
    # Windows that end where labels break, and go on there, are of two stretches.
    tiles = xtd.IterableDataset(series({100: 3}), {"time": 10}, breaks="split").explain()
    assert [each.steps for each in tiles.breaks["time"].longest] == [100, 100]
    assert tiles.left_out["breaks"] == 0


def test_without_breaks_nothing_is_said_of_them():
    data = series({50: 2, 120: 5})
    for dataset in (
        xtd.IterableDataset(data, {"time": 5}, breaks="ignore"),
        xtd.IterableDataset(data.drop_vars("time"), {"time": 5}),
        xtd.IterableDataset(data, {"time": 1}),
    ):
        explained = dataset.explain()
        assert explained.breaks == {}
        assert explained.left_out["breaks"] == 0
        for shown in (explained, dataset):
            assert "break" not in str(shown)
            assert "breaks" not in shown._repr_html_().split("<div class='xtd-wrap'")[1]


def test_hundreds_of_breaks_are_told_in_a_few_lines():
    jumps = {step: 200 for step in range(40, 40_000, 40)}
    dataset = xtd.IterableDataset(series(jumps, 40_000), {"time": 20}, {"time": 19}, breaks="split")
    explained = dataset.explain()
    text = str(explained)
    at = text.splitlines().index(next(line for line in text.splitlines() if " breaks " in line))
    lines = text.splitlines()[at : at + 3]
    assert all(len(line) < 150 for line in lines), lines
    assert lines[0] == "  breaks    999 along 'time'; 18,981 of 39,981 windows left out"
    assert lines[1].endswith(", and 996 more")
    assert lines[2].count("(40 steps)") == 2
    page = page_of(explained)
    assert "999 along 'time'; 18,981 of 39,981 windows left out" in page.texts
    assert "999 breaks" in page.texts and "and 959 more" in page.cells
    assert len(explained.breaks["time"].breaks) == 999
    assert len(repr(dataset).splitlines()) == 4
    more = {step: 200 for step in range(20, 40_000, 20)}
    many = xtd.IterableDataset(series(more, 40_000), {"time": 4}, breaks="split").explain()
    assert (many.breaks["time"].count, len(many.breaks["time"].breaks)) == (1999, 1000)
    assert "1,999 breaks, the first 1,000 here" in page_of(many).texts


@pytest.mark.parametrize("kind", [xtd.IterableDataset, xtd.MapDataset])
def test_a_dataset_shows_the_breaks_of_what_it_has(kind):
    data = series({50: 2, 120: 5})
    dataset = kind(data, {"time": 11}, {"time": 10}, breaks="split")
    first = f"between {day_of(data, 49)} and {day_of(data, 50)}"
    second = f"between {day_of(data, 119)} and {day_of(data, 120)}"
    line = f"2 breaks along 'time', the first {first}: 20 windows left out"
    for shown in (dataset, dataset.replace(dtype="float64"), xtd.DataLoader(dataset)):
        if shown is not dataset:
            assert ("breaks", line) in facts_of(shown)
            continue
        assert f"\n  {line}\n" in repr(shown)
    parts = xtd.split(dataset, "time", at=[day_of(data, 90), day_of(data, 125 + 20)])
    assert f"\n  1 break along 'time', {first}: 10 windows left out\n" in repr(parts[0])
    assert f"\n  1 break along 'time', {second}: 10 windows left out\n" in repr(parts[1])
    assert "break" not in repr(parts[2])
    assert [len(facts_of(part)) for part in parts[::2]] == [len(facts_of(dataset))] + [
        len(facts_of(dataset)) - 1
    ]


def facts_of(shown):
    """Names and values of the page of a dataset."""
    page = shown._repr_html_().split("<div class='xtd-wrap'")[1]
    found = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page)
    return [(name, value.replace("&#x27;", "'")) for name, value in found]


def messages_of(data, sizes, **more):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        xtd.IterableDataset(data, sizes, **more)
    return [str(each.message) for each in caught]


def test_a_warning_says_what_breaks_and_what_is_left_out_and_what_to_do():
    data = series({50: 2, 120: 5})
    [message] = messages_of(data, {"time": 11}, input_overlap={"time": 10})
    assert message == (
        "labels along 'time' are mostly 1 day apart, but there are 2 breaks, the first between "
        f"{day_of(data, 49)} and {day_of(data, 50)}. No window crosses a break: 20 windows along "
        "'time' are left out, 170 remain. breaks='split' does the same without a warning; "
        "breaks='ignore' counts windows by position, across breaks"
    )
    mixed = data.isel(time=np.r_[0:50, 40:60, 59:120])
    [message] = messages_of(mixed, {"time": 11})
    assert "At 1 of them labels go back, which ds.sortby('time') mends. " in message
    assert "At 1 of them a label is repeated, which ds.drop_duplicates('time') mends. " in message
    rows = -np.arange(32.0) - np.r_[[0] * 20, [5] * 12]
    down = xr.DataArray(np.zeros(32), coords={"y": rows}, dims="y", name="a")
    [message] = messages_of(down, {"y": 4})
    assert "labels along 'y' are mostly 1 apart, but there is 1 break, between -19" in message


def test_steps_that_are_too_irregular_are_a_warning_and_a_note():
    data = series(dict.fromkeys(range(3, 200, 3), 60))  # three days of each season
    with pytest.warns(UserWarning, match="only 67% of the steps.*breaks='ignore' does the same"):
        dataset = xtd.IterableDataset(data, {"time": 3})
    [note] = (note for note in dataset.explain().notes if "only 67%" in note)
    assert "counted by position and their labels may jump" in note
    assert "windows are counted by position" in str(dataset.explain())


def test_errors_say_which_breaks_there_are():
    data = series({50: 2, 120: 5})
    first = f"2 breaks, the first between {day_of(data, 49)} and {day_of(data, 50)}"
    with pytest.raises(ValueError, match=f"{first}, and breaks='raise' allows none"):
        xtd.IterableDataset(data, {"time": 5}, breaks="raise")
    with pytest.raises(ValueError, match="longest .* has 80 steps, and a window has 100"):
        xtd.IterableDataset(data, {"time": 100}, breaks="split")
