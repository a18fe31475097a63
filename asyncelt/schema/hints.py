"""What a resource says about its tables, checked, and laid over a schema.

Rules of laying over, which are the reference's: new properties win; ``primary_key``, ``merge_key``, ``partition``,
``cluster`` and ``incremental`` replace the whole earlier set; columns are never removed; a key column that says
nothing about nulls does not take them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from typing import Any, TypeAlias, cast

from asyncelt.arguments import MAPPING, NESTING, SEQUENCE, expect, expect_if_given
from asyncelt.errors import ConfigError
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.columns import ColumnHints, Properties, declared_columns, is_pydantic_model, pydantic_contract
from asyncelt.schema.evolve import propagate_root_key
from asyncelt.schema.hint_checks import (
    FILE_FORMATS,
    MERGE_HINTS,
    TABLE_FORMATS,
    check_contract,
    check_disposition,
    check_reference,
    key_names,
    one_of,
)
from asyncelt.schema.laying import laid_over
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.naming import Naming
from asyncelt.schema.stored import table_from_stored
from asyncelt.schema.system import DLT_ID, DLT_ROOT_ID, VALID_FROM, VALID_TO
from asyncelt.types import ColumnName, JsonValue, TableName

__all__ = ["NestedPath", "TableHints", "merge_table_hints", "validate_hints"]

NestedPath: TypeAlias = "str | tuple[str, ...]"
"""Where a nested table is, from the root: ``"items"`` or ``("items", "tags")``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHints:
    """Everything a resource may say about one table, as the user wrote it. Names are raw."""

    name: str
    """Table name; ignored for nested hints, whose path names them."""
    resource: str | None = None
    parent: str | None = None
    """A table this one is nested in, where that is not what its path says."""
    write_disposition: str | Mapping[str, object] | None = None
    """None means ``append``, for a nested table what its root has. A mapping has a ``disposition`` and options."""
    columns: ColumnHints | None = None
    primary_key: str | Sequence[str] | None = None
    """None leaves what the columns say; empty removes it."""
    merge_key: str | Sequence[str] | None = None
    schema_contract: str | Mapping[str, JsonValue] | None = None
    table_format: str | None = None
    file_format: str | None = None
    references: Sequence[Mapping[str, JsonValue]] | None = None
    nested_hints: Mapping[NestedPath, TableHints | Mapping[str, object]] | None = None
    max_table_nesting: int | None = None
    incremental: str | None = None
    """Column of the cursor, where its path is one column."""
    additional: Mapping[str, JsonValue] = field(default_factory=dict)
    """Further properties of the stored table: description, filters, x-..."""


def merge_table_hints(
    schema: Schema, hints: TableHints, naming: Naming, capabilities: Capabilities | None = None
) -> Schema:
    """Add the tables that hints describe, or lay the hints over the tables that are there.

    Whether a table has seen data is kept. A new table under a contract that freezes columns may still take columns
    from its first load. Equal hints twice give the same schema as once, which comes back as it is.

    Args:
        schema: To start from.
        hints: Of the root table, with its nested ones.
        naming: Convention of the schema.
        capabilities: Decide the default merge strategy, which decides whether ``_dlt_root_id`` is needed.

    Raises:
        ConfigError: The hints are wrong, or a nested table has a parent that nobody declared.
        SchemaConflict: A table would move to another parent.
    """
    validate_hints(hints)
    tables = dict(schema.tables)
    named: list[TableName] = []

    for stored in _all_tables(hints, naming):
        name = cast("TableName", stored["name"])
        named.append(name)
        known = tables.get(name)
        parent = stored.get("parent")

        if parent is not None and parent not in tables:
            raise ConfigError(
                f"Nested table {name!r} belongs to {parent!r}, which no hint declares; "
                "declare hints (they may be empty) for every table between it and the root."
            )

        if known is None or not any(column.data_type for column in known.columns.values()):
            stored = _evolving_once(schema, tables, stored)  # noqa: PLW2901

        tables[name] = table_from_stored(name, stored) if known is None else laid_over(schema.name, known, stored)

    # The same object where nothing has changed: what is known of it need not be found out again.
    merged = replace(schema, tables=tables) if _are_news(tables, schema.tables) else schema

    # A nested table with keys of its own is the root of what is nested in it.
    for root in dict.fromkeys(merged.root_of(name).name for name in named):
        merged = propagate_root_key(
            merged,
            root,
            capabilities,
            row_id=ColumnName(naming.path(DLT_ID)),
            root_id=ColumnName(naming.path(DLT_ROOT_ID)),
        )

    return merged


