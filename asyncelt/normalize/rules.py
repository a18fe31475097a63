"""How a schema says that items are to be taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import cast

from asyncelt.normalize.name_set import NOTHING, NameSet
from asyncelt.normalize.view import SchemaRules
from asyncelt.normalize.walk import Rule
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import Naming
from asyncelt.types import ColumnName, JsonValue, TableName

__all__ = ["rule_of"]

UNLIMITED = 1000
"""Levels of nesting where nobody has set a bound."""


def rule_of(
    schema: Schema,
    rules: SchemaRules,
    root: TableName,
    *,
    naming: Naming,
    capabilities: Capabilities,
    max_nesting: int | None,
) -> Rule:
    """The rule for one root table.

    ``max_nesting`` is what the resource asks for; None: what the table, the destination or the schema say.
    """

    def keeps_json(table: str, column: str) -> bool:
        known = schema.tables.get(TableName(table))
        found = known.columns.get(ColumnName(column)) if known is not None else None
        data_type = found.data_type if found is not None else None

        return (data_type or rules.preferred_type(column)) == "json"

    def is_typed(table: str, column: str) -> bool:
        known = schema.tables.get(TableName(table))
        found = known.columns.get(ColumnName(column)) if known is not None else None

        return found is not None and found.data_type is not None

    def is_root(table: str) -> bool:
        known = schema.tables.get(TableName(table))

        return known is not None and known.parent is None

    return Rule(
        naming=naming,
        max_nesting=_levels(schema, root, capabilities) if max_nesting is None else max_nesting,
        keeps_json=keeps_json,
        json_columns=frozenset(
            (table.name, column.name)
            for table in schema.tables.values()
            for column in table.columns.values()
            if column.data_type == "json"
        ),
        is_typed=is_typed,
        is_root=is_root,
        excludes=_filters(schema, naming),
    )


def _levels(schema: Schema, root: TableName, capabilities: Capabilities) -> int:
    table = schema.tables.get(root)
    json_normalizer = _mapping(schema.normalizers.get("json"))

    for found in (
        _mapping(table.hints.get("x-normalizer")).get("max_nesting") if table is not None else None,
        capabilities.max_table_nesting,
        _mapping(json_normalizer.get("config")).get("max_nesting"),
    ):
        if isinstance(found, int):
            return found

    return UNLIMITED


def _filters(schema: Schema, naming: Naming) -> Callable[[str, str], bool] | None:
    excludes: dict[str, NameSet] = {}
    includes: dict[str, NameSet] = {}

    for name, table in schema.tables.items():
        filters = _mapping(table.hints.get("filters"))

        for key, sets in (("excludes", excludes), ("includes", includes)):
            found = filters.get(key)

            if found:
                sets[name] = NameSet(cast("list[str]", found))

    if not excludes:
        return None

    @lru_cache(maxsize=65536)
    def excluded(table: str, column: str) -> bool:
        branch = [part for part in table.split(naming.path_separator) if part.strip()]

        for length in range(len(branch), 0, -1):
            owner = naming.path_separator.join(branch[:length])
            path = naming.path_separator.join([*branch[length:], column])

            if path in excludes.get(owner, NOTHING) and path not in includes.get(owner, NOTHING):
                return True

        return False

    return excluded


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, Mapping) else {}
