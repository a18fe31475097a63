"""What a run returns: values with the reference's field names and printed forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from asyncelt.errors import DestinationRejected
from asyncelt.flow import Notice, Package
from asyncelt.types import JsonValue, LoadId, PackageStatus, TableName

__all__ = ["LoadInfo", "LoadJobInfo", "LoadPackageInfo", "package_info"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJobInfo:
    """One job file of a package."""

    job_id: str
    table_name: str
    file_name: str
    file_format: str
    file_size: int
    rows: int
    state: str = "completed_jobs"
    failed_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPackageInfo:
    """One package as it stands now."""

    load_id: LoadId
    package_path: str
    state: PackageStatus
    schema_name: str
    schema_hash: str
    jobs: tuple[LoadJobInfo, ...]
    row_counts: Mapping[TableName, int] = field(default_factory=dict)
    schema_update: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tables and the columns that this package added at the destination."""

    @property
    def failed_jobs(self) -> tuple[LoadJobInfo, ...]:
        """Jobs that failed for good."""
        return tuple(job for job in self.jobs if job.state == "failed_jobs")

    def asstr(self) -> str:
        """One line: what became of the package."""
        status = {"loaded": "LOADED", "aborted": "ABORTED"}.get(self.state, self.state.upper())
        text = f"{status} and NOT YET LOADED to the destination" if status not in {"LOADED", "ABORTED"} else status
        failed = len(self.failed_jobs)
        jobs = f"{failed} FAILED job(s)!" if failed else "no failed jobs"

        return f"Load package {self.load_id} is {text} and contains {jobs}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadInfo:
    """What `Pipeline.run` did. ``print(info)`` says it in words."""

    pipeline_name: str
    destination_type: str
    destination_name: str
    destination_displayable_credentials: str
    dataset_name: str | None
    load_packages: tuple[LoadPackageInfo, ...]
    started_at: datetime | None
    finished_at: datetime | None
    first_run: bool
    run_id: str | None = None
    already_committed: bool = False
    """A run with the same ``run_id`` had committed before; nothing was extracted or written by this one."""
    data_taken: bool = True
    """False: packages of an earlier run were pending and were loaded; the data passed to this run was NOT taken."""
    notices: tuple[Notice, ...] = ()
    """What was kept in another form than it came, one per column and kind."""
    custom_metrics: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Figures that resources have counted themselves, by resource: `Resource.add_metrics`."""
    retries: int = 0
    """How often the destination was tried again."""
    peak_memory: int = 0
    """Most bytes of data that were in flight at once."""

    @property
    def loads_ids(self) -> tuple[LoadId, ...]:
        """Ids of the packages, oldest first."""
        return tuple(package.load_id for package in self.load_packages)

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to load."""
        return not self.load_packages

    @property
    def row_counts(self) -> dict[TableName, int]:
        """Rows per table over all packages, system tables included."""
        counts: dict[TableName, int] = {}

        for package in self.load_packages:
            for table, rows in package.row_counts.items():
                counts[table] = counts.get(table, 0) + rows

        return counts

    @property
    def has_failed_jobs(self) -> bool:
        """Whether any job failed for good."""
        return any(package.failed_jobs for package in self.load_packages)

    def raise_on_failed_jobs(self) -> None:
        """Raise when a job failed for good.

        Raises:
            DestinationRejected: Names the first of them.
        """
        for package in self.load_packages:
            for job in package.failed_jobs:
                raise DestinationRejected(
                    f"Job {job.file_name} of load package {package.load_id} failed: {job.failed_message}"
                )

    def asdict(self) -> dict[str, JsonValue]:
        """Plain values, fit for loading through a pipeline."""
        return {
            "pipeline_name": self.pipeline_name,
            "destination_type": self.destination_type,
            "destination_name": self.destination_name,
            "dataset_name": self.dataset_name,
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "first_run": self.first_run,
            "run_id": self.run_id,
            "load_packages": [
                {
                    "load_id": package.load_id,
                    "state": package.state,
                    "schema_name": package.schema_name,
                    "schema_hash": package.schema_hash,
                    "tables": [{"name": name, "rows": rows} for name, rows in package.row_counts.items()],
                }
                for package in self.load_packages
            ],
        }

    def asstr(self) -> str:
        """Several lines: where the data went and what became of each package."""
        lines = [self._headline(), self._counted()]

        if self.load_packages:
            lines.append(
                f"The {self.destination_name} destination used {self.destination_displayable_credentials} "
                "location to store data"
            )

        lines += [package.asstr() for package in self.load_packages]

        if not self.data_taken:
            lines.append(
                "NOTE: packages of an earlier run were pending and were loaded first. The data passed to this run was "
                "NOT taken; run again, or pass on_pending='load_then_run'."
            )

        if self.already_committed:
            lines.append(f"A run with run_id {self.run_id!r} had committed before: nothing was done again.")

        lines += [f"NOTE: {notice.message}" for notice in self.notices]

        return "\n".join(lines)

    def __str__(self) -> str:
        return self.asstr()

    def _headline(self) -> str:
        if self.started_at is None or self.finished_at is None or not self.load_packages:
            return f"Pipeline {self.pipeline_name} load step did not start"

        return (
            f"Pipeline {self.pipeline_name} load step finished in "
            f"{_humanize((self.finished_at - self.started_at).total_seconds())}"
        )

    def _counted(self) -> str:
        loaded = sum(package.state == "loaded" for package in self.load_packages)
        total = len(self.load_packages)
        count = str(total) if loaded == total else f"{loaded} of {total}"

        return (
            f"{count} load package(s) were loaded to destination {self.destination_name} and into dataset "
            f"{self.dataset_name if self.load_packages else None}"
        )


def package_info(
    package: Package, status: PackageStatus, schema_update: Mapping[str, tuple[str, ...]] | None = None
) -> LoadPackageInfo:
    """Describe a package."""
    return LoadPackageInfo(
        load_id=package.load_id,
        package_path=str(package.folder),
        state=status,
        schema_name=package.schema.name,
        schema_hash=package.schema.version_hash,
        jobs=tuple(
            LoadJobInfo(
                job_id=job.job_id,
                table_name=job.table,
                file_name=job.file_name,
                file_format=job.file_format,
                file_size=job.nbytes,
                rows=job.rows,
                state="completed_jobs" if status == "loaded" else "new_jobs",
            )
            for job in package.jobs
        ),
        row_counts=package.row_counts,
        schema_update=schema_update or {},
    )


def utc(timestamp: float) -> datetime:
    """Unix seconds as a datetime in UTC."""
    return datetime.fromtimestamp(timestamp, UTC)


def _humanize(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.2f} seconds"

    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} hours"] if hours else []
    parts += [f"{minutes} minutes"] if minutes else []
    parts += [f"{rest} seconds"] if rest else []

    return " and ".join(parts)
