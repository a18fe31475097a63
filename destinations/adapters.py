"""Hints that only one destination understands; as in the reference, ``from ....destinations.adapters import ...``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asyncelt.destinations.filesystem_impl.partitioning import PARTITION_HINT, PROPERTIES_HINT
from asyncelt.destinations.postgres_impl.types import GEOMETRY_HINT, INDEX_HINT, SRID_HINT
from asyncelt.errors import ConfigError
from asyncelt.extract.decorators import resource
from asyncelt.extract.resource import Resource
from asyncelt.types import JsonValue

__all__ = ["PartitionSpec", "iceberg_adapter", "iceberg_partition", "postgres_adapter"]

_DEFAULT_NAME = "content"
_DEFAULT_SRID = 4326


def postgres_adapter(
    data: object,
    geometry: str | Sequence[str] | None = None,
    srid: int | None = _DEFAULT_SRID,
    *,
    index: str | Sequence[str] | None = None,
) -> Resource:
    """Say what columns are in PostgreSQL.

    Args:
        data: A resource, which is changed, or anything that a resource can be made of.
        geometry: Columns of the PostGIS type ``geometry``; their values are text, WKT or WKB in hexadecimal digits,
            or bytes, WKB.
        srid: Their spatial reference system.
        index: Columns that get an index each. Not in the reference.

    Returns:
        The resource.

    Raises:
        ConfigError: Neither ``geometry`` nor ``index`` names a column.
    """
    columns: dict[str, dict[str, JsonValue]] = {}

    for name in _names("geometry", geometry):
        columns[name] = {"name": name, GEOMETRY_HINT: True}

        if srid is not None:
            columns[name][SRID_HINT] = srid

    for name in _names("index", index):
        columns.setdefault(name, {"name": name})[INDEX_HINT] = True

    if not columns:
        raise ConfigError("postgres_adapter needs the names of columns: geometry=..., index=...")

    return _resource_of(data).apply_hints(columns=columns)


@dataclass(frozen=True, slots=True)
class PartitionSpec:
    """One field by which an Iceberg table is partitioned; `iceberg_partition` makes them.

    Args:
        source_column: Whose values decide, as it is called in the table.
        transform: What is made of them.
        param_value: The number of buckets, or the width.
        partition_field: The field's name; as Iceberg calls it unless given.
    """

    source_column: str
    transform: str = "identity"
    param_value: int | None = None
    partition_field: str | None = None

    def to_dict(self) -> dict[str, JsonValue]:
        """As it stands in the schema."""
        found: dict[str, JsonValue] = {"transform": self.transform, "source_column": self.source_column}

        if self.partition_field:
            found["partition_field"] = self.partition_field

        if self.param_value is not None:
            found["param_value"] = self.param_value

        return found


class iceberg_partition:  # noqa: N801 - the reference's name
    """Fields by which an Iceberg table is partitioned."""

    @staticmethod
    def identity(column_name: str) -> PartitionSpec:
        """By each value of a column."""
        return PartitionSpec(column_name)

    @staticmethod
    def year(column_name: str, partition_field_name: str | None = None) -> PartitionSpec:
        """By the year of a date or timestamp."""
        return PartitionSpec(column_name, "year", partition_field=partition_field_name)

    @staticmethod
    def month(column_name: str, partition_field_name: str | None = None) -> PartitionSpec:
        """By the month of a date or timestamp."""
        return PartitionSpec(column_name, "month", partition_field=partition_field_name)

    @staticmethod
    def day(column_name: str, partition_field_name: str | None = None) -> PartitionSpec:
        """By the day of a date or timestamp."""
        return PartitionSpec(column_name, "day", partition_field=partition_field_name)

    @staticmethod
    def hour(column_name: str, partition_field_name: str | None = None) -> PartitionSpec:
        """By the hour of a timestamp."""
        return PartitionSpec(column_name, "hour", partition_field=partition_field_name)

    @staticmethod
    def bucket(num_buckets: int, column_name: str, partition_field_name: str | None = None) -> PartitionSpec:
        """By a hash of a value, into a number of buckets."""
        return PartitionSpec(column_name, "bucket", num_buckets, partition_field_name)

    @staticmethod
    def truncate(width: int, column_name: str, partition_field_name: str | None = None) -> PartitionSpec:
        """By the beginning of a text, or a number rounded down to a multiple."""
        return PartitionSpec(column_name, "truncate", width, partition_field_name)


def iceberg_adapter(
    data: object,
    partition: str | PartitionSpec | Sequence[str | PartitionSpec] | None = None,
    table_properties: Mapping[str, str] | None = None,
) -> Resource:
    """Say how an Iceberg table is made. A table that is there stays as it is.

    Args:
        data: A resource, which is changed, or anything that a resource can be made of.
        partition: By what it is partitioned: names of columns, or fields of `iceberg_partition`.
        table_properties: Properties that the table gets.

    Returns:
        The resource.

    Raises:
        ConfigError: Nothing is said, or it cannot be understood.
    """
    hints: dict[str, JsonValue] = {}
    given = [partition] if isinstance(partition, str | PartitionSpec) else list(partition or ())

    if not all(isinstance(one, str | PartitionSpec) for one in given):
        raise ConfigError("iceberg_adapter: partition takes names of columns and fields of iceberg_partition.")

    if given:
        fields = [PartitionSpec(one) if isinstance(one, str) else one for one in given]
        hints[PARTITION_HINT] = [one.to_dict() for one in fields]

    if table_properties is not None:
        if not _are_texts(table_properties):
            raise ConfigError("iceberg_adapter: table_properties is a mapping of texts to texts.")

        hints[PROPERTIES_HINT] = dict(table_properties)

    if not hints:
        raise ConfigError("iceberg_adapter needs partition=... or table_properties=...")

    return _resource_of(data).apply_hints(additional_table_hints=hints)


def _are_texts(given: object) -> bool:
    return isinstance(given, Mapping) and all(isinstance(text, str) for pair in given.items() for text in pair)


def _resource_of(data: object) -> Resource:
    return data if isinstance(data, Resource) else resource(data, name=_name_of(data))


def _names(argument: str, given: str | Sequence[str] | None) -> Sequence[str]:
    if given is None or isinstance(given, str):
        return [given] if given else []

    if not isinstance(given, list | tuple):
        raise ConfigError(f"postgres_adapter: {argument} must be the name of a column or a list of names.")

    return given


def _name_of(data: object) -> str:
    name = getattr(data, "__name__", None)

    return name if isinstance(name, str) else _DEFAULT_NAME
