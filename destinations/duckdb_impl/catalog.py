"""Which tables and columns a dataset has, as far as somebody has to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import duckdb
from sqlglot import exp

from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.sql.names import Dataset, column, parameter, table

__all__ = ["Catalog"]

_TABLES_PER_QUERY = 50


class Catalog:
    """Tables of a dataset, asked for when they are needed: listing all of them costs what a small statement costs.

    Names are the same in capitals and not: DuckDB does not tell cases apart. Whoever creates, changes and drops tables
    says so here.

    Args:
        database: Where the dataset is.
        dataset: May not be there yet.
    """

    def __init__(self, database: Statements, dataset: Dataset) -> None:
        self._database = database
        self._dataset = dataset
        self._columns: dict[str, dict[str, None]] = {}
        """Of the tables that are known to be there; none of one whose columns have not been read."""
        self._is_listed = False

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._columns or name.lower() in self._listed()

    @property
    def is_empty(self) -> bool:
        """Whether there are no tables."""
        return not self._columns and not self._listed()

    def columns_of(self, name: str) -> Mapping[str, None] | None:
        """Columns of a table, in lower case, if they have been read; None where there is no such table."""
        return self._columns[name.lower()] if name in self else None

    def read(self, names: Iterable[str]) -> None:
        """Read the columns of these tables, of those that are there."""
        wanted = sorted({name.lower() for name in names if not self._columns.get(name.lower())})

        try:
            self._read(wanted if not self._is_listed else [name for name in wanted if name in self._columns])
        except duckdb.CatalogException:
            # One is not there. That was cheaper to try than to ask, and does not end a transaction.
            self._read([name for name in wanted if name in self._listed()])

    def add(self, name: str, columns: Iterable[str]) -> None:
        """A table was made, or got these columns."""
        self._columns.setdefault(name.lower(), {}).update({column.lower(): None for column in columns})

    def drop(self, name: str) -> None:
        """A table was dropped."""
        self._listed().pop(name.lower())

    def _read(self, names: list[str]) -> None:
        for start in range(0, len(names), _TABLES_PER_QUERY):
            query = _columns_query(self._dataset, tuple(names[start : start + _TABLES_PER_QUERY]))

            for table_name, column_name in self._database.rows(query):
                self.add(str(table_name), [str(column_name)])

    def _listed(self) -> dict[str, dict[str, None]]:
        if not self._is_listed:
            found = self._database.rows(_tables_query(), [self._dataset.catalog, self._dataset.name])
            self._columns = {name: self._columns.get(name, {}) for row in found for name in [str(row[0]).lower()]}
            self._is_listed = True

        return self._columns


@lru_cache(maxsize=1)
def _tables_query() -> str:
    query = (
        exp.select(column("table_name"))
        .from_(exp.Anonymous(this="duckdb_tables"))
        .where(
            exp.EQ(this=column("database_name"), expression=parameter(1)),
            exp.EQ(this=column("schema_name"), expression=parameter(2)),
        )
    )

    return query.sql(dialect=DIALECT)


@lru_cache(maxsize=256)
def _columns_query(dataset: Dataset, names: tuple[str, ...]) -> str:
    selects = [
        exp.select(exp.Literal.string(name), column("name")).from_(
            exp.Anonymous(
                this="pragma_table_info", expressions=[exp.Literal.string(table(name, dataset).sql(dialect=DIALECT))]
            )
        )
        for name in names
    ]
    query = selects[0] if len(selects) == 1 else exp.union(*selects, distinct=False, copy=False)

    return query.sql(dialect=DIALECT)
