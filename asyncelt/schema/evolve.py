"""How a schema moves forward: new tables and columns, marks, versions.

Schemas are values. Every function returns a new one that shares all tables that did not change, so that a schema may
be used by any number of threads while the next one is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from asyncelt.errors import SchemaConflict, SchemaError
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column, Schema, SchemaDelta, Table, TableDelta
from asyncelt.schema.stored import COLUMN_FLAGS, COLUMN_VALUES, plain
from asyncelt.schema.system import DLT_ID, DLT_ROOT_ID, is_system_name
from asyncelt.types import ColumnName, JsonValue, MergeStrategy, TableName

__all__ = [
    "apply_delta",
    "bump",
    "complete",
    "drop_tables",
    "mark_seen_data",
    "merge_strategy_of",
    "propagate_root_key",
    "requires_root_key",
]

KEPT_HASHES: Final = 10
NORMALIZER_HINT: Final = "x-normalizer"
EVOLVE_ONCE: Final = "evolve-columns-once"
SEEN_DATA: Final = "seen-data"
ROOT_KEY_STRATEGIES: Final = frozenset({"delete-insert", "upsert", "insert-only", "cdc"})


def apply_delta(schema: Schema, delta: SchemaDelta) -> Schema:
    """Add the tables and columns of a delta.

    New columns go to the end of their table, in the delta's order. A column that was only declared gets its type and
    moves to the end too, which is where it stands at the destination; what its declaration says outranks the delta.
    A column that has the same type already stays as it is.

    Raises:
        SchemaConflict: A column has another type already, or a table another parent.
        SchemaError: The parent of a new table is not known.
    """
    if not delta.tables:
        return schema

    tables = dict(schema.tables)

    for change in delta.tables:
        known = tables.get(change.name) or _new_table(schema.name, tables, change)

        if known.parent != change.parent and change.parent is not None:
            raise SchemaConflict(
                f"Schema {schema.name!r}: table {change.name!r} is nested in {known.parent!r}, "
                f"not in {change.parent!r}."
            )

        tables[change.name] = _with_columns(schema.name, known, change.columns)

    return replace(schema, tables=tables)


def complete(declared: Column, inferred: Column) -> Column:
    """The column that a declaration without a type becomes when the first value decides its type."""
    explicit = {key: value for key, value in declared.extra.items() if key not in {"nullable", "data_type"}}
    nullable_given = declared.extra.get("nullable", True) is not None
    fields: dict[str, Any] = {}

    for prop in (*COLUMN_VALUES, *COLUMN_FLAGS):
        own, other = getattr(declared, prop), getattr(inferred, prop)
        is_set = own is not None and (own is not False or prop == "timezone")
        fields[prop] = own if is_set or prop in explicit else other

    return replace(
        inferred,
        **fields,
        nullable=declared.nullable if nullable_given else inferred.nullable,
        extra={**inferred.extra, **explicit},
    )


def mark_seen_data(schema: Schema, tables: Iterable[TableName]) -> Schema:
    """Mark tables as having received rows, which ends their first, contract-free load. Unknown names are left out."""
    changed: dict[TableName, Table] = {}

    for name in tables:
        table = schema.tables.get(name)

        if table is None:
            continue

        before = table.hints.get(NORMALIZER_HINT)
        known = dict(before) if isinstance(before, Mapping) else {}
        after = {SEEN_DATA: True, **{key: value for key, value in known.items() if key != EVOLVE_ONCE}}

        if after != known:
            changed[name] = replace(table, hints={**table.hints, NORMALIZER_HINT: after})

    return replace(schema, tables={**schema.tables, **changed}) if changed else schema


def drop_tables(schema: Schema, names: Iterable[TableName]) -> Schema:
    """Remove tables with everything nested in them, and what the normalizer's settings say about them."""
    roots = [name for name in names if name in schema.tables]
    gone = {table.name for root in roots for table in schema.chain_of(root)}

    if not gone:
        return schema

    normalizers = cast("dict[str, Any]", plain(schema.normalizers))
    propagated = normalizers.get("json", {}).get("config", {}).get("propagation", {}).get("tables", {})

    for name in gone:
        propagated.pop(name, None)

    kept = {name: table for name, table in schema.tables.items() if name not in gone}

    return replace(schema, tables=kept, normalizers=normalizers)


