"""The vocabulary of all rooms: columns, tables, schemas and what changes in them. Values only, no I/O.

A `Schema` is frozen; it moves forward by applying a `SchemaDelta`
(`asyncelt.schema.evolve.apply_delta`). Names in here are final: they have passed the naming convention.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import orjson

from asyncelt.arguments import MAPPING, TEXT, expect
from asyncelt.types import ColumnName, DataType, JsonValue, TableName, WriteDisposition

if TYPE_CHECKING:
    from asyncelt.schema.export import SchemaFormat

__all__ = ["Column", "Schema", "SchemaDelta", "Table", "TableDelta"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. ``data_type`` is None while it is only declared and no value has been seen."""

    name: ColumnName
    data_type: DataType | None = None
    nullable: bool = True
    precision: int | None = None
    scale: int | None = None
    timezone: bool | None = None
    """False: a timestamp without zone. None and True: UTC."""
    variant: bool = False
    primary_key: bool = False
    merge_key: bool = False
    unique: bool = False
    row_key: bool = False
    parent_key: bool = False
    root_key: bool = False
    hard_delete: bool = False
    dedup_sort: str | None = None
    """``asc`` or ``desc``."""
    extra: Mapping[str, JsonValue] = field(default_factory=dict)
    """Hints the engine does not act on: description, sort, partition, cluster, incremental, x-..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table. Root tables have ``resource`` and ``write_disposition``; nested ones have ``parent``."""

    name: TableName
    columns: Mapping[ColumnName, Column] = field(default_factory=dict)
    """In definition order, which is the physical order."""
    parent: TableName | None = None
    resource: str | None = None
    write_disposition: WriteDisposition | None = None
    """None on nested tables: inherited from the root."""
    hints: Mapping[str, JsonValue] = field(default_factory=dict)
    """Everything else that the stored schema keeps: x-merge-strategy, x-normalizer, schema_contract,
    file_format, table_format, description, filters, ..."""

    @property
    def seen_data(self) -> bool:
        """Whether rows have ever been loaded into this table."""
        normalizer = self.hints.get("x-normalizer")

        return isinstance(normalizer, Mapping) and bool(normalizer.get("seen-data"))

    def keys(self, hint: str) -> tuple[ColumnName, ...]:
        """Names of the columns on which the boolean hint (``primary_key``, ``merge_key``, ...) is set."""
        return tuple(name for name, column in self.columns.items() if getattr(column, hint))


@dataclass(frozen=True, kw_only=True)
class Schema:
    """A named set of tables with its settings. Reads like the reference's stored schema, engine 11.

    A value: nothing changes it. ``Schema("name")`` is one to start from; a run adds the tables and settings that every
    schema has. `from_dict` and `from_text` read what `to_dict`, `to_pretty_json` and `to_pretty_yaml` have written.
    """

    name: str = field(kw_only=False)
    tables: Mapping[TableName, Table] = field(default_factory=dict)
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    """detections, default_hints, preferred_types, schema_contract."""
    normalizers: Mapping[str, JsonValue] = field(default_factory=dict)
    """``{"names": ..., "json": {"module": ..., "config": {...}}}``."""
    version: int = 1
    version_hash: str = ""
    """Hash of the content as of ``version``; "" before the first one is computed."""
    previous_hashes: tuple[str, ...] = ()
    imported_version_hash: str | None = None
    description: str | None = None

    @cached_property
    def content_hash(self) -> str:
        """What ``version_hash`` becomes when the content is given its version."""
        from asyncelt.schema.stored import content_hash

        return content_hash(self)

    @cached_property
    def stored_json(self) -> bytes:
        """The stored form as compact JSON."""
        from asyncelt.schema.stored import to_stored

        return orjson.dumps(to_stored(self))

    @classmethod
    def from_dict(cls, document: Mapping[str, JsonValue]) -> Schema:
        """A schema from its stored form, or as much of it as somebody has written down: only the name is needed.

        Raises:
            SchemaError: This is no stored schema, or of another engine version.
            ConfigError: The name cannot be that of a schema, or there is no such naming convention.
        """
        expect("Schema.from_dict", MAPPING, document=document)
        from asyncelt.schema.joining import completed
        from asyncelt.schema.stored import ENGINE_VERSION, from_stored

        return completed(from_stored({"engine_version": ENGINE_VERSION, "tables": {}, **document}))

    @classmethod
    def from_text(cls, text: str) -> Schema:
        """A schema from JSON or YAML.

        Raises:
            SchemaError: It is neither, or no stored schema.
            ConfigError: It is YAML, and PyYAML is not installed.
        """
        expect("Schema.from_text", TEXT, text=text)
        from asyncelt.schema.export import parse_schema

        return parse_schema(text)

    def to_dict(self, *, remove_defaults: bool = False, remove_processing_hints: bool = False) -> dict[str, JsonValue]:
        """The stored form; see `asyncelt.schema.export`."""
        from asyncelt.schema.export import schema_document

        return schema_document(self, remove_defaults=remove_defaults, remove_processing_hints=remove_processing_hints)

    def to_text(
        self, file_format: SchemaFormat, *, include_dlt_tables: bool = True, remove_processing_hints: bool = False
    ) -> str:
        """As ``json``, ``yaml``, ``dbml``, ``dot`` or ``mermaid``; see `asyncelt.schema.export`."""
        from asyncelt.schema.export import schema_text

        return schema_text(
            self,
            file_format,
            include_dlt_tables=include_dlt_tables,
            remove_processing_hints=remove_processing_hints,
        )

    def to_pretty_json(self) -> str:
        """The stored form as JSON."""
        return self.to_text("json")

    def to_pretty_yaml(self) -> str:
        """The stored form as YAML."""
        return self.to_text("yaml")

    def to_dbml(self) -> str:
        """A diagram in DBML."""
        return self.to_text("dbml")

    def to_dot(self) -> str:
        """A diagram for Graphviz."""
        return self.to_text("dot")

    def to_mermaid(self) -> str:
        """A diagram for Mermaid."""
        return self.to_text("mermaid")

    def root_of(self, table: TableName) -> Table:
        """The root table of the chain that ``table`` belongs to (itself when it has no parent)."""
        current = self.tables[table]

        while current.parent is not None:
            current = self.tables[current.parent]

        return current

    def disposition_of(self, table: TableName) -> WriteDisposition:
        """The effective write disposition: the root's, ``append`` where none was set."""
        return self.root_of(table).write_disposition or "append"

    def chain_of(self, root: TableName) -> Iterator[Table]:
        """``root`` and all its nested tables, parents before children, in definition order."""
        yield self.tables[root]

        for table in list(self.tables.values()):
            if table.parent == root:
                yield from self.chain_of(table.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableDelta:
    """What one page adds to one table. ``columns`` are new, or complete a column that had no type yet."""

    name: TableName
    columns: tuple[Column, ...] = ()
    parent: TableName | None = None
    resource: str | None = None
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaDelta:
    """What one page adds to a schema, in the order in which it has to be applied (parents first)."""

    tables: tuple[TableDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tables)
