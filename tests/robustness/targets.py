"""Where the rows of killed runs go, and how to look at them. See `kill.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import duckdb

import asyncelt
from asyncelt.destinations.filesystem_impl import documents
from asyncelt.load.protocol import Destination, Target as SessionTarget
from tests.robustness.worker import destination_of
from tests.support.postgres import PostgresServer, ask, left_behind
from tests.support.seaweed import Seaweed

__all__ = ["BucketTarget", "DuckDbTarget", "PostgresTarget", "Server", "Target"]

_PATIENCE_S = 60.0
Rows = list[tuple[Any, ...]]


class Server(Protocol):
    """What can be killed and comes back at the same address."""

    def kill(self) -> None: ...

    def start(self) -> None: ...


class Target(Protocol):
    """One dataset ``data``, for one scenario."""

    @property
    def address(self) -> str:
        """For the worker."""
        ...

    def query(self, statements: Sequence[str]) -> list[Rows]:
        """The rows of each; names of tables follow ``data.``."""
        ...

    def check_nothing_is_left(self) -> None:
        """After a run that has ended well."""
        ...


@dataclass(frozen=True)
class DuckDbTarget:
    """A file."""

    path: Path

    @property
    def address(self) -> str:
        """See `Target`."""
        return str(self.path)

    def query(self, statements: Sequence[str]) -> list[Rows]:
        """See `Target`."""
        with duckdb.connect(self.address, read_only=True) as connection:
            return [connection.execute(statement).fetchall() for statement in statements]

    def check_nothing_is_left(self) -> None:
        """What is left of a file is in the file."""


@dataclass(frozen=True)
class PostgresTarget:
    """A database of a server."""

    address: str

    @classmethod
    def new(cls, server: PostgresServer) -> PostgresTarget:
        """An empty one."""
        return cls(server.new_database())

    def query(self, statements: Sequence[str]) -> list[Rows]:
        """See `Target`."""
        return [ask(self.address, statement) for statement in statements]

    def check_nothing_is_left(self) -> None:
        """The server ends what a killed client had begun as soon as it notices; nothing may need more than that."""
        deadline = time.monotonic() + _PATIENCE_S

        while found := left_behind(self.address):
            assert time.monotonic() < deadline, found


@dataclass(frozen=True)
class BucketTarget:
    """A prefix in a bucket, with plain files or tables in a table format; read through ``dataset()``."""

    address: str
    kind: str
    _used: list[str] = field(default_factory=list)

    @classmethod
    def new(cls, server: Seaweed, home: Path, kind: str) -> BucketTarget:
        """One that nobody has used."""
        return cls(f"s3://lake/{kind}-{home.name} {server.url} {kind} sqlite:///{home}/catalog.db", kind)

    @cached_property
    def destination(self) -> Destination:
        """Keeps what its driver reads before the first request."""
        return destination_of(self.address)

    def query(self, statements: Sequence[str]) -> list[Rows]:
        """See `Target`."""

        async def read() -> list[Rows]:
            async with await asyncelt.dataset(self.destination, "data") as data:
                return [await data.query(statement.replace("data.", "")).fetchall() for statement in statements]

        return asyncio.run(read())

    def check_nothing_is_left(self) -> None:
        """No announced or staged file, no open upload, and no data file that does not count."""
        asyncio.run(self._check())

    async def _check(self) -> None:
        destination: Any = self.destination

        async with destination.connect(SessionTarget(pipeline_name="", dataset_name="data")) as session:
            dataset = session._dataset
            files, counted, folders = await asyncio.to_thread(_look, dataset)
            uploads = await session._place.carrier._bucket.uploads(destination.site.config.prefix)

        assert uploads == [], uploads
        assert folders == {}, folders

        if self.kind == "plain":
            assert files == counted, {"orphans": files - counted, "missing": counted - files}


def _look(dataset: Any) -> tuple[set[str], set[str], dict[str, list[str]]]:
    """Data files that are there, those that count, and names in folders that have to be empty. Blocking."""
    dataset.finish()
    files = {path for path in dataset.store.files() if not path.startswith("_")}
    counted = {path for paths in dataset.table_files().values() for path in paths}
    found = {
        folder: names for folder in (documents.UPLOADS, documents.STAGED) if (names := dataset.store.names(folder))
    }

    return files, counted, found
