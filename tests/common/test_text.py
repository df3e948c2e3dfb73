"""What comes from data, as a terminal and a notebook get it: no character that acts on either."""

import json
import logging
import os
import unicodedata
import warnings

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from click.testing import CliRunner
from pages import page_of

import xtorch_data as xtd
from xtorch_data.cli import main
from xtorch_data.common.redact import printable, printable_lines, redacted

# A command to the terminal, what begins one in another way, line breaks, marks that reverse the
# direction, what has no width, half a pair; and what is ordinary.
EVIL = "\x1b[2J\x9b1m\r\b\a\x7f\u2028\u202e\u2066\u200b\ufeff<script>é気μ°🌍$x_"
NAME = f"{EVIL}\nforged"
HALF = "\ud800"
ORDINARY = "é 気温 μ ° 🌍 m² 10\u00a0m"


def require_plain(text, lines="forged"):
    """Fail if a text would act on a terminal, or if a name begins a line of its own."""
    found = {each for each in text if unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert found <= {"\n"}, (found, text)
    assert not any(line.lstrip().startswith(lines) for line in text.splitlines()), text
    text.encode()


def hostile(tag="", half=HALF):
    """A dataset all of whose texts are hostile."""
    time, place, name = f"time{NAME}{half}", f"x{NAME}{half}", f"a{NAME}{half}"
    attrs = {"units": NAME + half, "long_name": NAME + half, NAME: NAME}
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            name: ((time, place), rng.random((24, 3)), attrs),
            f"b{NAME}": ((time, place), rng.random((24, 3)), attrs),
        },
        coords={
            time: (time, np.array([f"{at:02d}{NAME}{half}" for at in range(24)], object)),
            place: (place, np.arange(3.0), attrs),
            f"c{NAME}": ((), NAME, attrs),
        },
        attrs=attrs,
    )
    ds.encoding["source"] = f"/data/{NAME}{half}.nc"
    return ds, time, place, name


@pytest.fixture
def shown(caplog):
    """Collects texts; what is logged and warned of is looked at in the end."""
    texts = []
    with (
        warnings.catch_warnings(record=True) as told,
        caplog.at_level(logging.DEBUG, "xtorch_data"),
    ):
        warnings.simplefilter("always")
        yield texts
    texts += [str(each.message) for each in told]
    texts += [record.getMessage() for record in caplog.records]
    for text in texts:
        require_plain(text)


def refused(function, *args, **kwargs):
    """The message of an error, with those of what caused it."""
    with pytest.raises(Exception) as info:
        function(*args, **kwargs)
    error, texts = info.value, []
    while error is not None:
        module = type(error).__module__
        texts += [str(error)] if not texts or module.startswith("xtorch_data") else []
        error = error.__cause__
    return "\n".join(texts)


def test_texts_are_printed_as_one_line_and_ordinary_ones_as_they_are():
    assert printable(ORDINARY) == printable_lines(ORDINARY) == redacted(ORDINARY) == ORDINARY
    assert printable(f"{EVIL}\n{HALF}") == (
        "\\x1b[2J\\x9b1m\\r\\x08\\x07\\x7f\\u2028\\u202e\\u2066\\u200b\\ufeff<script>é気μ°🌍$x_"
        "\\n\\ud800"
    )
    assert printable_lines("a\r\nb\x1b\nc") == redacted("a\r\nb\x1b\nc") == "a\nb\\x1b\nc"


