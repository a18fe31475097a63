"""What is said about a table, laid over the table as it is known: new properties win, columns are never removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from asyncelt.errors import SchemaConflict
from asyncelt.schema.model import Table
from asyncelt.schema.stored import table_from_stored, table_to_stored

__all__ = ["laid_over"]

COMPOUND: Final = ("primary_key", "merge_key", "partition", "cluster", "incremental")
"""Properties that a set of columns has together."""


def laid_over(schema_name: str, known: Table, said: Mapping[str, Any], *, adds_to_sets: bool = False) -> Table:
    """A table with properties of another one, which win.

    Args:
        schema_name: For messages.
        known: The table.
        said: Stored form of the other one, under final names.
        adds_to_sets: Whether its keys join those that are there, instead of taking their place.

    Raises:
        SchemaConflict: The two have different parents.
    """
    before = cast("dict[str, Any]", table_to_stored(known))

    if known.parent != said.get("parent"):
        raise SchemaConflict(
            f"Schema {schema_name!r}: table {known.name!r} has the parent {known.parent!r} and cannot get "
            f"{said.get('parent')!r}; drop the table, or leave its place as it is."
        )

    columns = before["columns"]

    for compound in () if adds_to_sets else COMPOUND:
        if any(column.get(compound) for column in said["columns"].values()):
            for column in columns.values():
                column.pop(compound, None)

    for name, column in said["columns"].items():
        old = columns.get(name)

        # A column that gets its type now is created now, so it goes behind those that exist.
        if old is not None and column.get("data_type") and not old.get("data_type"):
            del columns[name]

        columns[name] = {**(old or {}), **column}

    after = {**before, **{key: value for key, value in said.items() if key not in {"columns", "references"}}}

    if "x-normalizer" in said:
        after["x-normalizer"] = {**before.get("x-normalizer", {}), **said["x-normalizer"]}

    if references := said.get("references"):
        by_table = {item["referenced_table"]: item for item in (*before.get("references", ()), *references)}
        after["references"] = list(by_table.values())

    return table_from_stored(known.name, {**after, "columns": columns})
