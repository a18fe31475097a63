"""Load packages on the disk: build, seal, find, complete, abort. Blocking: called from threads.

A working folder holds::

    .lock                          who owns it now (flock)
    head.json                      state and schemas as of the last package that the destination has
    trace.json                     what the last calls did
    packages/building/<load id>/   unfinished; garbage when found at start
    packages/extracted/<load id>/  pages, complete and durable; wait for normalize
    packages/sealed/<load id>/     job files, complete and durable; will be committed
    packages/done/<load id>/       manifests of loaded and aborted packages

A package folder holds ``manifest.json`` and ``pages/`` or ``jobs/``. The packages of one run form a bundle: they are
sealed one rename at a time, and count as sealed only when all of the bundle's folders have left ``building``. Normalize
seals under the load id of the extracted package, which is garbage from then on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from asyncelt.errors import LoadPackageNotFound, PackageCorrupt
from asyncelt.failpoints import failpoint
from asyncelt.flow import Package
from asyncelt.storage.disk import DiskMeter
from asyncelt.storage.draft import PackageDraft
from asyncelt.storage.extracted import ExtractedPackage, extracted_from_manifest, extracted_to_manifest
from asyncelt.storage.files import fsync_directory, remove_tree, rename_directory
from asyncelt.storage.manifest import (
    FORMAT_VERSION,
    SealedPackage,
    from_manifest,
    read_manifest,
    read_outcome,
    to_manifest,
    write_manifest,
)
from asyncelt.types import LoadId, PackageStatus

__all__ = ["FORMAT_VERSION", "PackageDraft", "PackageStore", "Pending", "SealedPackage"]

_P = TypeVar("_P", SealedPackage, ExtractedPackage)


@dataclass(frozen=True, slots=True)
class Pending:
    """Ids of the packages that are not committed yet, oldest first."""

    extracted: tuple[LoadId, ...] = ()
    sealed: tuple[LoadId, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.extracted or self.sealed)

    @property
    def all(self) -> tuple[LoadId, ...]:
        """Both kinds, in the order in which they will be committed."""
        return tuple(sorted((*self.sealed, *self.extracted), key=float))

    def without(self, load_ids: Sequence[LoadId]) -> Pending:
        """What remains when these are done."""
        gone = set(load_ids)

        return Pending(
            tuple(one for one in self.extracted if one not in gone),
            tuple(one for one in self.sealed if one not in gone),
        )


class PackageStore:
    """The packages of one working folder. The caller holds its lock.

    Args:
        root: The working folder; created if needed.
        max_disk: Bytes of pages and job files that may lie in it; None: no bound.
    """

    def __init__(self, root: Path, *, max_disk: int | None = None) -> None:
        self.root = root
        self.disk = DiskMeter(root, max_disk)
        self._building = root / "packages" / "building"
        self._extracted = root / "packages" / "extracted"
        self._sealed = root / "packages" / "sealed"
        self._done = root / "packages" / "done"

    def prepare(self) -> Pending:
        """Make the folders, remove what a dead run left unfinished, and return the ids of what is pending."""
        for folder in (self._building, self._extracted, self._sealed, self._done):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)

        for leftover in self._building.iterdir():
            # A bundle whose renames were cut off was never sealed: what it renamed already goes too.
            self._drop_bundle_of(leftover)
            remove_tree(leftover)

        # Normalized, and killed before its pages were removed.
        for load_id in _ids(self._extracted):
            if (self._sealed / load_id).is_dir() or (self._done / load_id).is_dir():
                remove_tree(self._extracted / load_id)

        return self.pending()

    def _drop_bundle_of(self, leftover: Path) -> None:
        try:
            manifest = read_manifest(leftover)
        except PackageCorrupt:
            return

        area = self._extracted if manifest["status"] == "extracted" else self._sealed

        for load_id in cast("list[str]", manifest["bundle"]):
            remove_tree(area / load_id)

    def draft(self, load_id: LoadId) -> PackageDraft:
        """Start a package of job files."""
        folder = self._building / load_id
        (folder / "jobs").mkdir(parents=True)

        return PackageDraft(load_id, folder, self.disk)

    def page_draft(self, load_id: LoadId) -> PackageDraft:
        """Start a package of pages."""
        folder = self._building / load_id
        (folder / "pages").mkdir(parents=True)

        return PackageDraft(load_id, folder, self.disk)

    def discard(self, drafts: Sequence[PackageDraft]) -> None:
        """Remove unfinished packages."""
        for draft in drafts:
            remove_tree(draft.folder)

    def seal(self, packages: Sequence[SealedPackage]) -> list[SealedPackage]:
        """Make a bundle durable. After this it will be committed, whatever dies; before, it never happened.

        Extracted packages of the same ids have been used up and are removed.

        Args:
            packages: Their folders are still those of their drafts; job files are closed and durable.

        Returns:
            The same packages in their final folders.
        """
        for sealed in packages:
            folder = sealed.package.folder
            write_manifest(folder, to_manifest(sealed), durable=True)
            fsync_directory(folder / "jobs")
            fsync_directory(folder)

        moved = [replace(one, package=replace(one.package, folder=self._move(one.package))) for one in packages]
        fsync_directory(self._sealed)
        failpoint("package.sealed")

        return moved

    def _move(self, package: Package) -> Path:
        target = self._sealed / package.load_id
        failpoint("package.before_seal")
        rename_directory(package.folder, target)
        failpoint("package.after_seal")

        return target

    def seal_extracted(self, packages: Sequence[ExtractedPackage]) -> list[ExtractedPackage]:
        """Make a bundle of pages durable. From then on normalize and load carry on with it, whatever dies.

        Args:
            packages: Their folders are still those of their drafts; page files are durable.

        Returns:
            The same packages in their final folders.
        """
        for package in packages:
            write_manifest(package.folder, extracted_to_manifest(package), durable=True, is_typed=True)
            fsync_directory(package.folder / "pages")
            fsync_directory(package.folder)

        moved = []

        for package in packages:
            target = self._extracted / package.load_id
            failpoint("extracted.before_seal")
            rename_directory(package.folder, target)
            failpoint("extracted.after_seal")
            moved.append(replace(package, folder=target))

        fsync_directory(self._extracted)
        failpoint("extracted.sealed")

        return moved

    def remove_extracted(self, load_ids: Sequence[LoadId]) -> None:
        """Remove pages that have become job files."""
        for load_id in load_ids:
            failpoint("extracted.before_remove")
            remove_tree(self._extracted / load_id)

    def pending(self) -> Pending:
        """Ids of everything that is not committed yet."""
        return Pending(tuple(_ids(self._extracted)), tuple(_ids(self._sealed)))

    def done_ids(self) -> list[LoadId]:
        """Ids of packages that were loaded or aborted and whose manifest is still kept, oldest first."""
        return _ids(self._done)

    def sealed_bundles(self) -> list[tuple[SealedPackage, ...]]:
        """Packages that wait for their commit, oldest bundle first."""
        return _bundled([(one := self.read(load_id), one.package.bundle) for load_id in _ids(self._sealed)])

    def extracted_bundles(self) -> list[tuple[ExtractedPackage, ...]]:
        """Packages that wait for normalize, oldest bundle first."""
        return _bundled([(one := self.read_extracted(load_id), one.bundle) for load_id in _ids(self._extracted)])

    def read(self, load_id: LoadId) -> SealedPackage:
        """A sealed, loaded or aborted package.

        Raises:
            LoadPackageNotFound: There is none with this id.
            PackageCorrupt: Its manifest cannot be read, or a job file is missing or cut off.
        """
        sealed = self._read(load_id)

        if sealed.package.folder.parent == self._sealed:
            _check_jobs(sealed.package)

        return sealed

    def _read(self, load_id: LoadId) -> SealedPackage:
        """Without a look at its job files."""
        for area in (self._sealed, self._done):
            folder = area / load_id

            if folder.is_dir():
                return from_manifest(folder, read_manifest(folder))

        raise LoadPackageNotFound(f"There is no load package {load_id} in {self.root}.")

    def read_extracted(self, load_id: LoadId) -> ExtractedPackage:
        """An extracted package.

        Raises:
            LoadPackageNotFound: There is none with this id.
            PackageCorrupt: Its manifest cannot be read.
        """
        folder = self._extracted / load_id

        if not folder.is_dir():
            raise LoadPackageNotFound(f"There is no extracted package {load_id} in {self.root}.")

        return extracted_from_manifest(folder, read_manifest(folder, is_typed=True))

    def find(self, load_id: LoadId) -> SealedPackage | ExtractedPackage:
        """A package in any state. Its data files are not looked at.

        Raises:
            LoadPackageNotFound: There is none with this id.
            PackageCorrupt: Its manifest cannot be read.
        """
        if (self._extracted / load_id).is_dir() and not (self._sealed / load_id).is_dir():
            return self.read_extracted(load_id)

        return self._read(load_id)

    def complete(
        self,
        load_ids: Sequence[LoadId],
        *,
        keep: int,
        updates: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
    ) -> None:
        """File loaded packages away: their data goes, their manifests stay (the newest ``keep`` of them).

        Files of jobs that were set aside stay as long as the manifest.

        Args:
            load_ids: Oldest first.
            keep: Manifests to keep, over all packages.
            updates: Load id -> tables and columns that the commit has added.
        """
        for load_id in load_ids:
            manifest = read_manifest(self._sealed / load_id)

            if updates and load_id in updates:
                manifest["schema_update"] = dict(updates[load_id])

            self._file_away(self._sealed / load_id, manifest, "loaded")
            _drop_jobs(self._done / load_id)

        self._prune(keep)

    def abort(self, load_ids: Sequence[LoadId], *, keep: int) -> None:
        """File pending packages away as given up, the newest first, so that what remains is always a chain.

        A package whose manifest cannot be read is removed.
        """
        for load_id in reversed(load_ids):
            folder = self._sealed / load_id

            if not folder.is_dir():
                folder = self._extracted / load_id

            try:
                manifest = read_manifest(folder)
            except PackageCorrupt:
                remove_tree(folder)
                continue

            # What belongs to the pages alone goes with them.
            self._file_away(folder, {**manifest, "pages": [], "resources": [], "news": []}, "aborted")
            remove_tree(self._done / load_id / "jobs")
            remove_tree(self._done / load_id / "pages")

        self._prune(keep)

    def _file_away(self, folder: Path, manifest: Mapping[str, object], status: PackageStatus) -> None:
        write_manifest(folder, {**manifest, "status": status, "completed_at": time.time()}, durable=False)
        failpoint("package.before_done")
        rename_directory(folder, self._done / folder.name)

    def _prune(self, keep: int) -> None:
        for load_id in self.done_ids()[: -keep or None]:
            remove_tree(self._done / load_id)


def _ids(folder: Path) -> list[LoadId]:
    try:
        with os.scandir(folder) as entries:
            return sorted((LoadId(entry.name) for entry in entries if entry.is_dir()), key=float)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _bundled(packages: Sequence[tuple[_P, tuple[LoadId, ...]]]) -> list[tuple[_P, ...]]:
    bundles: dict[tuple[LoadId, ...], list[_P]] = {}

    for package, bundle in packages:
        bundles.setdefault(bundle, []).append(package)

    return [tuple(bundle) for bundle in bundles.values()]


def _drop_jobs(folder: Path) -> None:
    """Remove job files, except those that were set aside and are in no dataset."""
    kept = read_outcome(folder).set_aside

    if not kept:
        remove_tree(folder / "jobs")
        return

    for path in (folder / "jobs").iterdir():
        if not any(path.name.startswith(f"{job_id}.") for job_id in kept):
            path.unlink()


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
