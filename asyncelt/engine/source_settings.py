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
    """None: as it is."""

    max_nesting: int | None = None
    root_key: bool | None = None
    schema_contract: JsonValue = None

    @property
    def is_said(self) -> bool:
        """Whether there is anything."""
        return self != SchemaSettings()


def settings_of_source(source: Source) -> SchemaSettings:
    """What was said when the source was defined, or set on it since."""
    return SchemaSettings(
        max_nesting=source.max_table_nesting,
        root_key=source.root_key,
        schema_contract=cast("JsonValue", source.schema_contract),
    )


def settings_of_schema(schema: Schema) -> SchemaSettings:
    """What an earlier call has written into the schema."""
    config = _json_config(schema)

    return SchemaSettings(
        max_nesting=cast("int | None", config.get("max_nesting")),
        root_key=cast("bool | None", config.get("root_key_propagation")),
        schema_contract=schema.settings.get("schema_contract"),
    )


def with_settings(schema: Schema, settings: SchemaSettings) -> Schema:
    """The schema with these settings as its own; later runs go by them too."""
    said: dict[str, JsonValue] = {"max_nesting": settings.max_nesting, "root_key_propagation": settings.root_key}
    given = {name: value for name, value in said.items() if value is not None}

    if given:
        normalizer = cast("Mapping[str, JsonValue]", schema.normalizers.get("json", {}))
        config: JsonValue = {**_json_config(schema), **given}
        schema = replace(schema, normalizers={**schema.normalizers, "json": {**normalizer, "config": config}})

    if settings.schema_contract:
        schema = replace(schema, settings={**schema.settings, "schema_contract": settings.schema_contract})

    return schema


def _json_config(schema: Schema) -> dict[str, JsonValue]:
    normalizer = cast("Mapping[str, JsonValue]", schema.normalizers.get("json") or {})

    return dict(cast("Mapping[str, JsonValue]", normalizer.get("config") or {}))
