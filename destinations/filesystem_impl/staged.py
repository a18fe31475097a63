"""Rows of staged files, as the commit of a table in a table format takes them. Blocking.

They pass through a DuckDB in memory that lives for one commit, a batch at a time. What has to be told apart, sorted or
joined goes to disk when it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import duckdb
import pyarrow as pa
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.lake import LakeWrite, link_of, row_key_of
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.destinations.filesystem_impl.views import view_of
from asyncelt.destinations.local_sql import bounded_database
from asyncelt.destinations.sql.names import all_of, column, identifier, table
from asyncelt.errors import DestinationRejected
from asyncelt.flow import ROOT_ROW
from asyncelt.normalize.memory import let_go_of_memory
from asyncelt.schema.model import Column, Table
from asyncelt.types import ColumnName, TableName

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "DOOMED",
    "Doomed",
    "Staged",
    "bounds",
    "check_types",
    "flag_of",
    "plain_type",
    "read",
    "small_database",
    "staged_rows",
]

DOOMED: Final = "_asyncelt_doomed"
"""Table of the values by which rows of the target are found that go."""
_OWNERS: Final = "_asyncelt_owners"
_KEYS: Final = "_asyncelt_keys"
_ROOT: Final = "_asyncelt_root"
"""View over the root table as it is."""
_WINNERS: Final = "_asyncelt_winners"
"""Which of the staged root rows are kept, by their place: a narrow table, since whole rows may not fit into memory."""
_NESTED_WINNERS: Final = "_asyncelt_nested_winners"
_OWNED: Final = "_asyncelt_owned"
"""Nested rows that have come with a root row that is kept."""
_ROWS: Final = "kept"
_AT: Final = "_asyncelt_at"
_BATCH_ROWS: Final = 2_048
"""As DuckDB makes them. Delta's driver has many batches on their way: larger ones take up to 0.2 GB more."""
_MEMORY: Final = "64MB"
_NUMBER: Final = Column(name=ROOT_ROW, data_type="bigint")

