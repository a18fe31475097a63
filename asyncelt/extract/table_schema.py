"""The table of a row, as hints make it, before anything is read."""

from __future__ import annotations

from dataclasses import replace

from asyncelt.errors import ConfigError
from asyncelt.extract.hinting import DYNAMIC, HintBook, is_dynamic, resolved
from asyncelt.extract.items import Marked
from asyncelt.extract.requests import TableName
from asyncelt.schema.hints import TableHints, merge_table_hints
from asyncelt.schema.model import Table
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import new_schema

__all__ = ["functions_in", "hints_of", "table_of"]


def functions_in(hints: TableHints, table_name: TableName | None) -> list[str]:
    """Names of the hints that are functions of a row."""
    found = [name for name in DYNAMIC if is_dynamic(getattr(hints, name))]

    return [*found, "table_name"] if callable(table_name) else found


def hints_of(book: HintBook, table_name: TableName, item: object) -> TableHints:
    """The hints of the table of one row.

    Args:
        book: The resource's hints.
        table_name: Of the resource: a name, or a function of a row.
        item: The row, which `asyncelt.mark` may have wrapped; None where no hint is a function.

    Raises:
        ConfigError: A hint is a function and there is no row, or a hint is wrong.
    """
    named: str | None = None
    row = item

    if isinstance(item, Marked):
        row, named = item.item, item.mark.table_name

    dynamic = functions_in(book.base, None if named is not None else table_name)

    if dynamic and row is None:
        raise ConfigError(
            f"Resource {book.resource!r}: {', '.join(dynamic)} are functions of a row; pass one to "
            "compute_table_schema(item)."
        )

    name = named if named is not None else table_name(row) if callable(table_name) else table_name

    if isinstance(item, Marked) and item.mark.hints:
        book.change(item.mark.hints, name, is_variant=item.mark.create_table_variant)

    found = book.variants.get(name) or resolved(book.base, row)

    return replace(found, name=name, resource=book.resource)


def table_of(hints: TableHints) -> Table:
    """The table that hints make, under its name as it was written."""
    schema = merge_table_hints(new_schema("hints"), hints, naming_for("direct", None))

    # Nested hints make tables of their own, which come after it.
    return next(table for table in schema.tables.values() if str(table.name) == hints.name)
