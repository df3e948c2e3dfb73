"""What README, docs, docstrings and examples show is true."""

import ast
import functools
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from operator import attrgetter
from pathlib import Path

import pytest
import xarray as xr
from helpers import Script

import xtorch_data as xtd

ROOT = Path(__file__).parents[1]
PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "```python\n" in page.read_text()
] + sorted((ROOT / "docs").rglob("*.ipynb"))
# What these need beyond the extra `compat`, if not a server or a cluster as well.
OPTIONAL = {
    "dask.md": ["distributed"],
    "formats.md": ["icechunk", "kerchunk"],
    "remote.md": ["obstore", "s3fs"],
    "remote-with-dask.ipynb": ["boto3", "distributed", "s3fs"],
}
# These start workers, or are run as a user does, imports and all; the others where these are done.
ALONE = {"README.md", "coming-from-xbatcher.md", "price-series.md", "workers-and-ranks.md"}


def script_of(page: Path) -> str:
    """The python blocks of a page as one script, every line at the line number it has there."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    lines, inside = [], False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def promises(code: str) -> list[str]:
    """Lines that a script says it prints: behind a ``print(…)``, or below it."""
    found = re.finditer(r"^ *print\(.*\)(?:  # (.+)\n|\n((?:# .+\n)+))", code, re.MULTILINE)
    return [line.removeprefix("# ") for each in found for line in (each[1] or each[2]).splitlines()]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=pytest.mark.integration if page.name in OPTIONAL else (),
            id=page.relative_to(ROOT).as_posix(),
        )
        for page in PAGES
    ],
)
def test_blocks_of_a_page_run_as_one_script_and_print_what_they_say(
    page, tmp_path, request, monkeypatch
):
    for name in OPTIONAL.get(page.name, ()):
        pytest.importorskip(name)
    monkeypatch.setenv("MPLBACKEND", "agg")
    is_remote = page.name == "remote.md"
    environment = request.getfixturevalue("s3_environment") if is_remote else None
    script = tmp_path / f"{page.stem}.py"
    script.write_text(script_of(page))
    promised = promises(script.read_text())

    if page.name in ALONE:
        done = subprocess.run(
            [sys.executable, "-W", "error", script.name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=200,
        )
    else:
        done = Script(script, folder=tmp_path, environment=environment).wait(200)

    assert done.returncode == 0, done.stderr
    printed = iter(done.stdout.splitlines())
    missing = [line for line in promised if line not in printed]
    assert not missing, done.stdout


def is_called_by_users(public):
    return not inspect.isclass(public) or public in (
        xtd.ChunkSampler,
        xtd.Compose,
        xtd.DataLoader,
        xtd.IterableDataset,
        xtd.MapDataset,
        xtd.Normalize,
        xtd.Select,
        xtd.xbatcher.IterableDataset,
        xtd.xbatcher.MapDataset,
    )


@pytest.mark.parametrize("name", [*xtd.__all__, *(f"xbatcher.{n}" for n in xtd.xbatcher.__all__)])
def test_public_names_document_every_parameter_and_show_an_example(name):
    docscrape = pytest.importorskip("numpydoc.docscrape")
    validate = pytest.importorskip("numpydoc.validate").validate
    public = attrgetter(name)(xtd)
    complete = {"GL08", "PR01", "PR02"}  # a docstring, every parameter in it, and no other
    wanted = {public: complete | {"EX01"} if is_called_by_users(public) else {"GL08"}}
    if inspect.isclass(public):
        methods = {key: value for key, value in vars(public).items() if inspect.isfunction(value)}
        wanted |= {value: complete for key, value in methods.items() if not key.startswith("_")}

    problems = {
        documented.__qualname__: text
        for documented, codes in wanted.items()
        for code, text in validate(docscrape.get_doc_object(documented))["errors"]
        if code in codes
    }

    assert not problems


def test_forecast_example_writes_labeled_predictions_of_the_test_years(tmp_path):
    source = ROOT / "examples" / "forecast.py"
    spec = importlib.util.spec_from_file_location("forecast", source)
    forecast = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(forecast)

    errors = forecast.main(tmp_path, epochs=1)

    assert len(source.read_text().splitlines()) <= 120
    assert errors["this model"] < errors["persistence (last year)"]
    assert (tmp_path / "forecast.png").stat().st_size > 0
    data = xr.open_zarr(tmp_path / "data.zarr", consolidated=False)["air_temperature"]
    written = xr.open_zarr(tmp_path / "forecast.zarr", consolidated=False)["air_temperature"]
    truth = data.sel(time=slice("2068", None))
    assert written.dims == truth.dims == ("time", "latitude", "longitude")
    for dim in truth.dims:
        xr.testing.assert_equal(written[dim], truth[dim])
    error = float(((written - truth) ** 2).mean() ** 0.5)
    assert error == pytest.approx(errors["this model"], rel=1e-5)


def test_notebooks_are_kept_without_what_they_show():
    for page in (ROOT / "docs").rglob("*.ipynb"):
        for cell in json.loads(page.read_text())["cells"]:
            assert not cell.get("outputs") and not cell.get("execution_count"), page


DOCS = ROOT / "docs"
WRITTEN = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.rglob("*.md")),
    *sorted(DOCS.rglob("*.ipynb")),
]


@functools.cache
def text_of(page: Path) -> str:
    """What a page says, without its blocks of code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What `#…` may name on a page: its headings, and in the API the objects it shows."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    shown = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    slugs = (re.sub(r"[^\w\s-]", "", each.lower()).strip() for each in shown)
    objects = re.findall(r"^::: (\S+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", slug) for slug in slugs} | set(objects)


