"""Rows of the quarantine table, once more on their way to their own tables.

A replay is a run like any other: its pages come from lines of the quarantine table, and the marks that say so are
rows of the same package. So a row leaves quarantine in the commit that brings it into its table, or not at all.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TypeAlias, cast

import pyarrow as pa

from asyncelt._async import in_thread
from asyncelt.engine.book import SchemaBook
from asyncelt.engine.extraction import document_of
from asyncelt.engine.intake import Intake, ResourcePlan
from asyncelt.engine.loading import load_bundles
from asyncelt.engine.normalization import Normalization
from asyncelt.engine.ownership import Owned, next_load_ids
from asyncelt.engine.plan import RunPlan
from asyncelt.engine.run import Normalized, Ran, while_idle
from asyncelt.extract.pages import Page
from asyncelt.flow import ArrowPage, JsonBody, JsonPages, Origin, Payload, Rows
from asyncelt.schema.hints import TableHints
from asyncelt.schema.model import Schema
from asyncelt.schema.quarantine import QUARANTINE_COLUMNS, PayloadForm
from asyncelt.storage.rowpack import unpack_rows
from asyncelt.storage.state import decode_typed_json
from asyncelt.storage.tablepack import unpack_table
from asyncelt.types import FileFormat, TableName

__all__ = ["ReplayRequest", "run_replay"]

_Line: TypeAlias = Mapping[str, object]
"""A row of the quarantine table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What to replay."""

    lines: Callable[[], AsyncGenerator[pa.Table, None]]
    """Reads the lines to replay, some at a time, once the pipeline is owned: tables of `QUARANTINE_COLUMNS`."""
    plans: Mapping[tuple[str, str], ResourcePlan] | None = None
    """By schema and resource, whose hints to go by; other rows stay. None: all rows, by what their tables have got."""


async def run_replay(
    owned: Owned, request: ReplayRequest, ran: Ran, *, file_format: FileFormat, raise_on_failed_jobs: bool
) -> None:
    """Load rows from quarantine, and take them out of it, in one commit. Those that fail again stay.

    Args:
        owned: The pipeline, without pending packages.
        request: Which rows.
        ran: Filled in step by step.
        file_format: Of job files.
        raise_on_failed_jobs: As for a run.

    Raises:
        PipelineStepFailed: Names the step. Before the seal nothing is left; after it the bundle is pending.
    """
    plan = _plan(owned)
    account = owned.environment.budget.account()
    run = Normalization(owned, plan, owned.tip, file_format=file_format, account=account)
    started_at = time.time()

    async def feed(intake: Intake, book: SchemaBook) -> Mapping[str, object]:
        async with aclosing(request.lines()) as batches:
            async for lines in batches:
                for key, page in await in_thread(partial(_pages_of, lines), owned.threads):
                    await send(intake, book, key, page)

        return document_of(owned.tip.document, owned.environment.pipeline_name)

    async def send(intake: Intake, book: SchemaBook, key: tuple[str, str], page: Page) -> None:
        if key[0] not in book:
            return

        if request.plans is None:
            await intake.send(_plan_of_table(book[key[0]], key[1], page.table_name), page)
        elif key in request.plans:
            await intake.send(request.plans[key], page)

    try:
        bundle = await while_idle(owned, partial(run.run, feed))
    finally:
        account.close()

    ran.normalized.append(
        Normalized(
            packages=tuple(bundle),
            notices=tuple(run.notices),
            started_at=started_at,
            finished_at=time.time(),
            peak_memory=owned.environment.budget.peak,
        )
    )

    if bundle:
        await load_bundles(owned, [bundle], ran.loaded, raise_on_failed_jobs=raise_on_failed_jobs, is_fresh=True)


def _plan(owned: Owned) -> RunPlan:
    """Packages for every schema, of which only those that get rows are kept. No resource: nothing is replaced."""
    known = [one for one in (owned.restored.last_load_id, owned.tip.load_id) if one is not None]
    names = sorted(owned.tip.schemas) or [owned.environment.default_schema_name]
    created_at = time.time()
    load_ids = next_load_ids(created_at, max(known, key=float, default=None), len(names))

    return RunPlan(load_ids=dict(zip(names, load_ids, strict=True)), created_at=created_at, resources=())


def _plan_of_table(schema: Schema, resource: str, table_name: str) -> ResourcePlan:
    """What is known of a resource without itself: the disposition of its table; the table keeps all its hints."""
    table = schema.tables.get(TableName(table_name))
    disposition = (table.write_disposition if table is not None else None) or "append"

    def hints(name: str) -> TableHints:
        return TableHints(name=name, resource=resource, write_disposition=disposition)

    return ResourcePlan(
        name=resource,
        schema_name=schema.name,
        hints=hints,
        max_nesting=None,
        table_name=table_name,
        write_disposition=disposition,
        on_error="quarantine",
    )


def _pages_of(batch: pa.Table) -> list[tuple[tuple[str, str], Page]]:
    """Neighbours of one table and form, as pages. Blocking."""
    lines = batch.rename_columns(list(QUARANTINE_COLUMNS)).to_pylist()

    return [
        ((cast(str, schema), cast(str, resource)), page)
        for (schema, resource, table, form), group in groupby(lines, key=_key)
        for page in _pages_of_form(cast(str, resource), cast(str, table), cast("PayloadForm", form), list(group))
    ]


def _key(line: _Line) -> tuple[object, ...]:
    return line["schema_name"], line["resource"], line["table_name"], line["payload_form"]


def _pages_of_form(resource: str, table: str, form: PayloadForm, lines: Sequence[_Line]) -> Iterator[Page]:
    for payload, some in _payloads(form, lines):
        yield Page(
            resource=resource,
            table_name=table,
            payload=payload,
            rows=len(some),
            nbytes=sum(len(cast(str, line["payload"])) for line in some),
            origins=tuple(
                Origin(record_id=cast(str, line["record_id"]), tries=cast(int, line["tries"])) for line in some
            ),
        )


def _payloads(form: PayloadForm, lines: Sequence[_Line]) -> Iterable[tuple[Payload, Sequence[_Line]]]:
    texts = [cast(str, line["payload"]) for line in lines]

    if form == "json":
        yield JsonPages((JsonBody(f"[{','.join(texts)}]".encode()),)), lines
    elif form == "typed_json":
        yield Rows([decode_typed_json(text.encode()) for text in texts]), lines
    elif form == "packed":
        yield Rows([row for text in texts for row in unpack_rows(base64.b64decode(text))]), lines
    elif form == "arrow":
        for line, text in zip(lines, texts, strict=True):
            yield ArrowPage(unpack_table(base64.b64decode(text))), [line]
    elif form in {"text", "base64"}:
        # A body that was no JSON: alone, so that its neighbours do not share its fate.
        for line, text in zip(lines, texts, strict=True):
            data = text.encode() if form == "text" else base64.b64decode(text)
            yield JsonPages((JsonBody(data, cast("str | None", line["path"])),)), [line]
