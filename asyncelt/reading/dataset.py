"""A dataset that is read: its tables as relations, queries over them, its loads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from asyncelt.arguments import TEXT, expect
from asyncelt.errors import ConfigError, SchemaNotFound, UnknownTable, UsageError
from asyncelt.load.protocol import Destination, Session, SupportsQuery, Target, is_same_place
from asyncelt.load.registry import resolve
from asyncelt.reading.client import SqlClient, opened_client
from asyncelt.reading.handover import is_ibis, query_of_ibis
from asyncelt.reading.plan import Catalog, CountsSource, Plan, QuerySource, TableSource, catalog_of
from asyncelt.reading.relation import Relation
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import naming_for
from asyncelt.schema.stored import from_json
from asyncelt.schema.system import DLT_LOAD_ID, LOADS_TABLE, is_system_name, new_schema
from asyncelt.types import LoadId, SqlValue

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from sqlglot import exp
    from sqlglot.schema import MappingSchema

    from asyncelt.extract.incremental.definition import Incremental

__all__ = ["Dataset", "chosen_schemas", "dataset", "sql_dialect"]


class Dataset:
    """Tables of one dataset. Making one does no I/O; `asyncelt.pipeline(...).dataset()` does it.

    As an async context manager it keeps one connection open for all reads in between; otherwise each read opens one
    and closes it.

    Args:
        destination: Where it is.
        target: Its name, and whose it is.
        schemas: Returns its schemas, the default one first, whenever they are needed.
    """

    def __init__(self, destination: Destination, target: Target, schemas: Callable[[], Sequence[Schema]]) -> None:
        self._destination = destination
        self._target = target
        self._schemas = schemas
        self._dialect = sql_dialect(destination)
        self._session: SupportsQuery | None = None
        self._stack: AsyncExitStack | None = None

    # --------------------------------------------------------------------------------------- what is there

    @property
    def dataset_name(self) -> str:
        """Its name at the destination."""
        return self._target.dataset_name

    @property
    def dialect(self) -> str:
        """SQL dialect of the destination, as sqlglot calls it."""
        return self._dialect

    @property
    def schema(self) -> Schema:
        """The default schema."""
        return self._schemas()[0]

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """All schemas, the default one first."""
        return tuple(self._schemas())

    @property
    def tables(self) -> list[str]:
        """Names of the tables that schemas have columns for, those of the engine last within each schema."""
        names: dict[str, None] = {}

        for schema in self._schemas():
            own = [str(table.name) for table in schema.tables.values() if _has_columns(schema, table.name)]
            names.update(dict.fromkeys(sorted(own, key=is_system_name)))

        return list(names)

    @property
    def destination_dialect(self) -> str:
        """The same as `dialect`."""
        return self._dialect

    @property
    def sqlglot_schema(self) -> MappingSchema:
        """Tables and columns for the optimizer of sqlglot, which this imports."""
        from asyncelt.reading.parsing import sqlglot_schema

        return sqlglot_schema(self.catalog())

    def is_same_dataset(self, other: Dataset) -> bool:
        """Whether both hold the same data: they have one name at one place.

        False where it cannot be told, such as for two objects of a destination in memory.
        """
        return self.dataset_name == other.dataset_name and is_same_place(self._destination, other._destination)

    def catalog(self) -> Catalog:
        """All tables and columns, as of now."""
        return catalog_of(self.dataset_name, self._dialect, self._schemas())

    # -------------------------------------------------------------------------------------------- relations

    def table(
        self,
        table_name: str,
        *,
        load_ids: Collection[str] | None = None,
        incremental: Incremental[Any] | None = None,
    ) -> Relation:
        """All columns and rows of a table.

        Args:
            table_name: As in `tables`.
            load_ids: Only rows that these loads have brought.
            incremental: Only rows in the range of this cursor; see `Relation.incremental`.

        Raises:
            UnknownTable: There is none of this name.
        """
        if table_name not in self.tables:
            raise UnknownTable(
                f"Dataset {self.dataset_name!r} has no table {table_name!r}. It has: {', '.join(self.tables)}. What "
                "others have loaded is known after pipeline.sync_destination()."
            )

        relation = Relation(self, Plan(TableSource(table_name)))

        if load_ids is not None:
            relation = relation.from_loads(load_ids)

        return relation if incremental is None else relation.incremental(incremental)

    def __getitem__(self, table_name: str) -> Relation:
        """``dataset["items"]``, the same as `table`; the error is a KeyError too."""
        return self.table(table_name)

    def __getattr__(self, name: str) -> Relation:
        """``dataset.items``, where no method is called like this.

        Raises:
            AttributeError: There is no such table.
        """
        if name.startswith("__") or name == "_schemas":
            raise AttributeError(name)

        try:
            return self.table(name)
        except UnknownTable as error:
            raise AttributeError(str(error)) from error

    def query(
        self,
        query: str | exp.Expr | ir.Expr,
        query_dialect: str | None = None,
        *,
        parameters: Sequence[SqlValue] = (),
    ) -> Relation:
        """The result of one SELECT over tables of this dataset.

        Args:
            query: SQL, or an expression of sqlglot or of ibis (see `Relation.to_ibis`).
            query_dialect: Dialect it is written in; the destination's unless given.
            parameters: Values for ``?`` or ``$1``, ``$2`` in it.
        """
        if is_ibis(query):
            source = QuerySource(query_of_ibis(query, self._dialect), None, tuple(parameters))
        else:
            source = QuerySource(query, query_dialect, tuple(parameters))

        return Relation(self, Plan(source))

    __call__ = query

    def row_counts(
        self,
        *,
        data_tables: bool = True,
        dlt_tables: bool = False,
        table_names: Sequence[str] | None = None,
        load_id: str | None = None,
    ) -> Relation:
        """Number of rows per table, as rows of ``table_name`` and ``row_count``.

        Args:
            data_tables: Tables that have ever had data.
            dlt_tables: Tables of the engine.
            table_names: These tables, whatever the other two say.
            load_id: Count only rows that this load has brought; tables without load ids are left out.

        Raises:
            UnknownTable: One of ``table_names`` is not there.
        """
        catalog = self.catalog()
        chosen = list(table_names or ())

        for name in chosen:
            catalog.table(name)

        if not chosen:
            for name, table in catalog.tables.items():
                system = is_system_name(name)

                if (system and dlt_tables) or (not system and data_tables and table.seen_data):
                    chosen.append(name)

        columns = {name: DLT_LOAD_ID for name in chosen if DLT_LOAD_ID in catalog.table(name).columns}

        if load_id is not None:
            chosen = [name for name in chosen if name in columns]

        return Relation(self, Plan(CountsSource(tuple(chosen), load_id, columns)))

    def loads_table(self) -> Relation:
        """The table of committed loads."""
        return self.table(LOADS_TABLE)

    # ---------------------------------------------------------------------------------------------- reading

    async def load_ids(self, schema_name: str | None = None) -> list[LoadId]:
        """Ids of the committed loads of a schema, oldest first; of the default schema unless named."""
        found = await self._loads(schema_name).order_by("load_id").fetchall()

        return [LoadId(str(row[0])) for row in found]

    async def latest_load_id(self, schema_name: str | None = None) -> LoadId | None:
        """The newest of them; None where there is none."""
        found = await self._loads(schema_name).max().fetchscalar()

        return None if found is None else LoadId(str(found))

    @asynccontextmanager
    async def sql_client(self) -> AsyncIterator[SqlClient]:
        """A client for any statement the destination understands, on this dataset."""
        if self._session is not None:
            yield SqlClient(self._destination, self._target, self._session)
        else:
            async with opened_client(self._destination, self._target) as client:
                yield client

    @asynccontextmanager
    async def destination_client(self) -> AsyncIterator[Session]:
        """A session of the destination on this dataset, as the engine uses it, with a connection of its own."""
        async with self._destination.connect(self._target) as session:
            yield session

    @asynccontextmanager
    async def session(self) -> AsyncIterator[SupportsQuery]:
        """The open connection, or one for this block."""
        if self._session is not None:
            yield self._session
        else:
            async with opened_client(self._destination, self._target) as client:
                yield client.session

    async def __aenter__(self) -> Dataset:
        """Keep one connection open.

        Raises:
            UsageError: It is open already.
        """
        if self._stack is not None:
            raise UsageError(f"Dataset {self.dataset_name!r} is open already; make another with pipeline.dataset().")

        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(opened_client(self._destination, self._target))
            self._session = client.session
            self._stack = stack.pop_all()

        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stack, self._stack, self._session = self._stack, None, None

        if stack is not None:
            await stack.__aexit__(kind, error, traceback)

    def _ipython_key_completions_(self) -> list[str]:
        return self.tables

    def __repr__(self) -> str:
        return f"<asyncelt.Dataset {self.dataset_name!r} at {self._destination.location}>"

    def __str__(self) -> str:
        listed = [f"  {schema.name}: {', '.join(_data_tables(schema)) or 'no data tables'}" for schema in self.schemas]

        return "\n".join([f"Dataset {self.dataset_name!r} at {self._destination.location}", *listed])

    def _loads(self, schema_name: str | None) -> Relation:
        return self.loads_table().where("schema_name", "eq", schema_name or self.schema.name).select("load_id")


async def dataset(
    destination: str | Destination | Callable[[], object] | ModuleType,
    dataset_name: str,
    schema: Schema | str | None = None,
) -> Dataset:
    """A dataset that no pipeline of this program has to know: its schemas are read from it.

    Args:
        destination: A name such as ``"duckdb"``, a factory or an instance from `asyncelt.destinations`.
        dataset_name: Its name.
        schema: Only this schema; a `Schema` is taken as it is, and nothing is read.

    Raises:
        ConfigError: The destination cannot be read with SQL.
        SchemaNotFound: The dataset has no schema of this name.
    """
    expect("asyncelt.dataset", TEXT, dataset_name=dataset_name)
    found = resolve(destination).for_pipeline(dataset_name)
    target = Target(pipeline_name="", dataset_name=dataset_name)
    sql_dialect(found)

    if isinstance(schema, Schema):
        return Dataset(found, target, lambda: [schema])

    async with found.connect(target) as session:
        restored = await session.restore("")

    known = {name: from_json(text) for name, text in restored.schemas.items()}
    schemas = chosen_schemas(known, schema, default=next(iter(known), dataset_name))

    return Dataset(found, target, lambda: schemas)


def chosen_schemas(known: Mapping[str, Schema], wanted: Schema | str | None, *, default: str) -> list[Schema]:
    """The schemas that a dataset is read with, the default one first.

    Raises:
        SchemaNotFound: The wanted one is not known.
    """
    if isinstance(wanted, Schema):
        return [wanted]

    if wanted is not None:
        if wanted not in known:
            raise SchemaNotFound(f"There is no schema {wanted!r}. There are: {', '.join(known) or 'none'}.")

        return [known[wanted]]

    if not known:
        # Nothing has been loaded: the tables that every dataset has.
        return [new_schema(naming_for("snake_case", 64).identifier(default))]

    first = [known[default]] if default in known else []

    return first + [known[name] for name in sorted(known) if not first or name != default]


def sql_dialect(destination: Destination) -> str:
    """The destination's SQL dialect.

    Raises:
        ConfigError: It has none.
    """
    dialect = destination.capabilities.sqlglot_dialect

    if dialect is None:
        raise ConfigError(f"Destination {destination.destination_name!r} cannot be read with SQL.")

    return dialect


def _has_columns(schema: Schema, name: str) -> bool:
    return any(one.data_type is not None for one in schema.tables[name].columns.values())  # type: ignore[index]


def _data_tables(schema: Schema) -> list[str]:
    return [str(name) for name in schema.tables if not is_system_name(name) and _has_columns(schema, name)]
