"""Schemas as JSON, in the form that datasets keep in ``_dlt_version`` (engine 11), and their content hash.

Reading and writing again gives the same document, so hashes survive the round trip. Two things that a `Column` cannot
say by itself are kept in its ``extra`` under the property's own name:

* a default that was written out, such as ``"unique": false`` (it outranks what is later inferred);
* a ``nullable`` that was not written at all, as ``None`` (it is decided when the column gets its type).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, cast, get_args

import orjson

from asyncelt.errors import SchemaError
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.types import ColumnName, DataType, JsonValue, TableName, WriteDisposition

__all__ = [
    "ENGINE_VERSION",
    "canonical_json",
    "column_from_stored",
    "column_to_stored",
    "content_hash",
    "from_json",
    "from_stored",
    "plain",
    "table_from_stored",
    "table_to_stored",
    "to_json",
    "to_stored",
]

ENGINE_VERSION: Final = 11
DATA_TYPES: Final[tuple[str, ...]] = get_args(DataType)

COLUMN_FLAGS: Final = (
    "variant",
    "primary_key",
    "merge_key",
    "unique",
    "row_key",
    "parent_key",
    "root_key",
    "hard_delete",
)
COLUMN_VALUES: Final = ("data_type", "precision", "scale", "timezone", "dedup_sort")
_PROPERTIES: Final = (*COLUMN_VALUES, *COLUMN_FLAGS)
_WRITTEN: Final = frozenset({*_PROPERTIES, "nullable"})
_values_of: Final = attrgetter(*_PROPERTIES)
"""All at once: a wide schema has thousands of columns, and is written for every run that changes it."""
TABLE_FIELDS: Final = ("write_disposition", "resource", "parent")
UNHASHED: Final = frozenset({"version", "version_hash", "imported_version_hash", "previous_hashes"})


def to_stored(schema: Schema) -> dict[str, JsonValue]:
    """The stored document of a schema, with the version and hashes it has now (see `evolve.bump`)."""
    stored: dict[str, JsonValue] = {
        "version": schema.version,
        "version_hash": schema.version_hash,
        "engine_version": ENGINE_VERSION,
        "name": schema.name,
        "tables": {name: table_to_stored(table) for name, table in schema.tables.items()},
        "settings": plain(schema.settings),
        "normalizers": plain(schema.normalizers),
        "previous_hashes": list(schema.previous_hashes),
    }

    if schema.imported_version_hash:
        stored["imported_version_hash"] = schema.imported_version_hash

    if schema.description:
        stored["description"] = schema.description

    return stored


def from_stored(stored: Mapping[str, JsonValue]) -> Schema:
    """A schema from its stored document. Names come from the keys; root tables get their default properties.

    Raises:
        SchemaError: The document is of another engine version, or is not a stored schema.
    """
    engine = stored.get("engine_version")

    if engine != ENGINE_VERSION:
        raise SchemaError(
            f"Schema {stored.get('name')!r} is stored in engine version {engine}; only version {ENGINE_VERSION} can be "
            "read. Load it once with a version of its writer that migrates it."
        )

    try:
        return Schema(
            name=str(stored["name"]),
            tables={
                TableName(name): table_from_stored(name, table) for name, table in _mapping(stored["tables"]).items()
            },
            settings=_mapping(stored.get("settings") or {}),
            normalizers=_mapping(stored.get("normalizers") or {}),
            version=int(cast("int", stored.get("version") or 1)),
            version_hash=str(stored.get("version_hash") or ""),
            previous_hashes=tuple(cast("list[str]", stored.get("previous_hashes") or ())),
            imported_version_hash=cast("str | None", stored.get("imported_version_hash")),
            description=cast("str | None", stored.get("description")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SchemaError(f"Schema {stored.get('name')!r} cannot be read from its stored form: {error!r}") from error


def to_json(schema: Schema) -> str:
    """The stored document as compact JSON, as rows of ``_dlt_version`` hold it."""
    return schema.stored_json.decode()


def from_json(text: str | bytes) -> Schema:
    """A schema from the JSON of a ``_dlt_version`` row.

    Raises:
        SchemaError: This is not the JSON of a stored schema, or of another engine version.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SchemaError(f"A stored schema is not valid JSON: {error}") from error

    if not isinstance(document, dict):
        raise SchemaError(f"A stored schema is a JSON object, not {type(document).__name__}.")

    return from_stored(document)


