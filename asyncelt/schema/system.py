"""The columns and tables that asyncelt adds by itself, under the reference's names and with its properties.

Column order is physical order and is fixed: datasets written by the reference have the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from asyncelt.errors import ConfigError
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.naming import Naming, NamingReference, naming_for
from asyncelt.types import ColumnName, DataType, JsonValue, TableName, WriteDisposition

__all__ = [
    "DLT_ID",
    "DLT_LIST_IDX",
    "DLT_LOAD_ID",
    "DLT_PARENT_ID",
    "DLT_PREFIX",
    "DLT_ROOT_ID",
    "LOADS_TABLE",
    "STATE_TABLE",
    "VALID_FROM",
    "VALID_TO",
    "VALUE_COLUMN",
    "VERSION_TABLE",
    "convention_of",
    "is_system_name",
    "is_system_table",
    "list_idx_column",
    "load_id_column",
    "loads_table",
    "new_schema",
    "parent_id_column",
    "pipeline_state_table",
    "root_id_column",
    "row_id_column",
    "version_table",
]

DLT_PREFIX: Final = "_dlt"
"""Names that begin with it belong to the engine: contracts do not apply, users should not use them."""
VERSION_TABLE: Final = TableName("_dlt_version")
LOADS_TABLE: Final = TableName("_dlt_loads")
STATE_TABLE: Final = TableName("_dlt_pipeline_state")

DLT_ID: Final = ColumnName("_dlt_id")
DLT_LOAD_ID: Final = ColumnName("_dlt_load_id")
DLT_PARENT_ID: Final = ColumnName("_dlt_parent_id")
DLT_LIST_IDX: Final = ColumnName("_dlt_list_idx")
DLT_ROOT_ID: Final = ColumnName("_dlt_root_id")
VALUE_COLUMN: Final = ColumnName("value")
"""Column of a child table that holds the elements of a list of scalars."""
VALID_FROM: Final = ColumnName("_dlt_valid_from")
VALID_TO: Final = ColumnName("_dlt_valid_to")

MAX_SCHEMA_NAME: Final = 64
JSON_NORMALIZER: Final = "dlt.common.normalizers.json.relational"
"""Only a name, which the reference looks up when it reads the stored schema."""


def is_system_name(name: str) -> bool:
    """Whether a table or column belongs to the engine."""
    return name.startswith(DLT_PREFIX)


def is_system_table(name: str) -> bool:
    """Whether a table of this name holds records of ours, so that no data may be loaded into it."""
    lowered = name.lower()

    return lowered in (LOADS_TABLE, VERSION_TABLE, STATE_TABLE) or lowered.startswith("_asyncelt_")


def row_id_column(naming: Naming | None = None) -> Column:
    """``_dlt_id``: the key of a row."""
    return Column(name=_name(DLT_ID, naming), data_type="text", nullable=False, unique=True, row_key=True)


def load_id_column(naming: Naming | None = None) -> Column:
    """``_dlt_load_id`` of a user's root table; in the state table it also has a precision."""
    return Column(name=_name(DLT_LOAD_ID, naming), data_type="text", nullable=False)


def parent_id_column(naming: Naming | None = None) -> Column:
    """``_dlt_parent_id``: the row of the parent table that this row was nested in."""
    return Column(name=_name(DLT_PARENT_ID, naming), data_type="text", nullable=False, parent_key=True)


def list_idx_column(naming: Naming | None = None) -> Column:
    """``_dlt_list_idx``: the position in the list, from 0."""
    return Column(name=_name(DLT_LIST_IDX, naming), data_type="bigint", nullable=False)


def root_id_column(naming: Naming | None = None) -> Column:
    """``_dlt_root_id``: the row of the root table; only where tables merge."""
    return Column(name=_name(DLT_ROOT_ID, naming), data_type="text", nullable=False, root_key=True)


def version_table(naming: Naming | None = None) -> Table:
    """``_dlt_version``: every schema that was ever applied to the dataset."""
    return _table(
        VERSION_TABLE,
        "Created by DLT. Tracks schema updates",
        (
            _column("version", "bigint", "Numeric version of the schema, incremented on each schema change"),
            _column("engine_version", "bigint", "Version of the dlt schema engine that created this schema"),
            _column("inserted_at", "timestamp", "Timestamp when this schema version was stored"),
            _column("schema_name", "text", "Name of the schema"),
            _column("version_hash", "text", "Unique hash of the schema content, used to detect changes"),
            _column("schema", "text", "JSON representation of the complete schema definition"),
        ),
        naming,
    )


def loads_table(naming: Naming | None = None) -> Table:
    """``_dlt_loads``: one row per committed load package; rows of other load ids do not count."""
    return _table(
        LOADS_TABLE,
        "Created by DLT. Tracks completed loads",
        (
            _column("load_id", "text", "Unique identifier of the load operation", precision=64),
            _column("schema_name", "text", "Name of the schema associated with this load", nullable=True),
            _column("status", "bigint", "Status of the load operation (0 = success)"),
            _column("inserted_at", "timestamp", "Timestamp when the load was completed"),
            _column("schema_version_hash", "text", "Hash of the schema version used during this load", nullable=True),
        ),
        naming,
    )