Cast: TypeAlias = Callable[[Column], exp.Expression]
"""A column's value, in the type that the format keeps it in."""
Target: TypeAlias = Callable[["DuckDBPyConnection", str, Sequence[str]], bool]
"""Make a view over some columns of the root table, to be read once, under a name; False: there is none."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """Rows of the target go whose values in ``columns`` stand, in the same order, in ``values`` of `DOOMED`."""

    columns: Sequence[str]
    values: Sequence[str]

    def matches(self, target: str) -> exp.Expression:
        """A row of the target is one of them."""
        pairs = zip(self.columns, self.values, strict=True)

        return all_of(exp.EQ(this=column(name, target), expression=column(value, DOOMED)) for name, value in pairs)


@dataclass(frozen=True, slots=True)
class Staged:
    """The staged rows of one write.

    Args:
        _connection: Where they are views.
        select: Those that get into the table, and those that only say that a row is deleted.
        doomed: Which rows of the table go; None: none, or all.
        unflagged: Conditions on those that get into the table.
    """

    _connection: DuckDBPyConnection
    select: exp.Select
    doomed: Doomed | None
    unflagged: Sequence[exp.Expression] = ()
    _streams: list[pa.RecordBatchReader] = field(default_factory=list)
    """Results that are being read."""

    @property
    def connection(self) -> DuckDBPyConnection:
        """For questions, while no rows are read: they would end without a word, as if there were no more."""
        if self._streams:
            raise AssertionError("Staged rows are being read: nothing else may be asked of their connection meanwhile.")

        return self._connection

    def let_go_of_memory(self) -> None:
        """Give memory back that a query has taken. Allocators keep it, and the next one takes another kind."""
        # This is when DuckDB's own allocator does so.
        self.connection.execute(f"SET memory_limit = '{_MEMORY}'")
        let_go_of_memory()

    def forget_doomed(self) -> None:
        """Let go of the values in `DOOMED`, once it is known which rows of the table go."""
        _drop(self.connection, DOOMED)
        self.let_go_of_memory()

    def reader(self) -> pa.RecordBatchReader:
        """The rows that get into the table. Nothing else can be asked of the connection while they are read."""
        return self.read(self.select.where(*self.unflagged))

    def read(self, select: exp.Expression) -> pa.RecordBatchReader:
        """The result of a query, in batches."""
        stream = read(self.connection, select)
        self._streams.append(stream)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                yield from stream
            finally:
                self._streams.remove(stream)

        return pa.RecordBatchReader.from_batches(stream.schema, batches())


def read(connection: DuckDBPyConnection, select: exp.Expression) -> pa.RecordBatchReader:
    """The result of a query, in batches."""
    return connection.execute(select.sql(dialect="duckdb")).to_arrow_reader(_BATCH_ROWS)


def bounds(connection: DuckDBPyConnection, value: ColumnName | str) -> tuple[Any, Any]:
    """The least and the greatest value in a column of `DOOMED`."""
    select = exp.select(exp.Min(this=column(value)), exp.Max(this=column(value))).from_(table(DOOMED))
    least, most = connection.execute(select.sql(dialect="duckdb")).to_arrow_table().itercolumns()

    return least[0].as_py(), most[0].as_py()


@contextmanager
def staged_rows(
    store: Store, write: LakeWrite, tables: Mapping[TableName, Table], cast: Cast, target: Target
) -> Iterator[Staged]:
    """What a write has to bring, inside the block.

    Args:
        store: Where the files are.
        write: The write.
        tables: Of the schema.
        cast: Types of the format.
        target: The root table as it is before this package.

    Raises:
        DestinationRejected: The files cannot be read.
    """
    with store.reading(), small_database() as connection:
        try:
            staged = _prepared(connection, store, write, tables, cast, target)
            # From here on whole rows meet tables of keys: none but these may be kept in memory for it, however few
            # rows DuckDB believes to see in files that come through Arrow.
            connection.execute("SET disabled_optimizers = 'build_side_probe_side'")
            # Telling rows apart takes memory, which allocators keep. So will writing them.
            staged.let_go_of_memory()

            yield staged
        except duckdb.Error as error:
            raise DestinationRejected(f"Table {write.table}: its staged rows cannot be read: {error}") from error


def check_types(store: Store, write: LakeWrite, definition: Table, cast: Cast, types: pa.Schema, where: str) -> None:
    """Refuse staged rows that do not fit the columns of a table. Only columns of other types than theirs are read.

    Args:
        store: Where the files are.
        write: The write.
        definition: The table, as the schema has it.
        cast: Types of the format.
        types: The table, as it is.
        where: For messages.

    Raises:
        DestinationRejected: Names the column.
    """
    known = [one for one in definition.columns.values() if one.data_type is not None and one.name in types.names]

    if not known:
        return

    with small_database() as connection:
        _view(connection, store, definition, write.files)
        values = {one.name: exp.Alias(this=cast(one), alias=identifier(one.name)) for one in known}
        nothing = exp.select(*values.values()).from_(table(definition.name)).limit(0)
        found = connection.execute(nothing.sql(dialect="duckdb")).to_arrow_table().schema
        others = [
            name for name in found.names if plain_type(found.field(name).type) != plain_type(types.field(name).type)
        ]

        if not others:
            return

        for batch in read(
            connection, exp.select(*(values[ColumnName(name)] for name in others)).from_(table(definition.name))
        ):
            for name in others:
                _check_fits(batch.column(name), types.field(name).type, f"{where}, column {name}")


def _check_fits(values: pa.Array[pa.Scalar[pa.DataType]], wanted: pa.DataType, where: str) -> None:
    try:
        values.cast(wanted)
    except pa.ArrowException as error:
        raise DestinationRejected(
            f"{where}: a value does not fit the column's type {wanted}: {error}. Nothing was committed. Change the "
            "column's type, or load into another table."
        ) from error


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The form of a type that all who use Arrow have: texts and bytes may come as views, or be large."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()

    return pa.binary() if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) else kind


def small_database() -> AbstractContextManager[DuckDBPyConnection]:
    """A DuckDB with little memory, inside the block. What does not fit goes to disk."""
    return bounded_database(_MEMORY)


def _prepared(
    connection: DuckDBPyConnection,
    store: Store,
    write: LakeWrite,
    tables: Mapping[TableName, Table],
    cast: Cast,
    target: Target,
) -> Staged:
    definition = tables[write.table]
    values = [
        exp.Alias(this=cast(one), alias=identifier(one.name))
        for one in definition.columns.values()
        if one.data_type is not None
    ]
    _view(connection, store, definition, write.files)

    if write.mode == "append" or not write.keys:
        return Staged(connection, exp.select(*values).from_(table(write.table)), None)

    if write.root is None:
        _create(connection, DOOMED, _distinct_keys(write.table, write.keys))
        doomed, unflagged = Doomed(write.keys, write.keys), _unflagged(definition)
        is_unique = _count(connection, DOOMED) == _count(connection, write.table)

        kept = _kept(connection, values, definition, write, is_unique=is_unique)

        if not write.keeps_first:
            return Staged(connection, kept, doomed, unflagged)

        known = _known(connection, write, target) if write.mode == "insert" else []

        return Staged(connection, kept.where(*known), None, unflagged)

    return _prepared_nested(connection, store, write, tables, values, target)


def _prepared_nested(
    connection: DuckDBPyConnection,
    store: Store,
    write: LakeWrite,
    tables: Mapping[TableName, Table],
    values: Sequence[exp.Expression],
    target: Target,
) -> Staged:
    """Nested rows come with the very root row that is kept; those of all root rows with its key go."""
    definition, root = tables[write.table], tables[write.root or write.table]
    row_key, link = row_key_of(root), link_of(definition, root)

    if row_key is None or link is None:
        raise DestinationRejected(f"Table {write.table}: no column connects its rows with those of {root.name}.")

    _view(connection, store, root, write.root_files)
    owner = [
        exp.Alias(this=column(row_key), alias=identifier("row_key")),
        exp.Alias(this=_number(), alias=identifier("number")),
    ]
    owners = _kept(connection, owner, root, write).where(*_unflagged(root))

    if write.mode == "insert":
        _create(connection, DOOMED, _distinct_keys(root.name, write.keys))
        owners = owners.where(*_known(connection, write, target))

    _create(connection, _OWNERS, owners)
    select = _of_owners(connection, values, definition, link)

    if write.keeps_first:
        return Staged(connection, select, None)

    _doom_nested(connection, write, root, row_key, target)

    return Staged(connection, select, Doomed([link], ["row_key"]))


def _known(connection: DuckDBPyConnection, write: LakeWrite, target: Target) -> list[exp.Expression]:
    """Conditions on staged root rows: the table does not have their keys."""
    if not target(connection, _ROOT, write.keys):
        return []

    known = exp.select(*(column(key, DOOMED) for key in write.keys)).from_(table(DOOMED))
    found = exp.select(exp.Literal.number(1)).from_(table(_ROOT)).where(_same(write.keys, DOOMED, _ROOT))
    _create(connection, _KEYS, known.where(exp.Exists(this=found)))
    same = all_of(exp.EQ(this=column(key, _KEYS), expression=column(key, _ROWS)) for key in write.keys)
    one = exp.select(exp.Literal.number(1)).from_(table(_KEYS)).where(same)

    return [exp.Not(this=exp.Exists(this=one))]


def _doom_nested(
    connection: DuckDBPyConnection, write: LakeWrite, root: Table, row_key: ColumnName, target: Target
) -> None:
    """Nested rows of the load's root rows go, and of those that these replace."""
    doomed: exp.Select | exp.Union = exp.select(column(row_key)).from_(table(root.name))

    if target(connection, _ROOT, [*write.keys, row_key]):
        _create(connection, _KEYS, _distinct_keys(root.name, write.keys))
        known = exp.select(exp.Literal.number(1)).from_(table(_KEYS))
        known = known.where(_same(write.keys, _KEYS, _ROOT))
        old = exp.select(column(row_key)).from_(table(_ROOT)).where(exp.Exists(this=known))
        doomed = exp.Union(this=doomed, expression=old, distinct=True)

    named = exp.TableAlias(this=identifier("ids"), columns=[identifier("row_key")])
    _create(connection, DOOMED, exp.select(exp.Star()).distinct().from_(exp.Subquery(this=doomed, alias=named)))


