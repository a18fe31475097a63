"""The suite of asyncelt.testing over a real S3 server."""

from __future__ import annotations

import pytest

from asyncelt.testing import DestinationConformance
from tests.destinations.formats import AS_TEXT

pytestmark = pytest.mark.slow

LIKE_FOLDERS = {
    "test_a_job_without_rows_makes_the_table",
    "test_a_package_without_rows_commits_state_and_load_row",
    "test_a_schema_is_stored_once_per_content",
    "test_dropped_tables_are_made_anew_where_rows_come",
    "test_dropping_forgets_the_versions_of_the_schema_and_no_load",
    "test_every_strategy_of_replacing_gives_the_new_rows",
    "test_replace_of_a_table_that_is_not_there_does_nothing",
    "test_replace_without_rows_empties_the_table_and_its_nested_tables",
    "test_rows_of_an_earlier_package_of_the_run_go_too",
    "test_truncated_tables_lose_their_old_rows_only",
}
"""Decided by what a marker says, which is made and read by the same code for folders; `test_conformance.py` runs them."""


class BucketConformance(DestinationConformance):
    """Each commit is some twenty requests."""

    __test__ = False
    cancelled_after = (1, 5, 21)
    # These differ in nothing that is only done here.
    spared = frozenset({"filesystem.before_upload", "filesystem.before_commit", "filesystem.finished"})

    @pytest.fixture
    def destination(self, s3):
        return s3


class TestParquet(BucketConformance):
    __test__ = True

    @pytest.fixture
    def file_format(self):
        return "parquet"


class TestJsonLines(BucketConformance):
    __test__ = True

    @pytest.fixture
    def file_format(self):
        return "jsonl"


def _without(suite, names):
    """Leave these tests out."""
    for name in names:
        assert hasattr(suite, name), name
        setattr(suite, name, None)


_TESTS = {name for name in dir(DestinationConformance) if name.startswith("test_")}
# With JSON lines goes what the format can make a difference to. Parquet has the rest, and types once more.
_without(TestParquet, LIKE_FOLDERS | (AS_TEXT - {"test_every_data_type_comes_back"}))
_without(TestJsonLines, _TESTS - AS_TEXT)
