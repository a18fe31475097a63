"""The suite of asyncelt.testing over every destination of ours, with every format of job files it takes."""

from __future__ import annotations

import pytest

from asyncelt import destinations
from asyncelt.testing import DestinationConformance

FACTORIES = {
    "memory-parquet": (lambda folder: destinations.memory(), "parquet"),
    "memory-jsonl": (lambda folder: destinations.memory(), "jsonl"),
    "duckdb-file-parquet": (lambda folder: destinations.duckdb(folder / "data.duckdb"), "parquet"),
    "duckdb-file-jsonl": (lambda folder: destinations.duckdb(folder / "data.duckdb"), "jsonl"),
    "duckdb-memory-parquet": (lambda folder: destinations.duckdb(":memory:"), "parquet"),
    "filesystem-parquet": (lambda folder: destinations.filesystem(folder / "files"), "parquet"),
    "filesystem-jsonl": (lambda folder: destinations.filesystem(folder / "files"), "jsonl"),
}


@pytest.fixture(params=FACTORIES)
def case(request):
    return FACTORIES[request.param]


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
