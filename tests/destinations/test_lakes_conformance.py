"""The suite of asyncelt.testing over tables in a table format: as plain files, and the upserts of databases as well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asyncelt import destinations
from asyncelt.errors import Unsupported
from asyncelt.schema.model import Table
from asyncelt.schema.system import STATE_TABLE
from asyncelt.testing import DestinationConformance
from asyncelt.testing.fixture import Owner
from asyncelt.types import TableName

pytestmark = pytest.mark.slow


class LakeOwner(Owner):
    """Keeps all tables in a table format."""

    lake = "delta"

    async def make(self, rows, *, tables=(), after=None, **options):
        before = after or self.last
        known = {} if before is None else before.schema.tables
        given = {one.name: one for one in tables}

        for name in rows:
            if name not in given and name not in known and name != STATE_TABLE:
                given[name] = Table(name=TableName(name), resource=name, write_disposition="append")

        formatted = [
            one if one.parent else replace(one, hints={**one.hints, "table_format": self.lake})
            for one in given.values()
        ]

        return await super().make(rows, tables=formatted, after=after, **options)


@pytest.mark.parametrize("lake", ["delta", "iceberg"])
class TestConformance(DestinationConformance):
    # Each commit of a table is a tenth of a second.
    cancelled_after = (1, 8)
    spared = frozenset({"filesystem.before_rename", "filesystem.before_load_row", "filesystem.finished"})

    # Refused by name: test_lakes.py. The other makes its second owner itself, without the format.
    test_unchanged_rows_may_be_skipped = None
    test_a_row_version_alone_may_say_what_is_unchanged = None
    test_members_of_a_pipeline_have_heads_of_their_own = None

    # About the dataset, not its tables: they run over plain files, in test_conformance.py.
    test_an_empty_dataset_restores_to_nothing = None
    test_a_session_that_is_not_used_leaves_nothing = None
    test_restore_gives_state_schema_and_load_ids = None
    test_a_schema_is_stored_once_per_content = None
    test_run_id_finds_the_loads_of_a_run = None
    test_a_commit_on_an_old_parent_is_refused = None
    test_a_commit_under_an_old_lease_is_refused = None
    test_tables_without_a_load_are_refused_to_an_owner_that_has_lost_its_lease = None
    test_dropping_forgets_the_versions_of_the_schema_and_no_load = None
    test_a_package_without_rows_commits_state_and_load_row = None

    async def test_names_may_have_any_character(self, owner):
        if owner.lake == "iceberg":
            await super().test_names_may_have_any_character(owner)

            return

        with pytest.raises(Unsupported, match=r"per%cent: .* percent sign"):
            await super().test_names_may_have_any_character(owner)

        assert not (await owner.restore()).exists

    @pytest.fixture
    def destination(self, tmp_path):
        files = destinations.filesystem(tmp_path / "files")

        # So that its tests of upserts are not left out.
        return replace(files, capabilities=replace(files.capabilities, merge_strategies=("upsert", "insert-only")))

    @pytest.fixture
    def file_format(self):
        return "parquet"

    @pytest.fixture
    def owner(self, destination, file_format, lake, tmp_path):
        owner = LakeOwner(destination, tmp_path / "packages", file_format)
        owner.lake = lake

        return owner