def _are_news(tables: Mapping[TableName, Table], known: Mapping[TableName, Table]) -> bool:
    """Whether some table is another one, or has its columns in another order."""
    for name, table in tables.items():
        before = known.get(name)

        if before is None or before != table or [*before.columns] != [*table.columns]:
            return True

    return False


def validate_hints(hints: TableHints) -> None:
    """Check hints without a schema; what passes cannot fail in `merge_table_hints` for a wrong value.

    Raises:
        ConfigError: Says which table, what is wrong and what is allowed.
    """
    where = f"Table {hints.name!r}"

    if not hints.name.strip():
        raise ConfigError("A table needs a name that is not blank.")

    declared_columns(hints.columns, where)
    check_disposition(hints.write_disposition, where)
    check_contract(hints.schema_contract, where)
    key_names(hints.primary_key, f"{where}, primary_key")
    key_names(hints.merge_key, f"{where}, merge_key")
    one_of(hints.table_format, TABLE_FORMATS, f"{where}, table_format")
    one_of(hints.file_format, FILE_FORMATS, f"{where}, file_format")

    expect_if_given(where, NESTING, max_table_nesting=hints.max_table_nesting)
    expect_if_given(where, SEQUENCE, references=hints.references)
    expect_if_given(where, MAPPING, nested_hints=hints.nested_hints)

    for reference in hints.references or ():
        check_reference(reference, where)

    for path, nested in (hints.nested_hints or {}).items():
        validate_hints(_nested(path, nested, hints))


def _all_tables(hints: TableHints, naming: Naming) -> list[dict[str, Any]]:
    """Stored forms with final names: the root first, then nested tables, shorter paths first."""
    root = _stored_form(hints, naming)
    root["name"] = naming.path(hints.name)

    if hints.parent:
        root["parent"] = naming.path(hints.parent)
    else:
        root["resource"] = hints.resource or hints.name
        root.setdefault("write_disposition", "append")

    found = [root]
    nested_items = sorted((hints.nested_hints or {}).items(), key=lambda item: len(_parts(item[0])))

    for path, raw in nested_items:
        nested = _nested(path, raw, hints)
        parts = [naming.path(part) for part in (hints.name, *_parts(path))]
        stored = _stored_form(nested, naming)
        stored["name"] = naming.join(*parts)
        has_keys = any(
            column.get("primary_key") or column.get("merge_key")
            for column in cast("dict[str, Properties]", stored["columns"]).values()
        )

        if nested.parent:
            stored["parent"] = naming.path(nested.parent)
        elif has_keys:
            # A nested table with keys of its own is a root table to the loader.
            stored["resource"] = hints.resource or hints.name
        else:
            stored["parent"] = naming.join(*parts[:-1])

        found.append(stored)

    return found


def _parts(path: NestedPath) -> tuple[str, ...]:
    return (path,) if isinstance(path, str) else tuple(path)


def _nested(path: NestedPath, raw: TableHints | Mapping[str, object], root: TableHints) -> TableHints:
    name = "__".join((root.name, *_parts(path)))

    if isinstance(raw, TableHints):
        return replace(raw, name=name)

    expect(f"Table {root.name!r}, nested_hints", MAPPING, **{str(path): raw})
    renamed = {"parent" if key == "parent_table_name" else key: value for key, value in raw.items()}
    allowed = {item.name for item in fields(TableHints)} - {"nested_hints", "name"}

    if unknown := set(renamed) - allowed - {"original_columns"}:
        raise ConfigError(
            f"Nested hints {path!r} of table {root.name!r}: unknown {', '.join(sorted(unknown))}; "
            f"there are {', '.join(sorted(allowed))}."
        )

    return TableHints(name=name, **cast("dict[str, Any]", {k: v for k, v in renamed.items() if k in allowed}))


def _stored_form(hints: TableHints, naming: Naming) -> dict[str, Any]:
    """Properties of the stored table without name, parent and resource."""
    columns = declared_columns(hints.columns, f"Table {hints.name!r}")
    stored: dict[str, Any] = {}

    for prop in ("primary_key", "merge_key"):
        if (keys := getattr(hints, prop)) is not None:
            _mark_keys(columns, prop, key_names(keys, prop))

    _apply_disposition(stored, columns, hints)

    if hints.incremental:
        columns.setdefault(hints.incremental, {"name": hints.incremental})["incremental"] = True

    contract = hints.schema_contract or (pydantic_contract(hints.columns) if is_pydantic_model(hints.columns) else None)
    options = (
        ("schema_contract", contract),
        ("table_format", hints.table_format),
        ("file_format", hints.file_format),
        ("references", [_final_reference(item, naming) for item in hints.references or ()]),
    )
    stored.update((key, value) for key, value in options if value)

    if hints.max_table_nesting is not None:
        stored["x-normalizer"] = {"max_nesting": hints.max_table_nesting}

    return {**stored, **hints.additional, "columns": _final_columns(columns, naming)}


