"""Run the tests in each environment that pyproject.toml promises; `make compat` starts it.

- oldest: the floors of pyproject.toml, each ``>=X`` taken as ``==X``, on the oldest Python; what
  they depend on in turn stands in oldest.txt.
- newest: the newest releases on the newest Python that is here. Deprecations are errors, too.
- every other Python that is here, between these two: the newest releases, the core of the tests.

Left out are tests that need a server, a cluster or a framework, and most of those that start
processes; those of the loader's workers and the pages of the docs are run. It fails if an
environment cannot be made, if a test fails, or if fewer tests have passed than there should be.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".compat"
TRANSITIVE = Path(__file__).with_name("oldest.txt")
EXTRA = "compat"
OLDEST = (3, 11)
NEWER = ((3, 14), (3, 13), (3, 12))

BROAD = ["-m", "not (slow or alone or gpu) and (compat or not integration)"]
# What nearly everybody uses.
CORE = [
    *BROAD,
    *("tests/datasets", "tests/sources", "tests/loading/test_loader.py"),
    *("tests/reading/test_encodings.py", "tests/planning/test_resume.py"),
    "tests/integration/test_pages.py",
]
# Tests of GeoTIFF: what rioxarray brings crashes where cfgrib is imported as well.
BESIDE = ("rioxarray",)
# Of releases that have nothing to say to us any more; pages of the docs show what newer ones do.
OLD = [
    *("-k", "not blocks_of_a_page"),
    *("-W", "default::DeprecationWarning", "-W", "default::FutureWarning"),
]


@dataclass(frozen=True)
class Environment:
    """An environment and what is run in it.

    Attributes
    ----------
    name : str
        Also the name of its folder.
    python : str
        The interpreter that it is made with.
    pins : tuple of str
        Versions, as in a file of constraints; the newest of what is not among them.
    tests : tuple of str
        Arguments of pytest.
    least : int
        How many tests must pass at least, so that none are left out without notice.
    beside : tuple of str
        What is installed beside the extra: packages that cannot be where all tests run.
    """

    name: str
    python: str
    pins: tuple[str, ...]
    tests: tuple[str, ...]
    least: int
    beside: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return FOLDER / self.name

    @property
    def interpreter(self) -> str:
        """Its own interpreter."""
        return str(self.folder / "bin" / "python")

    def install(self) -> None:
        """Make it, unless it is there as it should be."""
        wanted = self._digest()
        stamp = self.folder / "installed.txt"
        with contextlib.suppress(FileNotFoundError):
            if stamp.read_text() == wanted:
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        constraints = self.folder / "pins.txt"
        constraints.write_text("".join(f"{pin}\n" for pin in self.pins))
        run(self.python, "-m", "venv", str(self.folder))
        run(
            *(self.interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--constraint", str(constraints), "--editable", f"{ROOT}[{EXTRA}]"),
            *self.beside,
        )
        stamp.write_text(wanted)

    def _digest(self) -> str:
        entries = [project().get(key) for key in ("scripts", "entry-points")]
        made_of = [self.python, self.pins, self.beside, requirements(), entries]
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()

    def show(self) -> None:
        """Say which versions it has of what the package depends on."""
        names = [name for name, _ in floors(())]
        code = (
            "import platform, sys; from importlib.metadata import version;"
            "found = [f'{name} {version(name)}' for name in sys.argv[1:]];"
            "print(f'Python {platform.python_version()}', *found, sep=', ')"
        )
        run(self.interpreter, "-c", code, *names)

    def test(self) -> None:
        """Run its tests; raises SystemExit if one fails, or if too few were there to pass."""
        report = self.folder / "report.xml"
        report.unlink(missing_ok=True)
        processes = str(2 * (os.cpu_count() or 1))
        run(
            *(self.interpreter, "-m", "pytest", "-q", "-r", "fE", "-p", "no:cacheprovider"),
            *("-n", processes, "--dist", "worksteal", f"--junit-xml={report}", *self.tests),
        )
        passed, skipped = counts(report)
        print(f"{self.name}: {passed} passed, {skipped} skipped", flush=True)
        if passed < self.least:
            raise SystemExit(f"{self.name}: {passed} tests passed, at least {self.least} should")


def run(*command: str) -> None:
    """Run a command in the folder of the project; raises SystemExit if it fails."""
    environment = {**os.environ, "PYTHONNOUSERSITE": "1"}
    # A machine's own constraints are not what is promised here.
    for name in ("PIP_CONSTRAINT", "PYTHONPATH"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=ROOT, env=environment)
    if done.returncode:
        raise SystemExit(f"failed with {done.returncode}: {' '.join(command)}")


def counts(report: Path) -> tuple[int, int]:
    """How many tests have passed and were skipped, from a report of pytest."""
    [suite] = xml.etree.ElementTree.parse(report).getroot().iter("testsuite")
    total, *others = (int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped"))
    return total - sum(others), others[-1]


def project() -> dict[str, Any]:
    """What pyproject.toml says of the package."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        found: dict[str, Any] = tomllib.load(file)["project"]
    return found


