"""Runs into Postgres, in which nothing may block the event loop."""

from __future__ import annotations

import asyncio

import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.errors import AsynceltWarning


async def numbers(count):
    for start in range(0, count, 10):
        yield [{"id": number, "tags": ["a", "b"]} for number in range(start, start + 10)]


def pipeline_on(dsn, folder, name="pg"):
    return asyncelt.pipeline(name, destination=destinations.postgres(dsn), dataset_name="raw", pipelines_dir=folder)


@pytest.mark.slow
async def test_a_pipeline_loads_merges_restores_and_reads_back(postgres_dsn, tmp_path):
    pipeline = pipeline_on(postgres_dsn, tmp_path / "one")
    await pipeline.run(numbers(20), table_name="items", primary_key="id", write_disposition="merge")
    info = await pipeline.run(numbers(30), table_name="items", primary_key="id", write_disposition="merge")

    assert "The postgres destination used postgresql://127.0.0.1" in str(info)
    assert dict(await pipeline.dataset().row_counts().fetchall()) == {"items": 30, "items__tags": 60}

    elsewhere = pipeline_on(postgres_dsn, tmp_path / "two")
    await elsewhere.sync_destination()
    assert elsewhere.state == pipeline.state
    sizes = [chunk.num_rows async for chunk in elsewhere.dataset()["items"].iter_arrow(12)]
    assert sizes == [12, 12, 6]


async def test_rows_that_postgres_cannot_store_go_to_quarantine(postgres_dsn, tmp_path):
    rows = [
        {"id": 1, "text": "fine", "doc": {"a": 1}},
        {"id": 2, "text": "nul \0"},
        {"id": 3, "text": "much too long"},
        {"id": 4, "doc": {"a": "\0"}},
        {"id": 5, "parts": [{"text": "x"}, {"text": "\0"}]},
        {"id": 6, "text": "fine"},
    ]
    columns = {"text": {"data_type": "text", "precision": 8}, "doc": {"data_type": "json"}}
    items = asyncelt.resource(rows, name="items", columns=columns, on_error="quarantine")
    pipeline = pipeline_on(postgres_dsn, tmp_path)

    with pytest.warns(AsynceltWarning, match="4 row"):
        await pipeline.run(items)

    assert await pipeline.dataset()["items"].select("id").order_by("id").fetchall() == [(1,), (6,)]
    waiting = await pipeline.quarantined().select("message").fetchall()
    assert sorted(message.partition(": ")[2] for (message,) in waiting) == [
        "the value has a NUL character (U+0000), which PostgreSQL cannot store.",
        "the value has a NUL character (U+0000), which PostgreSQL cannot store.",
        "the value has a NUL character (\\u0000), which jsonb cannot store.",
        "the value is longer than 8 characters.",
    ]


async def test_a_message_that_postgres_cannot_store_does_not_stop_its_stream(postgres_dsn, tmp_path):
    events = asyncelt.sources.channel("events")
    pipeline = pipeline_on(postgres_dsn, tmp_path)
    bodies = [b'{"id": 1}', b'{"id": 2, "text": "\\u0000"}', b'{"id": \0}', b'{"id": 4, "text": "fine"}']

    for body in bodies:
        await events.send(body, until="accepted")

    events.end()

    with pytest.warns(AsynceltWarning, match="quarantine"):
        await pipeline.stream(events)

    assert await pipeline.dataset()["events"].select("id").order_by("id").fetchall() == [(1,), (4,)]
    waiting = await pipeline.quarantined().select("payload", "payload_form").fetchall()
    assert sorted(waiting) == [("eyJpZCI6IAB9", "base64"), ('{"id": 2, "text": "\\u0000"}', "json")]


async def test_a_stream_goes_on_when_a_server_that_became_read_only_is_writable_again(postgres_dsn, raw, tmp_path):
    events = asyncelt.sources.channel("events")
    went_away = asyncio.Event()

    class Watch:
        def on_event(self, event):
            if isinstance(event, asyncelt.observe.DestinationAway):
                went_away.set()

    pipeline = asyncelt.pipeline(
        "pg",
        destination=destinations.postgres(postgres_dsn),
        dataset_name="raw",
        pipelines_dir=tmp_path,
        progress=Watch(),
        settings=asyncelt.Settings(retry=asyncelt.Retry(first_s=0.01, max_s=0.1)),
    )

    async with pipeline.stream(events, roll=asyncelt.Roll(seconds=0.05)) as stream:
        await events.send({"id": 1})
        await raw.execute("ALTER ROLE postgres SET default_transaction_read_only = on")

        try:
            await raw.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'asyncelt pg'"
            )

            sending = asyncio.create_task(events.send({"id": 2}))

            with pytest.warns(AsynceltWarning, match="connect to the primary"):
                await went_away.wait()
        finally:
            await raw.execute("ALTER ROLE postgres RESET default_transaction_read_only")

        await sending
        events.end()
        await stream.ended()

    assert await pipeline.dataset()["events"].select("id").order_by("id").fetchall() == [(1,), (2,)]
