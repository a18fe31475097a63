"""Views of a DuckDB over files, with the columns and types of the schema. Pure: the statements only."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlglot import exp

from asyncelt.destinations.duckdb_impl.types import duckdb_type, json_type
from asyncelt.destinations.sql.names import column, identifier, option, table
from asyncelt.schema.model import Column, Table

__all__ = ["FILE_COLUMN", "PLACE_COLUMN", "view_of", "view_of_files", "view_of_partitions", "view_over"]

FILE_COLUMN = "_asyncelt_file"
"""The file in which rows are."""
PLACE_COLUMN = "file_row_number"
"""A row's place in its file; DuckDB takes no other name."""
_DIALECT = "duckdb"
_FILENAME = option("filename", exp.Literal.string(FILE_COLUMN))


def view_of(one: Table, paths: Sequence[str], *, distinct: bool = False) -> str:
    """CREATE VIEW over the files, with the table's columns and types even where there is no file."""
    columns = [column for column in one.columns.values() if column.data_type is not None]
    selects = [_nothing(columns)]

    for extension in ("parquet", "jsonl"):
        own = [path for path in paths if path.removesuffix(".gz").endswith(f".{extension}")]

        if own:
            selects.append(_parquet(own) if extension == "parquet" else _json_lines(columns, own))

    union: exp.Expression = selects[0]

    for select in selects[1:]:
        union = exp.Union(this=union, expression=select, distinct=distinct, by_name=True)

    return exp.Create(this=table(one.name), kind="VIEW", expression=union).sql(dialect=_DIALECT)


def _nothing(columns: Sequence[Column]) -> exp.Select:
    nulls = [exp.alias_(_cast(exp.null(), one), one.name, quoted=True) for one in columns]

    return exp.select(*nulls).where(exp.false())


def view_of_files(name: str, paths: Sequence[str], *, shape: str, placed: bool = False) -> str:
    """CREATE VIEW over Parquet files, with the columns that they have, and `FILE_COLUMN`.

    Args:
        name: Of the view.
        paths: The files; none is fine.
        shape: A relation without rows, for columns that no file has.
        placed: With `PLACE_COLUMN`, where there is a file. No column of a file may have this name.
    """
    options = [_FILENAME, option(PLACE_COLUMN, exp.true())] if placed else [_FILENAME]

    return _shaped(name, _parquet(paths, *options) if paths else None, shape)


def view_of_partitions(name: str, paths: Sequence[str], values: str, columns: Sequence[str], *, shape: str) -> str:
    """CREATE VIEW over Parquet files that lack the columns by which they are told apart.

    Args:
        name: Of the view.
        paths: The files.
        values: A relation with `FILE_COLUMN` and the columns.
        columns: Which.
        shape: See `view_of_files`.
    """
    # Names of folders are not the values: characters are written in another form there.
    files = _parquet(paths, option("hive_partitioning", exp.false()), _FILENAME).subquery("files")
    file = exp.EQ(this=column(FILE_COLUMN, "files"), expression=column(FILE_COLUMN, values))
    all_others = exp.Column(this=exp.Star(except_=[identifier(FILE_COLUMN)]), table=identifier("files"))
    select = exp.select(all_others, *(column(one, values) for one in columns)).from_(files).join(table(values), on=file)

    return _shaped(name, select, shape)


def _shaped(name: str, rows: exp.Select | None, shape: str) -> str:
    select: exp.Expression = exp.select(exp.Star()).from_(table(shape))

    if rows is not None:
        select = exp.Union(this=select, expression=rows, distinct=False, by_name=True)

    return exp.Create(this=table(name), kind="VIEW", expression=select, replace=True).sql(dialect=_DIALECT)


def _parquet(paths: Sequence[str], *options: exp.Expression) -> exp.Select:
    given = [_list(paths), option("union_by_name", exp.true()), *options]
    reader = exp.Anonymous(this="read_parquet", expressions=given)

    return exp.select(exp.Star()).from_(reader)


def _json_lines(columns: Sequence[Column], paths: Sequence[str]) -> exp.Select:
    types = exp.Struct(
        expressions=[
            exp.PropertyEQ(this=identifier(one.name), expression=exp.Literal.string(json_type(one))) for one in columns
        ]
    )
    reader = exp.Anonymous(
        this="read_json",
        expressions=[
            _list(paths),
            option("format", exp.Literal.string("newline_delimited")),
            option("columns", types),
        ],
    )
    values = []

    for one in columns:
        value: exp.Expression = column(one.name)

        if one.data_type == "binary":
            value = exp.Anonymous(this="from_base64", expressions=[value])

        values.append(exp.alias_(_cast(value, one), one.name, quoted=True))

    return exp.select(*values).from_(reader)


def _cast(value: exp.Expression, one: Column) -> exp.Expression:
    return exp.cast(value, exp.DataType.build(duckdb_type(one), dialect=_DIALECT))


def _list(paths: Sequence[str]) -> exp.Expression:
    return exp.Array(expressions=[exp.Literal.string(path) for path in paths])


def view_over(source: str, one: Table, known: Collection[str]) -> str:
    """CREATE VIEW over something registered; columns that it does not have are null."""
    columns = [found for found in one.columns.values() if found.data_type is not None]
    values = [_cast(column(found.name) if found.name in known else exp.null(), found) for found in columns]
    select = exp.select(
        *(exp.alias_(value, found.name, quoted=True) for value, found in zip(values, columns, strict=True))
    )

    return exp.Create(this=table(one.name), kind="VIEW", expression=select.from_(table(source))).sql(dialect=_DIALECT)