def links(page: Path) -> dict[str, tuple[Path, str]]:
    """File and anchor of every relative link, by what is written."""
    targets = re.findall(r"\]\(\s*([^)\s]+)[^)]*\)", text_of(page))
    relative = [target for target in targets if not re.match(r"[a-z]+:", target)]
    parts = {target: target.partition("#") for target in relative}
    return {
        target: ((page.parent / path).resolve() if path else page, anchor)
        for target, (path, _, anchor) in parts.items()
    }


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    for written, (target, anchor) in links(page).items():
        assert target.exists(), written
        assert not anchor or anchor in anchors(target), written


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "index.md"], ids=["README", "home"])
def test_every_page_can_be_found_from_the_first_one(page):
    linked = {target for target, _ in links(page).values()}
    pages = {page for page in WRITTEN if page.is_relative_to(DOCS)}
    assert pages - {DOCS / "index.md", DOCS / "api.md"} <= linked


ARCHITECTURE = DOCS / "explanation" / "architecture.md"


def defined(body):
    """What a module or a class defines, by name: its own body, if it is a class."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.body
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((each.id, []) for each in targets if isinstance(each, ast.Name))


def test_the_architecture_page_names_what_there_is():
    named = re.findall(r"`([a-z_]+/[\w./]*)`", text_of(ARCHITECTURE))
    assert len(named) > 50
    for name in named:
        if (ROOT / name).exists() or (ROOT / "xtorch_data" / name).is_dir():
            continue
        module, *names = name.split(".")
        body = ast.parse((ROOT / "xtorch_data" / f"{module}.py").read_text()).body
        for each in names:
            found = dict(defined(body))
            assert each in found, name
            body = found[each]


def test_the_architecture_page_lists_the_rooms_as_imports_are_checked():
    tree = re.search(r"```text\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)[1]
    rooms = [re.match(r"\w+", line)[0] for line in tree.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [
        each["layers"]
        for each in project["tool"]["importlinter"]["contracts"]
        if each["type"] == "layers"
    ]
    assert rooms == layers


def test_examples_are_shown_by_markers_that_formatting_has_left_alone():
    shown = {}
    for page in WRITTEN:
        named = re.findall(r'title="(examples/.+)"', page.read_text())
        shown |= dict.fromkeys(named, page)
        assert re.findall(r'^--8<-- "(.+)"$', page.read_text(), re.MULTILINE) == named, page

    assert shown and all((ROOT / example).exists() for example in shown)
