"""What the package takes from others: what is declared, and few private names in few modules."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "xtorch_data"
# By room and name, such as "planning/windows".
TREES = {
    str(path.relative_to(PACKAGE).with_suffix("")): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}
# The table of private names.
TABLE = ROOT / "docs" / "explanation" / "design.md"
WATCHED = {"dask", "distributed", "torch", "xarray", "xbatcher", "zarr", "zarrs"}
# Parts of these packages that are internal, though there is no underscore.
INTERNAL = r"xarray\.(core|coding)|xarray\.backends\.[a-z]\w*|zarr\.core"


# Names that begin like private ones, yet are documented: a key of Zarr's, the asynchronous methods
# of fsspec, and a function of Python's.
PUBLIC = {"_ARRAY_DIMENSIONS", "_info", "_exit"}
# The modules that may use private names, one for each of the packages that have some.
ALLOWED = {
    "sources/lazy_arrays",  # xarray
    "sources/zarr_stores",  # zarr
    "reading/dask_graphs",  # dask
    "processes/internals",  # torch and Python
}


def is_private(name):
    return re.fullmatch(r"_[A-Za-z]\w*", name) and name not in PUBLIC


def imported(tree):
    """Each import of a module: its names, and whether they are needed to import the module."""
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, None, node not in inside) for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((node.module, each.name, node not in inside) for each in node.names)


def distributions(requirements):
    """Names of requirements, as modules would write them."""
    return {re.match(r"[\w.-]+", each)[0].replace("-", "_").lower() for each in requirements}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = distributions(project["dependencies"])
    optional = distributions(sum(project["optional-dependencies"].values(), []))
    undeclared = [
        (module, name)
        for module, tree in TREES.items()
        for name, _, at_once in imported(tree)
        if (package := name.partition(".")[0].lower()) not in sys.stdlib_module_names
        and package not in (needed if at_once and module != package else needed | optional)
    ]
    assert not undeclared
    assert {"numcodecs", "torch", "xarray"} <= needed


def own_names():
    """Private names that the package defines itself."""
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.attr if isinstance(node, ast.Attribute) else node.id


def private_names(tree):
    """Names of others that a module uses, though these have not offered them."""
    for module, name, _ in imported(tree):
        path = f"{module}.{name}" if name else module
        if re.match(INTERNAL, path):
            yield path
        elif module.partition(".")[0] in WATCHED and any(map(is_private, path.split("."))):
            yield path
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            written = re.sub(r"^xr\b", "xarray", ast.unparse(node))
            if re.fullmatch(rf"({INTERNAL})\.\w+\.\w+", written):
                yield written
            elif is_private(node.attr):
                yield node.attr
        elif isinstance(node, ast.Constant) and re.match(INTERNAL, str(node.value)):
            yield node.value  # as settings take it
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keys = [each.value for each in node.args if isinstance(each, ast.Constant)]
            if name in ("getattr", "hasattr", "setattr", "get", "pop"):
                yield from (key for key in keys if isinstance(key, str) and is_private(key))


def listed():
    """Private names of others by the table, and the modules that it gives them."""
    rows = re.findall(r"^\| (`_?\w.+?) +\| (.+?) +\|", TABLE.read_text(), re.MULTILINE)
    return {
        name: set(re.findall(r"[\w/]+", modules))
        for names, modules in rows
        for name in re.findall(r"`(.+?)`", names)
    }


def test_private_names_of_others_are_on_the_list_and_used_in_a_handful_of_modules():
    own = set(own_names()) - set(listed())
    used = {}
    for module, tree in TREES.items():
        for name in set(private_names(tree)) - own:
            used.setdefault(name, set()).add(module)
    assert used == listed()
    assert set().union(*used.values()) == ALLOWED
