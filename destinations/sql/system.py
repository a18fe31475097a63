"""Statements on the system tables: the reference's ``_dlt_*`` and our own ``_asyncelt_*``.

Values are always parameters, numbered from 1 in the order in which each function's docstring names them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from functools import lru_cache

from sqlglot import exp

from asyncelt.destinations.sql.names import Dataset, all_of, column, identifier, parameter, table
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE
from asyncelt.types import ColumnName, DataType, TableName

__all__ = [
    "LEASE_TABLE",
    "OWN_TABLES",
    "POSITIONS_TABLE",
    "RUNS_TABLE",
    "advance_head",
    "delete_all",
    "delete_schema_versions",
    "inflated",
    "insert_row",
    "move_position",
    "prune_states",
    "raise_epoch",
    "select_committed",
    "select_lease",
    "select_newest_load",
    "select_position",
    "select_positions",
    "select_run",
    "select_schema_hashes",
    "select_schemas",
    "select_state",
]

LEASE_COLUMNS = ("pipeline_name", "member", "epoch", "head_load_id", "updated_at")
POSITION_COLUMNS = ("pipeline_name", "source", "partition", "epoch", "position")
RUN_COLUMNS = ("pipeline_name", "run_id", "load_ids", "committed_at")


def _own(name: str, columns: Sequence[tuple[str, DataType, bool]]) -> Table:
    return Table(
        name=TableName(name),
        columns={
            ColumnName(key): Column(name=ColumnName(key), data_type=data_type, nullable=nullable)
            for key, data_type, nullable in columns
        },
        write_disposition="skip",
    )


LEASE_TABLE = _own(
    "_asyncelt_lease",
    [
        ("pipeline_name", "text", False),
        ("member", "text", False),
        ("epoch", "bigint", False),
        ("head_load_id", "text", True),
        ("updated_at", "timestamp", False),
    ],
)
"""One row per pipeline and member: who may commit (epoch), and what the next package must be made on (head)."""

RUNS_TABLE = _own(
    "_asyncelt_runs",
    [
        ("pipeline_name", "text", False),
        ("run_id", "text", False),
        ("load_ids", "json", False),
        ("committed_at", "timestamp", False),
    ],
)
"""Which packages a run with a caller-given id has committed."""

OWN_TABLES = (LEASE_TABLE, RUNS_TABLE)
"""In every dataset that has a commit."""

POSITIONS_TABLE = _own(
    "_asyncelt_positions",
    [
        ("pipeline_name", "text", False),
        ("source", "text", False),
        ("partition", "text", False),
        ("epoch", "bigint", False),
        ("position", "text", False),
    ],
)
"""One row per partition of a message source: which messages are committed. Made by the first commit that has any."""


@lru_cache(maxsize=256)
def insert_row(dataset: Dataset, name: str, columns: tuple[str, ...], dialect: str) -> str:
    """INSERT one row; parameters in the order of ``columns``."""
    values = exp.Values(expressions=[exp.Tuple(expressions=[parameter(at + 1) for at in range(len(columns))])])
    into = exp.Schema(this=table(name, dataset), expressions=[identifier(one) for one in columns])

    return exp.Insert(this=into, expression=values).sql(dialect=dialect)


@lru_cache(maxsize=256)
def delete_all(dataset: Dataset, name: str, dialect: str) -> str:
    """DELETE every row. Unlike TRUNCATE, readers of an older snapshot keep what they see."""
    return exp.delete(table(name, dataset)).sql(dialect=dialect)


@lru_cache(maxsize=64)
def delete_schema_versions(dataset: Dataset, dialect: str) -> str:
    """DELETE all stored versions of the schema (schema_name)."""
    return exp.delete(table(VERSION_TABLE, dataset)).where(_equals("schema_name", 1)).sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_lease(dataset: Dataset, dialect: str, *, for_update: bool = False) -> str:
    """Epoch and head of (pipeline_name, member)."""
    query = (
        exp.select(column("epoch"), column("head_load_id"))
        .from_(table(LEASE_TABLE.name, dataset))
        .where(_equals("pipeline_name", 1), _equals("member", 2))
    )

    return (query.lock() if for_update else query).sql(dialect=dialect)


@lru_cache(maxsize=64)
def advance_head(dataset: Dataset, dialect: str) -> str:
    """UPDATE of the lease row of (pipeline_name, member) to (epoch, head_load_id, updated_at)."""
    changed = [
        exp.EQ(this=exp.column(identifier(name)), expression=parameter(at))
        for at, name in enumerate(LEASE_COLUMNS[2:], start=3)
    ]
    update = exp.Update(
        this=table(LEASE_TABLE.name, dataset),
        expressions=changed,
        where=exp.Where(this=all_of([_equals("pipeline_name", 1), _equals("member", 2)])),
    )

    return update.sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_positions(dataset: Dataset, dialect: str) -> str:
    """Source, partition, epoch and position of every partition of (pipeline_name)."""
    names = ("source", "partition", "epoch", "position")
    query = exp.select(*map(column, names)).from_(table(POSITIONS_TABLE.name, dataset))

    return query.where(_equals("pipeline_name", 1)).sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_position(dataset: Dataset, dialect: str, *, for_update: bool = False) -> str:
    """Epoch and position of (pipeline_name, source, partition)."""
    query = (
        exp.select(column("epoch"), column("position"))
        .from_(table(POSITIONS_TABLE.name, dataset))
        .where(*_position_key())
    )

    return (query.lock() if for_update else query).sql(dialect=dialect)


@lru_cache(maxsize=64)
def move_position(dataset: Dataset, dialect: str) -> str:
    """UPDATE of the row of (pipeline_name, source, partition) to (epoch, position)."""
    changed = [
        exp.EQ(this=exp.column(identifier(name)), expression=parameter(at))
        for at, name in enumerate(POSITION_COLUMNS[3:], start=4)
    ]
    update = exp.Update(
        this=table(POSITIONS_TABLE.name, dataset),
        expressions=changed,
        where=exp.Where(this=all_of(_position_key())),
    )

    return update.sql(dialect=dialect)


def _position_key() -> list[exp.Expression]:
    return [_equals(name, at) for at, name in enumerate(POSITION_COLUMNS[:3], start=1)]


@lru_cache(maxsize=64)
def raise_epoch(dataset: Dataset, dialect: str) -> str:
    """UPDATE of the lease row of (pipeline_name, member, updated_at) to the next epoch; returns epoch and head."""
    epoch = column("epoch")
    update = exp.Update(
        this=table(LEASE_TABLE.name, dataset),
        expressions=[
            exp.EQ(this=epoch.copy(), expression=exp.Add(this=epoch.copy(), expression=exp.Literal.number(1))),
            exp.EQ(this=column("updated_at"), expression=parameter(3)),
        ],
        where=exp.Where(this=all_of([_equals("pipeline_name", 1), _equals("member", 2)])),
        returning=exp.Returning(expressions=[epoch.copy(), column("head_load_id")]),
    )

    return update.sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_committed(dataset: Dataset, count: int, dialect: str) -> str:
    """Which of ``count`` load ids have a row in ``_dlt_loads`` that says they are complete."""
    wanted = exp.In(this=column("load_id"), expressions=[parameter(at + 1) for at in range(count)])
    query = exp.select(column("load_id")).from_(table(LOADS_TABLE, dataset)).where(wanted, _complete())

    return query.sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_newest_load(dataset: Dataset, dialect: str) -> str:
    """Greatest load id in the dataset, whatever its status: new ids have to be greater."""
    return exp.select(exp.Max(this=column("load_id"))).from_(table(LOADS_TABLE, dataset)).sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_run(dataset: Dataset, dialect: str) -> str:
    """Load ids, as JSON text, of (pipeline_name, run_id)."""
    query = (
        exp.select(exp.cast(column("load_ids"), exp.DataType.build("text")))
        .from_(table(RUNS_TABLE.name, dataset))
        .where(_equals("pipeline_name", 1), _equals("run_id", 2))
    )

    return query.sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_schema_hashes(dataset: Dataset, count: int, dialect: str) -> str:
    """Which of ``count`` schema hashes are stored."""
    wanted = exp.In(this=column("version_hash"), expressions=[parameter(at + 1) for at in range(count)])

    return exp.select(column("version_hash")).from_(table(VERSION_TABLE, dataset)).where(wanted).sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_schemas(dataset: Dataset, dialect: str) -> str:
    """Name and newest stored text of every schema of the dataset."""
    newest = exp.Window(
        this=exp.RowNumber(),
        partition_by=[column("schema_name")],
        order=exp.Order(expressions=[exp.Ordered(this=column(name), desc=True) for name in ("inserted_at", "version")]),
    )
    inner = exp.select(
        column("schema_name"), column("schema"), exp.alias_(newest, "_asyncelt_rank", quoted=True)
    ).from_(table(VERSION_TABLE, dataset))
    query = (
        exp.select(column("schema_name"), column("schema"))
        .from_(inner.subquery("_asyncelt_ranked"))
        .where(exp.EQ(this=column("_asyncelt_rank"), expression=exp.Literal.number(1)))
    )

    return query.sql(dialect=dialect)


@lru_cache(maxsize=64)
def select_state(dataset: Dataset, dialect: str) -> str:
    """Newest state of (pipeline_name) that belongs to a complete load, with its load id."""
    query = (
        exp.select(column("state", "s"), column("_dlt_load_id", "s"))
        .from_(table(STATE_TABLE, dataset, "s"))
        .join(
            table(LOADS_TABLE, dataset, "l"),
            on=exp.EQ(this=column("load_id", "l"), expression=column("_dlt_load_id", "s")),
            join_type="inner",
        )
        .where(exp.EQ(this=column("pipeline_name", "s"), expression=parameter(1)), _complete("l"))
        .order_by(exp.Ordered(this=column("_dlt_load_id", "s"), desc=True))
        .limit(1)
    )

    return query.sql(dialect=dialect)


@lru_cache(maxsize=64)
def prune_states(dataset: Dataset, keep: int, dialect: str) -> str:
    """DELETE all but the newest ``keep`` states of (pipeline_name)."""
    oldest_kept = (
        exp.select(column("_dlt_load_id"))
        .from_(table(STATE_TABLE, dataset))
        .where(_equals("pipeline_name", 1))
        .order_by(exp.Ordered(this=column("_dlt_load_id"), desc=True))
        .limit(1)
        .offset(keep - 1)
    )
    older = exp.LT(this=column("_dlt_load_id"), expression=oldest_kept.subquery())

    return exp.delete(table(STATE_TABLE, dataset)).where(_equals("pipeline_name", 1), older).sql(dialect=dialect)


def inflated(text: str) -> str:
    """A stored schema as JSON; the reference compresses those that are longer than a text column may be."""
    if text.lstrip().startswith("{"):
        return text

    return zlib.decompress(base64.b64decode(text)).decode("utf-8")


def _equals(name: str, position: int) -> exp.Expression:
    return exp.EQ(this=column(name), expression=parameter(position))


def _complete(of: str | None = None) -> exp.Expression:
    return exp.EQ(this=column("status", of), expression=exp.Literal.number(0))
