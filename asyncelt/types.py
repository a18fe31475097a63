"""Names shared by every room: identifiers, option literals and the JSON value.

Nothing here has behaviour; a reader finds in one place what the option strings of the public API are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Literal, NewType, TypeAlias
from uuid import UUID

__all__ = [
    "ColumnName",
    "Compression",
    "DataType",
    "FileFormat",
    "JsonValue",
    "LoadId",
    "MergeStrategy",
    "Metadata",
    "OnBusy",
    "OnError",
    "OnGap",
    "OnPending",
    "PackageStatus",
    "PipelineStep",
    "Refresh",
    "ReplaceStrategy",
    "SqlValue",
    "StartAt",
    "TableName",
    "WriteDisposition",
]

TableName = NewType("TableName", str)
"""A table name in its final form (after the naming convention)."""

ColumnName = NewType("ColumnName", str)
"""A column name in its final form (after the naming convention)."""

LoadId = NewType("LoadId", str)
"""Decimal unix time as text; packages and dataset rows order by it."""

DataType: TypeAlias = Literal[
    "text", "double", "bool", "timestamp", "bigint", "binary", "json", "decimal", "wei", "date", "time"
]
WriteDisposition: TypeAlias = Literal["append", "replace", "merge", "skip"]
MergeStrategy: TypeAlias = Literal["delete-insert", "upsert", "insert-only", "scd2", "cdc"]
ReplaceStrategy: TypeAlias = Literal["truncate-and-insert", "insert-from-staging", "staging-optimized"]
FileFormat: TypeAlias = Literal["parquet", "jsonl"]
Compression: TypeAlias = Literal["none", "snappy", "lz4", "zstd", "gzip"]
"""Of Parquet files."""
PipelineStep: TypeAlias = Literal["run", "sync", "extract", "normalize", "load"]
PackageStatus: TypeAlias = Literal["extracting", "extracted", "normalized", "loaded", "aborted"]
Refresh: TypeAlias = Literal["drop_sources", "drop_resources", "drop_data"]
OnBusy: TypeAlias = Literal["wait", "raise"]
OnError: TypeAlias = Literal["fail", "skip", "quarantine"]
OnPending: TypeAlias = Literal["load_only", "load_then_run", "raise"]

Metadata: TypeAlias = Literal["topic", "partition", "position", "key", "timestamp", "headers"]
"""What of a message, beside its payload, can become columns."""
OnGap: TypeAlias = Literal["fail", "skip"]
StartAt: TypeAlias = Literal["earliest", "latest", "group"]

JsonValue: TypeAlias = "str | int | float | bool | None | Sequence[JsonValue] | Mapping[str, JsonValue]"
"""Anything that JSON can say."""

SqlValue: TypeAlias = "JsonValue | bytes | Decimal | date | datetime | time | timedelta | UUID"
"""What may be passed as the value of a parameter of a query."""
