"""Sealed load packages made from Arrow tables, as the engine would make them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from asyncelt.flow import ROOT_ROW, JobFile, Package
from asyncelt.load.protocol import Commit, Lease, Target
from asyncelt.schema.arrow import arrow_type, column_from_arrow
from asyncelt.schema.capabilities import UNTIL_COMMIT, Capabilities
from asyncelt.schema.evolve import bump
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.system import new_schema
from asyncelt.storage.formats import EXTENSIONS, open_writer
from asyncelt.types import ColumnName, FileFormat, LoadId, TableName

__all__ = ["Tables", "make_commit", "make_package", "state_row"]

Tables: TypeAlias = Mapping[str, "pa.Table | Sequence[pa.Table]"]
"""Rows per table; several Arrow tables become several job files, in this order."""


def make_package(  # noqa: PLR0913 - what a package is made of
    folder: Path,
    load_id: str,
    rows: Tables,
    *,
    target: Target,
    tables: Sequence[Table] = (),
    schema: Schema | None = None,
    capabilities: Capabilities | None = None,
    file_format: FileFormat = "parquet",
    replaced: Sequence[str] = (),
    dropped: Sequence[str] = (),
    truncated: Sequence[str] = (),
    parent_load_id: str | None = None,
) -> Package:
    """Write a sealed package into ``folder``.

    Args:
        folder: Its parent; the package gets a folder of its own, named by the load id.
        load_id: Decimal unix time.
        rows: Data per table. Columns that no definition names are taken from the Arrow types.
        target: Pipeline and dataset.
        tables: Definitions that rows alone do not give: keys, parents, dispositions. A table that is not named is
            a root table that is appended to.
        schema: What to start from, for a second package of the same pipeline.
        capabilities: Of the destination; they decide the Arrow types in the files.
        file_format: Of all job files.
        replaced: Root tables whose old rows go.
        dropped: Tables that are dropped first.
        truncated: Tables whose old rows go.
        parent_load_id: The package before this one.
    """
    known = capabilities or Capabilities()
    evolved = schema or new_schema("conformance")

    for table in tables:
        evolved = _with_table(evolved, table)

    for name, data in rows.items():
        for one in _pieces(data):
            evolved = _with_columns(evolved, TableName(name), one, known)

    evolved = bump(evolved)
    target_folder = folder / load_id
    (target_folder / "jobs").mkdir(parents=True)
    jobs = []

    for name, data in rows.items():
        for number, one in enumerate(_pieces(data)):
            table = evolved.tables[TableName(name)]
            jobs.append(_write_job(target_folder / "jobs", table, number, one, file_format, known))

    return Package(
        load_id=LoadId(load_id),
        pipeline_name=target.pipeline_name,
        dataset_name=target.dataset_name,
        folder=target_folder,
        schema=evolved,
        jobs=tuple(jobs),
        parent_load_id=None if parent_load_id is None else LoadId(parent_load_id),
        bundle=(LoadId(load_id),),
        replaced_tables=tuple(TableName(name) for name in replaced),
        dropped_tables=tuple(TableName(name) for name in dropped),
        truncated_tables=tuple(TableName(name) for name in truncated),
        row_counts={TableName(name): sum(one.num_rows for one in _pieces(data)) for name, data in rows.items()},
        created_at=float(load_id),
    )


def make_commit(target: Target, lease: Lease, *packages: Package, run_id: str | None = None) -> Commit:
    """The commit of these packages, made on the parent of the first."""
    bundle = tuple(package.load_id for package in packages)

    return Commit(
        target=target,
        lease=lease,
        packages=tuple(replace(package, bundle=bundle, run_id=run_id) for package in packages),
        parent_load_id=packages[0].parent_load_id,
        run_id=run_id,
    )


def state_row(target: Target, load_id: str, state: str, version: int = 1) -> pa.Table:
    """One row of ``_dlt_pipeline_state``; pass it as rows of that table, defined by `pipeline_state_table`."""
    return pa.table(
        {
            "version": [version],
            "engine_version": [4],
            "pipeline_name": [target.pipeline_name],
            "state": [state],
            "created_at": pa.array([int(float(load_id) * 1_000_000)], pa.timestamp("us", "UTC")),
            "version_hash": [base64.b64encode(state.encode()).decode()],
            "_dlt_load_id": [load_id],
            "_dlt_id": [f"state-{load_id}"],
        }
    )


def _pieces(data: pa.Table | Sequence[pa.Table]) -> Sequence[pa.Table]:
    return [data] if isinstance(data, pa.Table) else data


def _with_table(schema: Schema, table: Table) -> Schema:
    known = schema.tables.get(table.name)
    columns = {**(known.columns if known else {}), **table.columns}
    merged = replace(table, columns=columns)

    if merged.parent is None and merged.resource is None:
        merged = replace(merged, resource=table.name)

    return replace(schema, tables={**schema.tables, table.name: merged})


def _with_columns(schema: Schema, name: TableName, data: pa.Table, capabilities: Capabilities) -> Schema:
    table = schema.tables.get(name) or Table(name=name, resource=name, write_disposition="append")
    columns: dict[ColumnName, Column] = dict(table.columns)

    for field in data.schema:
        column = ColumnName(field.name)

        if column not in columns and column != ROOT_ROW:
            columns[column] = column_from_arrow(column, field, capabilities)

    return replace(schema, tables={**schema.tables, name: replace(table, columns=columns)})


def _file_type(table: Table, column: ColumnName, capabilities: Capabilities) -> pa.DataType:
    return pa.int64() if column == ROOT_ROW else arrow_type(table.columns[column], capabilities)


def _write_job(
    folder: Path, table: Table, number: int, data: pa.Table, file_format: FileFormat, capabilities: Capabilities
) -> JobFile:
    arrays = [
        data.column(at).cast(_file_type(table, ColumnName(name), capabilities))
        for at, name in enumerate(data.column_names)
    ]
    conformed = pa.table(arrays, names=data.column_names)
    file_id = f"{number:05x}conf"
    # Table names may have any character; this one ends a file name on no system, and the engine's never has it.
    file_name = f"{table.name.replace('/', '_')}.{file_id}.0.{EXTENSIONS[file_format]}"
    writer = open_writer(folder / file_name, conformed.schema, file_format, UNTIL_COMMIT)
    writer.write(conformed)
    writer.close()

    return JobFile(
        job_id=f"{table.name}.{file_id}",
        table=table.name,
        file_name=file_name,
        file_format=file_format,
        rows=conformed.num_rows,
        nbytes=(folder / file_name).stat().st_size,
    )
