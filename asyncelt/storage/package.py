"""Load packages on the disk: build, seal, find, complete, abort. Blocking: called from threads.

A working folder holds::

    .lock                         who owns it now (flock)
    head.json                     state and schemas as of the last package that the destination has
    packages/building/<load id>/  unfinished; garbage when found at start
    packages/sealed/<load id>/    complete and durable; will be committed
    packages/done/<load id>/      manifests of loaded and aborted packages

A package folder holds ``manifest.json`` and ``jobs/``. The packages of one run form a bundle: they are sealed
one rename at a time, and count as sealed only when all of the bundle's folders have left ``building``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import orjson

from asyncelt.errors import LoadPackageNotFound, PackageCorrupt
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.schema.stored import from_stored, to_stored
from asyncelt.storage.files import fsync_directory, remove_tree, rename_directory, write_atomically
from asyncelt.types import JsonValue, LoadId, PackageStatus, TableName

__all__ = ["FORMAT_VERSION", "PackageDraft", "PackageStore", "SealedPackage"]

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedPackage:
    """A package with what the engine needs to go on from it."""

    package: Package
    state: str | None
    """Pipeline state as of the package's end, as stored at the destination; None when state is not kept."""


@dataclass(frozen=True, slots=True)
class PackageDraft:
    """A package that is being built."""

    load_id: LoadId
    folder: Path

    @property
    def jobs_folder(self) -> Path:
        """Where job files are written."""
        return self.folder / "jobs"


class PackageStore:
    """The packages of one working folder. The caller holds its lock.

    Args:
        root: The working folder; created if needed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._building = root / "packages" / "building"
        self._sealed = root / "packages" / "sealed"
        self._done = root / "packages" / "done"

    def prepare(self) -> list[LoadId]:
        """Make the folders, remove what a dead run left unfinished, and return the sealed packages' ids."""
        for folder in (self._building, self._sealed, self._done):
            folder.mkdir(parents=True, exist_ok=True)

        for leftover in self._building.iterdir():
            # A bundle whose renames were cut off was never sealed: what it renamed already goes too.
            self._drop_bundle_of(leftover)
            remove_tree(leftover)

        return self.sealed_ids()

    def _drop_bundle_of(self, leftover: Path) -> None:
        try:
            manifest = _read_manifest(leftover)
        except PackageCorrupt:
            return

        for load_id in cast("list[str]", manifest["bundle"]):
            remove_tree(self._sealed / load_id)

    def draft(self, load_id: LoadId) -> PackageDraft:
        """Start a package."""
        folder = self._building / load_id
        (folder / "jobs").mkdir(parents=True)

        return PackageDraft(load_id, folder)

    def discard(self, drafts: Sequence[PackageDraft]) -> None:
        """Remove unfinished packages."""
        for draft in drafts:
            remove_tree(draft.folder)

    def seal(self, packages: Sequence[SealedPackage]) -> list[SealedPackage]:
        """Make a bundle durable. After this it will be committed, whatever dies; before, it never happened.

        Args:
            packages: Their folders are still those of their drafts; job files are closed and durable.

        Returns:
            The same packages in their final folders.
        """
        for sealed in packages:
            folder = sealed.package.folder
            write_atomically(folder / "manifest.json", orjson.dumps(_to_manifest(sealed)), durable=True)
            fsync_directory(folder / "jobs")
            fsync_directory(folder)

        moved = []

        for sealed in packages:
            target = self._sealed / sealed.package.load_id
            failpoint("package.before_seal")
            rename_directory(sealed.package.folder, target)
            failpoint("package.after_seal")
            moved.append(replace(sealed, package=replace(sealed.package, folder=target)))

        fsync_directory(self._sealed)
        failpoint("package.sealed")

        return moved

    def sealed_ids(self) -> list[LoadId]:
        """Ids of packages that wait for their commit, oldest first."""
        return _ids(self._sealed)

    def done_ids(self) -> list[LoadId]:
        """Ids of packages that were loaded or aborted and whose manifest is still kept, oldest first."""
        return _ids(self._done)

    def sealed_bundles(self) -> list[tuple[SealedPackage, ...]]:
        """Packages that wait for their commit, oldest bundle first."""
        bundles: dict[tuple[LoadId, ...], list[SealedPackage]] = {}

        for load_id in self.sealed_ids():
            sealed = self.read(load_id)
            bundles.setdefault(sealed.package.bundle, []).append(sealed)

        return [tuple(bundle) for bundle in bundles.values()]

    def read(self, load_id: LoadId) -> SealedPackage:
        """A sealed, loaded or aborted package.

        Raises:
            LoadPackageNotFound: There is none with this id.
            PackageCorrupt: Its manifest cannot be read, or a job file is missing or cut off.
        """
        for area in (self._sealed, self._done):
            folder = area / load_id

            if folder.is_dir():
                sealed = _from_manifest(folder, _read_manifest(folder))

                if area == self._sealed:
                    _check_jobs(sealed.package)

                return sealed

        raise LoadPackageNotFound(f"There is no load package {load_id} in {self.root}.")

    def complete(self, packages: Sequence[Package], status: PackageStatus, *, keep: int) -> None:
        """File sealed packages away: their data goes, their manifests stay (the newest ``keep`` of them)."""
        for package in packages:
            folder = self._sealed / package.load_id
            manifest = _read_manifest(folder)
            manifest["status"] = status
            manifest["completed_at"] = time.time()
            write_atomically(folder / "manifest.json", orjson.dumps(manifest), durable=False)
            failpoint("package.before_done")
            rename_directory(folder, self._done / package.load_id)
            remove_tree(self._done / package.load_id / "jobs")

        for load_id in self.done_ids()[: -keep or None]:
            remove_tree(self._done / load_id)

    def size(self) -> int:
        """Bytes of all job files on the disk."""
        return sum(path.stat().st_size for path in (self.root / "packages").glob("*/*/jobs/*"))


