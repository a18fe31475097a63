"""Tables as expressions of ibis, and expressions of ibis as queries. ibis builds them; it never connects."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from asyncelt.errors import ConfigError, InvalidQuery
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName

if TYPE_CHECKING:
    import ibis.expr.types as ir
    from sqlglot import exp
    from typing_extensions import TypeIs

__all__ = ["ibis_query", "ibis_table", "is_ibis", "query_of_ibis"]

_TYPES: Final[Mapping[str, str]] = {
    "text": "string",
    "double": "float64",
    "bool": "boolean",
    "bigint": "int64",
    "binary": "binary",
    "json": "string",
    "date": "date",
    "time": "time",
}
_COMPILERS: Final = {"duckdb": "DuckDBCompiler", "postgres": "PostgresCompiler"}
_WIDEST: Final = 38
_SCALE: Final = 9


def ibis_table(name: str, columns: Mapping[ColumnName, Column]) -> ir.Table:
    """A table that is bound to no connection, with the types that its columns have here.

    Raises:
        ConfigError: ibis is not installed.
    """
    ibis = _ibis()

    return ibis.table({column: _type_of(one) for column, one in columns.items()}, name=name)


def ibis_query(sql: str, columns: Mapping[ColumnName, Column]) -> ir.Table:
    """A query with its values written out, as a table that is bound to no connection.

    Raises:
        ConfigError: ibis is not installed.
        InvalidQuery: A column's type cannot be told before the query runs.
    """
    ibis = _ibis()
    unknown = [name for name, one in columns.items() if one.data_type is None]

    if unknown or not columns:
        raise InvalidQuery(
            f"to_ibis() needs the types of all columns, and that of {', '.join(unknown) or 'them'} is not known before "
            "the query runs: name the columns, with CAST(... AS ...)."
        )

    from ibis.expr.operations import SQLQueryResult

    schema = ibis.schema({column: _type_of(one) for column, one in columns.items()})
    # What asyncelt hands over is never asked for its connection.
    found: ir.Table = SQLQueryResult(sql, schema, None).to_expr()

    return found


def _ibis() -> Any:
    try:
        import ibis
    except ImportError as error:
        raise ConfigError("to_ibis() needs ibis: pip install 'asyncelt[ibis]'.") from error

    return ibis


def is_ibis(query: str | exp.Expr | ir.Expr) -> TypeIs[ir.Expr]:
    """Whether a query is an expression of ibis. Never imports it."""
    types = sys.modules.get("ibis.expr.types")

    return types is not None and isinstance(query, cast("Any", types).Expr)


def query_of_ibis(expression: Any, dialect: str) -> exp.Expr:
    """The SELECT that an expression stands for.

    Raises:
        InvalidQuery: It is no table, the dialect cannot say it, or is not one that ibis knows.
    """
    from ibis.backends.sql import compilers
    from ibis.common.exceptions import IbisError

    if dialect not in _COMPILERS:
        raise InvalidQuery(f"Expressions of ibis cannot be written in {dialect!r}; {', '.join(_COMPILERS)} can be.")

    try:
        found: exp.Expr = getattr(compilers, _COMPILERS[dialect])().to_sqlglot(expression.as_table())
    except IbisError as error:
        raise InvalidQuery(f"This expression of ibis cannot be written in {dialect}: {error}") from error

    return found


def _type_of(column: Column) -> str:
    kind = column.data_type or "text"

    if kind == "timestamp":
        found = "timestamp(6)" if column.timezone is False else "timestamp('UTC', 6)"
    elif kind == "decimal":
        precision = column.precision or _WIDEST
        found = f"decimal({precision}, {min(_SCALE, precision) if column.scale is None else column.scale})"
    else:
        found = f"decimal({_WIDEST}, 0)" if kind == "wei" else _TYPES[kind]

    return found if column.nullable else f"!{found}"
