"""Temporary tables that the rows of a package pass through on their way."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from asyncelt.destinations.sql.names import Dataset, column, identifier, table
from asyncelt.flow import ROOT_ROW
from asyncelt.schema.model import Table
from asyncelt.types import ColumnName

__all__ = ["copy_staging", "create_staging", "drop_staging", "empty_rows", "typed_columns"]


def typed_columns(one: Table) -> list[ColumnName]:
    """Names of the columns that have a type, in their order."""
    return [name for name, spec in one.columns.items() if spec.data_type is not None]


def empty_rows(dataset: Dataset, one: Table, foreign: Sequence[str]) -> exp.Select:
    """SELECT nothing, with the columns of a staging table: the table's at the destination, and `ROOT_ROW`."""
    number = exp.cast(exp.Null(), exp.DataType.build("BIGINT"))
    names = (*typed_columns(one), *foreign)
    empty = exp.select(*(column(name) for name in names), exp.alias_(number, ROOT_ROW, quoted=True))

    return empty.from_(table(one.name, dataset)).limit(0)


def create_staging(dataset: Dataset, one: Table, staged: str, foreign: Sequence[str], dialect: str) -> str:
    """CREATE a temporary table with the types of the table's columns at the destination, and `ROOT_ROW`."""
    create = exp.Create(
        this=table(staged),
        kind="TABLE",
        properties=exp.Properties(expressions=[exp.TemporaryProperty()]),
        expression=empty_rows(dataset, one, foreign),
    )

    return create.sql(dialect=dialect)


def copy_staging(dataset: Dataset, one: Table, staged: str, dialect: str) -> str:
    """INSERT all staged rows into the table."""
    names = typed_columns(one)
    into = exp.Schema(this=table(one.name, dataset), expressions=[identifier(name) for name in names])
    rows = exp.select(*(column(name) for name in names)).from_(table(staged))

    return exp.Insert(this=into, expression=rows).sql(dialect=dialect)


def drop_staging(staged: str, dialect: str) -> str:
    """DROP a temporary table."""
    return exp.Drop(tables=[table(staged)], kind="TABLE").sql(dialect=dialect)