def _ids(folder: Path) -> list[LoadId]:
    if not folder.is_dir():
        return []

    return sorted((LoadId(path.name) for path in folder.iterdir() if path.is_dir()), key=float)


def _to_manifest(sealed: SealedPackage) -> dict[str, JsonValue]:
    package = sealed.package

    return {
        "format_version": FORMAT_VERSION,
        "load_id": package.load_id,
        "pipeline_name": package.pipeline_name,
        "dataset_name": package.dataset_name,
        "status": package.status,
        "created_at": package.created_at,
        "parent_load_id": package.parent_load_id,
        "bundle": list(package.bundle),
        "run_id": package.run_id,
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
        "state": sealed.state,
        "schema": to_stored(package.schema),
    }


def _read_manifest(folder: Path) -> dict[str, JsonValue]:
    path = folder / "manifest.json"

    try:
        manifest = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise PackageCorrupt(f"The manifest of load package {folder.name} cannot be read: {error}") from error

    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        version = manifest.get("format_version") if isinstance(manifest, dict) else None
        raise PackageCorrupt(
            f"Load package {folder.name} has format version {version!r}; this release reads {FORMAT_VERSION}. "
            "It was written by another release: load it with that one."
        )

    return manifest


def _from_manifest(folder: Path, manifest: Mapping[str, JsonValue]) -> SealedPackage:
    fields = cast("dict[str, object]", manifest)

    try:
        package = Package(
            load_id=LoadId(cast(str, fields["load_id"])),
            pipeline_name=cast(str, fields["pipeline_name"]),
            dataset_name=cast(str, fields["dataset_name"]),
            folder=folder,
            schema=from_stored(cast("dict[str, JsonValue]", fields["schema"])),
            jobs=tuple(JobFile(**job) for job in cast("list[dict[str, object]]", fields["jobs"])),  # type: ignore[arg-type]
            status=cast(PackageStatus, fields["status"]),
            parent_load_id=cast("LoadId | None", fields["parent_load_id"]),
            bundle=tuple(LoadId(item) for item in cast("list[str]", fields["bundle"])),
            run_id=cast("str | None", fields["run_id"]),
            replaced_tables=_table_names(fields["replaced_tables"]),
            dropped_tables=_table_names(fields.get("dropped_tables", ())),
            truncated_tables=_table_names(fields.get("truncated_tables", ())),
            row_counts=cast("dict[TableName, int]", fields["row_counts"]),
            created_at=cast(float, fields["created_at"]),
        )
    except (KeyError, TypeError) as error:
        raise PackageCorrupt(f"The manifest of load package {folder.name} is incomplete: {error}") from error

    return SealedPackage(package=package, state=cast("str | None", fields["state"]))


def _table_names(names: object) -> tuple[TableName, ...]:
    return tuple(TableName(name) for name in cast("list[str]", names))


def _check_jobs(package: Package) -> None:
    for job in package.jobs:
        try:
            size = package.path_of(job).stat().st_size
        except FileNotFoundError:
            size = -1

        if size != job.nbytes:
            found = "is missing" if size < 0 else f"has {size} bytes instead of {job.nbytes}"
            raise PackageCorrupt(
                f"Job file {job.file_name} of load package {package.load_id} {found}. "
                "Abort the package (pipeline.abort_packages()) and run again."
            )