@pytest.mark.filterwarnings("ignore")
def test_no_name_attribute_or_label_acts_on_a_terminal_or_a_page(shown, tmp_path):
    ds, time, place, name = hostile()
    windows = {time: 4, place: -1}
    arguments = {"input_dims": windows, "input_overlap": {time: 2}}
    made = [
        xtd.IterableDataset(ds, **arguments, batch_size=2, shuffle=True),
        xtd.IterableDataset(ds, **arguments, batch_size=None, cache=str(tmp_path / NAME)),
        xtd.IterableDataset(ds, {time: 4}, batch_size=2, inputs=[name], transform=abs),
        xtd.MapDataset(ds, **arguments),
    ]
    made += [each.plan for each in made] + [each.windows for each in made]
    made += [xtd.DataLoader(made[0]), xtd.split(made[0], time, fractions=[0.5, 0.5])]
    made += [next(iter(each)) for each in made[:3]] + [made[3][0], made[3].__getitems__([0, 1])]
    made += [each.explain() for each in made[:3]] + [each.stats() for each in made[:3]]
    made += [xtd.verify(made[0]), xtd.Normalize.fit(ds), xtd.Normalize.fit(ds, per=place)]
    made += [xtd.Select([name], {time: slice(0, 2)}), xtd.Compose([abs])]
    pages = [each for each in made if hasattr(each, "_repr_html_")]
    assert len(made) >= 30 and len(pages) > 15
    for each in made:
        shown += [repr(each), str(each)]
    for each in pages:
        page = page_of(each)
        for text in page.texts:
            require_plain(text, lines="\0")
        assert any("é気μ°🌍" in text for text in page.texts) or type(each) in (
            xtd.Verification, xtd.Stats, xtd.Explanation,
        )  # fmt: skip
    shown += [f"{made[0].windows.ranges(0)}"]

    # Mistakes that are often made.
    data, batch = made[0], made[14]
    wrong = [
        lambda: xtd.IterableDataset(ds, {f"other{NAME}": 4}),
        lambda: xtd.IterableDataset(ds, {time: 400}),
        lambda: xtd.IterableDataset(ds, {time: "4"}),
        lambda: xtd.IterableDataset(ds, {time: 4}, {time: 4}),
        lambda: xtd.IterableDataset(ds, {time: 4}, {place: 1, NAME: 1}),
        lambda: xtd.IterableDataset(ds, {time: 4}, inputs=[NAME]),
        lambda: xtd.IterableDataset(ds, {time: 4}, inputs=[place]),
        lambda: xtd.IterableDataset(ds, {time: 4}, inputs=xtd.Select(name, {time: 7})),
        lambda: xtd.IterableDataset(ds, {time: 4}, inputs=xtd.Select(name, {NAME: 7})),
        lambda: xtd.IterableDataset(ds.assign({name: ds[name].astype(str)}), {time: 4}),
        lambda: xtd.IterableDataset(ds, {time: 4}, preprocess=lambda each: each[NAME]),
        lambda: next(iter(xtd.IterableDataset(ds, {time: 4}, transform=lambda each: each[NAME]))),
        lambda: xtd.IterableDataset(ds, {time: 4}, memory=NAME),
        lambda: xtd.IterableDataset(ds, {time: 4}, uneven=NAME),
        lambda: xtd.IterableDataset(ds, {time: 4}, dtype=NAME),
        lambda: xtd.IterableDataset(ds, {time: 4}, cache=f"s3://{NAME}"),
        lambda: xtd.IterableDataset(f"/data/{NAME}.nc", {time: 4}),
        lambda: xtd.MapDataset(ds, {time: 4}, shuffle=True),
        lambda: xtd.split(data, NAME, fractions=[0.5, 0.5]),
        lambda: xtd.split(data, time, at=[3]),
        lambda: data.load_state_dict({NAME: 1}),
        lambda: data.load_state_dict({**data.state_dict(), "version": NAME}),
        lambda: data.load_state_dict({**data.state_dict(), "dataset": {NAME: NAME}}),
        lambda: batch[NAME],
        lambda: xtd.Normalize.fit(ds, per=NAME),
        lambda: xtd.Normalize.fit(ds)(ds[[name]].rename({name: NAME})),
        lambda: xtd.Normalize.load(tmp_path / f"{NAME}.txt"),
        lambda: xtd.Normalize.fit(ds).save(tmp_path / f"{NAME}.txt"),
        lambda: xr.open_dataset(f"/data/{NAME}.npy", engine="npy"),
        lambda: xr.open_dataset(f"/data/{NAME}.pt", engine="pt"),
    ]
    messages = [refused(each) for each in wrong]
    shown += messages
    assert sum("\\x1b" in text for text in messages) > 20


