"""The few sqlglot pieces that all statements are built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import Dialect, exp

__all__ = ["Dataset", "all_of", "column", "identifier", "option", "parameter", "quoted", "table"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A schema of a database, and the database where the name alone would be ambiguous."""

    name: str
    catalog: str | None = None


def identifier(name: str) -> exp.Identifier:
    """A name as it is: always quoted."""
    return exp.to_identifier(name, quoted=True)


def quoted(name: str, dialect: str) -> str:
    """The text of `identifier`."""
    start, end, escape = _quotes(dialect)

    return f"{start}{name.replace(end, escape)}{end}"


@lru_cache(maxsize=8)
def _quotes(dialect: str) -> tuple[str, str, str]:
    known = Dialect.get_or_raise(dialect)

    return known.IDENTIFIER_START, known.IDENTIFIER_END, known.IDENTIFIER_END * 2


def column(name: str, of: str | None = None) -> exp.Column:
    """A column, of the alias ``of`` where one is given."""
    return exp.column(identifier(name), table=None if of is None else identifier(of))


def table(name: str, dataset: Dataset | None = None, alias: str | None = None) -> exp.Table:
    """A table of a dataset; without one, a temporary table."""
    return exp.Table(
        this=identifier(name),
        db=None if dataset is None else identifier(dataset.name),
        catalog=None if dataset is None or dataset.catalog is None else identifier(dataset.catalog),
        alias=None if alias is None else exp.TableAlias(this=identifier(alias)),
    )


def parameter(position: int) -> exp.Parameter:
    """The value passed at ``position``, from 1."""
    return exp.Parameter(this=exp.Literal.number(position))


def option(name: str, value: exp.Expression) -> exp.Expression:
    """An argument by name, of a function that reads files."""
    return exp.PropertyEQ(this=exp.to_identifier(name), expression=value)


def all_of(conditions: Iterable[exp.Expression]) -> exp.Expression:
    """Every condition holds; there is at least one."""
    first, *others = conditions
    joined = first

    for condition in others:
        joined = exp.And(this=joined, expression=condition)

    return joined
