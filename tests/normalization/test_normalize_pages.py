"""What statistics look like in a notebook."""

import numpy as np
import xarray as xr

import xtorch_data as xtd


def test_a_page_has_kind_per_ranges_and_what_it_was_fitted_on():
    time = xr.date_range("2000-01-01", periods=366)
    values = np.arange(366 * 2.0).reshape(366, 2)
    ds = xr.Dataset(
        {"t<2m": (("time", "level"), values, {"units": "K & so"})},
        {"time": time, "level": [850, 500]},
    )
    normalize = xtd.Normalize.fit(ds, kind="minmax", per=("level", "time.season"))
    page = normalize._repr_html_()
    for text in (
        "minmax: (value - min) / (max - min)",
        "level (2), time.season (4)",
        "t&lt;2m",
        "K &amp; so",
        "level: 2, season: 4",
        "0 to 489",
        "2000-01-01 to 2000-12-31",
        "500 to 850",
    ):
        assert text in page
    assert "fitted on time 2000-01-01 to 2000-12-31" in repr(normalize)
    plain = xtd.Normalize({"a": 1.0}, {"a": 2.0})._repr_html_()
    assert "std: (value - mean) / std" in plain and "Fitted on" not in plain


def test_many_variables_are_no_long_page():
    many = dict.fromkeys(map(str, range(500)), 1.0)
    normalize = xtd.Normalize(many, many)
    assert len(normalize._repr_html_()) < 40_000 and "and 460 more" in normalize._repr_html_()
    assert "and 480 more" in repr(normalize)
