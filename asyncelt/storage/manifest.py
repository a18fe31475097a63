"""The text of a sealed package: its manifest, and the record of jobs that failed or were set aside. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import orjson

from asyncelt.errors import PackageCorrupt
from asyncelt.flow import JobFile, Package, PositionMove
from asyncelt.schema.stored import from_stored
from asyncelt.storage.files import write_atomically
from asyncelt.storage.state import decode_typed_json, encode_typed_json
from asyncelt.types import JsonValue, LoadId, PackageStatus, TableName

__all__ = [
    "FORMAT_VERSION",
    "Outcome",
    "SealedPackage",
    "from_manifest",
    "read_manifest",
    "read_outcome",
    "to_manifest",
    "write_manifest",
    "write_outcome",
]

FORMAT_VERSION: Final = 2
"""Of everything in a working folder. 1: before packages could be extracted on their own; read as it is."""
READABLE: Final = (1, 2)
_MANIFEST: Final = "manifest.json"
_OUTCOME: Final = "outcome.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPackage:
    """A package with what the engine needs to go on from it."""

    package: Package
    state: str | None
    """Pipeline state as of the package's end, as stored at the destination; None when it is the head's."""
    place: str | None = None
    """Destination, location and dataset it was made for; it may be committed elsewhere if the user says so."""
    refresh: str | None = None
    completed_at: float | None = None
    """Unix time at which it was loaded or aborted."""
    schema_update: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tables and columns that its commit added at the destination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of single jobs of a pending package."""

    failed: Mapping[str, str] = field(default_factory=dict)
    """Job id -> what the destination said. They are tried again with the package."""
    set_aside: Mapping[str, str] = field(default_factory=dict)
    """Job id -> why. The package is loaded without them."""


def write_manifest(folder: Path, manifest: Mapping[str, object], *, durable: bool, is_typed: bool = False) -> None:
    """Replace the manifest of a package.

    Args:
        folder: The package's.
        manifest: All of it but the format version.
        durable: See `write_atomically`.
        is_typed: Whether it holds what users wrote, such as dates in hints, which has to come back as it was.
    """
    document = {"format_version": FORMAT_VERSION, **manifest}
    content = encode_typed_json(document) if is_typed else orjson.dumps(document)
    write_atomically(folder / _MANIFEST, content, durable=durable)


def read_manifest(folder: Path, *, is_typed: bool = False) -> dict[str, object]:
    """The manifest of a package.

    Args:
        folder: The package's.
        is_typed: As it was written.

    Raises:
        PackageCorrupt: There is none, it cannot be read, or another release has written it.
    """
    try:
        content = (folder / _MANIFEST).read_bytes()
        manifest = decode_typed_json(content) if is_typed else orjson.loads(content)
    except (OSError, orjson.JSONDecodeError) as error:
        raise PackageCorrupt(f"The manifest of load package {folder.name} cannot be read: {error}") from error

    version = manifest.get("format_version") if isinstance(manifest, dict) else None

    if version not in READABLE:
        raise PackageCorrupt(
            f"Load package {folder.name} has format version {version!r}; this release reads "
            f"{' and '.join(map(str, READABLE))}. It was written by another release: load it with that one."
        )

    return cast("dict[str, object]", manifest)


def to_manifest(sealed: SealedPackage) -> dict[str, object]:
    """A sealed package as values for JSON."""
    package = sealed.package

    return {
        "load_id": package.load_id,
        "pipeline_name": package.pipeline_name,
        "dataset_name": package.dataset_name,
        "status": package.status,
        "created_at": package.created_at,
        "completed_at": sealed.completed_at,
        "parent_load_id": package.parent_load_id,
        "bundle": list(package.bundle),
        "run_id": package.run_id,
        "place": sealed.place,
        "refresh": sealed.refresh,
        "replaced_tables": list(package.replaced_tables),
        "dropped_tables": list(package.dropped_tables),
        "truncated_tables": list(package.truncated_tables),
        "row_counts": {str(table): rows for table, rows in package.row_counts.items()},
        "jobs": [
            {
                "job_id": job.job_id,
                "table": job.table,
                "file_name": job.file_name,
                "file_format": job.file_format,
                "rows": job.rows,
                "nbytes": job.nbytes,
            }
            for job in package.jobs
        ],
        "positions": [
            {
                "source": move.source,
                "partition": move.partition,
                "taken": move.taken,
                "floor": move.floor,
                "epoch": move.epoch,
            }
            for move in package.positions
        ],
        "state": sealed.state,
        "schema": orjson.Fragment(package.schema.stored_json),
        "schema_update": {table: list(columns) for table, columns in sealed.schema_update.items()},
    }


def from_manifest(folder: Path, manifest: Mapping[str, object]) -> SealedPackage:
    """The package that a manifest describes.

    Raises:
        PackageCorrupt: It is incomplete.
    """
    known = cast("dict[str, object]", manifest)
    jobs = cast("list[dict[str, object]]", known.get("jobs", ()))
    moves = cast("list[dict[str, object]]", known.get("positions", ()))
    update = cast("dict[str, list[str]]", known.get("schema_update", {}))

    try:
        package = Package(
            load_id=LoadId(cast(str, known["load_id"])),
            pipeline_name=cast(str, known["pipeline_name"]),
            dataset_name=cast(str, known["dataset_name"]),
            folder=folder,
            schema=from_stored(cast("dict[str, JsonValue]", known["schema"])),
            jobs=tuple(JobFile(**job) for job in jobs),  # type: ignore[arg-type]
            status=cast(PackageStatus, known["status"]),
            parent_load_id=cast("LoadId | None", known.get("parent_load_id")),
            bundle=tuple(LoadId(item) for item in cast("list[str]", known["bundle"])),
            run_id=cast("str | None", known["run_id"]),
            replaced_tables=_names(known, "replaced_tables"),
            dropped_tables=_names(known, "dropped_tables"),
            truncated_tables=_names(known, "truncated_tables"),
            row_counts=cast("dict[TableName, int]", known.get("row_counts", {})),
            positions=tuple(PositionMove(**move) for move in moves),  # type: ignore[arg-type]
            created_at=cast(float, known["created_at"]),
        )

        return SealedPackage(
            package=package,
            state=cast("str | None", known["state"]),
            place=cast("str | None", known.get("place")),
            refresh=cast("str | None", known.get("refresh")),
            completed_at=cast("float | None", known.get("completed_at")),
            schema_update={table: tuple(columns) for table, columns in update.items()},
        )
    except (KeyError, TypeError) as error:
        raise PackageCorrupt(f"The manifest of load package {folder.name} is incomplete: {error}") from error


def _names(manifest: Mapping[str, object], key: str) -> tuple[TableName, ...]:
    return tuple(TableName(item) for item in cast("list[str]", manifest.get(key, ())))


def read_outcome(folder: Path) -> Outcome:
    """The record of single jobs; an empty one where nothing has failed.

    Raises:
        PackageCorrupt: It cannot be read.
    """
    try:
        content = (folder / _OUTCOME).read_bytes()
    except FileNotFoundError:
        return Outcome()

    try:
        known = orjson.loads(content)

        return Outcome(failed=known["failed"], set_aside=known["set_aside"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PackageCorrupt(f"The job record of load package {folder.name} cannot be read: {error}") from error


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Replace the record of single jobs."""
    document = {"failed": dict(outcome.failed), "set_aside": dict(outcome.set_aside)}
    write_atomically(folder / _OUTCOME, orjson.dumps(document), durable=True)
