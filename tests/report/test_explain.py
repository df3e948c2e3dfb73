"""What `explain` says, compared with what an epoch then does."""

import html
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import chunk_reads, counted, fields, forecast, reads, tiny_memory_allowed
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import page_of
from strategies import cases

import xtorch_data as xtd
from xtorch_data.report.explanation import GLOSSARY


@pytest.mark.parametrize(
    "chunks, arguments",
    [
        ({"a": (16, 8, 8), "b": (16, 8, 8)}, {}),
        ({"a": (1, 32, 24), "b": (16, 8, 8)}, {}),
        ({"a": (5, 8, 24), "b": (7, 32, 5)}, {"memory": "40 kB"}),
        ({"a": (20, 32, 24), "b": (20, 32, 24)}, {"input_dims": {"time": 4, "y": 8, "x": 8}}),
        ({"a": (3, 4, 4), "b": (9, 32, 24)}, {"where": np.arange(57) % 9 == 2}),
        ({"a": (8, 32, 24), "b": (8, 32, 24)}, {"batch_size": 7, "drop_last": True}),
        ({"a": (50, 5, 5), "b": (16, 8, 8)}, {"uneven": "drop"}),
        ({"a": (10, 8, 8), "b": (11, 8, 8)}, {"memory": "200 kB", "input_overlap": None}),
    ],
)
@pytest.mark.parametrize("shuffle, world_size", [(True, 1), (False, 1), (True, 3), (False, 2)])
def test_chunks_are_read_as_often_as_explained(chunks, arguments, shuffle, world_size):
    opened, counts = counted(fields(60), chunks)
    arguments = {
        "input_dims": {"time": 4, "y": -1, "x": -1},
        "input_overlap": {"time": 3},
        "batch_size": 4,
        "memory": "1 MiB",
        "shuffle": shuffle,
        **arguments,
    }
    if "where" in arguments:
        arguments["where"] = xr.DataArray(arguments["where"], dims="time")
    explained = xtd.IterableDataset(opened, **arguments).explain(world_size)
    counts.clear()
    batches = []
    for rank in range(world_size):
        dataset = xtd.IterableDataset(opened, rank=rank, world_size=world_size, **arguments)
        batches.append(list(dataset))
    found = reads(counts, "ab")
    assert explained.exact
    assert explained.chunk_reads == sum(found.values())
    for variable in explained.variables:
        mine = sum(count for key, count in found.items() if key.split("/")[0] == variable.name)
        assert variable.chunk_reads == mine
        assert variable.nbytes == mine * 4 * np.prod(chunks[variable.name])
        assert tuple(variable.chunks.values()) == chunks[variable.name]
        assert variable.path == "directly"
    # Samples and batches.
    own = [batch.index[~batch.repeated] for rank in batches for batch in rank]
    numbers = [n for some in own for n in some.tolist()]
    assert explained.batches_per_rank == tuple(len(rank) for rank in batches)
    assert len(numbers) == len(set(numbers))
    assert explained.windows - sum(explained.left_out.values()) == len(numbers)
    # What windows hold, each value once.
    touched = np.zeros(opened.a.shape, dtype=bool)
    wanted = np.arange(explained.windows)
    if dataset.where is not None:
        wanted = np.flatnonzero(dataset.where)  # there is one window at each time
    for number in wanted.tolist():
        window = dataset.windows[number]
        touched[tuple(window[dim] for dim in opened.a.dims)] = True
    assert explained.nbytes_used == 2 * 4 * touched.sum()
    last = dataset.windows[explained.windows - 1]["time"].stop
    assert explained.beyond["time"] == len(opened.time) - last
    assert explained.amplification == pytest.approx(np.prod([*explained.amplification_of.values()]))
    assert explained.amplification == explained.nbytes / explained.nbytes_used


@settings(max_examples=13)
@given(cases())
def test_anything_can_be_explained(case):
    with case.stored.open() as ds, tiny_memory_allowed():
        dataset = xtd.IterableDataset(ds, **case.arguments)
        explained = dataset.explain()
        assert explained.samples == explained.windows == len(dataset.windows)
        assert explained.batches_per_rank == (len(dataset),)
        assert 0 <= explained.mixing <= 1
        assert explained.amplification_of["chunks"] >= 1
        assert explained.amplification_of["cuts"] <= 1  # less where drop_last leaves blocks out
        text, page = str(explained), explained._repr_html_()
        for name in case.names(ds):
            assert f"{name}: " in text
            assert f">{name}</td>" in page
        for obj in (dataset, dataset.plan):
            cells = page_of(obj).cells
            assert all(str(axis.dim) in cells for axis in dataset.plan.windows.axes)


