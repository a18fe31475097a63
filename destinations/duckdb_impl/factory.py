"""``asyncelt.destinations.duckdb(...)``: describes a destination, does no I/O, imports no driver."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from asyncelt.arguments import COUNT, FLAG, SECONDS, TEXT, Kind, expect, expect_if_given
from asyncelt.destinations.duckdb_impl.config import DuckDbConfig
from asyncelt.destinations.duckdb_impl.instance import Instance
from asyncelt.destinations.duckdb_impl.session import DuckDbSession
from asyncelt.errors import ConfigError
from asyncelt.load.protocol import Session, Target
from asyncelt.load.staging import Staging, StagingDestination
from asyncelt.schema.capabilities import Capabilities
from asyncelt.types import ReplaceStrategy

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["DuckDb", "duckdb"]

_CAPABILITIES = Capabilities(
    stores_positions=True,
    file_formats=("parquet", "jsonl"),
    staging_file_formats=("parquet", "jsonl"),
    write_dispositions=("append", "replace", "merge", "skip"),
    merge_strategies=("delete-insert", "upsert", "scd2", "insert-only", "cdc"),
    replace_strategies=("truncate-and-insert", "insert-from-staging"),
    max_identifier_length=65536,
    decimal_precision=(38, 9),
    wei_precision=(38, 0),
    max_decimal_precision=38,
    timestamp_precision=6,
    transactional=True,
    sqlglot_dialect="duckdb",
)
_URL = "duckdb:///"
_MEMORY = ":memory:"
_MEMORY_LIMIT = Kind(
    "text with a size, such as '512MB'",
    lambda value: (
        isinstance(value, str)
        and re.fullmatch(r"\s*\d+(\.\d+)?\s*([kmgt]i?b?|b|bytes|%)\s*", value, re.IGNORECASE) is not None
    ),
)
_VERSION = Kind(
    "a version of DuckDB's storage, such as 'v1.3.0'",
    lambda value: isinstance(value, str) and re.fullmatch(r"v\d+\.\d+(\.\d+)?|latest", value) is not None,
)
_ELSEWHERE = ("md:", "motherduck:")
_DICT_KEYS = ("database", "settings")


@dataclass(frozen=True, slots=True)
class DuckDb:
    """A DuckDB database: a file, one in memory, or the caller's connection."""

    destination_name: str
    config: DuckDbConfig
    capabilities: Capabilities = _CAPABILITIES
    """What DuckDB can do."""
    is_default_file: bool = False
    """Whether the file is still to be named after the pipeline."""

    @property
    def destination_type(self) -> str:
        """``asyncelt.destinations.duckdb``."""
        return "asyncelt.destinations.duckdb"

    @property
    def location(self) -> str:
        """The database as a URL."""
        return self.config.location

    @property
    def place(self) -> Path | None:
        """The file."""
        return self.config.path

    def for_pipeline(self, pipeline_name: str) -> DuckDb:
        """With ``<pipeline_name>.duckdb`` in the current folder, where no database was given."""
        if not self.is_default_file:
            return self

        path = Path.cwd() / f"{pipeline_name}.duckdb"

        return replace(self, config=replace(self.config, path=path, location=f"{_URL}{path}"), is_default_file=False)

    def connect(self, target: Target) -> AbstractAsyncContextManager[Session]:
        """A session. The file is opened by its first call and closed with it."""
        if self.is_default_file:
            return self.for_pipeline(target.pipeline_name).connect(target)

        return _connected(self.config, target)

    @asynccontextmanager
    async def connect_staged(self, target: Target, staging: StagingDestination) -> AsyncIterator[DuckDbSession]:
        """See `LoadsFromStaging.connect_staged`."""
        own = self.for_pipeline(target.pipeline_name)

        async with staging.staging(target, own.location) as files, _connected(own.config, target, files) as session:
            yield session


