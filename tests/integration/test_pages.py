"""Pages of the docs and examples run as users run them, and print what they say."""

import importlib.util
import json
import os
import re
import shlex
import string
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr
from click.testing import CliRunner
from helpers import Script

from xtorch_data.cli import main

pytestmark = pytest.mark.compat

ROOT = Path(__file__).parents[2]


PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "```python\n" in page.read_text()
] + sorted((ROOT / "docs").rglob("*.ipynb"))


# What these need beyond the extra `compat`, if not a server or a cluster as well.
OPTIONAL = {
    "dask.md": ["distributed"],
    "formats.md": ["icechunk", "kerchunk"],
    "frameworks.md": ["accelerate", "lightning"],
    "geotiff.md": ["rioxarray"],
    "remote.md": ["obstore", "s3fs"],
    "remote-with-dask.ipynb": ["boto3", "distributed", "s3fs"],
}


# These start workers, or are run as a user does, imports and all; the others where these are done.
ALONE = {"README.md", "coming-from-xbatcher.md", "price-series.md", "workers-and-ranks.md"}


# Lightning warns of what it does itself, and of the length of a loader, which it need not; rasterio
# multiplies matrices in a way that affine warns of.
WARNED = {"frameworks.md", "geotiff.md"}


# Blocks that are run; those of jobs that are done in several ways have a class besides.
RUN = re.compile(r"```(python|\{\.python \.(ours|xbatcher|by-hand)\})$")


def script_of(page: Path) -> str:
    """The python blocks of a page as one script, every line at the line number it has there."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text())["cells"]
        return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    lines, inside = [], False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = RUN.match(line) is not None
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def promises(code: str) -> list[str]:
    """Lines that a script says it prints: behind a ``print(…)``, or below it."""
    found = re.finditer(r"^ *print\(.*\)(?:  # (.+)\n|\n((?:# .+\n)+))", code, re.MULTILINE)
    return [line.removeprefix("# ") for each in found for line in (each[1] or each[2]).splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
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
        strict = page.name not in WARNED
        done = Script(
            script, folder=tmp_path, environment=environment, warnings_as_errors=strict
        ).wait(200)

    assert done.returncode == 0, done.stderr
    printed = iter(done.stdout.splitlines())
    missing = [line for line in promised if line not in printed]
    assert not missing, done.stdout


def test_commands_of_a_page_run_and_print_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "tutorials" / "notebook.md"
    text = page.read_text()
    exec(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1], {})  # makes the store
    [(commands, promised)] = re.findall(
        r"```\{\.console .*?\}\n(.*?)```.*?```text\n(.*?)```", text, re.DOTALL
    )
    variables, printed = {}, ""
    for line in commands.splitlines():
        command = string.Template(line.removeprefix("$ ")).substitute(variables)
        name, is_assigned, value = command.partition("=")
        if is_assigned and name.isidentifier():
            variables[name] = value.strip('"')
            continue
        program = shlex.split(command)[:3]
        assert program == ["python", "-m", "xtorch_data"], command
        done = CliRunner().invoke(main, shlex.split(command)[3:])
        assert done.exit_code == 0, done.output
        printed += done.output
    missing = [line for line in promised.splitlines() if line not in printed.splitlines()]
    assert not missing, printed


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


@pytest.mark.parametrize(
    "page",
    [
        "winds.md",
        "gauges.md",
        "missing-days.md",
        "downscaling.md",
        "two-cadences.md",
        "forecast-postprocessing.md",
        "frameworks.md",
        "notebook.md",
    ],
)
def test_lines_of_code_are_as_many_as_a_page_says(page):
    """Of each way to do the job: lines that are neither empty nor a comment."""
    text = (ROOT / "docs" / "tutorials" / page).read_text()
    counted: dict[str, int] = {}
    for name, code in re.findall(r"```\{\.\w+ \.([\w-]+)\}\n(.*?)```", text, re.DOTALL):
        name = {"ours": "xtorch_data"}.get(name, name.replace("-", " "))
        lines = [line for line in map(str.strip, code.splitlines()) if line]
        counted[name] = counted.get(name, 0) + sum(not line.startswith("#") for line in lines)
    told = re.findall(r"^\| ([\w ]+?) \| (\d+) \|$", text, re.MULTILINE)
    assert {name: int(lines) for name, lines in told} == counted
