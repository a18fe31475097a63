"""Which tables are kept in a table format, and what a package does to them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal, TypeAlias

from asyncelt.destinations.filesystem_impl.partitioning import check_partitions
from asyncelt.errors import ConfigError, DestinationRejected, Unsupported
from asyncelt.flow import Package
from asyncelt.schema.model import Schema, Table
from asyncelt.types import ColumnName, TableName

__all__ = [
    "SMALL_BYTES",
    "LakeFormat",
    "LakeMode",
    "LakeWrite",
    "check_formats",
    "check_lakes",
    "format_of",
    "lake_tables",
    "lake_writes",
    "link_of",
    "row_key_of",
]

LakeFormat: TypeAlias = Literal["delta", "iceberg"]
LakeMode: TypeAlias = Literal["append", "overwrite", "upsert", "insert"]

_FORMATS: Final[Mapping[str, LakeFormat]] = {"delta": "delta", "iceberg": "iceberg"}
_TITLES: Final[Mapping[LakeFormat, str]] = {"delta": "Delta", "iceberg": "Iceberg"}
_DRIVERS: Final[Mapping[LakeFormat, Sequence[str]]] = {"delta": ("deltalake",), "iceberg": ("pyiceberg", "sqlalchemy")}
_STRATEGIES: Final = ("upsert", "insert-only")
_WITHOUT_EFFECT: Final = ("skip_unchanged_rows", "source_filter", "destination_scope")


SMALL_BYTES: Final = 16 * 1024 * 1024
"""A data file below this size counts as small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeWrite:
    """What one package does to one table, in one commit of that table."""

    table: TableName
    mode: LakeMode
    format: LakeFormat = "delta"
    files: Sequence[str] = ()
    """Staged files, relative to the dataset's folder, in job order. They go once the table has been committed."""
    keys: Sequence[str] = ()
    """Columns of the root table that tell rows apart, where rows are merged."""
    keeps_first: bool = False
    """Of rows with one key the one that came first, not last: where rows are inserted only."""
    root: TableName | None = None
    """The root table, where rows are merged and this one is nested in it."""
    root_files: Sequence[str] = ()
    """Staged files of the root table: they say whose nested rows are replaced."""


def format_of(schema: Schema, table: TableName) -> LakeFormat | None:
    """The table format, which nested tables have from their root; None: plain files."""
    found = schema.root_of(table).hints.get("table_format")

    return _FORMATS.get(found) if isinstance(found, str) else None


def lake_tables(schemas: Sequence[Schema]) -> dict[TableName, LakeFormat]:
    """All tables that are kept in a table format."""
    return {name: kind for one in schemas for name in one.tables if (kind := format_of(one, name)) is not None}


def lake_writes(
    schema: Schema,
    files: Mapping[TableName, Sequence[str]],
    emptied: Collection[TableName],
    dropped: Mapping[TableName, LakeFormat],
) -> list[LakeWrite]:
    """What a package does to tables in a table format: nested tables before the root table whose old rows they need.

    Args:
        schema: Of the package.
        files: Staged files of each table that the package has rows for.
        emptied: Tables of the schema whose old rows go.
        dropped: Tables that the schema does not have any more.
    """
    writes = [LakeWrite(table=name, mode="overwrite", format=kind) for name, kind in dropped.items()]

    for name in dict.fromkeys((*emptied, *files, *_nested_of_merged(schema, files))):
        kind, root = format_of(schema, name), schema.root_of(name)

        if kind is None:
            continue

        merged = schema.disposition_of(name) == "merge"
        nested = merged and root.name != name
        inserted = merged and _strategy_of(root) == "insert-only"
        merging: LakeMode = "insert" if inserted else "upsert"
        mode: LakeMode = "overwrite" if name in emptied else merging if merged else "append"

        # They stay with their root rows.
        if inserted and nested and not files.get(name) and name not in emptied:
            continue

        writes.append(
            LakeWrite(
                table=name,
                mode=mode,
                format=kind,
                files=files.get(name, ()),
                keys=root.keys("primary_key") if merged else (),
                keeps_first=inserted,
                root=root.name if nested else None,
                root_files=files.get(root.name, ()) if nested else (),
            )
        )

    return sorted(writes, key=lambda write: write.root is None)


