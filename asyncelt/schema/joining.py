"""Whole schemas that meet: what a source brings and what is known, and a schema under another naming convention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from asyncelt.errors import TableIdentifiersFrozen
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import propagate_root_key
from asyncelt.schema.laying import laid_over
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.naming import Naming, naming_for
from asyncelt.schema.stored import plain, table_from_stored, table_to_stored
from asyncelt.schema.system import DLT_ID, DLT_ROOT_ID, STATE_TABLE, convention_of, is_system_name, new_schema
from asyncelt.types import ColumnName, JsonValue

__all__ = ["completed", "joined", "under_convention"]


def completed(schema: Schema, convention: str = "snake_case") -> Schema:
    """The schema with what every schema has: system tables, normalizers, default settings. Itself if it has them.

    Args:
        schema: As somebody made it, perhaps from a name alone.
        convention: Naming convention where the schema names none.
    """
    names = schema.normalizers.get("names")
    blank = new_schema(schema.name, naming=names if isinstance(names, str) else convention)
    hints = _union(schema.settings.get("default_hints"), blank.settings["default_hints"])
    tables = {name: table for name, table in blank.tables.items() if name not in schema.tables}
    whole = replace(
        schema,
        tables={**tables, **schema.tables},
        normalizers={**blank.normalizers, **{key: value for key, value in schema.normalizers.items() if value}},
        settings={**blank.settings, **schema.settings, "default_hints": hints},
    )

    return schema if whole == schema else whole


def joined(known: Schema, brought: Schema, capabilities: Capabilities | None = None) -> Schema:
    """A known schema after a source has brought one of the same name.

    Settings and normalizers of the brought one take the place of the known ones; its tables are laid over those that
    are there. Nothing that is known of tables is lost, and keys join those that are there. Where the two go by
    different naming conventions their names cannot be compared, and only the contract is taken over.

    Raises:
        SchemaConflict: A table is nested in another one than before.
    """
    naming = naming_for(convention_of(known))

    if naming_for(convention_of(brought)).name != naming.name:
        return replace(known, settings=_with_contract_of(known.settings, brought.settings))

    tables = dict(known.tables)

    for root in [table.name for table in brought.tables.values() if table.parent is None]:
        for table in brought.chain_of(root):
            before = tables.get(table.name)
            tables[table.name] = (
                table if before is None else laid_over(known.name, before, table_to_stored(table), adds_to_sets=True)
            )

    merged = replace(known, tables=tables, settings=brought.settings, normalizers=brought.normalizers)

    return _with_root_keys(merged, naming, capabilities)


def under_convention(schema: Schema, convention: str | None, capabilities: Capabilities | None = None) -> Schema:
    """The schema with its names under this convention; itself if that is its own, or None.

    Raises:
        TableIdentifiersFrozen: Tables have received data, so that their names stay as they are.
        ConfigError: There is no such convention.
    """
    own = convention_of(schema)

    if convention is None or convention == own:
        return schema

    naming = naming_for(convention)

    if naming.name == naming_for(own).name:
        return schema

    loaded = [table.name for table in schema.tables.values() if table.seen_data]

    if frozen := [name for name in loaded if not is_system_name(name) or naming.path(name) != name]:
        raise TableIdentifiersFrozen(
            f"Schema {schema.name!r} goes by the naming convention {own!r} and has tables with data "
            f"({', '.join(map(repr, frozen[:3]))}{', ...' if len(frozen) > 3 else ''}); {convention!r} would name "
            f"new columns in another way than those that are there. Go on with naming_convention={own!r}, load into a "
            "new dataset, or start anew with refresh='drop_sources'."
        )

    return _renamed(schema, naming, capabilities)


def _renamed(schema: Schema, naming: Naming, capabilities: Capabilities | None) -> Schema:
    """Everything under another convention. Nobody has rows under the old names."""
    blank = new_schema(schema.name, naming=naming)
    tables = [_renamed_table(one, naming) for one in schema.tables.values()]
    config = dict(_mapping(_mapping(schema.normalizers.get("json")).get("config")))
    # Is made again below, under the new names.
    config.pop("propagation", None)
    json_normalizer = {**_mapping(schema.normalizers.get("json")), **({"config": config} if config else {})}

    if not config:
        json_normalizer.pop("config", None)

    settings = dict(schema.settings)
    hints = {
        hint: [_renamed_pattern(one, naming) for one in cast("Sequence[str]", patterns)]
        for hint, patterns in _mapping(settings.get("default_hints")).items()
    }
    settings["default_hints"] = _union(hints, blank.settings["default_hints"])

    if preferred := _mapping(settings.get("preferred_types")):
        settings["preferred_types"] = {_renamed_pattern(one, naming): kind for one, kind in preferred.items()}

    renamed = replace(
        schema,
        tables={**blank.tables, **{table.name: table for table in tables}},
        settings=settings,
        normalizers={**schema.normalizers, "names": naming.name, "json": json_normalizer},
    )

    return _with_root_keys(renamed, naming, capabilities)


def _renamed_table(table: Table, naming: Naming) -> Table:
    stored = cast("dict[str, Any]", table_to_stored(table))
    columns = {naming.path(name): column for name, column in stored["columns"].items()}

    if table.name == STATE_TABLE and naming.path(DLT_ID) in columns:
        # The reference makes this table anew here, and only here describes its row id.
        columns[naming.path(DLT_ID)] |= {
            "description": "Unique identifier for this row, generated by dlt",
            "precision": 64,
        }

    name = naming.path(table.name)

    if table.parent is not None:
        stored["parent"] = naming.path(table.parent)

    for reference in stored.get("references", ()):
        reference["referenced_table"] = naming.path(reference["referenced_table"])

        for side in ("columns", "referenced_columns"):
            reference[side] = [naming.path(one) for one in reference[side]]

    return table_from_stored(name, {**stored, "name": name, "columns": columns})


def _renamed_pattern(pattern: str, naming: Naming) -> str:
    """A column name in settings; regular expressions stay as they are."""
    return pattern if pattern.startswith("re:") else naming.path(pattern)


def _with_root_keys(schema: Schema, naming: Naming, capabilities: Capabilities | None) -> Schema:
    row_id, root_id = ColumnName(naming.path(DLT_ID)), ColumnName(naming.path(DLT_ROOT_ID))

    for table in schema.tables.values():
        if table.parent is None:
            schema = propagate_root_key(schema, table.name, capabilities, row_id=row_id, root_id=root_id)

    return schema


def _with_contract_of(known: Mapping[str, JsonValue], brought: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    others = {name: value for name, value in known.items() if name != "schema_contract"}
    contract = brought.get("schema_contract")

    return {**others, "schema_contract": contract} if contract else others


def _union(said: JsonValue, default: JsonValue) -> JsonValue:
    """Default hints that were set, with those that every schema has."""
    found = {hint: list(cast("Sequence[str]", patterns)) for hint, patterns in _mapping(said).items()}

    for hint, patterns in _mapping(default).items():
        known = found.setdefault(hint, [])
        known += [one for one in cast("Iterable[str]", patterns) if one not in known]

    return plain(found)


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, Mapping) else {}
