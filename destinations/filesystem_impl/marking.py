"""What a commit writes down as its marker: which files come, which go, and the rows that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.changes import emptied_tables
from asyncelt.destinations.filesystem_impl.documents import MarkedPackage, Marker
from asyncelt.destinations.filesystem_impl.lake import LakeFormat, LakeWrite, format_of, lake_writes
from asyncelt.destinations.job_files import read_job
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import ENGINE_VERSION, to_json
from asyncelt.schema.system import STATE_TABLE, VERSION_TABLE
from asyncelt.types import JsonValue, LoadId, TableName

__all__ = ["Marking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """Makes the marker of one commit.

    Args:
        commit: The commit.
        capabilities: Decide the types in which state rows are read from job files.
        path_of: Where a job's file goes.
        stored_versions: Names of the files of stored schemas.
        current_files: Files of every table as of now; asked where old rows go.
        known_lakes: Tables in a table format, by the stored schemas; asked where tables are dropped.
    """

    commit: Commit
    capabilities: Capabilities
    path_of: Callable[[Package, JobFile], str]
    stored_versions: Sequence[str]
    current_files: Callable[[], Mapping[TableName, Sequence[str]]]
    known_lakes: Callable[[], Mapping[TableName, LakeFormat]]

    def marker(self, packages: Sequence[Package]) -> Marker:
        """Of these packages of the commit."""
        commit = self.commit
        current = self._replaceable() if any(emptied_tables(package) for package in packages) else {}
        stored = [(name, documents.split_name(name, 3)) for name in self.stored_versions]
        versions = {parts[2] for _, parts in stored if len(parts) == 3}
        superseded: list[str] = []
        marked = []

        for package in packages:
            for name in emptied_tables(package):
                superseded += current.pop(name, [])

            if package.dropped_tables:
                forgotten = [(name, parts) for name, parts in stored if parts[0] == package.schema.name]
                superseded += [f"{VERSION_TABLE}/{name}" for name, _ in forgotten]
                versions -= {parts[2] for _, parts in forgotten}

            files = self._files_of(package)

            for table, paths in files.items():
                current.setdefault(table, []).extend(paths)

            marked.append(
                MarkedPackage(
                    load_id=package.load_id,
                    schema_name=package.schema.name,
                    version_hash=package.schema.version_hash,
                    files=files,
                    lakes=self._lakes_of(package),
                    version=_version_row(package.schema, package.load_id, versions),
                    states=self._state_rows(package),
                )
            )

        return Marker(
            pipeline_name=commit.target.pipeline_name,
            member=commit.target.member,
            epoch=commit.lease.epoch,
            parent_load_id=commit.parent_load_id,
            run_id=commit.run_id,
            committed_at=_now(),
            packages=marked,
            superseded=superseded,
        )

    def _replaceable(self) -> dict[TableName, list[str]]:
        """Files of every table. Those that this commit has brought are no old ones, though no commit names them yet."""
        coming = {path for one in self.commit.packages for paths in self._files_of(one).values() for path in paths}

        return {table: [one for one in paths if one not in coming] for table, paths in self.current_files().items()}

    def _files_of(self, package: Package, *, lakes: bool = False) -> dict[TableName, list[str]]:
        """Where the rows of plain tables are, or those of tables in a table format."""
        files: dict[TableName, list[str]] = {}

        for job in package.jobs:
            if job.table != STATE_TABLE and (format_of(package.schema, job.table) is not None) == lakes:
                files.setdefault(job.table, []).append(self.path_of(package, job))

        return files

    def _lakes_of(self, package: Package) -> list[LakeWrite]:
        """What becomes of tables that are kept in a table format."""
        schema, emptied = package.schema, emptied_tables(package)
        gone = [name for name in emptied if name not in schema.tables]
        known = self.known_lakes() if gone else {}

        return lake_writes(
            schema,
            self._files_of(package, lakes=True),
            [name for name in emptied if name in schema.tables],
            {name: known[name] for name in gone if name in known},
        )

    def _state_rows(self, package: Package) -> list[Mapping[str, JsonValue]]:
        rows: list[Mapping[str, JsonValue]] = []

        for job in package.jobs:
            if job.table == STATE_TABLE:
                for row in read_job(package, job, self.capabilities).to_pylist():
                    del row["_dlt_id"]
                    rows.append({**row, "created_at": row["created_at"].isoformat()})

        return rows


def _version_row(schema: Schema, load_id: LoadId, stored: set[str]) -> Mapping[str, JsonValue] | None:
    digits = documents.split_name(documents.version_path(schema.name, load_id, schema.version_hash), 3)[2]

    if digits in stored:
        return None

    stored.add(digits)

    return {
        "version_hash": schema.version_hash,
        "schema_name": schema.name,
        "version": schema.version,
        "engine_version": ENGINE_VERSION,
        "inserted_at": _now(),
        "schema": to_json(schema),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat()
