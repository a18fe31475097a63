"""What the README says about the code: files and functions stay small, and tasks are started in few places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("asyncelt", "destinations", "benchmarks", "examples")

STARTING_TASKS = {
    "asyncelt/_async.py",
    "asyncelt/extract/pump.py",  # what helps to read one resource
    "asyncelt/demo/api.py",  # a server
    "asyncelt/testing/conformance.py",  # tests
}


@cache
def files() -> dict[str, str]:
    """What each file says."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))  # does not follow the link
    }


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Functions and the number of their lines, without signatures and docstrings."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            yield node.name, (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_stay_under_500_lines() -> None:
    assert len(files()) > 300
    assert {path: text.count("\n") for path, text in files().items() if text.count("\n") >= 500} == {}


@pytest.mark.slow
def test_functions_stay_under_60_lines() -> None:
    found = [(path, name, lines) for path, text in files().items() for name, lines in functions(text)]

    assert len(found) > 3000
    assert [one for one in found if one[2] >= 60] == []


def test_tasks_are_started_in_few_places() -> None:
    found = {path for path, text in files().items() if "create_task_group(" in text}

    assert {path for path in found if not path.startswith(("asyncelt/engine/", "benchmarks/"))} == STARTING_TASKS
