"""``asyncelt.destinations.postgres(...)``: describes a destination, does no I/O, imports no driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from asyncelt.arguments import COUNT, FLAG, SIZE, TEXT, expect, expect_if_given
from asyncelt.destinations.postgres_impl.config import STAGING_THRESHOLD, Address, PostgresConfig, address_of
from asyncelt.destinations.postgres_impl.session import PostgresSession
from asyncelt.destinations.postgres_impl.storable import check_storable
from asyncelt.destinations.postgres_impl.types import DECIMAL, MAX_NAME_BYTES, WEI
from asyncelt.errors import ConfigError
from asyncelt.load.protocol import Session, Target
from asyncelt.schema.capabilities import Capabilities
from asyncelt.types import ReplaceStrategy

if TYPE_CHECKING:
    from asyncpg import Pool, Record

__all__ = ["Postgres", "postgres"]

_CAPABILITIES = Capabilities(
    file_formats=("parquet",),
    write_dispositions=("append", "replace", "merge", "skip"),
    merge_strategies=("delete-insert", "upsert", "scd2", "insert-only", "cdc"),
    replace_strategies=("truncate-and-insert", "insert-from-staging"),
    case_sensitive=True,
    max_identifier_length=MAX_NAME_BYTES,
    decimal_precision=DECIMAL,
    wei_precision=WEI,
    max_decimal_precision=76,
    timestamp_precision=6,
    transactional=True,
    stores_positions=True,
    check_rows=check_storable,
    sqlglot_dialect="postgres",
)
_FEWEST = 2
"""Connections of a run: one does the work, one says that the owner is alive."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A Postgres database; its datasets are schemas."""

    destination_name: str
    config: PostgresConfig
    capabilities: Capabilities = _CAPABILITIES
    """What Postgres can do."""

    @property
    def destination_type(self) -> str:
        """``asyncelt.destinations.postgres``."""
        return "asyncelt.destinations.postgres"

    @property
    def location(self) -> str:
        """Host, port and database as a URL."""
        return self.config.location

    @property
    def place(self) -> Address | None:
        """The address; None for a pool of the caller."""
        return None if self.config.pool is not None else self.config.address

    def for_pipeline(self, pipeline_name: str) -> Postgres:  # noqa: ARG002 - the same for every pipeline
        """The same destination."""
        return self

    def connect(self, target: Target) -> AbstractAsyncContextManager[Session]:
        """A session. It connects with its first call."""
        return _connected(self.config, target)


def postgres(
    credentials: str | Mapping[str, object] | Pool[Record] | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    database: str | None = None,
    username: str | None = None,
    password: str | None = None,
    create_indexes: bool = True,
    replace_strategy: ReplaceStrategy | None = None,
    pool_size: int = 4,
    staging_threshold: int | None = STAGING_THRESHOLD,
    pooled: bool = False,
    naming_convention: str | None = None,
    destination_name: str | None = None,
) -> Postgres:
    """Load into PostgreSQL by binary COPY.

    All packages of a run, with their state, become visible in one transaction. Replaced tables keep their indexes,
    grants and views, and readers see the old rows until the commit.

    Args:
        credentials: ``postgresql://user:password@host:5432/database?sslmode=require``, a mapping with the parts
            (``host``, ``port``, ``database``, ``username``, ``password``, ``sslmode``, ``sslrootcert``,
            ``connect_timeout``), or a
            pool of asyncpg, of at least two connections, which stays yours: it is used in its own event loop and
            never closed. What is not said is taken from the environment (``PGHOST``, ``PGUSER``, ``PGPASSWORD``,
            ``PGDATABASE``, ...).
        host: Wins over the credentials, as do the next four. A path means the folder of a socket.
        port: Of the server.
        database: Must be there.
        username: Needs the right to create schemas, or to create tables in the dataset's.
        password: Of the user.
        create_indexes: Whether columns that the schema calls unique (``_dlt_id`` is) get a unique index.
        replace_strategy: How tables with the write disposition ``replace`` are filled: "truncate-and-insert", the
            default, or "insert-from-staging", which copies all files before it touches the old rows. By both readers
            see the old rows until the commit.
        pool_size: Most connections of a run, beside the one that holds its lease.
        staging_threshold: Bytes of job files from which on a run is copied into staging tables before its commit, so
            that this is short and a failed one does not copy again; smaller runs are copied within it. 0: always,
            None: never.
        pooled: Whether the server is reached by a pooler in transaction mode (PgBouncer). No statement is prepared
            beyond its transaction then, and an owner holds no lock: a second one does not wait but takes over, and
            the first is refused with its commit.
        naming_convention: How names of the data become names of tables and columns. None: as the schema has it, a new
            one "snake_case".
        destination_name: Name in messages and settings; "postgres" unless given.

    Raises:
        ConfigError: The credentials are none of the above, or there is no such strategy.
    """
    supported = _CAPABILITIES.replace_strategies

    if replace_strategy is not None and replace_strategy not in supported:
        raise ConfigError(f"postgres has no replace_strategy {replace_strategy!r}; it has {', '.join(supported)}.")

    expect("postgres", COUNT, pool_size=pool_size)
    expect("postgres", FLAG, create_indexes=create_indexes, pooled=pooled)
    expect_if_given("postgres", SIZE, staging_threshold=staging_threshold)
    expect_if_given("postgres", TEXT, destination_name=destination_name, naming_convention=naming_convention)
    parts = {"host": host, "port": port, "database": database, "username": username, "password": password}
    config = PostgresConfig(
        create_indexes=create_indexes,
        replace_strategy=replace_strategy or supported[0],
        pool_size=pool_size,
        staging_threshold=staging_threshold,
        pooled=pooled,
    )

    return Postgres(
        destination_name=destination_name or "postgres",
        config=_located(credentials, parts, config),
        capabilities=replace(_CAPABILITIES, naming_convention=naming_convention),
    )


def _located(credentials: object, parts: Mapping[str, object], base: PostgresConfig) -> PostgresConfig:
    if credentials is None or isinstance(credentials, str | Mapping):
        return replace(base, address=address_of(credentials, parts))

    if not (hasattr(credentials, "acquire") and hasattr(credentials, "get_max_size")):
        raise ConfigError(
            "postgres credentials must be a connection string, a mapping or a pool of asyncpg, not "
            f"{type(credentials).__name__}."
        )

    pool = cast("Pool[Record]", credentials)

    if pool.get_max_size() < _FEWEST:
        raise ConfigError(f"postgres needs a pool of at least {_FEWEST} connections: asyncpg.create_pool(max_size=2).")

    return replace(base, pool=pool)


@asynccontextmanager
async def _connected(config: PostgresConfig, target: Target) -> AsyncIterator[PostgresSession]:
    session = PostgresSession(config, target)

    try:
        yield session
    finally:
        await session.close()