@pytest.mark.parametrize("memory", ["60 kB", "200 kB", "400 kB", "1 MiB", "1 GiB"])
def test_mixing_is_that_of_batches(memory):
    ds = forecast(time=400, y=4, x=5).chunk(time=10)
    dataset = xtd.IterableDataset(
        ds,
        {"time": 4, "y": -1, "x": -1},
        {"time": 3},
        shuffle=True,
        batch_size=16,
        memory=memory,
    )
    grid = dataset.plan.grid
    block_of = np.repeat(np.arange(len(grid)), grid.samples(np.arange(len(grid))))
    same, full = [], []
    rng = np.random.default_rng(0)
    for epoch in range(3):
        for stage in dataset.plan.stages(epoch, dataset.plan.left(epoch)):
            blocks = block_of[stage.numbers(dataset.plan.windows)]
            for start in range(0, len(blocks) - 15, 16):
                pairs = itertools.combinations(blocks[start : start + 16], 2)
                same += [one == other for one, other in pairs]
    for _ in range(200):
        pairs = itertools.combinations(rng.permutation(block_of)[:16], 2)
        full += [one == other for one, other in pairs]
    simulated = (1 - np.mean(same)) / (1 - np.mean(full)) if len(grid) > 1 else 1.0
    assert dataset.explain().mixing == pytest.approx(simulated, abs=0.08)


def test_a_petabyte_is_explained_without_walking_it():
    import dask.array

    shape = (10**6, 721, 1440)
    data = dask.array.zeros(shape, chunks=(200, 721, 1440), dtype="float32")
    ds = xr.Dataset({"t": (("time", "lat", "lon"), data)})
    dataset = xtd.IterableDataset(
        ds, {"time": 8, "lat": 32, "lon": 32}, {"time": 7}, shuffle=True, memory="64 GiB"
    )
    explained = dataset.explain(world_size=64, num_workers=4)
    assert explained.samples > 10**8
    assert sum(explained.batches_per_rank) == pytest.approx(explained.samples, abs=64)
    assert 1 <= explained.amplification_of["halo"] < 1.25
    assert explained.amplification == pytest.approx(np.prod([*explained.amplification_of.values()]))


def test_estimates_are_near_what_is_counted(monkeypatch):
    opened, _ = counted(fields(200), {"a": (7, 8, 8), "b": (16, 32, 24)})
    for shuffle, memory in itertools.product([True, False], ["300 kB", "2 MiB"]):
        dataset = xtd.IterableDataset(
            opened, {"time": 4, "y": 4, "x": 4}, {"time": 3}, shuffle=shuffle, memory=memory
        )
        exact = dataset.explain()
        monkeypatch.setattr("xtorch_data.report.explain.COUNTED_LOADS", 0)
        estimate = dataset.explain()
        monkeypatch.undo()
        assert exact.exact
        assert not estimate.exact
        assert "about" in str(estimate)
        assert estimate.nbytes == pytest.approx(exact.nbytes, rel=0.15)


def test_what_is_advised_is_what_happens():
    opened, _ = counted(fields(400), {"a": (8, 8, 8), "b": (8, 8, 8)})

    def explained(memory):
        return xtd.IterableDataset(
            opened,
            {"time": 16, "y": -1, "x": -1},
            {"time": 15},
            shuffle=True,
            memory=memory,
        ).explain()

    poor = explained("30 kB")
    [again, mixing] = [text for text in poor.advice if "memory=" in text]
    promised = float(again.split("would be ")[1].split(" times")[0])
    better = explained(again.split("memory='")[1].split("'")[0])
    assert poor.amplification_of["halo"] > 1.25
    assert better.amplification_of["halo"] == pytest.approx(promised, abs=0.15)
    promised = float(mixing.split("would be ")[1])
    better = explained(mixing.split("memory='")[1].split("'")[0])
    assert better.mixing == pytest.approx(promised, abs=0.02)
    assert not [text for text in better.advice if "mixing" in text]


def test_other_advice(monkeypatch):
    ds = forecast(time=300, y=16, x=16)
    opened, _ = counted(ds[["a"]], {"a": (1, 4, 4)})
    dataset = xtd.IterableDataset(opened, {"time": 4}, memory="1 MiB")
    assert not any("requests" in text for text in dataset.explain().advice)  # read in no time
    monkeypatch.setattr("xtorch_data.report.advice.LARGE_BYTES", ds.a.nbytes - 1)
    [advice] = [text for text in dataset.explain(num_workers=9).advice if "requests" in text]
    assert "'a'" in advice
    few = xtd.IterableDataset(ds, {"time": 100}, batch_size=10**6).explain(num_workers=2)
    assert any("2 workers share 1 batch:" in text for text in few.advice)
    with pytest.raises(ValueError, match="world_size"):
        xtd.IterableDataset(ds, {"time": 4}).explain(world_size=-1)


