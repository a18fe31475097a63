"""asyncelt's normalizer over pages, as the engine drives it: shred, conform, apply the delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from asyncelt.flow import Conformed, JsonBody, JsonPages, Notice, Payload, RawBatch, Rows
from asyncelt.normalize.page import NormalizeContext, Normalizer
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import apply_delta
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import new_schema
from asyncelt.types import LoadId, TableName
from tests.normalize.reference_rows import Outcome

LOAD_ID = LoadId("1700000000.0")


def raw(payload: Payload, *, page: int = 0, table: str = "items", max_nesting: int | None = None) -> RawBatch:
    """A page."""
    return RawBatch(
        page=page,
        schema_name="test",
        resource=table,
        table=TableName(table),
        payload=payload,
        rows=0,
        nbytes=0,
        max_nesting=max_nesting,
    )


def normalizer(**changes: Any) -> Normalizer:
    """A normalizer with the default settings."""
    capabilities = changes.pop("capabilities", Capabilities(merge_strategies=("delete-insert", "upsert", "scd2")))
    context = NormalizeContext(load_id=LOAD_ID, naming=naming_for("snake_case"), capabilities=capabilities, **changes)

    return Normalizer(context)


def run(
    payloads: Sequence[Payload],
    *,
    schema: Schema | None = None,
    worker: Normalizer | None = None,
    ahead: bool = False,
    max_nesting: int | None = None,
    table: str = "items",
) -> tuple[Schema, list[Conformed]]:
    """Normalize pages; ``ahead``: conform each with the first schema before it is conformed with the right one."""
    schema = schema or new_schema("test")
    worker = worker or normalizer()
    first = schema
    done: list[Conformed] = []

    for number, payload in enumerate(payloads):
        shredded = worker.shred(
            raw(payload, page=number, max_nesting=max_nesting, table=table), first if ahead else schema
        )

        if ahead:
            worker.conform(shredded, first)

        conformed = worker.conform(shredded, schema)
        schema = apply_delta(schema, conformed.delta)
        done.append(conformed)

    return schema, done


def outcome(schema: Schema, pages: Sequence[Conformed]) -> Outcome:
    """Tables and rows in the form of the reference's."""
    found = Outcome()

    for name, table in schema.tables.items():
        if not name.startswith("_dlt"):
            found.columns[name] = [(column, str(props.data_type)) for column, props in table.columns.items()]

    for page in pages:
        for batch in page.batches:
            rows = batch.data.to_pylist()
            assert len(rows) == batch.rows
            kept = [{key: value for key, value in row.items() if value is not None} for row in rows]
            found.rows.setdefault(batch.table, []).extend(kept)

    return found


def notices(pages: Sequence[Conformed]) -> list[Notice]:
    """What was noticed."""
    return [notice for page in pages for notice in page.notices]


def as_rows(pages: Sequence[Sequence[object]]) -> list[Payload]:
    """Pages of Python objects."""
    return [Rows(list(page)) for page in pages]


def as_array(pages: Sequence[Sequence[object]]) -> list[Payload]:
    """Pages as JSON arrays."""
    return [JsonPages((JsonBody(orjson.dumps(list(page), option=orjson.OPT_NON_STR_KEYS)),)) for page in pages]


def as_lines(pages: Sequence[Sequence[object]]) -> list[Payload]:
    """Pages as lines of JSON; one list would be read as an array of rows, one null as nothing: these stay in arrays."""
    option = orjson.OPT_NON_STR_KEYS
    payloads: list[Payload] = []

    for page in pages:
        if any(item is None or isinstance(item, list) for item in page):
            payloads.extend(as_array([page]))
        else:
            body = JsonBody(b"\n".join(orjson.dumps(item, option=option) for item in page))
            payloads.append(JsonPages((body,)))

    return payloads


def linked(found: Outcome) -> dict[str, list[dict[str, Any]]]:
    """Rows with random ids replaced by the position of the row they point to."""
    position: dict[str, str] = {}

    for table in sorted(found.rows, key=len):
        for number, row in enumerate(found.rows[table]):
            position.setdefault(row["_dlt_id"], f"{table}[{number}]")

    return {
        table: [
            {
                key: position.get(value, value) if key in {"_dlt_id", "_dlt_parent_id", "_dlt_root_id"} else value
                for key, value in row.items()
            }
            for row in rows
        ]
        for table, rows in found.rows.items()
    }


def types_of(found: Outcome) -> Mapping[str, Mapping[str, str]]:
    """Types by table and column."""
    return {table: dict(columns) for table, columns in found.columns.items()}
