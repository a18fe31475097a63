"""The reference's own normalizer, in this process and without files: rows in, tables and rows out."""

from __future__ import annotations

import base64
import json as stdlib_json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import orjson
from dlt.common.configuration.container import Container
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.json import json, may_have_pua
from dlt.common.schema import Schema as ReferenceSchema
from dlt.common.schema.utils import new_table
from dlt.normalize.configuration import NormalizeConfiguration
from dlt.normalize.items_normalizers.jsonl import JsonLItemsNormalizer


@dataclass
class Outcome:
    """Tables in order: columns with their types in order, and rows."""

    columns: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class _Storage:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def write_data_item(self, load_id: str, schema: str, table: str, row: dict[str, Any], columns: Any) -> None:
        self.outcome.rows.setdefault(table, []).append(row)


def normalized(
    pages: Sequence[Sequence[object]],
    *,
    table: str = "items",
    columns: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    max_nesting: int | None = None,
    hints: Mapping[str, Any] | None = None,
) -> Outcome:
    """What the reference makes of these pages."""
    capabilities = DestinationCapabilitiesContext.generic_capabilities()
    capabilities.supported_merge_strategies = ["delete-insert", "upsert", "scd2"]

    with Container().injectable_context(capabilities):
        schema = _schema(table, columns, settings, max_nesting, hints)
        outcome = Outcome()
        config = NormalizeConfiguration()
        config.destination_capabilities = capabilities
        normalizer = JsonLItemsNormalizer(_Storage(outcome), None, None, schema, "1700000000.0", config)

        for page in pages:
            line = json.typed_dumpb(list(page))
            normalizer._normalize_chunk(table, json.loadb(line), may_have_pua(line), False)

    for name, found in schema.tables.items():
        if not name.startswith("_dlt"):
            outcome.columns[name] = [(c, str(p.get("data_type"))) for c, p in found["columns"].items()]

    return outcome


def _schema(
    table: str,
    columns: Mapping[str, Mapping[str, Any]] | None,
    settings: Mapping[str, Any] | None,
    max_nesting: int | None,
    hints: Mapping[str, Any] | None,
) -> ReferenceSchema:
    schema = ReferenceSchema("test")

    if settings:
        schema.settings.update(settings)
        schema._compile_settings()

    if columns is not None or hints is not None:
        described: Any = [{"name": name, **properties} for name, properties in (columns or {}).items()]
        made = new_table(table, write_disposition="append", columns=described, resource=table)
        made.update(hints or {})
        schema.update_table(made)

    if max_nesting is not None:
        schema.data_item_normalizer.update_normalizer_config(schema, {"max_nesting": max_nesting})

    schema.data_item_normalizer._reset()

    return schema


def _in_json(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def comparable(value: Any, data_type: str | None = None) -> Any:
    """A value in a form in which both sides say the same."""
    if value is None:
        return None

    if data_type == "json":
        text = (
            value if isinstance(value, str) else orjson.dumps(value, default=_in_json, option=orjson.OPT_NON_STR_KEYS)
        )
        return stdlib_json.loads(text)

    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat() if value.tzinfo is None else value.timestamp()

    if isinstance(value, date | time):
        return value.isoformat()

    if isinstance(value, Decimal):
        return Decimal(value).normalize() if value.is_finite() else str(value)

    if isinstance(value, bytes):
        return base64.b64encode(value).decode()

    if isinstance(value, float):
        return repr(value)

    return value
