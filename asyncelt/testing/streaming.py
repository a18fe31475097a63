"""Conformance of reading: streams and transactions, for destinations whose sessions have them."""

# ruff: noqa: S101, D102, PT012 - tests: their names are sentences, their blocks what is tested

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pyarrow as pa
import pytest

from asyncelt.errors import DestinationRejected, UndefinedRelation
from asyncelt.load.protocol import Session, SupportsQuery, SupportsStream, SupportsTransaction
from asyncelt.testing.fixture import Owner

__all__ = ["ReadingConformance"]

_ROWS = 10_000
_MANY = pa.table({"id": range(_ROWS)})


class ReadingConformance:
    """Tests of what a session may do beside `query`; skipped where it cannot."""

    async def test_a_missing_table_is_an_error_of_its_own(self, owner: Owner) -> None:
        async with _loaded(owner) as session:
            if not isinstance(session, SupportsQuery):
                pytest.skip("the destination cannot be read with SQL")

            with pytest.raises(UndefinedRelation):
                await session.query("SELECT * FROM never_there")

    async def test_a_stream_gives_all_rows_in_batches_of_a_bounded_size(self, owner: Owner) -> None:
        async with (
            _loaded(owner) as session,
            _streaming(session).stream("SELECT id FROM many ORDER BY id", batch_rows=2048) as stream,
        ):
            assert stream.schema.names == ["id"]
            batches = [batch async for batch in stream]

        assert max(batch.num_rows for batch in batches) <= 2 * 2048
        assert pa.Table.from_batches(batches).column("id").to_pylist() == list(range(_ROWS))

    async def test_a_stream_without_rows_has_a_schema(self, owner: Owner) -> None:
        async with _loaded(owner) as session, _streaming(session).stream("SELECT id FROM many WHERE id < 0") as stream:
            assert stream.schema.names == ["id"]
            assert [batch async for batch in stream] == []

    async def test_other_calls_go_on_beside_a_stream(self, owner: Owner) -> None:
        async with _loaded(owner) as session, _streaming(session).stream("SELECT id FROM many") as stream:
            rows = aiter(stream)
            await anext(rows)
            assert isinstance(session, SupportsQuery)
            assert (await session.query("SELECT count(*) AS n FROM many")).column(0).to_pylist() == [_ROWS]
            assert (await session.restore(owner.target.pipeline_name)).exists

    async def test_a_stream_reads_the_state_of_its_beginning(self, owner: Owner) -> None:
        seen = 0

        async with (
            _loaded(owner) as session,
            _streaming(session).stream("SELECT id FROM many", batch_rows=2048) as stream,
        ):
            async for batch in stream:
                if not seen:
                    await owner.run({"many": _MANY})

                seen += batch.num_rows

        assert seen == _ROWS
        assert (await owner.table("many")).num_rows == 2 * _ROWS

    async def test_a_stream_that_is_left_early_is_in_nobodys_way(self, owner: Owner) -> None:
        async with _loaded(owner) as session:
            async with _streaming(session).stream("SELECT id FROM many", batch_rows=2048) as stream:
                await anext(aiter(stream))

            await owner.run({"many": _MANY})

        assert (await owner.table("many")).num_rows == 2 * _ROWS

    async def test_a_wrong_query_is_refused_when_its_stream_begins(self, owner: Owner) -> None:
        async with _loaded(owner) as session:
            streaming = _streaming(session)

            with pytest.raises(UndefinedRelation):
                async with streaming.stream("SELECT * FROM never_there"):
                    pytest.fail("it began")

            with pytest.raises(DestinationRejected):
                async with streaming.stream("SELEC"):
                    pytest.fail("it began")

    async def test_a_transaction_is_committed_whole_or_not_at_all(self, owner: Owner) -> None:
        async with _loaded(owner) as session:
            if not isinstance(session, SupportsTransaction):
                pytest.skip("the destination has no transactions for users")

            with pytest.raises(LookupError):
                async with session.transaction() as transaction:
                    await transaction.query("DELETE FROM many")
                    raise LookupError

            assert (await owner.table("many")).num_rows == _ROWS

            async with session.transaction() as transaction:
                await transaction.query("DELETE FROM many WHERE id < 100")
                await transaction.query("DELETE FROM many WHERE id < 200")

            assert (await owner.table("many")).num_rows == _ROWS - 200


@asynccontextmanager
async def _loaded(owner: Owner) -> AsyncIterator[Session]:
    await owner.run({"many": _MANY})

    async with owner.destination.connect(owner.target) as session:
        yield session


def _streaming(session: Session) -> SupportsStream:
    if not isinstance(session, SupportsStream):
        pytest.skip("the destination cannot stream")

    return session
