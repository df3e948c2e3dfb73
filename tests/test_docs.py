"""What README, docs, docstrings and examples show is true."""

import ast
import functools
import inspect
import json
import re
import tomllib
from operator import attrgetter
from pathlib import Path

import pytest

import xtorch_data as xtd

ROOT = Path(__file__).parents[1]


def is_called_by_users(public):
    return not inspect.isclass(public) or public in (
        xtd.ChunkSampler,
        xtd.Compose,
        xtd.DataLoader,
        xtd.IterableDataset,
        xtd.MapDataset,
        xtd.Normalize,
        xtd.NotNull,
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
