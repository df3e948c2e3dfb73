"""Normalization of several sources, against numpy over what `isel` takes of each."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import xtorch_data as xtd
from xtorch_data import AsOf, At, Source, ValidTime, Within

pytestmark = pytest.mark.filterwarnings("ignore:source '.*' leaves out:UserWarning")

rng = np.random.default_rng(0)
HOURS = pd.date_range("2000-01-01", periods=24, freq="12h")
X = np.arange(6.0)


def field(name, dims, coords, chunks=None):
    """Numbers far from zero, some of them missing."""
    values = rng.normal(300, 5, [len(coords[dim]) for dim in dims]).astype("f4")
    values.flat[3::11] = np.nan
    found = xr.DataArray(values, coords, dims, name=name, attrs={"units": "K"})
    return found.to_dataset() if chunks is None else found.to_dataset().chunk(chunks)


ERA = field("t", ("time", "x"), {"time": HOURS, "x": X})
DAILY = field("tos", ("time",), {"time": pd.date_range("1999-12-25", periods=20)}, {"time": 3})
FINE = field("z", ("x",), {"x": np.arange(-0.75, 5.5, 0.5)})
ARCHIVE = field(
    "tp",
    ("init", "lead"),
    {
        "init": pd.date_range("1999-12-30", periods=14),
        "lead": pd.to_timedelta(np.arange(0, 60, 6), "h"),
    },
    {"init": 4, "lead": 3},
)
RULES = {
    "daily": Source(DAILY, time=AsOf(3, latency="1D")),
    "fine": Source(FINE, x=Within(halo=1)),
    "archive": Source(ARCHIVE, init=AsOf(1, latency="5h"), lead=ValidTime("0h", "24h")),
    "same": ERA.rename(t="w").isel(time=slice(None, None, -1)),
}
WINDOW = {"input_dims": {"time": 4, "x": 2}, "input_overlap": {"time": 3}}


def read_by(samples, source, data):
    """Values of a variable that some samples have, each once, by a loop over the samples."""
    seen = xr.zeros_like(data, dtype=bool).compute()
    for number in samples.fetch(range(len(samples))).index.tolist():
        window = samples.windows.of(source)[number]
        seen[{dim: cut for dim, cut in window.items() if dim in data.dims}] = True
    return data.values[seen.values].astype("f8")


def require_statistics(normalize, samples, sources):
    for place, (source, data) in enumerate(sources.items()):
        ds = data.ds if isinstance(data, Source) else data
        for name, variable in ds.data_vars.items():
            values = read_by(samples, source, variable)
            shown = f"{source}/{name}" if place else name
            np.testing.assert_allclose(normalize.mean[shown], np.nanmean(values), rtol=1e-12)
            np.testing.assert_allclose(normalize.std[shown], np.nanstd(values), rtol=1e-9)


@given(st.data())
@examples(8)
def test_statistics_are_of_what_samples_have_of_each_source(data):
    names = data.draw(st.lists(st.sampled_from(list(RULES)), min_size=1, unique=True))
    sources = {"era": ERA, **{name: RULES[name] for name in names}}
    samples = xtd.MapDataset(sources, **WINDOW)
    along = data.draw(st.sampled_from([(), ("time",), ("x",), ("time", "x")]))
    if along:
        shape = [len(samples.windows.first_steps(dim)) for dim in along]
        wanted = np.random.default_rng(data.draw(st.integers(0, 9))).random(shape) < 0.4
        wanted.flat[len(wanted.flat) // 2] = True
        samples = samples.replace(where=xr.DataArray(wanted, dims=along))
    parts = [samples]
    if data.draw(st.booleans()):
        by = data.draw(st.sampled_from(["windows", "targets"]))
        samples = samples.replace(targets=xtd.Select("t", time=-1))
        parts = xtd.split(samples, "time", at="2000-01-07", by=by)
    for part in parts:
        if len(part):
            require_statistics(xtd.Normalize.fit(part), part, sources)


def test_steps_at_valid_times_count_once_however_many_forecasts_have_them():
    archive = ARCHIVE.assign_coords(valid=ARCHIVE["init"] + ARCHIVE["lead"])
    times = pd.date_range("1999-12-30", periods=80, freq="6h")
    for kept in (slice(None), rng.permutation(80)[:60]):  # a line of labels, and any
        analysis = field("tp", ("time",), {"time": times[kept]})
        sources = {"archive": archive, "analysis": Source(analysis, time=At("valid"))}
        samples = xtd.MapDataset(sources, {"lead": 4}, parts={"x": "tp", "y": "analysis/tp"})
        normalize = xtd.Normalize.fit(samples)
        require_statistics(normalize, samples, sources)
        # Variables of one name are told apart by source.
        raw, made = samples.fetch([2, 5]), samples.replace(preprocess=normalize).fetch([2, 5])
        for part, name in (("x", "tp"), ("y", "analysis/tp")):
            expected = (raw[part] - float(normalize.mean[name])) / float(normalize.std[name])
            np.testing.assert_allclose(made[part], expected, rtol=1e-4, atol=1e-5)
        back = normalize.inverse(made.to_xarray())
        for source, part in (("archive", "x"), ("analysis", "y")):
            np.testing.assert_allclose(back[source]["tp"], raw[part], rtol=1e-6)
            one = normalize.of(source).inverse(made.to_xarray(part))
            np.testing.assert_allclose(one["tp"], raw[part], rtol=1e-6)
            assert one["tp"].attrs["units"] == "K"
        with pytest.raises(ValueError, match=r"several sources.*normalize.of\('archive'\)"):
            normalize.inverse(made.to_xarray("y"))


def test_statistics_of_chosen_variables_and_per_dim():
    sources = {"era": ERA, **RULES}
    samples = xtd.MapDataset(sources, **WINDOW)
    some = xtd.Normalize.fit(samples, variables=["era/t", "daily/tos"])
    assert list(some.mean) == ["t", "daily/tos"]
    made = samples.replace(preprocess=some).fetch([0])
    raw = samples.fetch([0])
    np.testing.assert_array_equal(made["fine"], raw["fine"])
    assert not np.allclose(made["daily"], raw["daily"])
    # One source alone is as ever.
    first = xtd.Normalize.fit(samples, variables="t")
    assert first(ERA)["t"].std() == pytest.approx(1, abs=0.2)
    with pytest.raises(ValueError, match="per='x': sources 'era' and 'fine' have different labels"):
        xtd.Normalize.fit(samples, variables=["t", "fine/z"], per="x")
    by_lead = xtd.Normalize.fit(samples, variables=["archive/tp"], per="lead")
    seen = xr.zeros_like(ARCHIVE["tp"], dtype=bool).compute()
    for number in range(len(samples)):
        seen[samples.windows.of("archive")[number]] = True
    leads = seen.any("init").values
    values = np.where(seen, ARCHIVE["tp"].values.astype("f8"), np.nan)[:, leads]
    np.testing.assert_allclose(by_lead.mean["archive/tp"], np.nanmean(values, axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match="no variable 'daily/none'"):
        xtd.Normalize.fit(samples, variables=["daily/none"])


@pytest.mark.parametrize("suffix", ["json", "nc"])
def test_statistics_of_several_sources_are_saved_whole(tmp_path, suffix):
    samples = xtd.MapDataset({"era": ERA, "daily": RULES["daily"]}, **WINDOW)
    normalize = xtd.Normalize.fit(samples)
    normalize.save(tmp_path / f"statistics.{suffix}")
    loaded = xtd.Normalize.load(tmp_path / f"statistics.{suffix}")
    assert loaded.mean.identical(normalize.mean)
    assert loaded.std.identical(normalize.std)
    with pytest.raises(ValueError, match="several sources"):
        loaded(ERA)
    odd = xtd.Normalize({"a%2F/b": 1.0, "c": 2.0}, {"a%2F/b": 3.0, "c": 4.0})
    odd.save(tmp_path / f"odd.{suffix}")
    assert xtd.Normalize.load(tmp_path / f"odd.{suffix}").mean.identical(odd.mean)


def test_functions_of_statistics_are_bound_to_their_source():
    sources = {"era": ERA, "same": ERA.rename(t="w"), "other": ERA}
    by_hand = xtd.Normalize(
        {"t": 300.0, "same/w": 0.0, "other/t": 100.0}, {"t": 5.0, "same/w": 1.0, "other/t": 2.0}
    )
    plain = xtd.MapDataset(sources, **WINDOW)
    raw = plain.fetch([0, 7])
    made = {
        "x": (raw["x"] - 300) / 5,
        "same": raw["same"],
        "other": (raw["other"] - 100) / 2,
    }
    for arguments in (
        {"preprocess": by_hand},
        {"preprocess": dict.fromkeys(sources, by_hand)},
        {"transform": dict.fromkeys(made, by_hand)},
    ):
        found = plain.replace(**arguments).fetch([0, 7])
        for part, expected in made.items():
            np.testing.assert_allclose(found[part], expected, rtol=1e-5, atol=1e-5)
    # Names without a source are of the first one alone.
    own = plain.replace(preprocess=xtd.Normalize({"t": 300.0}, {"t": 5.0})).fetch([0, 7])
    np.testing.assert_array_equal(own["other"], raw["other"])
    tree = own.to_xarray()
    with pytest.raises(ValueError, match="not known of which source 't' is"):
        by_hand.inverse(tree)
    with pytest.raises(ValueError, match="no part has any of these"):
        plain.replace(preprocess=xtd.Normalize({"z": 0.0}, {"z": 1.0}))
    with pytest.raises(TypeError, match="mapping of their names to functions"):
        plain.replace(preprocess=lambda block: block)
    with pytest.raises(KeyError, match="no statistics of source 'none'; there are of"):
        by_hand.of("none")


def test_a_variable_in_two_parts_is_not_left_normalized():
    samples = xtd.MapDataset(
        {"era": ERA, "daily": RULES["daily"]},
        **WINDOW,
        inputs=xtd.Select("t", time=slice(0, 3)),
        targets=xtd.Select("t", time=3),
    )
    normalize = xtd.Normalize.fit(samples)
    batch = samples.replace(preprocess=normalize).fetch([0, 1])
    with pytest.raises(ValueError, match="one of several parts"):
        normalize.inverse(batch.to_xarray())
    back = normalize.of("era").inverse(batch.to_xarray("y"))["t"]
    np.testing.assert_allclose(back, samples.fetch([0, 1]).y, rtol=1e-6)