def _nested_of_merged(schema: Schema, files: Collection[TableName]) -> Iterator[TableName]:
    """Nested tables lose rows with those of their root table, whether new ones have come for them or not."""
    for name in files:
        if schema.tables[name].parent is None and schema.disposition_of(name) == "merge":
            yield from (one.name for one in schema.chain_of(name))


def row_key_of(root: Table) -> ColumnName | None:
    """The column that identifies a row of a root table."""
    found = [names[0] for names in map(root.keys, ("row_key", "unique", "primary_key")) if len(names) == 1]

    return found[0] if found else None


def link_of(nested: Table, root: Table) -> ColumnName | None:
    """The column that leads from a row of a nested table to its root row.

    The parent key where that is the same: rows that came before the table was merged have no root key.
    """
    links = (nested.keys("parent_key") if nested.parent == root.name else ()) or nested.keys("root_key")

    return links[0] if links else None


def check_lakes(package: Package) -> dict[LakeFormat, list[TableName]]:
    """Refuse what is not there, before any data moves. Looks for packages: not on the event loop.

    Returns:
        The tables that rows have come for and that are kept in a table format.

    Raises:
        ConfigError: A package is missing.
        Unsupported: Names the table and what to do.
    """
    schema = package.schema
    found: dict[LakeFormat, list[TableName]] = {}

    for name in dict.fromkeys(job.table for job in package.jobs):
        kind, root = format_of(schema, name), schema.root_of(name)
        merged = schema.disposition_of(name) == "merge"

        if kind is None and merged:
            raise Unsupported(
                f"The filesystem destination cannot merge into plain files (table {name}). Use write_disposition "
                "append or replace, table_format='delta' or 'iceberg', or a database."
            )

        if kind is None:
            continue

        for driver in _DRIVERS[kind]:
            if find_spec(driver) is None:
                raise ConfigError(
                    f"Table {name}: table_format {kind!r} needs the package {driver}: pip install 'asyncelt[{kind}]'."
                )

        if merged:
            _check_merge(schema.tables[name], root, _TITLES[kind])

        check_partitions(schema.tables[name], transforms=kind == "iceberg")

        found.setdefault(kind, []).append(name)

    return found


def check_formats(stored: Schema, package: Package, emptied: Collection[TableName]) -> None:
    """Refuse rows for a table that is kept in another format: those it has would be seen no more.

    Raises:
        DestinationRejected: Names the table and what to do.
    """
    for name in dict.fromkeys(job.table for job in package.jobs):
        table = stored.tables.get(name)

        if table is None or name in emptied or all(one.data_type is None for one in table.columns.values()):
            continue

        before, now = (format_of(schema, name) or "plain" for schema in (stored, package.schema))

        if before != now:
            raise DestinationRejected(
                f"Load {package.load_id}, table {name}: its rows are kept in format {before}, the schema says {now}. "
                "Nothing was committed. Give it the old table_format, replace its rows, or load into another table."
            )


def _strategy_of(root: Table) -> str:
    return str(root.hints.get("x-merge-strategy", "upsert"))


def _check_merge(table: Table, root: Table, title: str) -> None:
    name, strategy = table.name, _strategy_of(root)

    if strategy not in _STRATEGIES:
        raise Unsupported(
            f"Table {name}: {title} tables are merged by strategy 'upsert' or 'insert-only', not {strategy!r}. Use one "
            "of them, or a database."
        )

    if not root.keys("primary_key"):
        raise Unsupported(f"Table {name}: strategy {strategy!r} needs a primary_key. Declare one, or append.")

    for hint in _WITHOUT_EFFECT:
        if root.hints.get(f"x-merge-{hint.replace('_', '-')}"):
            raise Unsupported(f"Table {name}: {hint} has no effect on {title} tables. Leave it out, or use a database.")

    if table is not root and (row_key_of(root) is None or link_of(table, root) is None):
        raise Unsupported(
            f"Table {name}: no column connects its rows with those of {root.name}, so a merge cannot find them. "
            "Load with add_dlt_id, or use max_table_nesting=0, which keeps lists as JSON."
        )
