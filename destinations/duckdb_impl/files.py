"""INSERT from the job files of a package, which DuckDB reads by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby

from sqlglot import exp

from asyncelt.destinations.duckdb_impl.job_paths import JobPaths, local_job_path
from asyncelt.destinations.duckdb_impl.types import json_type
from asyncelt.destinations.sql.names import Dataset, column, identifier, option, parameter, table
from asyncelt.flow import JobFile, Package
from asyncelt.schema.model import Column, Table

__all__ = ["insert_jobs", "insert_parquet"]

_DIALECT = "duckdb"
_MIN_OBJECT_BYTES = 16 * 1024 * 1024


def insert_jobs(
    package: Package,
    source: Table,
    jobs: Sequence[JobFile],
    target: str,
    dataset: Dataset | None,
    *,
    paths: JobPaths = local_job_path,
) -> Iterator[tuple[str, list[object]]]:
    """Yield the INSERTs, with their parameters, that append the jobs' rows to ``target`` in job order.

    Columns are matched by name; one that a file lacks is null. Usually one statement: one per run of jobs of
    the same format.
    """
    for file_format, group in groupby(jobs, key=lambda job: job.file_format):
        run = list(group)
        files = [paths(package, job) for job in run]

        if file_format == "parquet":
            yield insert_parquet(target, dataset, files)
        else:
            # A line may be as long as its file; the reader reserves twice this size for each thread.
            longest = max(_MIN_OBJECT_BYTES, *(job.nbytes for job in run))
            yield _insert_json(target, dataset, source, longest), [files]


def insert_parquet(target: str, dataset: Dataset | None, files: Sequence[str]) -> tuple[str, list[object]]:
    """The INSERT, with its parameters, that appends the rows of Parquet files."""
    return _insert_parquet(target, dataset, len(files) > 1), [list(files)]


@lru_cache(maxsize=256)
def _insert_parquet(target: str, dataset: Dataset | None, several: bool) -> str:  # noqa: FBT001 - private
    # With several files the columns of all have to be joined: a later file may have more of them.
    options = [option("union_by_name", exp.true())] if several else []
    rows = exp.select(exp.Star()).from_(exp.Anonymous(this="read_parquet", expressions=[parameter(1), *options]))

    return _insert(target, dataset, rows)


def _insert_json(target: str, dataset: Dataset | None, source: Table, longest: int) -> str:
    columns = [one for one in source.columns.values() if one.data_type is not None]
    types = exp.Struct(
        expressions=[
            exp.PropertyEQ(this=identifier(one.name), expression=exp.Literal.string(json_type(one))) for one in columns
        ]
    )
    options = [
        option("format", exp.Literal.string("newline_delimited")),
        option("columns", types),
        option("maximum_object_size", exp.Literal.number(longest)),
    ]
    rows = exp.select(*(_from_json(one) for one in columns)).from_(
        exp.Anonymous(this="read_json", expressions=[parameter(1), *options])
    )

    return _insert(target, dataset, rows)


def _from_json(one: Column) -> exp.Expr:
    if one.data_type == "binary":
        decoded = exp.Anonymous(this="from_base64", expressions=[column(one.name)])
        return exp.alias_(decoded, one.name, quoted=True)

    return column(one.name)


def _insert(target: str, dataset: Dataset | None, rows: exp.Select) -> str:
    return exp.Insert(this=table(target, dataset), expression=rows, by_name=True).sql(dialect=_DIALECT)
