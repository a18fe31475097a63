"""Indexes of tables that are filled for the first time: made when the rows are there, which costs a quarter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlglot import exp

from asyncelt.destinations.postgres_impl.reading import DIALECT
from asyncelt.destinations.postgres_impl.types import GEOMETRY_HINT, INDEX_HINT
from asyncelt.destinations.postgres_impl.writing import WORTH_STATISTICS, Work
from asyncelt.destinations.sql.names import Dataset, column, table
from asyncelt.flow import Package
from asyncelt.schema.model import Schema, Table
from asyncelt.types import ColumnName, TableName

__all__ = ["Index", "build_indexes", "create_index", "tables_to_index", "wanted_indexes"]

_ORDERING_HINTS: Final = ("sort", "cluster")
_EXISTING: Final = """
SELECT c.relname, i.indisunique AND i.indpred IS NULL, ARRAY (
    SELECT a.attname FROM unnest(i.indkey) WITH ORDINALITY AS k (number, place)
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.number
    WHERE k.place <= i.indnkeyatts ORDER BY k.place
)
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisvalid
WHERE n.nspname = $1 AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p')
"""


@dataclass(frozen=True, slots=True)
class Index:
    """What the schema asks for."""

    table: TableName
    columns: tuple[ColumnName, ...]
    is_unique: bool = False
    method: str = "btree"


def wanted_indexes(schema: Schema, name: TableName) -> tuple[Index, ...]:
    """The indexes that hints ask for, and those by which a merge finds rows.

    A primary key is unique only after a merge: elsewhere it asks for nothing, as in the reference.
    """
    one = schema.tables[name]
    found = [Index(name, (key,), is_unique=True) for key in one.keys("unique") if _is_typed(one, key)]

    for keys in (*_merged_by(schema, one), *_ordered_by(one)):
        if keys and all(_is_typed(one, key) for key in keys) and not any(_covers(index, keys) for index in found):
            found.append(Index(name, keys, method=_method_of(one, keys)))

    return tuple(found)


def create_index(dataset: Dataset, index: Index) -> str:
    """CREATE INDEX; the server finds a name that is free."""
    has_order = index.method == "btree"
    named = [column(name) for name in index.columns]
    columns = [exp.Ordered(this=one, nulls_first=False) for one in named] if has_order else named
    using = exp.Var(this=index.method)
    on = exp.Index(table=table(index.table, dataset), params=exp.IndexParameters(columns=columns, using=using))

    return exp.Create(this=on, kind="INDEX", unique=index.is_unique).sql(dialect=DIALECT)


async def tables_to_index(work: Work, packages: Iterable[Package]) -> dict[TableName, tuple[Index, ...]]:
    """What is missing on tables that the packages have rows for and that have none yet.

    A table that has rows stays as it is: whoever made it without an index, or dropped one, may have had a reason.
    """
    wanted: dict[TableName, tuple[Index, ...]] = {}

    if not work.create_indexes:
        return wanted

    for package in packages:
        for name in dict.fromkeys(job.table for job in package.jobs):
            if work.has(name):
                wanted[name] = wanted_indexes(package.schema, name)

    existing: dict[str, list[Index]] = {}

    for name, is_unique, columns in await work.connection.fetch(_EXISTING, work.dataset.name, sorted(wanted)):
        of_table = existing.setdefault(name, [])

        if columns:
            of_table.append(Index(name, tuple(columns), bool(is_unique)))

    missing = {
        name: tuple(one for one in wanted[TableName(name)] if not any(_serves(index, one) for index in indexes))
        for name, indexes in existing.items()
    }
    candidates = [TableName(name) for name, indexes in missing.items() if indexes]

    return {name: missing[name] for name in await _empty_ones(work, candidates)}


async def build_indexes(
    work: Work, package: Package, missing: Mapping[TableName, Sequence[Index]]
) -> frozenset[TableName]:
    """Index the tables that the package has filled, and count those that will be merged into; returns all of them.

    A unique index, not a constraint: it waits for other writers but never for readers, and keeps none out.
    """
    filled = frozenset(job.table for job in package.jobs if job.table in missing)

    for name in sorted(filled):
        for index in missing[name]:
            await work.execute_for(package, name, create_index(work.dataset, index))

        rows = sum(job.rows for job in package.jobs if job.table == name)

        # The next merge may come before the server has counted by itself.
        if package.schema.disposition_of(name) == "merge" and rows >= WORTH_STATISTICS:
            await work.execute_for(package, name, f"ANALYZE {table(name, work.dataset).sql(dialect=DIALECT)}")

    return filled


def _merged_by(schema: Schema, one: Table) -> Iterator[tuple[ColumnName, ...]]:
    """Columns by which a merge finds the rows of a table that go."""
    if schema.disposition_of(one.name) != "merge":
        return

    if one.parent is None:
        yield one.keys("primary_key")
        yield one.keys("merge_key")
    else:
        yield one.keys("root_key") or one.keys("parent_key")


def _ordered_by(one: Table) -> Iterator[tuple[ColumnName, ...]]:
    for hint in _ORDERING_HINTS:
        yield tuple(name for name, spec in one.columns.items() if spec.extra.get(hint))

    yield from ((name,) for name, spec in one.columns.items() if spec.extra.get(INDEX_HINT))


def _method_of(one: Table, columns: Sequence[ColumnName]) -> str:
    # A tree of places finds what is near or within; the plain one refuses geometries of more than a few hundred points.
    return "gist" if any(one.columns[name].extra.get(GEOMETRY_HINT) for name in columns) else "btree"


def _is_typed(one: Table, name: ColumnName) -> bool:
    return one.columns[name].data_type not in (None, "json")


def _covers(index: Index, columns: Sequence[ColumnName]) -> bool:
    return index.columns[: len(columns)] == tuple(columns)


def _serves(existing: Index, wanted: Index) -> bool:
    if wanted.is_unique:
        return existing.is_unique and existing.columns == wanted.columns

    return _covers(existing, wanted.columns)


async def _empty_ones(work: Work, names: Sequence[TableName]) -> list[TableName]:
    if not names:
        return []

    probes = [exp.Not(this=exp.Exists(this=exp.select("1").from_(table(name, work.dataset)))) for name in names]
    row = await work.connection.fetchrow(exp.select(*probes).sql(dialect=DIALECT))

    return [name for name, is_empty in zip(names, row or (), strict=True) if is_empty]