def _mark_keys(columns: dict[str, Properties], prop: str, keys: tuple[str, ...]) -> None:
    for column in columns.values():
        column.pop(prop, None)

    for key in keys:
        column = columns.setdefault(key, {"name": key})
        column.setdefault("nullable", False)
        column[prop] = True


def _apply_disposition(stored: dict[str, Any], columns: dict[str, Properties], hints: TableHints) -> None:
    given = hints.write_disposition

    if given is None:
        return

    if isinstance(given, str):
        stored["write_disposition"] = given
        return

    options = cast("Mapping[str, Any]", given)
    stored["write_disposition"] = options["disposition"]

    if options["disposition"] == "replace" and options.get("strategy"):
        stored["x-replace-strategy"] = options["strategy"]

    if options["disposition"] != "merge":
        return

    stored.update((hint, options[key]) for key, hint in MERGE_HINTS.items() if options.get(key))

    if options.get("strategy") == "scd2":
        _apply_scd2(stored, columns, options)
    elif (version := options.get("row_version_column_name")) and options.get("skip_unchanged_rows"):
        columns[version] = {**columns.get(version, {}), "name": version, "nullable": False, "x-row-version": True}


def _apply_scd2(stored: dict[str, Any], columns: dict[str, Properties], options: Mapping[str, Any]) -> None:
    if "boundary_timestamp" in options:
        stored["x-boundary-timestamp"] = _timestamp_text(options["boundary_timestamp"])

    valid_from, valid_to = options.get("validity_column_names") or (VALID_FROM, VALID_TO)
    version = options.get("row_version_column_name", DLT_ID)
    # Open rows of the staging data have no validity yet, so both columns take nulls.
    columns[valid_from] = {"name": valid_from, "data_type": "timestamp", "nullable": True, "x-valid-from": True}
    columns[valid_to] = {
        "name": valid_to,
        "data_type": "timestamp",
        "nullable": True,
        "x-valid-to": True,
        "x-active-record-timestamp": _timestamp_text(options.get("active_record_timestamp")),
    }
    # A record that is deleted and comes back has the same hash twice, so the column is no unique key.
    columns[version] = {
        "name": version,
        "nullable": False,
        "x-row-version": True,
        "unique": False,
        "row_key": False,
    }


def _timestamp_text(value: object) -> JsonValue:
    return value.isoformat() if isinstance(value, date) else cast("JsonValue", value)


def _final_columns(columns: Mapping[str, Properties], naming: Naming) -> dict[str, Properties]:
    """Columns under their final names. Two names that become one are merged, the later properties winning."""
    final: dict[str, Properties] = {}

    for raw, column in columns.items():
        name = naming.path(raw)
        known = final.get(name)
        added = (
            column if known is None else {key: value for key, value in column.items() if not _is_default(key, value)}
        )
        final[name] = {**(known or {}), **added, "name": name}

    return final


def _is_default(prop: str, value: JsonValue) -> bool:
    return value is None or value is (prop in {"nullable", "timezone"})


def _final_reference(reference: Mapping[str, JsonValue], naming: Naming) -> dict[str, JsonValue]:
    names = {
        key: [naming.path(item) for item in cast("Sequence[str]", reference[key])]
        for key in ("columns", "referenced_columns")
    }

    return {**reference, **names, "referenced_table": naming.path(reference["referenced_table"])}


def _evolving_once(schema: Schema, tables: Mapping[TableName, Table], stored: dict[str, Any]) -> dict[str, Any]:
    """Mark a table that has no columns yet, so that a contract lets its first load create them."""
    contract: Any = stored.get("schema_contract")
    parent = cast("TableName | None", stored.get("parent"))

    while contract is None and parent is not None:
        contract = tables[parent].hints.get("schema_contract")
        parent = tables[parent].parent

    contract = contract if contract is not None else schema.settings.get("schema_contract")
    mode = contract.get("columns", "evolve") if isinstance(contract, Mapping) else contract

    if mode in {None, "evolve"}:
        return stored

    return {**stored, "x-normalizer": {**stored.get("x-normalizer", {}), "evolve-columns-once": True}}
