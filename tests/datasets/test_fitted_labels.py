"""Labels that statistics were fitted on, and who is told that they are tested on the same."""

import warnings

import numpy as np
import pytest
import xarray as xr

import xtorch_data as xtd

TOLD = "Normalize was fitted on labels that this part of a split has too"


def days(periods=200, calendar="standard", start="2000-01-01"):
    use = calendar != "standard"
    time = xr.date_range(start, periods=periods, calendar=calendar, use_cftime=use)
    values = np.random.default_rng(0).normal(size=(periods, 4))
    return xr.Dataset({"t": (("time", "y"), values)}, {"time": time, "y": [40.0, 30.0, 20.0, 10.0]})


def samples_of(ds, **arguments):
    return xtd.MapDataset(
        ds,
        {"time": 5},
        {"time": 4},
        inputs=xtd.Select("t", time=slice(0, 4)),
        targets=xtd.Select("t", time=4),
        **arguments,
    )


def test_fitting_on_the_whole_is_told_of_where_it_is_validated_on():
    whole = samples_of(days())
    normalize = xtd.Normalize.fit(whole)
    train, val, test = xtd.split(whole, "time", fractions=(0.6, 0.2, 0.2), gap=3)
    train.replace(preprocess=normalize)
    message = TOLD + ": on time 2000-01-01 to 2000-07-18, and the part has 2000-04-30 to 2000-06-05"
    with pytest.warns(UserWarning, match=message):
        val.replace(preprocess=normalize)
    val.replace(transform=normalize)  # told once
    test.replace(preprocess=normalize)


@pytest.mark.parametrize("how", ["preprocess", "transform", "composed"])
def test_a_dataset_that_is_made_with_it_tells_when_it_is_split(how):
    normalize = xtd.Normalize.fit(days())
    function = xtd.Compose([abs, normalize]) if how == "composed" else normalize
    argument = "preprocess" if how == "composed" else how
    made = samples_of(days(), **{argument: function})
    with pytest.warns(UserWarning, match=TOLD) as told:
        _, val = xtd.split(made, "time", fractions=(0.6, 0.4))
    assert len(told) == 1 and told[0].filename == __file__
    xtd.DataLoader(val, batch_size=4)


def test_a_stream_of_a_part_with_a_function_of_batches_tells_too():
    whole = samples_of(days())
    _, val = xtd.split(whole, "time", fractions=(0.6, 0.4))
    normalize = xtd.Normalize.fit(days().rename(t="t_x"))
    with pytest.warns(UserWarning, match=TOLD):
        xtd.IterableDataset(val, batch_size=4, batch_transform=normalize)


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("by", ["windows", "targets"])
def test_nothing_is_told_of_parts_that_were_left_out(calendar, by):
    whole = samples_of(days(calendar=calendar))
    parts = {
        "split": [xtd.split(whole, "time", fractions=(0.6, 0.4), by=by, gap=2)],
        "kfold": list(xtd.kfold(whole, "time", n_splits=4, by=by)),
        "random": [xtd.random_split(whole, "time", (0.7, 0.3), block=20, by=by)],
        "ranges": [
            xtd.split(
                whole,
                "time",
                by=by,
                ranges=[
                    [slice("2000-01", "2000-02"), slice("2000-05", "2000-06")],
                    slice("2000-03", "2000-04"),
                ],
            )
        ],
        "space": [xtd.split(whole, "y", fractions=(0.5, 0.5))],
    }
    for splits in parts.values():
        for train, val in splits:
            normalize = xtd.Normalize.fit(train)
            for part in (train, val):
                made = part.replace(preprocess=normalize)
                xtd.IterableDataset(made, batch_size=2)
            backwards = xtd.Normalize.fit(val)  # the other one is trained on
            for part in (train, val):
                part.replace(preprocess=backwards)


def test_nothing_is_told_of_what_is_no_part_or_has_other_statistics(tmp_path):
    whole = samples_of(days())
    train, val = xtd.split(whole, "time", fractions=(0.6, 0.4))
    normalize = xtd.Normalize.fit(whole)
    whole.replace(preprocess=normalize)
    val.replace(preprocess=xtd.Normalize.fit(days(start="1990-01-01")))
    val.replace(preprocess=xtd.Normalize(normalize.mean, normalize.std))
    # A part of a part, fitted on the part: it is the one that is trained on.
    _, recent = xtd.split(whole, "time", fractions=(0.5, 0.5))
    of_recent = xtd.Normalize.fit(recent)
    train, val = xtd.split(recent, "time", fractions=(0.5, 0.5))
    recent.replace(preprocess=of_recent)
    train.replace(preprocess=of_recent)
    with pytest.warns(UserWarning, match=TOLD):
        val.replace(preprocess=of_recent)
    plain = samples_of(days().drop_vars("time"))  # labels tell, and there are none
    _, val = xtd.split(plain, "time", fractions=(0.5, 0.5))
    val.replace(preprocess=xtd.Normalize.fit(plain))


@pytest.mark.parametrize("suffix", [".json", ".nc"])
def test_a_file_remembers(suffix, tmp_path):
    whole = samples_of(days())
    train, val = xtd.split(
        whole, "time", ranges=[[slice("2000-01", "2000-02"), slice("2000-05", "2000-06")],
                               slice("2000-03", "2000-04")],
    )  # fmt: skip
    normalize = xtd.Normalize.fit(train)
    line = "fitted on time 2000-01-01 to 2000-06-30, in 2 stretches>"
    assert repr(normalize).endswith(line)
    normalize.save(tmp_path / f"file{suffix}")
    loaded = xtd.Normalize.load(tmp_path / f"file{suffix}")
    assert repr(loaded) == repr(normalize)
    train.replace(preprocess=loaded)
    val.replace(preprocess=loaded)
    with pytest.warns(UserWarning, match=TOLD + ": on time .*in 2 stretches"):
        xtd.split(whole, "time", at="2000-06-15")[1].replace(preprocess=loaded)


def test_a_part_in_space_is_told_by_its_own_labels():
    whole = samples_of(days())
    normalize = xtd.Normalize.fit(whole)
    north, south = xtd.split(whole, "y", fractions=(0.5, 0.5))
    with pytest.warns(UserWarning, match=TOLD + ": on y 10 to 40, and the part has 10 to 20"):
        south.replace(preprocess=normalize)
    of_north = xtd.Normalize.fit(north)
    assert "fitted on y 30 to 40" in repr(of_north)
    # Other places at the same time are other data.
    _, later = xtd.split(south, "time", fractions=(0.5, 0.5))
    later.replace(preprocess=of_north)


def test_a_part_along_a_coordinate_is_known_by_its_labels():
    ds = days().assign_coords(storm=("time", np.repeat([f"s{i}" for i in range(10)], 20)))
    whole = samples_of(ds)
    train, val = xtd.split(whole, "storm", fractions=(0.5, 0.5))
    normalize = xtd.Normalize.fit(train)
    assert "fitted on storm s0 to s4" in repr(normalize)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in (train, val):
            part.replace(preprocess=normalize)


def test_parts_around_events_are_known_by_their_own_labels():
    ds = days()
    events = {"time": ds["time"].values[10:190:9]}
    around = xtd.MapDataset(ds, {"time": 3}, centers=events, inputs="t")
    train, val = xtd.split(around, "time", fractions=(0.5, 0.5))
    normalize = xtd.Normalize.fit(train)
    assert "fitted on time 2000-01-" in repr(normalize)
    for part in (train, val):
        part.replace(preprocess=normalize)
    with pytest.warns(UserWarning, match=TOLD):
        val.replace(preprocess=xtd.Normalize.fit(ds))
