"""Advisory locks: who owns a pipeline, whose turn it is to commit, to change tables, to write one of them.

The numbers are digests of names. They are this database's: other programs that take advisory locks there would have
to guess them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.load.protocol import Target

__all__ = ["become_owner", "living_owners", "take_commit_turn", "take_ddl_turn", "take_part_turn", "take_table_turns"]

_IN_TRANSACTION = "SELECT pg_advisory_xact_lock($1)"
_HELD = """
SELECT k.key FROM unnest($1::bigint[]) AS k (key) WHERE EXISTS (
    SELECT FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_database AS d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
        AND l.classid::bigint << 32 | l.objid::bigint = k.key
)
"""


async def become_owner(connection: Connection, target: Target) -> bool:
    """Take the lock that says that the pipeline's owner is alive; it is held as long as the connection lives.

    Returns:
        False when another connection holds it.
    """
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _owner_key(target)))


async def living_owners(connection: Connection, targets: Iterable[Target]) -> set[Target]:
    """Those whose lock is held. It is only looked at: to take it would keep an owner out that comes just then."""
    keys = {_owner_key(target): target for target in targets}

    return {keys[row[0]] for row in await connection.fetch(_HELD, list(keys))}


async def take_commit_turn(connection: Connection, target: Target) -> None:
    """Wait until no transaction of this pipeline is under way, one whose client has gone included; then be the next."""
    await _take(connection, "commit", target.dataset_name, target.pipeline_name, target.member)


async def take_ddl_turn(connection: Connection, dataset: str) -> None:
    """Wait until nobody else changes tables of the dataset; until the end of the transaction."""
    await _take(connection, "ddl", dataset)


async def take_part_turn(connection: Connection, dataset: str, name: str) -> None:
    """Wait until no transaction that fills this staging table is under way; then be the next."""
    await _take(connection, "part", dataset, name)


async def take_table_turns(connection: Connection, dataset: str, tables: Iterable[str]) -> None:
    """Wait until nobody else replaces or merges into these tables; in one order for everybody, so without deadlocks."""
    for name in sorted(set(tables)):
        await _take(connection, "table", dataset, name)


async def _take(connection: Connection, *names: str) -> None:
    await connection.fetchval(_IN_TRANSACTION, _key(*names))


def _owner_key(target: Target) -> int:
    return _key("owner", target.dataset_name, target.pipeline_name, target.member)


def _key(*names: str) -> int:
    digest = hashlib.blake2b(json.dumps(["asyncelt", *names]).encode(), digest_size=8)

    return int.from_bytes(digest.digest(), "big", signed=True)