def _of_owners(
    connection: DuckDBPyConnection, values: Sequence[exp.Expression], definition: Table, link: ColumnName
) -> exp.Select:
    """Nested rows that have come with a root row that is kept, each of them once."""
    name = definition.name
    owned = exp.select(exp.Literal.number(1)).from_(table(_OWNERS))
    owned = owned.where(
        exp.EQ(this=column("row_key", _OWNERS), expression=column(link, name)),
        exp.EQ(this=column("number", _OWNERS), expression=_number(name)),
    )
    is_owned = exp.Exists(this=owned)
    own_key = definition.keys("row_key")

    if not own_key:
        return exp.select(*values).from_(table(name)).where(is_owned)

    # Two statements: what a join and a grouping keep in memory is too much at once, and neither would yield.
    group = [column(own_key[0]), column(ROOT_ROW)]
    _create(connection, _OWNED, exp.select(*group, column(_AT)).from_(_numbered(name, name)).where(is_owned))
    first = exp.select(exp.alias_(exp.Min(this=column(_AT)), _AT, quoted=True)).from_(table(_OWNED)).group_by(*group)
    _create(connection, _NESTED_WINNERS, first)
    _drop(connection, _OWNED)

    return _winning(values, name, _NESTED_WINNERS)


def _view(connection: DuckDBPyConnection, store: Store, definition: Table, files: Sequence[str]) -> None:
    numbered = replace(definition, columns={**definition.columns, ROOT_ROW: _NUMBER})
    connection.execute(view_of(numbered, store.attach(connection, files)))


