"""Rows of staged files, as they go into tables of Delta and Iceberg."""

from __future__ import annotations

import pytest
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.staged import Staged, small_database

MANY = 200_000


def test_nothing_else_is_asked_while_rows_are_read():
    """DuckDB would end them there, and the table would get fewer rows."""
    with small_database() as connection:
        connection.execute(f"CREATE TABLE many AS SELECT range AS n FROM range({MANY})")
        staged = Staged(connection, exp.select("n").from_("many"), None)
        rows = staged.reader()
        seen = rows.read_next_batch().num_rows

        for ask in (lambda: staged.connection, staged.reader):
            with pytest.raises(AssertionError, match="being read"):
                ask()

        assert seen + sum(batch.num_rows for batch in rows) == MANY
        assert staged.connection.execute("SELECT count(*) FROM many").fetchone() == (MANY,)
