"""One load package as it stands, with its jobs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from asyncelt.flow import JobFile, Package
from asyncelt.info.text import iso, utc
from asyncelt.schema.model import Schema
from asyncelt.storage.extracted import ExtractedPackage
from asyncelt.storage.manifest import Outcome, SealedPackage
from asyncelt.types import LoadId, PackageStatus, TableName

__all__ = ["JobFileInfo", "LoadJobInfo", "LoadPackageInfo", "extracted_info", "package_info"]

JOB_STATES = ("new_jobs", "started_jobs", "completed_jobs", "failed_jobs")


@dataclass(frozen=True, slots=True)
class JobFileInfo:
    """What the name of a job file says: ``<table>.<file id>.<retry count>.<format>``."""

    table_name: str
    file_id: str
    retry_count: int
    file_format: str
    is_compressed: bool = False

    @property
    def job_id(self) -> str:
        """The name without retry count and format; the same for every attempt."""
        return f"{self.table_name}.{self.file_id}"

    @property
    def file_name(self) -> str:
        """The name itself."""
        return f"{self.job_id}.{self.retry_count}.{self.file_format}" + (".gz" if self.is_compressed else "")

    @classmethod
    def parse(cls, file_name: str) -> JobFileInfo:
        """Take a name apart; the table's name may have dots."""
        rest, _, ending = file_name.removesuffix(".gz").rpartition(".")
        rest, _, retry = rest.rpartition(".")
        table, _, file_id = rest.rpartition(".")

        return cls(table, file_id, int(retry) if retry.isdigit() else 0, ending, file_name.endswith(".gz"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJobInfo:
    """One file of a package."""

    state: str
    """``new_jobs``, ``completed_jobs`` or ``failed_jobs``."""
    file_path: str
    file_size: int
    created_at: datetime
    elapsed: float
    """Seconds from its making to its end, or until now."""
    job_file_info: JobFileInfo
    failed_message: str | None = None
    rows: int = 0
    is_set_aside: bool = False
    """`Pipeline.fail_pending_job` has taken it out: the package is loaded without it, and the file is kept."""

    @property
    def job_id(self) -> str:
        """The same for every attempt."""
        return self.job_file_info.job_id

    @property
    def table_name(self) -> str:
        """Table that its rows belong to."""
        return self.job_file_info.table_name

    @property
    def file_name(self) -> str:
        """Name that `Pipeline.fail_pending_job` and `Pipeline.retry_failed_job` take."""
        return self.file_path.rpartition("/")[2]

    def asdict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "state": self.state,
            "job_id": self.job_id,
            "table_name": self.table_name,
            "file_path": self.file_path,
            "file_format": self.job_file_info.file_format,
            "file_size": self.file_size,
            "rows": self.rows,
            "created_at": iso(self.created_at),
            "elapsed": self.elapsed,
            "failed_message": self.failed_message,
            "is_set_aside": self.is_set_aside,
        }

    def asstr(self) -> str:
        """One line, and the error below it."""
        text = f"Job: {self.file_name}, table: {self.table_name} in {self.state}. File type: "
        text += f"{self.job_file_info.file_format}, size: {self.file_size} bytes, {self.rows} row(s)."

        return text if self.failed_message is None else f"{text}\n{self.failed_message}"

    def __str__(self) -> str:
        return self.asstr()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPackageInfo:
    """One package as it stood when this was made."""

    load_id: LoadId
    package_path: str
    state: PackageStatus
    schema: Schema = field(repr=False)
    """As of the end of the package."""
    jobs: Mapping[str, tuple[LoadJobInfo, ...]] = field(repr=False)
    """By state; every state is there."""
    row_counts: Mapping[TableName, int] = field(default_factory=dict)
    schema_update: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tables and the columns that this package added at the destination."""
    created_at: datetime | None = None
    completed_at: datetime | None = None
    refresh: str | None = None
    dropped_tables: tuple[str, ...] = ()
    truncated_tables: tuple[str, ...] = ()
    has_pending_transitions: bool = False
    """Always False: a package is committed whole."""

    @property
    def schema_name(self) -> str:
        """Name of its schema."""
        return self.schema.name

    @property
    def schema_hash(self) -> str:
        """Hash of its schema."""
        return self.schema.version_hash

    @property
    def schema_migrated(self) -> bool:
        """Whether tables or columns were added for it."""
        return bool(self.schema_update)

    @property
    def failed_jobs(self) -> tuple[LoadJobInfo, ...]:
        """Jobs that the destination refused, or that were set aside."""
        return self.jobs.get("failed_jobs", ())

    @property
    def all_jobs(self) -> tuple[LoadJobInfo, ...]:
        """Jobs of every state."""
        return tuple(job for state in JOB_STATES for job in self.jobs.get(state, ()))

    def asdict(self) -> dict[str, object]:
        """Plain values; tables as a list with their columns, so that they load into tables of their own."""
        return {
            "load_id": self.load_id,
            "package_path": self.package_path,
            "state": self.state,
            "schema_name": self.schema_name,
            "schema_hash": self.schema_hash,
            "created_at": iso(self.created_at),
            "completed_at": iso(self.completed_at),
            "refresh": self.refresh,
            "dropped_tables": list(self.dropped_tables),
            "truncated_tables": list(self.truncated_tables),
            "jobs": [job.asdict() for job in self.all_jobs],
            "row_counts": [{"table_name": name, "rows": rows} for name, rows in self.row_counts.items()],
            "tables": [
                {"name": table, "columns": [{"name": column} for column in columns]}
                for table, columns in self.schema_update.items()
            ],
        }

    def asstr(self, verbosity: int = 0) -> str:
        """One line: what became of the package. Failed jobs follow, all jobs where ``verbosity`` is 2 or more."""
        status = self.state.upper()
        text = status if self.state in {"loaded", "aborted"} else f"{status} and NOT YET LOADED to the destination"
        refresh = f" with refresh '{self.refresh}'" if self.refresh else ""
        failed = self.failed_jobs
        jobs = f"{len(failed)} FAILED job(s)!" if failed else "no failed jobs"
        pending = sum(not job.is_set_aside for job in failed) if self.state == "normalized" else 0
        retried = f" and {pending} job(s) pending retry" if pending else ""
        lines = [f"Load package {self.load_id}{refresh} is {text} and contains {jobs}{retried}"]
        shown = self.all_jobs if verbosity > 1 else failed

        return "\n".join([*lines, *(f"\t{job.asstr()}" for job in shown)])

    def __str__(self) -> str:
        return self.asstr()


def package_info(
    sealed: SealedPackage,
    *,
    outcome: Outcome | None = None,
    status: PackageStatus | None = None,
    schema_update: Mapping[str, tuple[str, ...]] | None = None,
    completed_at: float | None = None,
) -> LoadPackageInfo:
    """Describe a sealed package.

    Args:
        sealed: As read, or as just made.
        outcome: What became of single jobs.
        status: Where the package is further than its manifest said.
        schema_update: The same.
        completed_at: The same; Unix time.
    """
    package = sealed.package
    known = outcome or Outcome()
    state = status or package.status
    ended = completed_at or sealed.completed_at
    jobs: dict[str, list[LoadJobInfo]] = {name: [] for name in JOB_STATES}

    for job in package.jobs:
        one = _job_info(package, job, known, is_loaded=state == "loaded", ended=ended)
        jobs[one.state].append(one)

    return LoadPackageInfo(
        load_id=package.load_id,
        package_path=str(package.folder),
        state=state,
        schema=package.schema,
        jobs={name: tuple(found) for name, found in jobs.items()},
        row_counts=package.row_counts,
        schema_update=schema_update if schema_update is not None else sealed.schema_update,
        created_at=utc(package.created_at),
        completed_at=None if ended is None else utc(ended),
        refresh=sealed.refresh,
        dropped_tables=package.dropped_tables,
        truncated_tables=package.truncated_tables,
    )


def _job_info(package: Package, job: JobFile, outcome: Outcome, *, is_loaded: bool, ended: float | None) -> LoadJobInfo:
    set_aside = job.job_id in outcome.set_aside
    message = outcome.set_aside.get(job.job_id) if set_aside else outcome.failed.get(job.job_id)
    state = "completed_jobs" if is_loaded else "new_jobs"

    if set_aside or (message is not None and not is_loaded):
        state = "failed_jobs"

    return LoadJobInfo(
        state=state,
        file_path=str(package.path_of(job)),
        file_size=job.nbytes,
        created_at=utc(package.created_at),
        elapsed=max((ended or time.time()) - package.created_at, 0.0),
        job_file_info=JobFileInfo.parse(job.file_name),
        failed_message=None if state == "completed_jobs" else message,
        rows=job.rows,
        is_set_aside=set_aside,
    )


def extracted_info(package: ExtractedPackage) -> LoadPackageInfo:
    """Describe an extracted package; its jobs are the files of its pages."""
    rows: dict[str, int] = {}
    counts: dict[TableName, int] = {}

    for page in package.pages:
        rows[page.file] = rows.get(page.file, 0) + page.rows
        counts[TableName(page.table)] = counts.get(TableName(page.table), 0) + page.rows

    jobs = tuple(
        LoadJobInfo(
            state="new_jobs",
            file_path=str(package.pages_folder / name),
            file_size=size,
            created_at=utc(package.created_at),
            elapsed=max(time.time() - package.created_at, 0.0),
            job_file_info=JobFileInfo.parse(name),
            rows=rows.get(name, 0),
        )
        for name, size in package.sizes.items()
    )

    return LoadPackageInfo(
        load_id=package.load_id,
        package_path=str(package.folder),
        state=package.status,
        schema=package.schema,
        jobs={**dict.fromkeys(JOB_STATES, ()), "new_jobs": jobs},
        row_counts=counts,
        created_at=utc(package.created_at),
        refresh=package.refresh,
    )


def counted(packages: Sequence[LoadPackageInfo]) -> dict[TableName, int]:
    """Rows per table over all packages."""
    counts: dict[TableName, int] = {}

    for package in packages:
        for table, rows in package.row_counts.items():
            counts[table] = counts.get(table, 0) + rows

    return counts