def _create(connection: DuckDBPyConnection, name: str, select: exp.Expression) -> None:
    connection.execute(exp.Create(this=table(name), kind="TABLE", expression=select).sql(dialect="duckdb"))


def _drop(connection: DuckDBPyConnection, name: str) -> None:
    connection.execute(exp.Drop(tables=[table(name)], kind="TABLE", exists=True).sql(dialect="duckdb"))


def _distinct_keys(name: str, keys: Sequence[str]) -> exp.Select:
    return exp.select(*(column(key) for key in keys)).distinct().from_(table(name))


def _same(keys: Sequence[str], left: str, right: str) -> exp.Expression:
    return all_of(exp.EQ(this=column(key, left), expression=column(key, right)) for key in keys)


def _number(of: str | None = None) -> exp.Expression:
    """The number of the root row; rows that have none count as rows of one root row, so that only ids decide."""
    return exp.Coalesce(this=column(ROOT_ROW, of), expressions=[exp.Literal.number(-1)])


def _count(connection: DuckDBPyConnection, name: str) -> object:
    return connection.execute(
        exp.select(exp.Count(this=exp.Star())).from_(table(name)).sql(dialect="duckdb")
    ).fetchone()


def _kept(
    connection: DuckDBPyConnection,
    values: Sequence[exp.Expression],
    root: Table,
    write: LakeWrite,
    *,
    is_unique: bool = False,
) -> exp.Select:
    """Of rows with one key the first by ``dedup_sort``, else the one that came last.

    Where rows are inserted only, flags delete first, and then the one stays that came first.

    Args:
        connection: Where the rows are.
        values: Of a row.
        root: Their table.
        write: The write.
        is_unique: No two of them have one key, so that none has to be found out about.
    """
    unflagged = _unflagged(root) if write.keeps_first else []

    if is_unique:
        return exp.select(*values).from_(exp.alias_(table(root.name), _ROWS, table=True)).where(*unflagged)

    order = [
        exp.Ordered(this=column(name), desc=one.dedup_sort == "desc", nulls_first=False)
        for name, one in root.columns.items()
        if one.dedup_sort and one.data_type is not None
    ]
    arrival = exp.Ordered(this=column(_AT), desc=not write.keeps_first, nulls_first=False)
    first = exp.select(column(_AT)).from_(_numbered(root.name, _ROWS)).where(*unflagged)
    first.set("qualify", _first_of([column(key) for key in write.keys], [*order, arrival]))
    _create(connection, _WINNERS, first)

    return _winning(values, root.name, _WINNERS)


def _numbered(name: str, alias: str) -> exp.Subquery:
    """Staged rows with their place, which is the same whenever they are read."""
    at = exp.alias_(exp.Window(this=exp.RowNumber()), _AT, quoted=True)
    rows = exp.select(exp.Star(), at).from_(table(name))

    return exp.Subquery(this=rows, alias=exp.TableAlias(this=identifier(alias)))


def _winning(values: Sequence[exp.Expression], name: str, winners: str) -> exp.Select:
    """The rows whose places are in a table."""
    places = exp.select(column(_AT)).from_(table(winners))

    return exp.select(*values).from_(_numbered(name, _ROWS)).where(exp.In(this=column(_AT), query=places.subquery()))


def _unflagged(root: Table) -> list[exp.Expression]:
    flagged = flag_of(root)

    return [] if flagged is None else [exp.Not(this=flagged)]


def flag_of(root: Table, of: str | None = None) -> exp.Expression | None:
    """A row says by its ``hard_delete`` column that it is deleted; None: there is none, or it never had a value."""
    columns = root.columns.values()
    flag = next((one for one in columns if one.hard_delete and one.data_type is not None), None)

    if flag is None:
        return None

    if flag.data_type == "bool":
        return exp.Coalesce(this=column(flag.name, of), expressions=[exp.false()])

    return exp.Paren(this=exp.Not(this=exp.Is(this=column(flag.name, of), expression=exp.Null())))


def _first_of(group: Sequence[exp.Expression], order: Sequence[exp.Ordered]) -> exp.Qualify:
    place = exp.Window(this=exp.RowNumber(), partition_by=list(group), order=exp.Order(expressions=list(order)))

    return exp.Qualify(this=exp.EQ(this=place, expression=exp.Literal.number(1)))
