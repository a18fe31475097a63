"""Which tables of a schema belong together, and by which columns: what diagrams draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from asyncelt.schema.model import Schema, Table
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import DLT_LOAD_ID, LOADS_TABLE, VERSION_TABLE, convention_of
from asyncelt.types import TableName

__all__ = ["Cardinality", "TableReference", "references_of"]

Cardinality: TypeAlias = Literal[
    "one_to_one",
    "one_to_many",
    "many_to_one",
    "many_to_many",
    "zero_to_many",
    "many_to_zero",
    "zero_to_one",
    "one_to_zero",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReference:
    """Columns of a table that hold values of columns of another."""

    table: str
    columns: tuple[str, ...]
    referenced_table: str
    referenced_columns: tuple[str, ...]
    cardinality: Cardinality
    label: str = ""
    """``_dlt_parent``, ``_dlt_root``, ``_dlt_load`` and such for those that every schema has."""


def references_of(schema: Schema) -> Iterator[TableReference]:
    """All of a schema, in the order of its tables; those that hints declare after the table's own."""
    naming = naming_for(convention_of(schema))
    loads = TableName(naming.path(LOADS_TABLE))
    load_id, loads_load_id = naming.path(DLT_LOAD_ID), naming.path("load_id")

    for table in schema.tables.values():
        if table.parent is not None:
            yield from _to(schema.tables[table.parent], table, "parent_key", "_dlt_parent")
            yield from _to(schema.root_of(table.name), table, "root_key", "_dlt_root")

        if load_id in table.columns and loads in schema.tables:
            yield TableReference(
                table=table.name,
                columns=(load_id,),
                referenced_table=loads,
                referenced_columns=(loads_load_id,),
                cardinality="many_to_one",
                label="_dlt_load",
            )

        yield from _declared(table)

    version = TableName(naming.path(VERSION_TABLE))

    if version in schema.tables and loads in schema.tables:
        ours: tuple[tuple[str, str, Cardinality, str], ...] = (
            ("version_hash", "schema_version_hash", "one_to_many", "_dlt_schema_version"),
            ("schema_name", "schema_name", "many_to_many", "_dlt_schema_name"),
        )

        for column, referenced, cardinality, label in ours:
            yield TableReference(
                table=version,
                columns=(naming.path(column),),
                referenced_table=loads,
                referenced_columns=(naming.path(referenced),),
                cardinality=cardinality,
                label=label,
            )


def _to(above: Table, table: Table, key: str, label: str) -> Iterator[TableReference]:
    own, theirs = table.keys(key), above.keys("row_key")

    if own and theirs:
        yield TableReference(
            table=table.name,
            columns=own[:1],
            referenced_table=above.name,
            referenced_columns=theirs[:1],
            cardinality="many_to_one",
            label=label,
        )


def _declared(table: Table) -> Iterator[TableReference]:
    found = table.hints.get("references")

    for one in found if isinstance(found, list | tuple) else ():
        if not isinstance(one, Mapping):
            continue

        cardinality = one.get("cardinality")

        yield TableReference(
            table=str(one.get("table") or table.name),
            columns=_names(one.get("columns")),
            referenced_table=str(one.get("referenced_table")),
            referenced_columns=_names(one.get("referenced_columns")),
            cardinality=cast(Cardinality, cardinality) if cardinality in get_args(Cardinality) else "one_to_many",
            label=str(one.get("label") or ""),
        )


def _names(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()
