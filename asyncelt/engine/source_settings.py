"""What a source says about its schema: how deep tables nest, whether they carry root keys, what may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from asyncelt.extract.source import Source
from asyncelt.schema.model import Schema
from asyncelt.types import JsonValue

__all__ = ["SchemaSettings", "settings_of_schema", "settings_of_source", "with_settings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaSettings:
    """All that a source can say; what it does not say, the schema no longer says either."""

    max_nesting: int | None = None
    root_key: bool | None = None
    schema_contract: JsonValue = None


def settings_of_source(source: Source) -> SchemaSettings | None:
    """What was said when the source was defined, or set on it since; None where the schema's own settings stay."""
    given = source.given_schema
    brought = SchemaSettings() if given is None else settings_of_schema(given)

    if source.is_gathered and given is None:
        return None

    return SchemaSettings(
        max_nesting=brought.max_nesting if source.max_table_nesting is None else source.max_table_nesting,
        root_key=brought.root_key if source.root_key is None else source.root_key,
        schema_contract=source.schema_contract or brought.schema_contract,
    )


def settings_of_schema(schema: Schema) -> SchemaSettings:
    """What an earlier call has written into the schema."""
    config = _json_config(schema)

    return SchemaSettings(
        max_nesting=cast("int | None", config.get("max_nesting")),
        root_key=cast("bool | None", config.get("root_key_propagation")),
        schema_contract=schema.settings.get("schema_contract"),
    )


def with_settings(schema: Schema, settings: SchemaSettings | None) -> Schema:
    """The schema with these settings as its own."""
    if settings is None or settings == settings_of_schema(schema):
        return schema

    said: dict[str, JsonValue] = {"max_nesting": settings.max_nesting, "root_key_propagation": settings.root_key}
    config = {name: value for name, value in {**_json_config(schema), **said}.items() if value is not None}
    normalizer = dict(cast("Mapping[str, JsonValue]", schema.normalizers.get("json") or {}))
    normalizer.pop("config", None)
    contract = {"schema_contract": settings.schema_contract} if settings.schema_contract else {}
    others = {name: value for name, value in schema.settings.items() if name != "schema_contract"}

    return replace(
        schema,
        normalizers={**schema.normalizers, "json": {**normalizer, "config": config} if config else normalizer},
        settings={**others, **contract},
    )


def _json_config(schema: Schema) -> dict[str, JsonValue]:
    normalizer = cast("Mapping[str, JsonValue]", schema.normalizers.get("json") or {})

    return dict(cast("Mapping[str, JsonValue]", normalizer.get("config") or {}))
