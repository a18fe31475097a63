"""What is on the disk is what is shipped, under one name only."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import asyncelt
from asyncelt.load import registry

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def packages_on_disk() -> set[str]:
    found = set()

    for top, name in ((ROOT / "asyncelt", "asyncelt"), (ROOT / "destinations", "asyncelt.destinations")):
        for init in top.rglob("__init__.py"):
            parts = init.parent.relative_to(top).parts

            if name == "asyncelt" and parts[:1] == ("destinations",):  # the link; counted under its own folder
                continue

            found.add(".".join((name, *parts)))

    return found


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def test_every_package_on_disk_is_listed():
    assert packages_on_disk() == set(PROJECT["tool"]["setuptools"]["packages"])


def test_the_link_leads_to_the_source_folder():
    link = ROOT / "asyncelt" / "destinations"

    if not link.is_symlink():
        pytest.skip("this checkout has no symbolic links; installs use the mapping in pyproject.toml")

    assert link.readlink() == Path("../destinations")
    assert link.resolve() == ROOT / "destinations"


def test_the_source_folder_cannot_be_imported_under_its_own_name():
    result = run_python("import destinations", ROOT)
    assert result.returncode == 1
    assert "import asyncelt.destinations, not destinations" in result.stderr


def test_typing_marker_is_there():
    assert (Path(asyncelt.__file__).parent / "py.typed").exists()


def test_registered_destinations_resolve():
    group = PROJECT["project"]["entry-points"]["asyncelt.destinations"]

    for name, reference in group.items():
        module, _, attribute = reference.partition(":")
        assert callable(getattr(__import__(module, fromlist=[attribute]), attribute)), name


def test_registered_destinations_are_installed():
    installed = {point.name for point in entry_points(group="asyncelt.destinations")}

    if not installed:
        pytest.skip("asyncelt is not installed here, only importable")

    assert set(PROJECT["project"]["entry-points"]["asyncelt.destinations"]) <= installed


def test_constraints_are_names_and_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []


def test_every_dependency_is_constrained():
    pinned = {
        normalized(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    wanted = list(PROJECT["project"]["dependencies"])

    for extra in PROJECT["project"]["optional-dependencies"].values():
        wanted.extend(extra)

    names = {normalized(re.split(r"[<>=!;\[ ]", line)[0]) for line in wanted} - {"asyncelt"}
    assert names - pinned == set()


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_extra_that_is_named_is_one():
    folders = [ROOT / name for name in ("asyncelt", "destinations", "docs", "examples", "benchmarks")]
    texts = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".md"}]
    texts += [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    named = {
        extra: path.relative_to(ROOT).as_posix()
        for path in texts
        for found in re.findall(r"asyncelt\[([a-z0-9,-]+)\]", path.read_text())
        for extra in found.split(",")
    }
    named |= dict.fromkeys(registry._EXTRAS.values(), "asyncelt/load/registry.py")
    assert {"postgres", "s3", "yaml"} <= named.keys()
    assert named.keys() <= PROJECT["project"]["optional-dependencies"].keys(), named
