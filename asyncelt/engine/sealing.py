"""The end of a run's first half: schemas get their versions, the state its row, and the packages their seal.

:func:`seal_run` blocks and is called in a thread; everything else is pure.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pyarrow as pa

from asyncelt.config import Limits
from asyncelt.engine.plan import Refreshed
from asyncelt.engine.shaping import ShapingResult
from asyncelt.flow import JobFile, Package, PositionMove, TableBatch
from asyncelt.load.protocol import Destination
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import bump, mark_seen_data
from asyncelt.schema.model import Schema, Table
from asyncelt.schema.system import STATE_TABLE, pipeline_state_table
from asyncelt.storage.package import PackageDraft, PackageStore, SealedPackage
from asyncelt.storage.state import bump_state, decode_state, default_state, encode_state, state_row_values
from asyncelt.storage.writer import Chunk, TableFiles, file_schema
from asyncelt.types import FileFormat, LoadId, TableName

__all__ = ["Harvest", "seal_run", "state_after"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """Everything a run has produced when its last page is written."""

    pipeline_name: str
    dataset_name: str
    place: str | None
    drafts: Mapping[str, PackageDraft]
    schemas: Mapping[str, Schema]
    shaped: ShapingResult
    replaced: Mapping[str, tuple[TableName, ...]]
    refresh: str | None
    refreshed: Mapping[str, Refreshed]
    state: Mapping[str, object]
    """State document as of the end of the run."""
    head_state: str | None
    """As of the package before."""
    writes_state: bool
    """Whether a changed state goes to the destination too."""
    state_schema: str
    parent_load_id: LoadId | None
    positions: tuple[PositionMove, ...]
    """They go with the package that the state goes with."""
    run_id: str | None
    created_at: float
    capabilities: Capabilities
    file_format: FileFormat
    limits: Limits


def state_after(
    document: Mapping[str, object],
    *,
    dataset_name: str,
    destination: Destination | None,
    default_schema_name: str,
    schema_names: Sequence[str],
) -> dict[str, object]:
    """The state document with the properties of the pipeline filled in, in the reference's spelling.

    What only a destination can say is left as it is where there is none.
    """
    state = {
        **copy.deepcopy(dict(document)),
        "default_schema_name": default_schema_name,
        "schema_names": list(schema_names),
    }

    if destination is None:
        return state

    kind = destination.destination_type.rpartition(".")[2]
    name = destination.destination_name

    return {
        **state,
        "dataset_name": dataset_name,
        "destination_type": f"dlt.destinations.{kind}",
        "destination_name": None if name == kind else name,
    }


def seal_run(store: PackageStore, harvest: Harvest) -> list[SealedPackage]:
    """Complete and seal the packages of a run. Blocking.

    Returns:
        The sealed bundle; empty when the run produced neither rows, nor a replacement, nor a new state.
    """
    state, state_job = _state_job(harvest)
    contents = {name: _contents(harvest, name, state_job) for name in harvest.drafts}
    kept = [name for name in harvest.drafts if contents[name].is_needed]
    bundle = tuple(harvest.drafts[name].load_id for name in kept)
    packages = [
        SealedPackage(
            package=_package(harvest, name, contents[name], bundle),
            state=state,
            place=harvest.place,
            refresh=harvest.refresh,
        )
        for name in kept
    ]

    return store.seal(packages) if packages else []


@dataclass(frozen=True, slots=True)
class _Contents:
    schema: Schema
    jobs: tuple[JobFile, ...]
    replaced: tuple[TableName, ...]
    extracted: bool
    refreshed: Refreshed
    positions: tuple[PositionMove, ...]

    @property
    def is_needed(self) -> bool:
        taken_away = self.refreshed.dropped or self.refreshed.truncated

        return bool(self.jobs or self.replaced or self.extracted or taken_away or self.positions)


def _contents(harvest: Harvest, name: str, state_job: JobFile | None) -> _Contents:
    schema = harvest.schemas[name]
    jobs = list(harvest.shaped.jobs.get(name, ()))

    if state_job is not None and name == harvest.state_schema:
        jobs.append(state_job)
        schema = _with_state_table(schema)

    with_rows = list(dict.fromkeys(job.table for job in jobs))
    # A table that never had a row does not exist at the destination, so there is nothing to replace.
    replaced = tuple(table for table in harvest.replaced[name] if table in with_rows or schema.tables[table].seen_data)

    return _Contents(
        bump(mark_seen_data(schema, with_rows)),
        tuple(jobs),
        replaced,
        name in harvest.shaped.extracted,
        harvest.refreshed[name],
        harvest.positions if name == harvest.state_schema else (),
    )


def _package(harvest: Harvest, name: str, contents: _Contents, bundle: tuple[LoadId, ...]) -> Package:
    counts: dict[TableName, int] = {}

    for job in contents.jobs:
        counts[job.table] = counts.get(job.table, 0) + job.rows

    return Package(
        load_id=harvest.drafts[name].load_id,
        pipeline_name=harvest.pipeline_name,
        dataset_name=harvest.dataset_name,
        folder=harvest.drafts[name].folder,
        schema=contents.schema,
        jobs=contents.jobs,
        parent_load_id=harvest.parent_load_id,
        bundle=bundle,
        run_id=harvest.run_id,
        replaced_tables=contents.replaced,
        dropped_tables=contents.refreshed.dropped,
        truncated_tables=contents.refreshed.truncated,
        row_counts=counts,
        positions=contents.positions,
        created_at=harvest.created_at,
    )


def _state_job(harvest: Harvest) -> tuple[str, JobFile | None]:
    """The encoded state as of the run's end, and the file with its row if it differs from the one before."""
    # A pipeline that has never run has a state too, of version 0: its first real one is version 1.
    previous = (
        decode_state(harvest.head_state)
        if harvest.head_state is not None
        else bump_state(default_state(harvest.pipeline_name))
    )
    document = bump_state(dict(harvest.state), previous)

    if harvest.head_state is not None and document["_version_hash"] == previous.get("_version_hash"):
        return harvest.head_state, None

    encoded = encode_state(document)

    if not harvest.writes_state:
        return encoded, None

    draft = harvest.drafts[harvest.state_schema]
    table = _with_state_table(harvest.schemas[harvest.state_schema]).tables[STATE_TABLE]

    return encoded, _write_state_row(harvest, draft, table, document)


def _write_state_row(harvest: Harvest, draft: PackageDraft, table: Table, document: Mapping[str, object]) -> JobFile:
    row = state_row_values(document, draft.load_id, datetime.fromtimestamp(harvest.created_at, UTC))
    schema = file_schema(table, harvest.capabilities)
    data = pa.Table.from_pylist([row], schema=schema)
    files = TableFiles(draft, table.name, harvest.file_format, harvest.limits, harvest.capabilities)
    batch = TableBatch(table=table.name, data=data, rows=1)
    files.append(Chunk(table=table, batches=(batch,), rows=1, nbytes=int(data.nbytes)))
    files.finish()

    return files.jobs[0]


def _with_state_table(schema: Schema) -> Schema:
    if STATE_TABLE in schema.tables:
        return schema

    table = pipeline_state_table()

    return replace(schema, tables={**schema.tables, table.name: table})
