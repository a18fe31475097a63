"""Every program in README, docs and examples runs as it stands, in an empty folder, without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextvars import Context
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")  # within a line: brackets in it are no links
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)

BROKERS = [
    ("stream_kafka.py", "KAFKA_SERVERS", "kafka_server"),
    ("stream_nats.py", "NATS_URL", "nats_server"),
    ("stream_redis.py", "REDIS_URL", "valkey_server"),
]


def programs():
    for text in TEXTS:
        content = text.read_text()

        for number, match in enumerate(BLOCK.finditer(content)):
            line = content[: match.start()].count("\n") + 2
            name = text.relative_to(ROOT)
            yield pytest.param(match[1], f"{name}:{line}", id=f"{name}-{number}")

    for path in EXAMPLES:
        yield pytest.param(path.read_text(), str(path), id=f"examples/{path.name}")


@pytest.mark.parametrize("program, origin", list(programs()))
def test_it_runs(program, origin, tmp_path, monkeypatch, capsys, request):
    """Executed as a program of its own would be: as ``__main__``, making its own event loop."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASYNCELT_DATA_DIR", str(tmp_path / "data"))

    if "postgres.md" in origin:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", request.getfixturevalue("postgres_dsn"))

    for ending, variable, server in BROKERS:
        if origin.endswith(ending):
            monkeypatch.setenv(variable, request.getfixturevalue(server).url)

    module = type(sys)("__main__")
    module.__file__ = origin  # an example may start itself again as a process of its own
    monkeypatch.setitem(sys.modules, "__main__", module)
    code = compile(program, origin, "exec", dont_inherit=True)  # its own future imports only

    with patch.dict(os.environ):  # what it sets there, or in its context, is not for the next one
        Context().run(exec, code, vars(module))


def test_the_first_program_of_the_readme_runs_when_pasted_into_a_file(tmp_path):
    program = BLOCK.search((ROOT / "README.md").read_text())
    assert program is not None
    (tmp_path / "program.py").write_text(program[1])
    result = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "ASYNCELT_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "place__city" in result.stdout
    assert "[[30]]" in result.stdout


def test_no_file_path_in_the_texts_is_dead():
    """Links between the texts, and names of tests and docs, lead somewhere."""
    links = [
        (text, target)
        for text in [*TEXTS, ROOT / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", CODE.sub("", text.read_text()))
        if "://" not in target
    ]
    assert [f"{text.name}: {target}" for text, target in links if not (text.parent / target).exists()] == []


def test_tests_that_the_texts_name_are_there():
    """A promise that names its test has one."""
    named = [(text, *name) for text in TEXTS for name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text.read_text())]
    missing = [
        f"{text.name}: {path}::{test}"
        for text, path, test in named
        if not (ROOT / path).exists() or f"def {test}(" not in (ROOT / path).read_text()
    ]

    assert named
    assert missing == []


def test_files_that_the_texts_name_are_there():
    named = [
        (text, path) for text in TEXTS for path in re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", text.read_text())
    ]

    assert [f"{text.name}: {path}" for text, path in named if not (ROOT / path).exists()] == []
