"""Which tables are kept in a table format, and what a package does to them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypeAlias

from asyncelt.errors import ConfigError, DestinationRejected, Unsupported
from asyncelt.flow import Package
from asyncelt.schema.model import Schema
from asyncelt.types import TableName

__all__ = ["LakeMode", "LakeWrite", "check_formats", "check_lakes", "format_of", "mode_of"]

LakeMode: TypeAlias = Literal["append", "overwrite", "upsert"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeWrite:
    """What one package does to one table, in one commit of that table."""

    table: TableName
    mode: LakeMode
    files: Sequence[str] = ()
    """Staged files, relative to the dataset's folder, in job order. They go once the table has been committed."""
    keys: Sequence[str] = ()
    """Columns by which an upsert finds rows."""


def format_of(schema: Schema, table: TableName) -> str | None:
    """The table format, which nested tables have from their root; None: plain files."""
    found = schema.root_of(table).hints.get("table_format")

    return found if isinstance(found, str) and found in {"delta", "iceberg"} else None


def mode_of(schema: Schema, table: TableName, emptied: Collection[TableName]) -> LakeMode:
    """How the package's rows get into the table."""
    if table in emptied:
        return "overwrite"

    return "upsert" if schema.disposition_of(table) == "merge" else "append"


def check_lakes(package: Package) -> None:
    """Refuse what is not there, before any data moves. Looks for packages: not on the event loop.

    Raises:
        ConfigError: A package is missing.
        Unsupported: Names the table and what to do.
    """
    schema = package.schema

    for name in dict.fromkeys(job.table for job in package.jobs):
        kind, root = format_of(schema, name), schema.root_of(name)
        merged = schema.disposition_of(name) == "merge"

        if kind is None and merged:
            raise Unsupported(
                f"The filesystem destination cannot merge into plain files (table {name}). Use write_disposition "
                "append or replace, table_format='delta', or a database."
            )

        if kind == "iceberg":
            raise Unsupported(f"Table {name}: table_format 'iceberg' is not supported yet. Use 'delta' or plain files.")

        if kind is not None and find_spec("deltalake") is None:
            raise ConfigError(
                f"Table {name}: table_format 'delta' needs the package deltalake: pip install 'asyncelt[delta]'."
            )

        if kind is not None and merged:
            _check_upsert(name, root.hints, nested=name != root.name, keyed=bool(root.keys("primary_key")))

            for hint in ("hard_delete", "dedup_sort"):
                if root.keys(hint):
                    raise Unsupported(f"Table {name}: {hint} has no effect on Delta tables yet. Use a database.")


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


def _check_upsert(name: TableName, hints: Mapping[str, object], *, nested: bool, keyed: bool) -> None:
    if hints.get("x-merge-strategy", "upsert") != "upsert":
        raise Unsupported(f"Table {name}: Delta tables are merged by strategy 'upsert' only.")

    if not keyed:
        raise Unsupported(f"Table {name}: an upsert needs a primary_key. Declare one, or append.")

    if nested:
        raise Unsupported(
            f"Table {name}: nested tables of an upsert into Delta are not supported yet. Use max_table_nesting=0, "
            "which keeps lists as JSON, or a database."
        )
