"""The suite of asyncelt.testing over every destination of ours, with every format of job files it takes.

CI runs all of it over each destination, and with each format what the format can make a difference to; the rest is long.
"""

from __future__ import annotations

import pytest

from asyncelt import destinations
from asyncelt.testing import DestinationConformance
from tests.destinations.formats import AS_TEXT
from tests.support.marks import LONG

FACTORIES = {
    "memory-parquet": (lambda folder: destinations.memory(), "parquet"),
    "memory-jsonl": (lambda folder: destinations.memory(), "jsonl"),
    "duckdb-file-parquet": (lambda folder: destinations.duckdb(folder / "data.duckdb"), "parquet"),
    "duckdb-file-jsonl": (lambda folder: destinations.duckdb(folder / "data.duckdb"), "jsonl"),
    "duckdb-memory-parquet": (lambda folder: destinations.duckdb(":memory:"), "parquet"),
    "filesystem-parquet": (lambda folder: destinations.filesystem(folder / "files"), "parquet"),
    "filesystem-jsonl": (lambda folder: destinations.filesystem(folder / "files"), "jsonl"),
}


WHOLE = frozenset({"memory-parquet", "duckdb-file-parquet", "filesystem-parquet"})
IN_MEMORY = ("test_a_commit", "test_a_cancelled_commit", "test_a_session", "test_a_stream", "test_other_calls")
"""Beginnings of what a database without a file can make a difference to."""


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        cases = [
            pytest.param(case, id=name, marks=_marks(name, metafunc.function.__name__))
            for name, case in FACTORIES.items()
        ]
        metafunc.parametrize("case", cases)


def _marks(name, test):
    if name in WHOLE or (name.endswith("jsonl") and test in AS_TEXT):
        return ()

    return () if name == "duckdb-memory-parquet" and test.startswith(IN_MEMORY) else LONG


def test_only_plain_files_are_let_off_the_tests_of_merging(tmp_path):
    skipped = {
        name
        for name, (make, _) in FACTORIES.items()
        if "delete-insert" not in make(tmp_path).capabilities.merge_strategies
    }

    assert skipped == {"filesystem-parquet", "filesystem-jsonl"}


@pytest.mark.covers(
    "disposition.append",
    "disposition.replace",
    "disposition.merge",
    "probe.8.nested",
    "probe.8.hard_delete",
    "probe.8.dedup_sort",
    "probe.8.duplicates",
)
class TestConformance(DestinationConformance):
    @pytest.fixture
    def destination(self, case, tmp_path):
        return case[0](tmp_path)

    @pytest.fixture
    def file_format(self, case):
        return case[1]
