"""Which test proves which member: marks on the tests, read from their source, and what differential cases are made of.

A test says ``@pytest.mark.covers("Pipeline.run.columns", ...)``. A differential case needs no mark: it is run by both
libraries and compared, so it proves whatever options it is written with.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.differential.cases import Case, Run

__all__ = ["proofs"]

TESTS = Path(__file__).parents[1]
RULES = TESTS / "differential" / "rules"
_PROBES = {
    r"^6-(columns|data_type|new-root-table)-": "7.root",
    r"^6-nested-": "7.nested",
    r"^6-arrow-": "7.arrow",
    r"^6-model-": "7.models",
    r"^7\.[45]-.*(flag|hard-delete)": "8.hard_delete",
    r"^7\.[45]-.*dedup-sort": "8.dedup_sort",
    r"^7\.[45]-.*(nothing-arrives|merge-nothing)": "8.empty",
    r"^7\.[45]-.*(three-runs|deep-nested)": "8.nested",
    r"^8\.6-(end|open-start|max|min|initial)": "9.range",
    r"^8\.6-(missing|none)": "9.missing",
    r"^8\.6-lag": "9.lag",
    r"^8\.6-.*(asc|desc|order)": "9.order",
    r"^8\.6-(replace|merge)": "9.replace",
}
"""Names of cases -> the probe that they are."""


def proofs() -> dict[str, list[str]]:
    """Name of a member -> the tests that prove it, as ``folder/test_file.py::test_name``, and modules of cases."""
    found: defaultdict[str, set[str]] = defaultdict(set)

    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()

        if ".covers(" in text:
            for test, names in _marked(ast.parse(text)):
                for name in names:
                    found[name].add(f"{path.relative_to(TESTS)}::{test}")

    for path in sorted(RULES.glob("*.py")):
        module = importlib.import_module(f"tests.differential.rules.{path.stem}")

        for name in {name for case in getattr(module, "CASES", ()) for name in _used_by(case)}:
            found[name].add(str(path.relative_to(TESTS)))

    return {name: sorted(tests) for name, tests in found.items()}


def _marked(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, _marks(node)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            shared = _marks(node)
            yield node.name, shared

            for one in node.body:
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_"):
                    yield f"{node.name}::{one.name}", [*shared, *_marks(one)]


def _marks(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[str]:
    return [
        ast.literal_eval(argument)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.covers"
        for argument in decorator.args
    ]


# ------------------------------------------------------------------------------------------ differential cases


def _used_by(case: Case) -> Iterator[str]:
    for run in case.runs:
        yield from ("Pipeline.run", "Pipeline.run.data")
        yield from (f"Pipeline.run.{name}" for name in run.arguments)
        yield from (f"resource.{name}" for name in run.hints)
        yield from _values(run)

        if run.nested_hints:
            yield "resource.nested_hints"

        if run.counts:
            yield "current.resource_state"

    yield from (f"probe.{probe}" for part, probe in _PROBES.items() if re.search(part, case.id))


def _values(run: Run) -> Iterator[str]:
    given = {**run.hints, **run.arguments}
    yield from _disposition(given.get("write_disposition", "append"))
    yield from _contract(given.get("schema_contract"))

    if given.get("refresh") is not None:
        yield f"refresh.{given['refresh']}"

    cursor = given.get("incremental")

    if isinstance(cursor, Mapping):
        yield from (f"incremental.{name}" for name in cursor)


def _disposition(given: object) -> Iterator[str]:
    if not isinstance(given, Mapping):
        yield f"disposition.{given}"
        given = {"disposition": given}

    name = given["disposition"]
    yield f"disposition.{name}"

    if name == "merge":
        strategy = given.get("strategy", "delete-insert")
        yield f"disposition.merge.{strategy}"
        yield from (f"disposition.merge.{strategy}.{one}" for one in given if one not in ("disposition", "strategy"))


def _contract(given: object) -> Iterator[str]:
    if isinstance(given, Mapping):
        yield from (f"contract.{entity}.{mode}" for entity, mode in given.items())
    elif given is not None:
        yield f"contract.{given}"
