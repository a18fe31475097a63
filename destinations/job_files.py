"""Job files back into Arrow tables, for destinations that hold or check rows themselves. Blocking."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from asyncelt.flow import ROOT_ROW, JobFile, Package
from asyncelt.schema.arrow import arrow_type
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column, Table
from asyncelt.types import DataType

__all__ = ["aligned", "read_job", "table_schema"]


def read_job(package: Package, job: JobFile, capabilities: Capabilities) -> pa.Table:
    """Rows of one job, with exactly the typed columns of its table; those that the file lacks are null.

    `ROOT_ROW` comes last, where the file has it.
    """
    table = package.schema.tables[job.table]
    path = package.path_of(job)

    if job.file_format != "parquet":
        return _read_json_lines(path, table, capabilities)

    data = pq.read_table(path, partitioning=None)
    rows = aligned(data, table, capabilities)

    return rows.append_column(ROOT_ROW, data.column(ROOT_ROW)) if ROOT_ROW in data.schema.names else rows


def table_schema(table: Table, capabilities: Capabilities) -> pa.Schema:
    """Arrow schema of a table's typed columns, in their order."""
    return pa.schema([pa.field(one.name, arrow_type(one, capabilities)) for one in _typed(table)])


def aligned(data: pa.Table, table: Table, capabilities: Capabilities) -> pa.Table:
    """``data`` with the table's columns in their order and types."""
    schema = table_schema(table, capabilities)
    columns = []

    for field in schema:
        index = data.schema.get_field_index(field.name)
        columns.append(pa.nulls(data.num_rows, field.type) if index < 0 else data.column(index).cast(field.type))

    return pa.Table.from_arrays(columns, schema=schema)


def _typed(table: Table) -> Sequence[Column]:
    return [one for one in table.columns.values() if one.data_type is not None]


_FROM_JSON: Mapping[DataType, Callable[[str], object]] = {
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "decimal": Decimal,
    "wei": Decimal,
    "binary": base64.b64decode,
    # Only what JSON has no number for comes as text: NaN and the infinities.
    "double": float,
}


def _read_json_lines(path: Path, table: Table, capabilities: Capabilities) -> pa.Table:
    rows: list[dict[str, object]] = [orjson.loads(line) for line in path.read_bytes().splitlines() if line]
    schema = table_schema(table, capabilities)
    columns = []

    for one, field in zip(_typed(table), schema, strict=True):
        values = [row.get(one.name) for row in rows]
        parse = _FROM_JSON.get(one.data_type) if one.data_type is not None else None

        if parse is not None:
            values = [parse(value) if isinstance(value, str) else value for value in values]

        columns.append(pa.array(values, field.type))

    result = pa.Table.from_arrays(columns, schema=schema)

    if not any(ROOT_ROW in row for row in rows):
        return result

    return result.append_column(ROOT_ROW, pa.array([row.get(ROOT_ROW) for row in rows], pa.int64()))
