"""By what tables in a table format are partitioned: what the hints say, and what is refused. Pure; no driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from asyncelt.errors import ConfigError
from asyncelt.schema.model import Table
from asyncelt.types import ColumnName, JsonValue

__all__ = [
    "PARTITION_HINT",
    "PROPERTIES_HINT",
    "Partitioning",
    "check_partitions",
    "partition_columns",
    "partitions_of",
    "properties_of",
]

PARTITION_HINT: Final = "x-iceberg-partition"
"""Of tables; this and the next are the reference's."""
PROPERTIES_HINT: Final = "x-iceberg-table-properties"
_TIMES: Final = frozenset({"date", "timestamp"})
_NUMBERS: Final = frozenset({"bigint", "wei", "decimal"})
_TRANSFORMS: Final[Mapping[str, frozenset[str] | None]] = {
    "identity": None,
    "year": _TIMES,
    "month": _TIMES,
    "day": _TIMES,
    "hour": frozenset({"timestamp"}),
    "bucket": _NUMBERS | _TIMES | {"text", "json", "time", "binary"},
    "truncate": _NUMBERS | {"text", "json", "binary"},
}
"""By name, with the types of columns that they take; None: all."""
_WITH_NUMBER: Final = frozenset({"bucket", "truncate"})


@dataclass(frozen=True, slots=True)
class Partitioning:
    """One field by which an Iceberg table is partitioned.

    Args:
        column: Whose values decide.
        transform: What is made of them: identity, year, month, day, hour, bucket or truncate.
        number: Of buckets, or the width to which values are truncated.
        field: Its name; None: as Iceberg calls it.
    """

    column: ColumnName
    transform: str = "identity"
    number: int | None = None
    field: str | None = None

    @property
    def name(self) -> str:
        """Of the field in the table's metadata."""
        if self.field is not None:
            return self.field

        if self.transform == "identity":
            return self.column

        if self.transform == "truncate":
            return f"{self.column}_trunc_{self.number}"

        return f"{self.column}_{self.transform}" + ("" if self.number is None else f"_{self.number}")


def partition_columns(definition: Table) -> list[ColumnName]:
    """Columns with the hint ``partition``."""
    return [name for name, one in definition.columns.items() if one.extra.get("partition")]


def partitions_of(definition: Table) -> list[Partitioning]:
    """The fields of an Iceberg table: columns with the hint, then those of `iceberg_adapter`.

    Raises:
        ConfigError: The hint is not one that `iceberg_adapter` makes.
    """
    given = definition.hints.get(PARTITION_HINT) or []

    if not isinstance(given, list | tuple):
        raise ConfigError(f"Table {definition.name}: {PARTITION_HINT} is a list of fields; use iceberg_adapter.")

    fields = [Partitioning(name) for name in partition_columns(definition)]

    return [*fields, *(_field(definition, one) for one in given)]


def properties_of(definition: Table) -> dict[str, str]:
    """Properties with which an Iceberg table is made."""
    given = definition.hints.get(PROPERTIES_HINT)

    return {str(key): str(value) for key, value in given.items()} if isinstance(given, Mapping) else {}


def check_partitions(definition: Table, *, transforms: bool) -> None:
    """Refuse what a table cannot be partitioned by.

    Args:
        definition: The table.
        transforms: Whether the format has them; else columns alone count.

    Raises:
        ConfigError: Names the table, the column and what to do.
    """
    fields = partitions_of(definition) if transforms else [Partitioning(name) for name in partition_columns(definition)]

    for one in fields:
        _check(definition, one, transforms=transforms)

    names = [one.name for one in fields]
    twice = next((name for name in names if names.count(name) > 1), None)

    if twice is not None:
        raise ConfigError(
            f"Table {definition.name}: it is partitioned by {twice} twice. Leave out the column's hint or the field."
        )


def _check(definition: Table, one: Partitioning, *, transforms: bool) -> None:
    where = f"Table {definition.name}, partition by {one.transform} of {one.column}"
    column = definition.columns.get(one.column)

    if column is None or column.data_type is None:
        raise ConfigError(
            f"{where}: there is no such column with a type. Name it as it is called in the table, and declare its "
            "data_type if no value has come yet."
        )

    allowed = _TRANSFORMS[one.transform]

    if allowed is not None and column.data_type not in allowed:
        raise ConfigError(f"{where}: a column of type {column.data_type} has no {one.transform}.")

    if column.data_type == "binary" and not transforms:
        raise ConfigError(f"{where}: Delta cannot tell the values of a binary column. Partition by another column.")

    if one.transform != "identity" and one.name in definition.columns:
        raise ConfigError(f"{where}: the field cannot be called {one.name}, for a column is.")


def _field(definition: Table, given: JsonValue) -> Partitioning:
    where = f"Table {definition.name}: {PARTITION_HINT}"

    if not isinstance(given, Mapping) or not isinstance(given.get("source_column"), str):
        raise ConfigError(f"{where} has a field without a source_column; use iceberg_adapter.")

    transform, number, name = (given.get(key) for key in ("transform", "param_value", "partition_field"))

    if not isinstance(transform, str) or transform not in _TRANSFORMS:
        raise ConfigError(f"{where}: there is no transform {transform!r}; there are {', '.join(_TRANSFORMS)}.")

    if (transform in _WITH_NUMBER) != (isinstance(number, int) and not isinstance(number, bool) and number > 0):
        raise ConfigError(f"{where}: transform {transform} with the number {number!r}; bucket and truncate need one.")

    return Partitioning(
        column=ColumnName(str(given["source_column"])),
        transform=transform,
        number=number if isinstance(number, int) else None,
        field=None if name is None else str(name),
    )