def content_hash(schema: Schema) -> str:
    """Hash of everything but versions and hashes. The order of columns counts, the order of tables does not."""
    stored = {key: value for key, value in to_stored(schema).items() if key not in UNHASHED}
    digest = hashlib.sha3_256(canonical_json(stored))

    for name in sorted(schema.tables):
        digest.update(name.encode())

        for column in schema.tables[name].columns:
            digest.update(column.encode())

    return base64.b64encode(digest.digest()).decode("ascii")


def canonical_json(document: object) -> bytes:
    """Compact JSON with sorted keys: what hashes are computed from."""
    return orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)


def plain(value: object) -> JsonValue:
    """The same value made of dicts and lists only."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}

    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]

    return cast("JsonValue", value)


def table_to_stored(table: Table) -> dict[str, JsonValue]:
    """One table of the stored document."""
    stored: dict[str, JsonValue] = {
        "name": table.name,
        "columns": {name: column_to_stored(column) for name, column in table.columns.items()},
    }

    for prop in TABLE_FIELDS:
        if (value := getattr(table, prop)) is not None:
            stored[prop] = value

    for hint, value in table.hints.items():
        stored.setdefault(hint, plain(value))

    return stored


def table_from_stored(name: str, stored: object) -> Table:
    """One table from the stored document. A root table always gets a resource and a write disposition."""
    properties = _mapping(stored)
    given = {prop: properties[prop] for prop in TABLE_FIELDS if properties.get(prop) is not None}
    hints = {key: value for key, value in properties.items() if key not in {"name", "columns", *given}}

    if "parent" not in given:
        given = {"write_disposition": "append", "resource": name, **given}

    return Table(
        name=TableName(name),
        columns={
            ColumnName(key): column_from_stored(key, value, table=name)
            for key, value in _mapping(properties.get("columns") or {}).items()
        },
        parent=cast("TableName | None", given.get("parent")),
        resource=cast("str | None", given.get("resource")),
        write_disposition=cast("WriteDisposition | None", given.get("write_disposition")),
        hints={key: value for key, value in hints.items() if key not in given},
    )


def column_to_stored(column: Column) -> dict[str, JsonValue]:
    """One column of the stored document."""
    extra = column.extra
    stored: dict[str, JsonValue] = {"name": column.name}

    if not column.nullable:
        stored["nullable"] = False
    elif extra.get("nullable", True) is not None:
        stored["nullable"] = True

    for prop, value in zip(_PROPERTIES, _values_of(column), strict=True):
        if value is not None and (value is not False or prop == "timezone"):
            stored[prop] = value
        elif prop in extra:
            stored[prop] = extra[prop]

    stored.update((key, plain(value)) for key, value in extra.items() if key not in _WRITTEN)

    return stored


def column_from_stored(name: str, stored: object, *, table: str | None = None) -> Column:
    """One column from the stored document; ``table`` is for the message only.

    Raises:
        SchemaError: The data type is not one there is.
    """
    properties = dict(_mapping(stored))
    properties.pop("name", None)
    data_type = properties.get("data_type")

    if data_type is not None and data_type not in DATA_TYPES:
        where = f"Table {table!r}, column {name!r}" if table else f"Column {name!r}"
        raise SchemaError(f"{where} has the unknown data type {data_type!r}; there are {', '.join(DATA_TYPES)}.")

    fields: dict[str, Any] = {}
    extra: dict[str, JsonValue] = {}

    if (nullable := properties.pop("nullable", None)) is None:
        extra["nullable"] = None
    else:
        fields["nullable"] = bool(nullable)

    for prop, value in properties.items():
        if prop in COLUMN_FLAGS and value is True:
            fields[prop] = True
        elif prop in COLUMN_VALUES and value is not None:
            fields[prop] = value
        else:
            extra[prop] = value

    return Column(name=ColumnName(name), extra=extra, **fields)


def _mapping(value: object) -> Mapping[str, JsonValue]:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, found {type(value).__name__}")

    return cast("Mapping[str, JsonValue]", value)
