"""The calls about load packages: look at them, give them up, take single jobs out and back in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias, TypeVar

import anyio

from asyncelt._async import in_thread
from asyncelt.engine.ownership import Folder
from asyncelt.errors import LoadPackageNotFound, PackageCorrupt, UsageError
from asyncelt.flow import JobFile
from asyncelt.info.packages import LoadJobInfo, LoadPackageInfo, extracted_info, package_info
from asyncelt.info.text import iso, utc
from asyncelt.observe import Warned
from asyncelt.pipeline.base import PipelineBase
from asyncelt.schema.system import STATE_TABLE
from asyncelt.storage.extracted import ExtractedPackage
from asyncelt.storage.manifest import Outcome, SealedPackage, read_outcome, write_outcome
from asyncelt.storage.package import PackageStore
from asyncelt.storage.state import decode_state
from asyncelt.types import LoadId

__all__ = ["PackageCalls"]

_T = TypeVar("_T")
_Change: TypeAlias = Callable[[Outcome, JobFile], Outcome]


class PackageCalls(PipelineBase):
    """Load packages of the working folder."""

    async def list_extracted_resources(self) -> list[str]:
        """Page files of all extracted packages, relative to their folder."""
        return await _look(partial(_page_files, self._store))

    async def list_extracted_load_packages(self) -> list[LoadId]:
        """Ids of packages that wait for `normalize`, oldest first."""
        return list((await _look(self._store.pending)).extracted)

    async def list_normalized_load_packages(self) -> list[LoadId]:
        """Ids of packages that wait for `load`, oldest first."""
        return list((await _look(self._store.pending)).sealed)

    async def list_completed_load_packages(self) -> list[LoadId]:
        """Ids of loaded and aborted packages whose manifest is still kept, oldest first."""
        return await _look(self._store.done_ids)

    async def get_load_package_info(self, load_id: str) -> LoadPackageInfo:
        """One package as it stands now.

        Raises:
            LoadPackageNotFound: There is none with this id.
        """
        return await _look(partial(_info, self._store, LoadId(load_id)))

    async def get_load_package_state(self, load_id: str) -> dict[str, object]:
        """What a package knows besides its data: times, the pipeline's state as of its end, what it refreshes.

        Raises:
            LoadPackageNotFound: There is none with this id.
        """
        return await _look(partial(_state, self._store, LoadId(load_id)))

    async def list_failed_jobs_in_package(self, load_id: str) -> list[LoadJobInfo]:
        """Jobs that the destination has refused, and jobs that were set aside.

        Raises:
            LoadPackageNotFound: There is none with this id.
        """
        return list((await self.get_load_package_info(load_id)).failed_jobs)

    async def list_pending_retry_jobs_in_package(self, load_id: str) -> list[tuple[str, str]]:
        """File and state of the jobs of a pending package that have failed and will be tried again.

        Raises:
            LoadPackageNotFound: There is none with this id.
        """
        info = await self.get_load_package_info(load_id)

        if info.state != "normalized":
            return []

        return [(job.file_name, job.state) for job in info.failed_jobs if not job.is_set_aside]

    async def abort_packages(self, load_id: str | None = None, *, dry_run: bool = False) -> list[LoadId]:
        """Give up pending packages; state goes back to what it was before them, so that their rows come again.

        Packages are a chain: what came after the first aborted one goes too.

        Args:
            load_id: The first to give up; with it goes everything of the same run. None: all.
            dry_run: Only tell which packages would go.

        Returns:
            Their ids, oldest first.

        Raises:
            LoadPackageNotFound: No pending package has this id.
            UsageError: The destination has one of them already, so that its rows would come twice.
            LoadError: The destination, which is asked for that, does not answer.
        """
        async with self._folder(may_be_damaged=True) as folder:
            doomed = await in_thread(partial(_doomed, folder, load_id), folder.threads)

            if doomed and not dry_run:
                await _check_not_committed(folder, doomed)
                keep = self._options.settings.limits.keep_completed
                await in_thread(partial(folder.store.abort, doomed, keep=keep), folder.threads)
                await folder.look()

        return doomed

    async def drop_pending_packages(self, with_partial_loads: bool = True) -> list[LoadId]:  # noqa: FBT001, FBT002 - the reference's
        """Give up all pending packages. Packages are committed whole, so there are no partial loads to tell apart.

        Returns:
            Their ids.
        """
        del with_partial_loads

        return await self.abort_packages()

    async def fail_pending_job(self, load_id: str, job_file_name: str) -> LoadJobInfo:
        """Set one job of a pending package aside: the package is loaded without it, and its file is kept.

        Args:
            load_id: The package.
            job_file_name: Name or path of the job's file, or its job id.

        Raises:
            LoadPackageNotFound: No pending package has this id, or it has no such job. (Also a FileNotFoundError.)
            UsageError: It is the state's job: state and rows go together.
        """

        def set_aside(outcome: Outcome, job: JobFile) -> Outcome:
            why = outcome.failed.get(job.job_id, "set aside by fail_pending_job()")
            failed = {key: text for key, text in outcome.failed.items() if key != job.job_id}

            return Outcome(failed=failed, set_aside={**outcome.set_aside, job.job_id: why})

        return await self._change_job(load_id, job_file_name, set_aside)

    async def retry_failed_job(self, load_id: str, job_file_name: str) -> LoadJobInfo:
        """Take a job back into its pending package: the next load tries it again.

        Args:
            load_id: The package.
            job_file_name: Name or path of the job's file, or its job id.

        Raises:
            LoadPackageNotFound: No pending package has this id, or it has no such job. (Also a FileNotFoundError.)
        """

        def take_back(outcome: Outcome, job: JobFile) -> Outcome:
            return Outcome(
                failed={key: text for key, text in outcome.failed.items() if key != job.job_id},
                set_aside={key: text for key, text in outcome.set_aside.items() if key != job.job_id},
            )

        return await self._change_job(load_id, job_file_name, take_back)

    async def _change_job(self, load_id: str, file: str, change: _Change) -> LoadJobInfo:
        async with self._folder() as folder:
            found, others = await in_thread(partial(_changed, folder, load_id, file, change), folder.threads)

        if found.is_set_aside and others:
            self._emit(
                Warned(
                    pipeline_name=self._name,
                    table=found.table_name,
                    message=(
                        f"{found.file_name} was set aside, but load package {load_id} has more files of the same rows: "
                        f"{', '.join(others)}. Set them aside too if rows and nested rows are to stay together."
                    ),
                )
            )

        return found


async def _look(read: Callable[[], _T]) -> _T:
    return await in_thread(read, anyio.CapacityLimiter(1))


def _page_files(store: PackageStore) -> list[str]:
    packages = [one for bundle in store.extracted_bundles() for one in bundle]

    return [f"{one.load_id}/pages/{name}" for one in packages for name in one.sizes]


def _info(store: PackageStore, load_id: LoadId) -> LoadPackageInfo:
    found = store.find(load_id)

    if isinstance(found, ExtractedPackage):
        return extracted_info(found)

    return package_info(found, outcome=read_outcome(found.package.folder))


def _state(store: PackageStore, load_id: LoadId) -> dict[str, object]:
    found = store.find(load_id)
    state = None if found.state is None else decode_state(found.state)

    if isinstance(found, ExtractedPackage):
        return {
            "created_at": iso(utc(found.created_at)),
            "pipeline_state": state,
            "bundle": list(found.bundle),
            "run_id": found.run_id,
            "refresh": found.refresh,
        }

    package = found.package

    return {
        "created_at": iso(utc(package.created_at)),
        "completed_at": None if found.completed_at is None else iso(utc(found.completed_at)),
        "pipeline_state": state,
        "parent_load_id": package.parent_load_id,
        "bundle": list(package.bundle),
        "run_id": package.run_id,
        "refresh": found.refresh,
        "dropped_tables": list(package.dropped_tables),
        "truncated_tables": list(package.truncated_tables),
        "applied_schema_update": {table: list(columns) for table, columns in found.schema_update.items()},
    }


async def _check_not_committed(folder: Folder, doomed: Sequence[LoadId]) -> None:
    """A commit may have arrived although the call that made it has failed."""
    sealed = [load_id for load_id in doomed if load_id in folder.pending.sealed]

    if not sealed or folder.environment.destination is None:
        return

    async with folder.environment.connect() as session:
        found = sorted(await session.committed(sealed))

    if found:
        raise UsageError(
            f"Load package {', '.join(found)} is committed at the destination: given up, its rows would come twice. "
            "load() or run() notes that it is there; abort_packages() with the id of a later package gives that one up."
        )


def _doomed(folder: Folder, load_id: str | None) -> list[LoadId]:
    pending = folder.pending.all

    if load_id is None:
        return list(pending)

    if load_id not in pending:
        raise LoadPackageNotFound(
            f"No package {load_id} is pending in {folder.store.root}; pending are: {', '.join(pending) or 'none'}."
        )

    try:
        found = folder.store.find(LoadId(load_id))
        bundle = found.bundle if isinstance(found, ExtractedPackage) else found.package.bundle
    except PackageCorrupt:
        bundle = (LoadId(load_id),)

    first = min((one for one in bundle if one in pending), key=float, default=LoadId(load_id))

    return [one for one in pending if float(one) >= float(first)]


def _changed(folder: Folder, load_id: str, file: str, change: _Change) -> tuple[LoadJobInfo, Sequence[str]]:
    """Change the record of one job; its new state, and the other files of the same rows."""
    if load_id not in folder.pending.sealed:
        raise LoadPackageNotFound(
            f"No package {load_id} waits for load in {folder.store.root}; waiting are: "
            f"{', '.join(folder.pending.sealed) or 'none'}."
        )

    sealed = folder.store.find(LoadId(load_id))
    assert isinstance(sealed, SealedPackage)  # noqa: S101 - sealed ids name sealed packages
    package = sealed.package
    wanted = file.replace("\\", "/").rpartition("/")[2]
    job = next((one for one in package.jobs if wanted in (one.file_name, one.job_id)), None)

    if job is None:
        raise LoadPackageNotFound(
            f"Load package {load_id} has no job {wanted!r}; it has: {', '.join(one.file_name for one in package.jobs)}."
        )

    if job.table == STATE_TABLE:
        raise UsageError(
            f"{job.file_name} holds the state of the pipeline, which goes with the rows of load package {load_id}. To "
            f"load neither, use abort_packages({load_id!r})."
        )

    outcome = change(read_outcome(package.folder), job)
    write_outcome(package.folder, outcome)
    root = package.schema.root_of(job.table).name
    family = {one.name for one in package.schema.chain_of(root)}
    others = [
        one.file_name
        for one in package.jobs
        if one.table in family and one.job_id != job.job_id and one.job_id not in outcome.set_aside
    ]
    info = package_info(sealed, outcome=outcome)

    return next(one for one in info.all_jobs if one.job_id == job.job_id), others
