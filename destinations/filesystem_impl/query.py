"""SQL over a dataset of files: views over exactly the files that are committed. Blocking.

A table that a stored schema has and that no file belongs to is empty, as it would be in a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import duckdb
from sqlglot import exp

from asyncelt.destinations.duckdb_impl.types import duckdb_type, json_type
from asyncelt.destinations.filesystem_impl.dataset import FileDataset
from asyncelt.destinations.local_sql import LocalQuery
from asyncelt.destinations.sql.names import column, identifier, table
from asyncelt.schema.model import Column, Table
from asyncelt.schema.stored import from_json
from asyncelt.schema.system import (
    LOADS_TABLE,
    STATE_TABLE,
    VERSION_TABLE,
    loads_table,
    pipeline_state_table,
    version_table,
)
from asyncelt.types import SqlValue, TableName

__all__ = ["dataset_query"]

_DIALECT = "duckdb"


def dataset_query(dataset: FileDataset, sql: str, parameters: Sequence[SqlValue]) -> LocalQuery:
    """One statement over the dataset; only the tables whose names stand in it are looked up, when it begins."""

    def prepare(connection: duckdb.DuckDBPyConnection) -> None:
        dataset.finish()
        definitions = _definitions(dataset.schemas().values())
        files = {**dict.fromkeys(definitions, ()), **dataset.table_files()}

        for name in (LOADS_TABLE, VERSION_TABLE, STATE_TABLE):
            found = sorted(f"{name}/{one}" for one in dataset.store.names(name) if one.endswith(".jsonl"))

            if found:
                files[name] = found

        for name, paths in files.items():
            # In SQL a quote inside a name is doubled; everything else stands as it is.
            if name.lower().replace('"', '""') in sql.lower() and name in definitions:
                connection.execute(_view(definitions[name], dataset.store.attach(connection, paths)))

    return LocalQuery(prepare, sql, parameters)


def _definitions(schemas: Iterable[str]) -> Mapping[TableName, Table]:
    """All tables with the columns of all schemas, since several may load into one table."""
    tables: dict[TableName, Table] = {}

    for text in schemas:
        for name, one in from_json(text).tables.items():
            known = tables.get(name)
            tables[name] = one if known is None else Table(name=name, columns={**known.columns, **one.columns})

    system = (loads_table(), version_table(), pipeline_state_table())

    return {**tables, **{one.name: one for one in system}}


def _view(one: Table, paths: Sequence[str]) -> str:
    """CREATE VIEW over the files, with the table's columns and types even where there is no file."""
    columns = [column for column in one.columns.values() if column.data_type is not None]
    selects = [_nothing(columns)]

    for extension, reader in (("parquet", _parquet), ("jsonl", _json_lines)):
        own = [path for path in paths if path.removesuffix(".gz").endswith(f".{extension}")]

        if own:
            selects.append(reader(columns, own))

    union: exp.Expression = selects[0]

    for select in selects[1:]:
        union = exp.Union(this=union, expression=select, distinct=False, by_name=True)

    return exp.Create(this=table(one.name), kind="VIEW", expression=union).sql(dialect=_DIALECT)


def _nothing(columns: Sequence[Column]) -> exp.Select:
    nulls = [exp.alias_(_cast(exp.null(), one), one.name, quoted=True) for one in columns]

    return exp.select(*nulls).where(exp.false())


def _parquet(columns: Sequence[Column], paths: Sequence[str]) -> exp.Select:
    del columns
    reader = exp.Anonymous(this="read_parquet", expressions=[_list(paths), _option("union_by_name", exp.true())])

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
            _option("format", exp.Literal.string("newline_delimited")),
            _option("columns", types),
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


def _option(name: str, value: exp.Expression) -> exp.Expression:
    return exp.PropertyEQ(this=exp.to_identifier(name), expression=value)
