"""SQL of the user: parsed, checked against the schemas of the dataset, its columns worked out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp, parse, parse_one
from sqlglot.errors import OptimizeError, ParseError, SchemaError, SqlglotError, TokenError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema

from asyncelt.errors import InvalidQuery, UnknownColumn, UnknownTable
from asyncelt.reading.plan import Catalog
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName, DataType

__all__ = ["Parsed", "bind", "no_rows", "parse_condition", "parse_query", "sqlglot_schema"]

_TO_SQL: Mapping[str, str] = {
    "text": "TEXT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "bigint": "BIGINT",
    "binary": "VARBINARY",
    "json": "JSON",
    "decimal": "DECIMAL(38, 9)",
    "wei": "DECIMAL(38, 0)",
    "date": "DATE",
    "time": "TIME",
}
_FROM_SQL: Mapping[exp.DType, DataType] = {
    **dict.fromkeys(exp.DataType.TEXT_TYPES, "text"),
    **dict.fromkeys(exp.DataType.INTEGER_TYPES, "bigint"),
    exp.DataType.Type.FLOAT: "double",
    exp.DataType.Type.DOUBLE: "double",
    exp.DataType.Type.DECIMAL: "decimal",
    exp.DataType.Type.BOOLEAN: "bool",
    exp.DataType.Type.DATE: "date",
    exp.DataType.Type.TIME: "time",
    exp.DataType.Type.TIMESTAMP: "timestamp",
    exp.DataType.Type.TIMESTAMPTZ: "timestamp",
    exp.DataType.Type.VARBINARY: "binary",
    exp.DataType.Type.BINARY: "binary",
    exp.DataType.Type.JSON: "json",
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """A query of the user that reads only tables of the dataset."""

    query: exp.Query
    columns: tuple[Column, ...] | None
    """None: they cannot be told before it runs."""
    rewritten: bool
    """Whether it is not the text of the user any more: the dataset's name was taken out."""


def parse_query(query: str | exp.Expr, catalog: Catalog, dialect: str | None) -> Parsed:
    """Parse and check one query.

    Raises:
        InvalidQuery: It is not one SELECT, or cannot be parsed.
        UnknownTable: It names a table that no schema of the dataset has, or one of another dataset.
        UnknownColumn: It names a column that is nowhere.
    """
    parsed = query.copy() if isinstance(query, exp.Expr) else _parsed(query, dialect or catalog.dialect)

    if not isinstance(parsed, exp.Query):
        raise InvalidQuery(
            f"A relation is one SELECT, not {type(parsed).__name__.upper()}: use pipeline.sql_client() for other "
            "statements."
        )

    rewritten = any(table.db for table in parsed.find_all(exp.Table))
    named = check_tables(parsed, catalog)

    return Parsed(parsed, _columns(parsed, catalog, named), rewritten)


def sqlglot_schema(catalog: Catalog, names: Iterable[str] | None = None) -> MappingSchema:
    """Tables, with their columns and types, for the optimizer.

    Args:
        catalog: The dataset.
        names: Only these tables.
    """
    tables = {str(name): catalog.columns(name) for name in (catalog.tables if names is None else names)}

    return MappingSchema(
        {name: {str(key): _sql_type(one) for key, one in columns.items()} for name, columns in tables.items()},
        dialect=catalog.dialect,
    )


def no_rows(columns: Iterable[Column]) -> exp.Select:
    """A query whose result has these columns and never a row."""
    nothing = [exp.cast(exp.null(), _sql_type(one)).as_(one.name, quoted=True) for one in columns]

    return exp.select(*nothing).where(exp.false())


def parse_condition(condition: str | exp.Expr, catalog: Catalog) -> exp.Expr:
    """Parse a condition, and check the tables that are read in it.

    Raises:
        InvalidQuery: It cannot be parsed, or is no condition.
        UnknownTable: A subquery names a table that is not in the dataset.
    """
    dialect = catalog.dialect

    if isinstance(condition, exp.Expr):
        parsed = condition.copy()
    else:
        try:
            parsed = parse_one(condition, dialect=dialect)
        except SqlglotError as error:
            raise InvalidQuery(f"{condition!r} is not a condition in SQL ({dialect}): {_first_line(error)}") from error

    if not isinstance(parsed, exp.Condition) or isinstance(parsed, exp.Query):
        raise InvalidQuery(f'{parsed.sql(dialect=dialect)!r} is not a condition, such as "price > 10".')

    check_tables(parsed, catalog)

    return parsed