def pipeline_state_table(naming: Naming | None = None) -> Table:
    """``_dlt_pipeline_state``: every state that was committed. Part of a schema once a state was loaded with it."""
    return _table(
        STATE_TABLE,
        "Created by DLT. Tracks pipeline state",
        (
            _column("version", "bigint", "Numeric version of the pipeline state"),
            _column("engine_version", "bigint", "Version of the dlt state engine"),
            _column("pipeline_name", "text", "Name of the pipeline this state belongs to"),
            _column("state", "text", "Compressed JSON representation of the pipeline state"),
            _column("created_at", "timestamp", "Timestamp when this state was created"),
            _column("version_hash", "text", "Hash of the state content, used to detect changes", nullable=True),
            _column(DLT_LOAD_ID, "text", "Load identifier linking this row to its load operation", precision=64),
            row_id_column(),
        ),
        naming,
        write_disposition="append",
        described=False,
    )


def convention_of(schema: Schema) -> str:
    """Name of the schema's naming convention."""
    name = schema.normalizers.get("names")

    return name if isinstance(name, str) else "snake_case"


def new_schema(
    name: str,
    naming: NamingReference = "snake_case",
    *,
    max_table_nesting: int | None = None,
    root_key: bool | None = None,
    schema_contract: JsonValue = None,
) -> Schema:
    """An empty schema: the two tables that every schema has, and the default settings.

    Args:
        name: A valid Python identifier of at most 64 characters.
        naming: The naming convention, by name or otherwise; its name is stored.
        max_table_nesting: Levels of nesting that become columns and tables; None: all.
        root_key: Force (True) or forbid (False) ``_dlt_root_id`` in nested tables; None: where tables merge.
        schema_contract: Contract of the whole schema, a mode or a mapping from entity to mode.

    Raises:
        ConfigError: The name cannot be that of a schema, or there is no such naming convention.
    """
    if not name.isidentifier() or len(name) > MAX_SCHEMA_NAME:
        raise ConfigError(
            f"{name!r} cannot be the name of a schema: letters, digits and underscores, not beginning with a digit, "
            f"at most {MAX_SCHEMA_NAME} characters."
        )

    convention = naming_for(naming)
    json_normalizer: dict[str, JsonValue] = {"module": JSON_NORMALIZER}
    options: tuple[tuple[str, JsonValue], ...] = (
        ("max_nesting", max_table_nesting),
        ("root_key_propagation", root_key),
    )
    config: dict[str, JsonValue] = {key: value for key, value in options if value is not None}

    if config:
        json_normalizer["config"] = config

    settings: dict[str, JsonValue] = {"detections": ["iso_timestamp"], "default_hints": _default_hints(convention)}

    if schema_contract:
        settings["schema_contract"] = schema_contract

    tables = (version_table(convention), loads_table(convention))

    return Schema(
        name=name,
        tables={table.name: table for table in tables},
        settings=settings,
        normalizers={"names": convention.name, "json": json_normalizer},
    )


def _default_hints(naming: Naming) -> dict[str, JsonValue]:
    names: dict[str, JsonValue] = {
        name: naming.identifier(name) for name in (DLT_ID, DLT_ROOT_ID, DLT_PARENT_ID, DLT_LIST_IDX, DLT_LOAD_ID)
    }

    return {
        "not_null": list(names.values()),
        "parent_key": [names[DLT_PARENT_ID]],
        "root_key": [names[DLT_ROOT_ID]],
        "unique": [names[DLT_ID]],
        "row_key": [names[DLT_ID]],
    }


def _column(
    name: str, data_type: DataType, description: str, *, nullable: bool = False, precision: int | None = None
) -> Column:
    return Column(
        name=ColumnName(name),
        data_type=data_type,
        nullable=nullable,
        precision=precision,
        extra={"description": description},
    )


def _table(
    name: TableName,
    description: str,
    columns: tuple[Column, ...],
    naming: Naming | None,
    *,
    write_disposition: WriteDisposition = "skip",
    described: bool = True,
) -> Table:
    final = [column if naming is None else _renamed(column, naming) for column in columns]
    final_name = name if naming is None else TableName(naming.path(name))

    return Table(
        name=final_name,
        columns={column.name: column for column in final},
        # The reference lets the state table through its own hints, which drop the description and add this format.
        resource=name,
        write_disposition=write_disposition,
        hints={"description": description} if described else {"file_format": "preferred"},
    )


def _renamed(column: Column, naming: Naming) -> Column:
    return replace(column, name=_name(column.name, naming))


def _name(name: str, naming: Naming | None) -> ColumnName:
    return ColumnName(name if naming is None else naming.path(name))
