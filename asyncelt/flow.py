"""What crosses the doorways between rooms. Frozen values with their shapes and units; no behaviour.

::

    resource ──RawBatch──▶ normalize ──TableBatch──▶ storage ──Package──▶ load ──▶ commit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import pyarrow as pa

from asyncelt.schema.model import Schema, SchemaDelta
from asyncelt.types import ColumnName, FileFormat, LoadId, OnError, PackageStatus, TableName

__all__ = [
    "DESCRIPTION_CHARS",
    "ROOT_ROW",
    "ArrowPage",
    "Conformed",
    "JobFile",
    "JsonBody",
    "JsonPages",
    "Notice",
    "Origin",
    "Package",
    "Payload",
    "PositionClaim",
    "PositionMove",
    "RawBatch",
    "Refusal",
    "ResourceFailure",
    "Rows",
    "TableBatch",
    "Unloadable",
]

ROOT_ROW: Final = ColumnName("_asyncelt_root_row")
"""A column of job files that no schema and no destination has: the number, in its package, of the root row that a row
came with. Root rows with one key may have one id (it is a hash of the key), and so have their nested rows; this
tells a merge which nested rows came with the root row that it keeps. Null or absent where ids tell."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Python objects, one per row: dicts, models, or values that become ``{"value": ...}``. Never None."""

    items: list[object]


DESCRIPTION_CHARS: Final = 10_000
"""Characters that are kept of a row that cannot be written down, or was refused."""


@dataclass(frozen=True, slots=True)
class Unloadable:
    """Stands for a row that cannot be loaded, among the rows of a page."""

    message: str
    """Why."""
    description: str
    """What it looked like."""
    payload: bytes | None = None
    """The row as it was received; None: nothing but the description is left of it."""
    kind: str = "BadRecord"
    """Class of the error."""
    origin: str | None = None
    """Where a message came from."""
    position: str | None = None
    """Its position there."""
    row: object = None
    """The row itself, where it was one, and was refused for what it says."""


@dataclass(frozen=True, slots=True)
class JsonBody:
    """JSON as received: one document, an array of documents, or NDJSON (told apart by looking at it)."""

    data: bytes
    items: str | None = None
    """Dotted path of the item list inside an enveloping document; None: the body itself is the data."""


@dataclass(frozen=True, slots=True)
class JsonPages:
    """One or more JSON bodies whose rows belong to one table, in order."""

    bodies: tuple[JsonBody, ...]


@dataclass(frozen=True, slots=True)
class ArrowPage:
    """Columns as they are. Struct and list columns become ``json``; no child tables."""

    table: pa.Table


Payload: TypeAlias = Rows | JsonPages | ArrowPage


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a row cannot be loaded."""

    kind: str
    """Name of the error's class."""
    message: str
    column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A line of the quarantine table that a row is loaded from again."""

    record_id: str
    tries: int
    """How often the row had been tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceFailure:
    """A resource whose failure the run has survived. Its rows and its state are as before the run."""

    resource: str
    schema_name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RawBatch:
    """One page on its way from extract to normalize."""

    page: int
    """Number of the page in its run, from 0, without gaps. Schema changes and rows are applied in this order."""
    schema_name: str
    resource: str
    table: TableName
    """Root table the rows belong to (normalized name)."""
    payload: Payload
    rows: int
    """Number of rows where it is known without parsing, else 0."""
    nbytes: int
    """Bytes reserved for it in the memory budget; whoever drops the page gives them back."""
    max_nesting: int | None = None
    """``max_table_nesting`` in force for this resource; None: unlimited."""
    on_error: OnError = "fail"
    """What a row that cannot be loaded costs."""
    refusal: Refusal | None = None
    """Why none of its rows may be loaded; None: they may."""
    origins: tuple[Origin, ...] = ()
    """Of rows that have been in quarantine: where each lay there, or where all of them lay together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableBatch:
    """Conformed rows of one table.

    Shapes:
        data: (rows, k) where the k columns are a subset of the table's columns, in any order, each of exactly
        the Arrow type of `schema.arrow`; columns that are absent are null for all these rows. Beside them there may
        be `ROOT_ROW`, int64.
    """

    table: TableName
    data: pa.Table
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that was kept in another form than it came, or that a user should know. One per column and kind."""

    kind: str
    """``collision``, ``variant_of_variant``, ``null_only_column``, ..."""
    table: TableName
    column: str | None
    count: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conformed:
    """One page after normalizing: what it adds to the schema, and its rows, valid under schema + delta."""

    delta: SchemaDelta
    batches: tuple[TableBatch, ...]
    notices: tuple[Notice, ...] = ()
    root_rows: int = 0
    """Rows that arrived in the root table, before contracts dropped any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """One data file of a package."""

    job_id: str
    """``<table>.<file_id>``; unique in the package."""
    table: TableName
    file_name: str
    """Relative to the package's ``jobs`` folder: ``<table>.<file_id>.0.<ext>``."""
    file_format: FileFormat
    rows: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionMove:
    """Messages of one partition whose rows are in a package: committing it makes their positions known."""

    source: str
    partition: str
    taken: str
    """Their positions, as `Intervals.text` writes them."""
    floor: int | None = None
    """Everything up to here is known to be committed, by this or an earlier package."""
    epoch: int = 0
    """Of the partition's owner; a stored greater one refuses the commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionClaim:
    """A partition that a stream takes over: from then on its former owner cannot commit messages of it."""

    source: str
    partition: str
    epoch: int = 0
    """Under which the stream has claimed it before; 0: it has not."""
    start: int | None = None
    """Nothing up to here is wanted, if nothing of the partition is known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A sealed load package as the load step sees it: immutable, complete, on the disk."""

    load_id: LoadId
    pipeline_name: str
    dataset_name: str
    folder: Path
    schema: Schema
    """Schema as of the end of this package, version and hash included."""
    jobs: tuple[JobFile, ...]
    status: PackageStatus = "normalized"
    parent_load_id: LoadId | None = None
    """The pipeline's last package before this one; None for its first."""
    bundle: tuple[LoadId, ...] = ()
    """All packages of the same run, this one included, in order: they commit in one transaction."""
    run_id: str | None = None
    replaced_tables: tuple[TableName, ...] = ()
    """Root tables with disposition replace that were extracted, even when they yielded no row: their old
    rows, and those of their nested tables, go in the commit."""
    dropped_tables: tuple[TableName, ...] = ()
    """Tables, each by its own name, that are dropped before this package's rows are written, with the stored versions
    of its schema; those that the package has rows for are made anew. What is not there is left out."""
    truncated_tables: tuple[TableName, ...] = ()
    """Tables, each by its own name, whose old rows go before this package's rows are written."""
    row_counts: Mapping[TableName, int] = field(default_factory=dict)
    positions: tuple[PositionMove, ...] = ()
    """Of the messages of a stream that this package holds; moved in its commit."""
    created_at: float = 0.0
    """Unix time in seconds."""

    def path_of(self, job: JobFile) -> Path:
        """Absolute path of a job's file."""
        return self.folder / "jobs" / job.file_name