def test_the_docs_print_what_is_explained(capsys):
    page = (Path(__file__).parents[2] / "docs/how-to/explain.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    exec(blocks[0][1], {})
    assert blocks[1][0] == "text"
    assert capsys.readouterr().out == blocks[1][1]


NOT_CHUNKED = {
    "netcdf4": ("netcdf4", "NETCDF4"),
    "h5netcdf": ("h5netcdf", "NETCDF4"),
    "netcdf3": ("scipy", "NETCDF3_64BIT"),
    "netcdf3 by netcdf4": ("netcdf4", "NETCDF3_64BIT"),
    "in memory": None,
}


@pytest.mark.parametrize("way", NOT_CHUNKED)
def test_what_is_not_chunked_has_no_chunks(tmp_path, way):
    ds = forecast(time=100, y=8, x=8)[["a"]]
    if NOT_CHUNKED[way] is not None:
        engine, kind = NOT_CHUNKED[way]
        ds.to_netcdf(tmp_path / "a.nc", engine=engine, format=kind)
        ds = xr.open_dataset(tmp_path / "a.nc", engine=engine)
    with ds:
        part = ds.isel(time=slice(3, 93, 2), x=[1, 3, 4, 7])
        for data in ds, part:
            arguments = {"input_dims": {"time": 4, "y": 4}, "input_overlap": {"time": 3}}
            dataset = xtd.IterableDataset(data, memory="10 kB", **arguments)
            explained = dataset.explain()
            [variable] = explained.variables
            assert (explained.chunk_reads, variable.chunks, variable.chunk_nbytes) == (0, {}, 0)
            assert variable.nbytes > 0
            text = str(explained)
            assert "a: float32, not chunked, read " in text
            assert not re.search(r"chunks of|requests|\d chunk", text)
            assert ">not chunked<" in explained._repr_html_()
            assert ">not chunked<" in dataset.plan._repr_html_()
            assert chunk_reads(dataset.plan, 0, [(0, len(dataset.windows))]) == {"a": 0}


def test_chunks_of_one_step_are_chunks(tmp_path):
    encoding = {"a": {"chunksizes": (1, 1, 1)}}
    forecast(time=10, y=2, x=3)[["a"]].to_netcdf(tmp_path / "a.nc", encoding=encoding)
    with xr.open_dataset(tmp_path / "a.nc") as ds:
        dataset = xtd.IterableDataset(ds, {"time": 4, "y": 2, "x": 3}, {"time": 3})
        assert dataset.explain().chunk_reads == 60
        assert "10 of 1" in dataset.plan._repr_html_()


def test_no_warning_of_chunks_where_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setattr("xtorch_data.report.unfit_chunks.ENOUGH_TO_TELL", 1)
    ds = forecast(time=200, y=8, x=8)[["a"]]
    ds.to_netcdf(tmp_path / "a.nc")
    ds.to_netcdf(tmp_path / "b.nc", encoding={"a": {"chunksizes": (1, 8, 8)}})
    arguments = {"input_dims": {"time": 30}, "input_overlap": {"time": 29}, "memory": "3 kB"}
    with xr.open_dataset(tmp_path / "b.nc") as chunked:
        with pytest.warns(UserWarning, match="an epoch decodes"):
            xtd.IterableDataset(chunked.isel(x=slice(1)), **arguments)
    with xr.open_dataset(tmp_path / "a.nc") as contiguous:
        dataset = xtd.IterableDataset(contiguous.isel(x=slice(1)), **arguments)
        assert not any("chunks" in text for text in dataset.explain().advice)


def test_blocks_of_which_nothing_is_wanted_are_no_pools():
    ds = forecast(time=1000, y=1, x=1).chunk(time=10)
    arguments = {"input_dims": {"time": 1}, "inputs": "a", "shuffle": True, "memory": "400 B"}
    whole = xtd.IterableDataset(ds, **arguments).explain()
    assert whole.pools > 10
    assert whole.mixing < 0.8
    sparse = xtd.IterableDataset(ds, where=np.arange(1000) < 5, **arguments).explain()
    assert (sparse.samples, sparse.pools, sparse.mixing) == (5, 1, 1.0)
    assert sparse.nbytes_used == 5 * 4
    assert not any("mixing" in text for text in sparse.advice)
    assert sparse.amplification >= 1


@settings(max_examples=13)
@given(
    st.integers(1, 6),
    st.integers(1, 8),
    st.lists(st.integers(8, 52), min_size=1, max_size=3, unique=True).map(sorted),
    st.integers(0, 3),
)
def test_a_part_of_a_split_leaves_out_no_other_part(size, stride, cuts, gap):
    """What it leaves out are its own steps, at the ends, that are in none of its samples."""
    data = xr.DataArray(np.zeros(60), dims="time", coords={"time": np.arange(60)}, name="a")
    dataset = xtd.IterableDataset(data, {"time": size}, {"time": size - stride})
    try:
        parts = xtd.split(dataset, "time", at=cuts, gap=gap)
    except ValueError as error:
        assert "has no sample" in str(error)
        return
    ends = [*(cut - gap for cut in cuts), 60]
    for part, begin, end in zip(parts, [0, *cuts], ends, strict=True):
        steps = [part.windows[number]["time"] for number in range(len(part.windows))]
        outside = steps[0].start - begin + end - steps[-1].stop
        explained = part.explain()
        assert explained.beyond == {"time": outside}
        assert ("left out" in str(explained)) == bool(outside)
        assert explained.windows == explained.samples == len(steps)


def test_parts_in_stretches_count_the_steps_at_the_ends_of_each():
    data = xr.DataArray(np.zeros(60), dims="time", name="a")
    dataset = xtd.IterableDataset(data, {"time": 4}, {"time": 0})
    (train, val), *_ = list(xtd.kfold(dataset, "time", n_splits=4))[1:]
    # 15 steps before the fold and 30 behind it, of which 12 and 28 are in samples.
    assert train.explain().beyond == {"time": 15 - 12 + 30 - 28}
    assert val.explain().beyond == {"time": 15 - 12}
    assert xtd.DataLoader(train).explain().beyond == train.explain().beyond


def test_the_page_explains_its_words():
    explained = xtd.IterableDataset(forecast(), {"time": 4}, {"time": 3}).explain()
    words = dict(GLOSSARY)
    assert list(words) == ["block", "pool", "halo", "cuts", "mixing", "passing"]
    assert {*words, *words.values()} <= set(page_of(explained).cells)
    page = Path(__file__).parents[2] / "docs" / "how-to" / "explain.md"
    assert all(f"| {word} | {meaning} |" in page.read_text() for word, meaning in GLOSSARY)


def test_the_page_has_all_that_the_text_has():
    """Each fact once: its name, and what there is to say, in one line or two."""
    explained = xtd.IterableDataset(forecast(), {"time": 4}, {"time": 3}).explain()
    head, *lines = str(explained).splitlines()
    page = html.unescape(explained._repr_html_().split("<div class='xtd-wrap'")[1])
    assert head in page
    shown = dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    facts, name = {}, ""
    for line in lines:
        found = re.fullmatch(r"  (\w+) +(.+)| {12}(.+)", line)
        if found is None:
            break  # variables begin
        name = found[1] or name
        facts[name] = found[2] or f"{facts[name]} {found[3]}"
    assert list(facts) == ["batches", "blocks", "memory", "reads"]
    assert facts == shown


def test_ranks_without_a_sample_are_refused_as_when_iterating():
    dataset = xtd.IterableDataset(forecast(time=4, y=1, x=1), {"time": 1}, shuffle=True)
    with pytest.raises(ValueError, match="4 samples cannot be shared by 8 ranks"):
        dataset.explain(world_size=8)
    with pytest.raises(ValueError, match="world_size"):
        dataset.explain(world_size=0)


def test_many_variables_that_are_stored_alike_have_one_line():
    opened, _ = counted(fields(20), {"a": (5, 32, 24), "b": (4, 32, 24)})
    alike = {f"v{number:02d}": opened.a for number in range(51)}
    many = xr.Dataset({"v00": alike.pop("v00"), "b": opened.b, **alike})
    explained = xtd.IterableDataset(many, {"time": 4, "y": -1, "x": -1}, batch_size=2).explain()
    assert len(explained.variables) == 52
    lines = [line for line in str(explained).splitlines() if "float32, chunks of" in line]
    assert len(lines) == 2
    some = "v00, v01, …, v50 (51 variables): float32, chunks of time 5"
    assert lines[0].lstrip().startswith(some)
    assert lines[1].lstrip().startswith("b: ")
    [reads_of_each] = {each.chunk_reads for each in explained.variables if each.name != "b"}
    assert lines[0].endswith(f"read directly, {reads_of_each} chunks each")
    assert all(f">{name}<" in explained._repr_html_() for name in ("v00", "b", "v02"))  # rows
