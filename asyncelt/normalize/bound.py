"""What the end of a package shows: declared columns for which no value ever came."""

from __future__ import annotations

from collections.abc import Iterable

from asyncelt.errors import NormalizeError
from asyncelt.flow import Notice
from asyncelt.schema.model import Schema
from asyncelt.types import TableName

__all__ = ["check_bound"]


def check_bound(schema: Schema, tables: Iterable[TableName]) -> tuple[Notice, ...]:
    """Look for columns that still have no type. To be called once all pages of a package are in the schema.

    Args:
        schema: As of the end of the package.
        tables: Those that the package has rows for.

    Returns:
        One notice (``null_only_column``) per column that may be null; such a column is not created.

    Raises:
        NormalizeError: A column that may not be null, such as a primary key, has never had a value.
    """
    notices: list[Notice] = []
    unbound: list[str] = []

    for name in tables:
        table = schema.tables.get(name)

        for column in table.columns.values() if table is not None else ():
            if column.data_type is not None:
                continue

            if column.nullable:
                message = "the column is declared without a type and no value came for it; it is not created"
                notices.append(
                    Notice(kind="null_only_column", table=name, column=column.name, count=1, message=message)
                )
            else:
                unbound.append(f"{name}.{column.name}")

    if unbound:
        raise NormalizeError(
            f"No value ever came for {', '.join(unbound)}, which may not be null (keys never are). "
            "Check the name of the key, or declare a data_type or nullable=True."
        )

    return tuple(notices)
