"""The calls that read: clients and the dataset."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncelt.load.protocol import Session
from asyncelt.pipeline.base import PipelineBase
from asyncelt.reading.client import SqlClient, opened_client
from asyncelt.reading.dataset import Dataset
from asyncelt.schema.model import Schema

__all__ = ["ClientCalls"]


class ClientCalls(PipelineBase):
    """Reading back."""

    @asynccontextmanager
    async def sql_client(self, schema_name: str | None = None) -> AsyncIterator[SqlClient]:
        """A connection that answers ``await client.query(sql)`` with an Arrow table; see `SqlClient`.

        Unqualified table names mean this pipeline's dataset.

        Raises:
            PipelineConfigMissing: There is no destination.
            SchemaNotFound: No schema has this name.
            ConfigError: The destination cannot be read with SQL.
        """
        destination = self._require_destination()

        if schema_name is not None:
            self._require_schema(schema_name)

        async with opened_client(destination, self._environment().target) as client:
            yield client

    @asynccontextmanager
    async def destination_client(self, schema_name: str | None = None) -> AsyncIterator[Session]:
        """An open session of the destination, as the engine uses it.

        Raises:
            PipelineConfigMissing: There is no destination.
            SchemaNotFound: No schema has this name.
        """
        destination = self._require_destination()

        if schema_name is not None:
            self._require_schema(schema_name)

        async with destination.connect(self._environment().target) as session:
            yield session

    def dataset(self, schema: Schema | str | None = None) -> Dataset:
        """The dataset as lazy relations that are read by awaiting them; does no I/O. See `Dataset`.

        Its tables and columns are those that have been loaded; what pending packages will add is not there yet.

        Args:
            schema: Only this schema; all that the pipeline knows unless given.

        Raises:
            PipelineConfigMissing: There is no destination.
            ConfigError: The destination cannot be read with SQL.
            SchemaNotFound: The pipeline has no schema of this name.
        """
        return self._relations(schema)