@pytest.mark.filterwarnings("ignore")
def test_no_path_acts_on_a_terminal(shown, tmp_path, caplog):
    # Without line breaks, which newer releases of zarr leave out of paths.
    folder = tmp_path / os.fsdecode(EVIL.replace("\r", "").encode() + b"\xff")
    folder.mkdir()
    ds, time, place, name = hostile(half="")
    store = folder / "a.zarr"
    ds = ds.assign_coords({time: np.arange(24)}).drop_vars(f"c{NAME}").chunk({time: 4})
    ds.to_zarr(store, consolidated=False)
    opened = xtd.open_zarr(store)
    data = xtd.IterableDataset(opened, {time: 4}, batch_size=2, cache=str(folder / "cache"))
    for each in (data, data.explain(), xtd.MapDataset(opened, {time: 4})):
        shown += [repr(each)]
        for text in page_of(each).texts:  # that of xarray has lines
            require_plain(text, lines="\0")
    copy = xtd.rechunk(opened, data, folder / "copy.zarr")
    copied = xtd.IterableDataset(copy, {time: 4}, batch_size=2)
    shown += [repr(copied), repr(copied.explain())]

    # A damaged chunk, refused and skipped.
    damaged = store / name / "c" / "5" / "0"
    damaged.write_bytes(b"\0" * 7)
    again = xtd.open_zarr(store)
    shown += [refused(list, xtd.IterableDataset(again, {time: 4}, batch_size=2))]
    skipping = xtd.IterableDataset(again, {time: 4}, batch_size=2, on_error="skip")
    list(skipping)
    shown += [repr(skipping.stats()), *map(str, skipping.stats().failures)]
    shown += page_of(skipping.stats()).texts
    assert "\\x1b" in repr(skipping.stats().failures[0]) and skipping.stats().failures

    # Files of other kinds.
    np.save(folder / "a.npy", np.arange(6.0).reshape(2, 3))
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    (folder / "cut.npy").write_bytes((folder / "a.npy").read_bytes()[:-9])
    text = tmp_path / NAME  # which torch wants
    text.mkdir()
    torch.save({"a": [1]}, text / "list.pt")
    torch.save(len, text / "code.pt")
    (text / "cut.pt").write_bytes((text / "list.pt").read_bytes()[:100])
    torch.save(torch.zeros(2), folder / "a.pt")
    (folder / "bad.json").write_text("{")
    for file in ("objects.npy", "cut.npy", "a.pt", "list.pt", "code.pt", "cut.pt"):
        path = next(each / file for each in (folder, text) if (each / file).exists())
        message = refused(xr.open_dataset, path, engine=path.suffix[1:])
        shown += [message]
        assert "\\x1b" in message and file in message
    shown += [refused(xr.open_dataset, folder / "a.npy", engine="npy", dims=[NAME])]
    shown += [refused(xtd.Normalize.load, folder / "bad.json")]
    shown += [refused(xtd.open_zarr, folder / "a.npy")]
    shown += [refused(xtd.IterableDataset, str(folder), {time: 4})]
    cached = {"batch_size": 2, "cache": str(folder / "a.npy")}
    shown += [refused(xtd.IterableDataset, opened, {time: 4}, **cached)]

    # The command line.
    path = str(store)
    sizes = ["--input-dims", f"{time}=4"]
    outputs = {}
    for number, (code, arguments) in enumerate(
        [
            (0, ["explain", path, *sizes]),
            (0, ["explain", path, *sizes, "--json"]),
            (0, ["verify", path, *sizes]),
            (0, ["verify", path, *sizes, "--json"]),
            (2, ["bench", path, *sizes, "--seconds", "0.1"]),
            (2, ["explain", path, "--input-dims", f"{NAME}=4"]),
            (2, ["explain", path, "--input-dims", f"{NAME}"]),
            (2, ["explain", path, *sizes, "--inputs", NAME]),
            (2, ["explain", path, *sizes, "--targets", place]),
            (2, ["explain", path, *sizes, "--engine", EVIL]),
            (2, ["explain", path, *sizes, "--group", NAME]),
            (2, ["explain", path, *sizes, "--memory", NAME]),
            (2, ["explain", path, *sizes, f"--{EVIL}"]),
            (2, ["explain", path, *sizes, "--uneven", EVIL]),
            (2, ["explain", path, *sizes, EVIL]),
            (None, [EVIL]),  # an option, for click 8.1, which then shows its help
            (2, ["explain", f"{folder}/none.zarr", *sizes]),
            (2, ["explain", f"{folder}/none.nc", *sizes]),
            (2, ["explain", f"{folder}/a.npy", *sizes]),
            (2, ["rechunk", path, str(folder / "a.npy" / "b"), *sizes]),
        ]
    ):
        result = CliRunner().invoke(main, arguments)
        assert code in (None, result.exit_code), (arguments, result.output)
        outputs[number] = result.output
        if "--json" in arguments:
            json.loads(result.output)
    shown += outputs.values()
    assert sum("\\x1b" in text or "\\u001b" in text for text in outputs.values()) > 15


@pytest.mark.filterwarnings("ignore:.*Agg is non-interactive:UserWarning", "ignore:Glyph")
def test_plots_show_names_that_are_no_formulas():
    ds, time, place, name = hostile()
    ds = ds.rename({name: f"$\\frac{{{NAME}$ $x_"})
    ds = ds.assign_coords({time: np.arange(24)})
    for each in ds.variables.values():
        each.attrs = {"units": "$\\unknown$", "long_name": f"$\\frac{{${NAME}"}
    data = xtd.IterableDataset(ds, {time: 4, place: -1}, batch_size=2)
    batch = next(iter(data))
    batch.plot()
    batch.plot(variables=[f"b{NAME}"])
    data.plot.plan()
    data.plot.windows([0, 1])
    for number in plt.get_fignums():
        figure = plt.figure(number)
        figure.canvas.draw()
        for text in figure.findobj(matplotlib.text.Text):
            require_plain(text.get_text())
    plt.close("all")