def requirements(extras: tuple[str, ...] = (EXTRA,)) -> list[str]:
    """What the package needs, also with some extras."""
    said = project()
    found, wanted, seen = set(said["dependencies"]), list(extras), set()
    while wanted:
        extra = wanted.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for requirement in said["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{re.escape(said['name'])}\[(.+)\]", requirement)
            if own:
                wanted += own[1].split(",")
            else:
                found.add(requirement)
    return sorted(found)


def floors(extras: tuple[str, ...] = (EXTRA,)) -> list[tuple[str, str]]:
    """Names and oldest versions of what the package needs, also with some extras."""
    return [floor(requirement) for requirement in requirements(extras)]


def floor(requirement: str) -> tuple[str, str]:
    """Name and oldest version of a requirement."""
    found = re.fullmatch(
        r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9][^,; ]*)(?:,[^; ]+)?", requirement
    )
    if not found:
        raise SystemExit(f"pyproject.toml: {requirement!r} has no floor of the form name>=version")
    return found[1], found[2]


def normal(name: str) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> tuple[str, ...]:
    """The floors as constraints, and those of what they depend on."""
    exact = [f"{name}=={version}" for name, version in floors()]
    lines = (line.partition("#")[0].strip() for line in TRANSITIVE.read_text().splitlines())
    others = [line for line in lines if line]
    declared = {normal(name) for name, _ in floors()}
    twice = [line for line in others if normal(line.partition("==")[0]) in declared]
    if twice:
        raise SystemExit(f"{TRANSITIVE.name}: {twice} are pinned by pyproject.toml already")
    return tuple(exact + others)


def interpreter_of(version: tuple[int, int]) -> str | None:
    """An interpreter of some version that does run, or None."""
    major, minor = version
    name = f"python{major}.{minor}"
    roots = [os.environ.get("PYENV_ROOT"), os.path.expanduser("~/.pyenv")]
    places = [shutil.which(name), sys.executable]
    for root in filter(None, roots):
        places += sorted(map(str, Path(root).glob(f"versions/{major}.{minor}.*/bin/{name}")))
    # One on the path may be a shim that runs no interpreter.
    code = "import sys, venv, ensurepip; print(*sys.version_info[:2], sys._base_executable)"
    for place in filter(None, places):
        done = subprocess.run([place, "-c", code], capture_output=True, text=True)
        found = done.stdout.split(maxsplit=2)
        if done.returncode == 0 and found[:2] == [str(major), str(minor)]:
            return found[2].strip()
    return None


def environments() -> list[Environment]:
    """All that can be made here, the oldest first."""
    oldest = interpreter_of(OLDEST)
    if oldest is None:
        raise SystemExit("compat: no Python {}.{}, the oldest promised, is here".format(*OLDEST))
    found = [Environment("oldest", oldest, pins(), (*BROAD, *OLD), 2400)]
    newer = [(version, interpreter_of(version)) for version in NEWER]
    there = [(version, python) for version, python in newer if python is not None]
    for place, ((major, minor), python) in enumerate(there):
        if not place:
            found.append(Environment("newest", python, (), tuple(BROAD), 2400, BESIDE))
        else:
            found.append(Environment(f"python{major}.{minor}", python, (), tuple(CORE), 700))
    return found


def main() -> None:
    """Make the environments and run the tests in them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="oldest, newest, python3.12 …; all by default")
    names = parser.parse_args().names
    all_there = environments()
    unknown = set(names) - {each.name for each in all_there}
    if unknown:
        raise SystemExit(
            f"compat: there is no {sorted(unknown)}, but {[e.name for e in all_there]}"
        )
    took = []
    for environment in all_there:
        if names and environment.name not in names:
            continue
        print(f"== {environment.name}: {environment.python}", flush=True)
        began = time.monotonic()
        environment.install()
        installed = time.monotonic()
        environment.show()
        environment.test()
        ended = time.monotonic()
        took.append(
            f"{environment.name}: {(installed - began) / 60:.1f} min to install, "
            f"{(ended - installed) / 60:.1f} min to test"
        )
    print(*took, sep="\n")
    if len(all_there) == 1:
        print(
            "\n!! SKIPPED: no Python newer than {}.{} is here, so the newest releases were not "
            "tried on one. Install python3.13, say.".format(*OLDEST)
        )


if __name__ == "__main__":
    main()
