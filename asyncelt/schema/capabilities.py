"""What a destination can do, as a frozen value that planning and normalizing read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa

from asyncelt.schema.model import Table
from asyncelt.types import Compression, FileFormat, MergeStrategy, ReplaceStrategy, WriteDisposition

__all__ = ["FOR_READERS", "UNTIL_COMMIT", "Capabilities", "ParquetForm", "RowCheck"]


@dataclass(frozen=True, slots=True)
class ParquetForm:
    """How Parquet job files are written."""

    compression: Compression
    """Unless the user has chosen one."""
    is_kept: bool
    """With dictionaries and statistics, which readers go by; they take a quarter of the time of writing."""


FOR_READERS: Final = ParquetForm("snappy", is_kept=True)
"""Of files that become the tables: what most readers expect."""
UNTIL_COMMIT: Final = ParquetForm("lz4", is_kept=False)
"""Of files that are read once: half the time of zstd counts more than their size."""


class RowCheck(Protocol):
    """Finds values that a destination cannot store although their types fit. Blocking; called from threads."""

    def __call__(self, table: Table, rows: pa.Table, /) -> None:
        """Look through the rows of one table.

        Raises:
            BadRecord: Names the column, and the first row in ``rows`` that has such a value.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Checked once when a run is planned; nothing asks the destination again while data moves."""

    file_formats: tuple[FileFormat, ...] = ("parquet", "jsonl")
    """Job files it can take; the first is preferred."""
    parquet: ParquetForm = UNTIL_COMMIT
    staging_file_formats: tuple[FileFormat, ...] = ()
    """Job files that it can load from a staging destination; the first is preferred. Empty: it takes none."""
    write_dispositions: tuple[WriteDisposition, ...] = ("append", "replace", "merge", "skip")
    merge_strategies: tuple[MergeStrategy, ...] = ()
    """Empty: no merge. The first is the default."""
    table_formats: tuple[str, ...] = ()
    """Table formats in which it can keep tables (hint ``table_format``)."""
    table_format_strategies: tuple[MergeStrategy, ...] = ()
    """By which such tables can be merged; the first is the default."""
    replace_strategies: tuple[ReplaceStrategy, ...] = ("truncate-and-insert",)
    naming_convention: str | None = None
    """What the user has chosen for the destination; None: schemas keep theirs, new ones get ``snake_case``."""
    case_sensitive: bool = False
    max_identifier_length: int = 65536
    decimal_precision: tuple[int, int] = (38, 9)
    wei_precision: tuple[int, int] = (38, 0)
    """Largest (precision, scale) for integers over 64 bits; beyond it they become text variants."""
    max_decimal_precision: int = 38
    timestamp_precision: int = 6
    transactional: bool = True
    """Whether all tables, state and load rows become visible in one transaction."""
    max_table_nesting: int | None = None
    dataset_required: bool = True
    stores_state: bool = True
    stores_positions: bool = False
    """Whether its sessions keep positions of messages: `asyncelt.load.protocol.SupportsPositions`."""
    check_rows: RowCheck | None = None
    """Asked where rows that cannot be loaded are left out (``on_error``, streams); otherwise the load refuses them."""
    sqlglot_dialect: str | None = None
    max_parallel_load_jobs: int | None = None

    def file_format_for(self, root_hints: Mapping[str, object], chosen: FileFormat) -> FileFormat:
        """Of a table's job files: Parquet where its root table is kept in a table format, which is made of that."""
        kept = root_hints.get("table_format") in self.table_formats

        return "parquet" if kept and "parquet" in self.file_formats else chosen

    def parquet_for(self, root_hints: Mapping[str, object]) -> ParquetForm:
        """How job files of a table are written: table formats make files of their own from them."""
        return UNTIL_COMMIT if root_hints.get("table_format") in self.table_formats else self.parquet

    def strategies_for(self, table_format: object) -> tuple[MergeStrategy, ...]:
        """How tables with this ``table_format`` can be merged; empty: not at all."""
        return self.table_format_strategies if table_format in self.table_formats else self.merge_strategies