def bump(schema: Schema) -> Schema:
    """Bring version and hash up to date with the content.

    The first hash is set without a new version; later a changed content raises the version by one and the old hash
    is remembered, newest first, ten at most. The same schema comes back when nothing has changed.
    """
    now = schema.content_hash

    if now == schema.version_hash:
        return schema

    if not schema.version_hash:
        return replace(schema, version_hash=now)

    previous = schema.previous_hashes

    if schema.version_hash not in previous:
        previous = (schema.version_hash, *previous)[:KEPT_HASHES]

    return replace(schema, version=schema.version + 1, version_hash=now, previous_hashes=previous)


def merge_strategy_of(
    schema: Schema, table: TableName, capabilities: Capabilities | None = None
) -> MergeStrategy | None:
    """The merge strategy in force for a table: its root's hint, else the destination's default.

    None where the table does not merge or the destination cannot. Without capabilities: ``delete-insert``.
    """
    root = schema.root_of(table)

    if root.write_disposition != "merge":
        return None

    hint = cast("MergeStrategy | None", root.hints.get("x-merge-strategy"))

    if capabilities is None:
        return hint or "delete-insert"

    supported = capabilities.strategies_for(root.hints.get("table_format"))

    return (hint or supported[0]) if supported else None


def requires_root_key(schema: Schema, root: TableName, capabilities: Capabilities | None = None) -> bool:
    """Whether rows nested below a root table carry its row id.

    They do where the strategy needs it to find a root's rows again, unless the schema forbids or forces it, and always
    once a nested table has the column.
    """
    config = _json_config(schema.normalizers)
    forced = config.get("root_key_propagation")
    needed = merge_strategy_of(schema, root, capabilities) in ROOT_KEY_STRATEGIES if forced is None else bool(forced)

    if needed and not is_system_name(root):
        return True

    return any(column.root_key for table in schema.chain_of(root) for column in table.columns.values())


def propagate_root_key(
    schema: Schema,
    root: TableName,
    capabilities: Capabilities | None = None,
    *,
    row_id: ColumnName = DLT_ID,
    root_id: ColumnName = DLT_ROOT_ID,
) -> Schema:
    """Write into the normalizer's settings that a root's row id goes to its nested tables, where it must.

    The reference reads it there. Once written it stays.
    """
    if not requires_root_key(schema, root, capabilities):
        return schema

    key = next((c.name for c in schema.tables[root].columns.values() if c.row_key), row_id)
    normalizers = cast("dict[str, Any]", plain(schema.normalizers))
    config = normalizers.setdefault("json", {}).setdefault("config", {})
    propagated = config.setdefault("propagation", {}).setdefault("tables", {})

    if propagated.get(root, {}).get(key) == root_id:
        return schema

    propagated[root] = {**propagated.get(root, {}), key: root_id}

    return replace(schema, normalizers=normalizers)


def _json_config(normalizers: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    json_normalizer = normalizers.get("json")
    config = json_normalizer.get("config") if isinstance(json_normalizer, Mapping) else None

    return config if isinstance(config, Mapping) else {}


def _new_table(schema_name: str, tables: Mapping[TableName, Table], change: TableDelta) -> Table:
    if change.parent is None:
        return Table(name=change.name, resource=change.resource or change.name, write_disposition="append")

    if change.parent not in tables:
        raise SchemaError(
            f"Schema {schema_name!r}: table {change.name!r} is nested in {change.parent!r}, which does not exist; "
            "a delta has to name parents before their children."
        )

    return Table(name=change.name, parent=change.parent)


def _with_columns(schema_name: str, table: Table, additions: tuple[Column, ...]) -> Table:
    columns = dict(table.columns)

    for column in additions:
        known = columns.get(column.name)

        if known is None:
            columns[column.name] = column
        elif column.data_type is None or known.data_type == column.data_type:
            continue
        elif known.data_type is None:
            del columns[column.name]
            columns[column.name] = complete(known, column)
        else:
            raise SchemaConflict(
                f"Schema {schema_name!r}, table {table.name!r}: column {column.name!r} has the type {known.data_type} "
                f"and cannot become {column.data_type}."
            )

    return replace(table, columns=columns)