def check_tables(parsed: exp.Expr, catalog: Catalog) -> list[str]:
    """Names of the tables that are read; the dataset's name before them is taken away.

    Raises:
        UnknownTable: One is not in the dataset.
    """
    defined = {cte.alias_or_name.lower() for cte in parsed.find_all(exp.CTE)}
    known = {str(name).lower(): str(name) for name in catalog.tables}
    found: dict[str, None] = {}

    for table in parsed.find_all(exp.Table):
        # Functions that return rows (range, unnest) are tables of their own.
        if not isinstance(table.this, exp.Identifier) or (not table.db and table.name.lower() in defined):
            continue

        if table.catalog or table.db.lower() not in {"", catalog.dataset_name.lower()}:
            raise UnknownTable(
                f"{table.sql()} is not in dataset {catalog.dataset_name!r}; a relation reads one dataset. Use "
                "pipeline.sql_client() to read across datasets."
            )

        if table.name.lower() not in known:
            raise UnknownTable(
                f"Dataset {catalog.dataset_name!r} has no table {table.name!r}. It has: "
                f"{', '.join(known.values()) or 'none'}."
            )

        table.set("db", None)
        found[known[table.name.lower()]] = None

    return list(found)


def bind(parsed: exp.Expr, parameter: Callable[[int], exp.Expr]) -> exp.Expr:
    """Replace the placeholders ``?`` and ``$1`` by what ``parameter`` returns for their position, from 1.

    Raises:
        InvalidQuery: A placeholder has a name.
    """
    counted = 0

    def replaced(node: exp.Expr) -> exp.Expr:
        nonlocal counted

        if not isinstance(node, exp.Placeholder | exp.Parameter):
            return node

        if node.this is None:
            counted += 1

            return parameter(counted)

        position = str(node.this if isinstance(node.this, int | str) else node.name)

        if not position.isdigit():
            raise InvalidQuery(f"{node.sql()}: parameters are written ? or $1, $2; names are not supported.")

        return parameter(int(position))

    return parsed.transform(replaced, copy=False)


def _parsed(text: str, dialect: str) -> exp.Expr:
    try:
        statements = [statement for statement in parse(text, dialect=dialect) if statement is not None]
    except (ParseError, TokenError) as error:
        raise InvalidQuery(f"This is not SQL that can be read ({dialect}): {_first_line(error)}") from error

    if len(statements) != 1:
        raise InvalidQuery(f"A relation is one SELECT; here are {len(statements)} statements.")

    return statements[0]


def _columns(parsed: exp.Query, catalog: Catalog, named: Sequence[str]) -> tuple[Column, ...] | None:
    dialect = catalog.dialect
    schema = sqlglot_schema(catalog, named)

    try:
        query = qualify(parsed.copy(), schema=schema, dialect=dialect, quote_identifiers=False)
        query = annotate_types(query, schema=schema, dialect=dialect)
    except OptimizeError as error:
        raise UnknownColumn(f"The query does not fit dataset {catalog.dataset_name!r}: {error}") from error
    except SchemaError as error:
        raise InvalidQuery(f"The query does not fit dataset {catalog.dataset_name!r}: {error}") from error

    spelled = {str(name).lower(): str(name) for table in named for name in catalog.columns(table)}
    found = [_column(one, spelled) for one in query.selects]

    return None if any(one is None for one in found) else tuple(one for one in found if one is not None)


def _column(projection: exp.Expr, spelled: Mapping[str, str]) -> Column | None:
    name = projection.output_name

    if name in {"", "*"}:
        return None

    kind = projection.type
    data_type = _FROM_SQL.get(kind.this) if kind is not None else None
    inner = projection.unalias()

    # The optimizer folds names; a column that comes through keeps its spelling.
    if isinstance(inner, exp.Column) and inner.name == name:
        name = spelled.get(name, name)

    precision: int | None = None
    scale: int | None = None

    if data_type == "decimal" and kind is not None and len(kind.expressions) == 2:
        precision, scale = (int(one.name) for one in kind.expressions)

    naive = kind is not None and kind.this == exp.DataType.Type.TIMESTAMP

    return Column(
        name=ColumnName(name),
        data_type=data_type,
        precision=precision,
        scale=scale,
        timezone=False if naive else None,
    )


def _sql_type(one: Column) -> str:
    if one.data_type == "timestamp":
        return "TIMESTAMP" if one.timezone is False else "TIMESTAMPTZ"

    if one.data_type == "decimal" and one.precision is not None:
        return f"DECIMAL({one.precision}, {one.scale or 0})"

    return _TO_SQL[one.data_type or "text"]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
