"""The public names are exactly these: adding or removing one is a decision, and this file shows it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import asyncelt

PACKAGE = Path(asyncelt.__file__).parent

PUBLIC = {
    "asyncelt": """
        AsynceltError AsynceltWarning ByteBudget Dataset Event EventSource JsonPage Limits Message Observer Pipeline
        PipelineBusy PipelineStepFailed Receipt Relation Resource Retry Roll Schema Settings Source SqlClient Stream StreamStats
        attach checkpoint config current dataset defer destinations errors mark pipeline
        replay resource run secrets source sources transformer with_table_name
    """,
    "asyncelt.mark": "make_hints make_nested_hints materialize_table_schema with_file_import with_hints with_table_name",
    "asyncelt.sources": """
        Channel KafkaSource NatsSource RedisStreamSource Webhook WebhookRequest channel events incremental kafka nats redis_stream
        webhook
    """,
    "asyncelt.destinations": "duckdb filesystem memory postgres",
}

HEAVY = ("duckdb", "rich", "pandas", "polars", "sqlglot", "asyncpg", "aiobotocore", "tqdm", "dlt", "nats", "aiokafka")


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_the_agreed_ones(module):
    assert sorted(importlib.import_module(module).__all__) == sorted(PUBLIC[module].split())


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_exists(module):
    found = importlib.import_module(module)

    for name in found.__all__:
        assert getattr(found, name) is not None, name


def test_every_module_says_what_is_public():
    missing = []

    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for node in tree.body)
        targets = [
            target.id
            for node in tree.body
            for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
            if isinstance(target, ast.Name)
        ]

        if defines and "__all__" not in targets:
            missing.append(str(path.relative_to(PACKAGE)))

    assert missing == []


def test_importing_loads_no_driver_and_no_display():
    code = f"import sys, asyncelt; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError):
        asyncelt.no_such_name  # noqa: B018
