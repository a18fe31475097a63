"""The site: each page can be found, and each public name is in the API reference. `make docs` checks links and names."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import asyncelt
import asyncelt.destinations
import asyncelt.sources

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SHOWN = re.compile(r"^::: ([\w.]+)", re.MULTILINE)


def shown(path: str) -> object:
    """What a line of the reference names: a module, or something in one."""
    parts = path.split(".")

    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue

        for name in parts[end:]:
            found = getattr(found, name)

        return found

    raise AssertionError(f"{path} is not there")


def documented() -> list[object]:
    """Everything in the reference; what a module in it says is public, too."""
    found = [
        shown(path) for page in sorted((DOCS / "reference").glob("*.md")) for path in SHOWN.findall(page.read_text())
    ]
    members = [
        getattr(module, name)
        for module in found
        if isinstance(module, ModuleType)
        for name in getattr(module, "__all__", ())
    ]

    return [inspect.unwrap(one) if callable(one) else one for one in [*found, *members]]


def test_every_page_is_in_the_navigation() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    listed = re.findall(r"^ +- .+: ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)

    assert len(listed) == len(set(listed))
    assert set(listed) == pages


def test_every_page_is_linked_from_the_first_one() -> None:
    text = (DOCS / "index.md").read_text()
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}

    assert {page for page in pages if f"({page})" not in text and f"({page}#" not in text} == set()


@pytest.mark.parametrize("module", [asyncelt, asyncelt.sources, asyncelt.destinations])
def test_every_public_name_is_in_the_reference(module: ModuleType) -> None:
    known = documented()
    missing = [
        name
        for name in module.__all__
        if not isinstance(found := getattr(module, name), ModuleType)
        and not any((inspect.unwrap(found) if callable(found) else found) is one for one in known)
    ]

    assert missing == []