def duckdb(
    credentials: str | os.PathLike[str] | Mapping[str, object] | DuckDBPyConnection | None = None,
    *,
    destination_name: str | None = None,
    memory_limit: str | None = "1GB",
    threads: int | None = None,
    storage_version: str | None = "v1.3.0",
    naming_convention: str | None = None,
    busy_timeout_s: float = 30.0,
    replace_strategy: ReplaceStrategy | None = None,
    truncate_tables_on_staging_destination_before_load: bool = True,
) -> DuckDb:
    """Load into DuckDB.

    All packages of a run, with their state, become visible in one transaction. The file is open only while a
    session uses it, so that other processes can read it in between.

    Args:
        credentials: A path (also as ``duckdb:///path``), ``:memory:``, an open connection, or a mapping with
            ``database`` and ``settings`` (DuckDB's configuration options). None: ``<pipeline name>.duckdb`` in the
            current folder. A connection stays yours: it is never closed, and its settings are not touched.
        destination_name: Name in messages and settings; "duckdb" unless given.
        memory_limit: Most memory that DuckDB may use, as it writes it ("512MB"); None: DuckDB's own default.
        threads: Threads of DuckDB; None: one on machines with one or two cores, else one per core.
        storage_version: The oldest DuckDB that can open a file that is made here, as DuckDB writes it; its newer forms
            of storage are smaller and, for wide tables, written in half the time. None: DuckDB's own default, which
            every version can open. A file that exists stays as it is.
        naming_convention: How names of the data become names of tables and columns. None: as the schema has it, a new
            one "snake_case".
        busy_timeout_s: How long to wait for a file that another process has open.
        replace_strategy: How tables with the write disposition ``replace`` are filled: "truncate-and-insert", the
            default, or "insert-from-staging", which reads all files before it touches the old rows. Both are part
            of the commit's transaction: nobody ever sees an empty table.
        truncate_tables_on_staging_destination_before_load: With ``staging``: whether staged files go when they have
            been loaded. False keeps them.

    Raises:
        ConfigError: The credentials are none of the above, or there is no such strategy.
    """
    expect_if_given("duckdb", TEXT, destination_name=destination_name, naming_convention=naming_convention)
    expect_if_given("duckdb", _MEMORY_LIMIT, memory_limit=memory_limit)
    expect_if_given("duckdb", _VERSION, storage_version=storage_version)
    expect_if_given("duckdb", COUNT, threads=threads)
    expect("duckdb", SECONDS, busy_timeout_s=busy_timeout_s)
    expect(
        "duckdb",
        FLAG,
        truncate_tables_on_staging_destination_before_load=truncate_tables_on_staging_destination_before_load,
    )
    supported = _CAPABILITIES.replace_strategies

    if replace_strategy is not None and replace_strategy not in supported:
        raise ConfigError(f"duckdb has no replace_strategy {replace_strategy!r}; it has {', '.join(supported)}.")

    base = DuckDbConfig(
        memory_limit=memory_limit,
        threads=threads,
        storage_version=storage_version,
        busy_timeout_s=busy_timeout_s,
        replace_strategy=replace_strategy or supported[0],
        keeps_staged=not truncate_tables_on_staging_destination_before_load,
    )
    config = _located(credentials, base)

    return DuckDb(
        destination_name=destination_name or "duckdb",
        config=config,
        capabilities=replace(_CAPABILITIES, naming_convention=naming_convention),
        is_default_file=credentials is None,
    )


def _located(credentials: object, base: DuckDbConfig) -> DuckDbConfig:
    if credentials is None:
        return base

    if isinstance(credentials, Mapping):
        unknown = [key for key in credentials if key not in _DICT_KEYS]

        if unknown or "database" not in credentials:
            raise ConfigError(
                f"duckdb credentials take the keys {', '.join(_DICT_KEYS)}; unknown: {unknown or 'none'}."
            )

        settings = credentials.get("settings") or {}

        if not isinstance(settings, Mapping):
            raise ConfigError("duckdb credentials: 'settings' must be a mapping of DuckDB's configuration options.")

        settings = {str(key): str(value) for key, value in settings.items()}

        return _located(credentials["database"], replace(base, settings=settings))

    if isinstance(credentials, str | os.PathLike):
        text = os.fspath(credentials).removeprefix(_URL)

        if text in {"", _MEMORY}:
            return replace(base, instance=Instance(), location=_URL + _MEMORY)

        path = _local_path(text)

        return replace(base, path=path, location=f"{_URL}{path}")

    if hasattr(credentials, "execute") and hasattr(credentials, "cursor"):
        connection = cast("DuckDBPyConnection", credentials)

        return replace(base, instance=Instance(connection), location=f"{_URL}:external:")

    raise ConfigError(
        "duckdb credentials must be a path, ':memory:', a DuckDB connection or a mapping, not "
        f"{type(credentials).__name__}."
    )


def _local_path(text: str) -> Path:
    if "://" in text or text.startswith(_ELSEWHERE):
        raise ConfigError(
            "duckdb takes the path of a local file, as in duckdb('data.duckdb') or duckdb('duckdb:///data.duckdb'), "
            f"not an address ({text.partition(':')[0]}:...)."
        )

    if "\0" in text:
        raise ConfigError(f"duckdb: {text!r} cannot be a path, for the character NUL in it.")

    return Path(os.path.abspath(os.path.expanduser(text)))


@asynccontextmanager
async def _connected(
    config: DuckDbConfig, target: Target, staging: Staging | None = None
) -> AsyncIterator[DuckDbSession]:
    session = DuckDbSession(config, target, staging)

    try:
        yield session
    finally:
        await session.close()
