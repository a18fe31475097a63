"""What extract, normalize, load and run return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from asyncelt.errors import DestinationRejected
from asyncelt.flow import Notice, ResourceFailure
from asyncelt.info.packages import LoadPackageInfo, counted
from asyncelt.info.report import RunReport
from asyncelt.info.text import elapsed, iso
from asyncelt.types import LoadId, TableName

__all__ = [
    "ExtractInfo",
    "ExtractMetrics",
    "LoadInfo",
    "LoadJobMetrics",
    "LoadMetrics",
    "NormalizeInfo",
    "NormalizeMetrics",
    "StepInfo",
    "WriterMetrics",
]


class WriterMetrics(NamedTuple):
    """What was written to one file, table or resource. Two of them add up."""

    file_path: str
    items_count: int
    file_size: int
    created: float
    last_modified: float

    def __add__(self, other: object) -> WriterMetrics:
        if not isinstance(other, WriterMetrics):
            return NotImplemented

        return WriterMetrics(
            self.file_path if self.file_path == other.file_path else "",
            self.items_count + other.items_count,
            self.file_size + other.file_size,
            min(self.created, other.created),
            max(self.last_modified, other.last_modified),
        )

    def asdict(self) -> dict[str, object]:
        """Plain values."""
        return dict(self._asdict())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractMetrics:
    """What one source gave."""

    schema_name: str
    started_at: datetime
    finished_at: datetime
    job_metrics: Mapping[str, WriterMetrics] = field(default_factory=dict)
    """By file. Empty in a fused run, which stores no pages."""
    table_metrics: Mapping[str, WriterMetrics] = field(default_factory=dict)
    """By raw table name."""
    resource_metrics: Mapping[str, WriterMetrics] = field(default_factory=dict)
    dag: tuple[tuple[str, str], ...] = ()
    """Resources and what they feed, (parent, child); one that stands alone is (name, name)."""
    custom_metrics: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Figures that resources have counted themselves, by resource."""
    hints: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Write disposition and table of each resource."""
    inputs: tuple[str, ...] = ()

    def asdict(self) -> dict[str, object]:
        """Plain values, keyed things as lists."""
        return {
            "schema_name": self.schema_name,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "job_metrics": _listed("job_id", self.job_metrics),
            "table_metrics": _listed("table_name", self.table_metrics),
            "resource_metrics": _listed("resource_name", self.resource_metrics),
            "custom_metrics": [{"resource_name": name, **one} for name, one in self.custom_metrics.items()],
            "dag": [{"parent_name": parent, "resource_name": child} for parent, child in self.dag],
            "hints": [{"resource_name": name, **said} for name, said in self.hints.items()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeMetrics:
    """What became of one package in normalize."""

    started_at: datetime
    finished_at: datetime
    job_metrics: Mapping[str, WriterMetrics] = field(default_factory=dict)
    table_metrics: Mapping[str, WriterMetrics] = field(default_factory=dict)

    def asdict(self) -> dict[str, object]:
        """Plain values, keyed things as lists."""
        return {
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "job_metrics": _listed("job_id", self.job_metrics),
            "table_metrics": _listed("table_name", self.table_metrics),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJobMetrics:
    """What became of one job in load. Jobs of a package end together, with its commit."""

    job_id: str
    file_path: str
    table_name: str
    started_at: datetime
    finished_at: datetime
    state: str
    remote_url: str | None = None
    retry_count: int = 0

    def asdict(self) -> dict[str, object]:
        """Plain values."""
        return {
            "job_id": self.job_id,
            "file_path": self.file_path,
            "table_name": self.table_name,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "state": self.state,
            "remote_url": self.remote_url,
            "retry_count": self.retry_count,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadMetrics:
    """What became of one package in load."""

    started_at: datetime
    finished_at: datetime
    dataset_name: str | None = None
    job_metrics: Mapping[str, LoadJobMetrics] = field(default_factory=dict)

    def asdict(self) -> dict[str, object]:
        """Plain values, keyed things as lists."""
        return {
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "dataset_name": self.dataset_name,
            "job_metrics": [one.asdict() for one in self.job_metrics.values()],
        }


Metrics = ExtractMetrics | NormalizeMetrics | LoadMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """What every step tells."""

    pipeline_name: str
    load_packages: tuple[LoadPackageInfo, ...] = ()
    metrics: Mapping[LoadId, Sequence[Metrics]] = field(default_factory=dict, repr=False)
    first_run: bool = False
    """As it was before the call."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    pipeline: object = field(default=None, repr=False, compare=False)
    """The pipeline itself."""

    @property
    def loads_ids(self) -> tuple[LoadId, ...]:
        """Ids of the packages, oldest first."""
        return tuple(package.load_id for package in self.load_packages)

    @property
    def is_empty(self) -> bool:
        """Whether there was nothing to do."""
        return not self.load_packages

    def asdict(self) -> dict[str, object]:
        """Plain values, fit for loading through a pipeline."""
        return {
            "pipeline": {"pipeline_name": self.pipeline_name},
            "load_packages": [package.asdict() for package in self.load_packages],
            "metrics": [
                {"load_id": load_id, **one.asdict()} for load_id, found in self.metrics.items() for one in found
            ],
            "first_run": self.first_run,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
        }

    def asstr(self, verbosity: int = 0) -> str:
        """One line per package."""
        return "\n".join(package.asstr(verbosity) for package in self.load_packages)

    def __str__(self) -> str:
        return self.asstr(verbosity=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractInfo(StepInfo):
    """What `Pipeline.extract` did."""

    extract_data_info: tuple[Mapping[str, str], ...] = ()
    """Name and kind of what was passed."""
    failed_resources: tuple[ResourceFailure, ...] = ()
    """Resources that have failed without failing the call: ``on_error``. Nothing of them was extracted."""

    def asdict(self) -> dict[str, object]:
        """Plain values, fit for loading through a pipeline."""
        return {
            **StepInfo.asdict(self),
            "extract_data_info": [dict(one) for one in self.extract_data_info],
            "failed_resources": [asdict(one) for one in self.failed_resources],
        }

    def asstr(self, verbosity: int = 0) -> str:
        """One line per package, below a blank one."""
        return "\n".join(["", StepInfo.asstr(self, verbosity), *map(_failure, self.failed_resources)])

    def __str__(self) -> str:
        return self.asstr(verbosity=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeInfo(StepInfo):
    """What `Pipeline.normalize` did."""

    notices: tuple[Notice, ...] = ()
    """What was kept in another form than it came, one per column and kind."""

    @property
    def row_counts(self) -> dict[TableName, int]:
        """Rows per table over all packages, system tables included."""
        return counted(self.load_packages)

    def asdict(self) -> dict[str, object]:
        """Plain values, fit for loading through a pipeline."""
        return {
            **StepInfo.asdict(self),
            "row_counts": _rows_by_table(self.row_counts),
            "notices": [asdict(one) for one in self.notices],
        }

    def asstr(self, verbosity: int = 0) -> str:
        """Rows per table, then one line per package."""
        counts = self.row_counts

        if not counts:
            return "\n".join(["No data found to normalize", StepInfo.asstr(self, verbosity)]).rstrip()

        lines = ["Normalized data for the following tables:"]
        lines += [f"- {name}: {rows} row(s)" for name, rows in counts.items()]

        return "\n".join([*lines, "", StepInfo.asstr(self, verbosity)])

    def __str__(self) -> str:
        return self.asstr(verbosity=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadInfo(StepInfo):
    """What `Pipeline.load` and `Pipeline.run` did. ``print(info)`` says it in words."""

    destination_type: str
    destination_name: str
    destination_displayable_credentials: str
    dataset_name: str | None
    environment: str | None = None
    """The reference's name for a set of destinations; none of ours has one."""
    staging_type: str | None = None
    staging_name: str | None = None
    staging_displayable_credentials: str | None = None
    destination_fingerprint: str = ""
    """Tells places apart without naming them: a hash of the displayable location."""
    run_id: str | None = None
    already_committed: bool = False
    """A run with the same ``run_id`` had committed before; nothing was extracted or written by this one."""
    data_taken: bool = True
    """False: packages of an earlier call were pending and were loaded; the data passed to this run was NOT taken."""
    notices: tuple[Notice, ...] = ()
    """What was kept in another form than it came, one per column and kind."""
    custom_metrics: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Figures that resources have counted themselves, by resource: `Resource.add_metrics`. Where two schemas of the run
    have a resource of the same name, by ``schema.resource``."""
    failed_resources: tuple[ResourceFailure, ...] = ()
    """Resources that have failed without failing the run: ``on_error``. Nothing of them was loaded, and the next run
    reads them again from where they stood."""
    report: RunReport = field(default_factory=RunReport, repr=False)
    """Rows, bytes, waits and retries per stage."""

    @property
    def retries(self) -> int:
        """How often the destination was tried again."""
        return sum(one.retries for one in self.report.stages)

    @property
    def peak_memory(self) -> int:
        """Most bytes of data that were in flight at once."""
        return self.report.peak_memory

    @property
    def row_counts(self) -> dict[TableName, int]:
        """Rows per table over all packages, system tables included."""
        return counted(self.load_packages)

    @property
    def quarantined_rows(self) -> dict[TableName, int]:
        """Rows that could not be loaded and are in the quarantine table, by the table that they belong to."""
        return _noticed(self.notices, "quarantined")

    @property
    def skipped_rows(self) -> dict[TableName, int]:
        """Rows that could not be loaded and were left out, by the table that they belong to."""
        return _noticed(self.notices, "skipped_rows")

    @property
    def has_failed_jobs(self) -> bool:
        """Whether a job failed for good, or was set aside."""
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
                ).at(load_id=package.load_id, table=job.table_name, job_id=job.job_id)

    def asdict(self) -> dict[str, object]:
        """Plain values, fit for loading through a pipeline."""
        return {
            **StepInfo.asdict(self),
            "destination_type": self.destination_type,
            "destination_name": self.destination_name,
            "destination_displayable_credentials": self.destination_displayable_credentials,
            "destination_fingerprint": self.destination_fingerprint,
            "environment": self.environment,
            "dataset_name": self.dataset_name,
            "staging_type": self.staging_type,
            "staging_name": self.staging_name,
            "staging_displayable_credentials": self.staging_displayable_credentials,
            "run_id": self.run_id,
            "already_committed": self.already_committed,
            "data_taken": self.data_taken,
            "notices": [asdict(one) for one in self.notices],
            "quarantined_rows": _rows_by_table(self.quarantined_rows),
            "skipped_rows": _rows_by_table(self.skipped_rows),
            "custom_metrics": [{"resource_name": name, **one} for name, one in self.custom_metrics.items()],
            "failed_resources": [asdict(one) for one in self.failed_resources],
            "report": self.report.asdict(),
        }

    def asstr(self, verbosity: int = 0) -> str:
        """Several lines: where the data went and what became of each package."""
        lines = [self._headline(), self._counted()]

        if self.load_packages:
            if self.staging_name is not None:
                lines.append(
                    f"The {self.staging_name} staging destination used {self.staging_displayable_credentials} location "
                    "to stage data"
                )

            lines.append(
                f"The {self.destination_name} destination used {self.destination_displayable_credentials} "
                "location to store data"
            )

        lines += [package.asstr(verbosity) for package in self.load_packages]

        if not self.data_taken:
            lines.append(
                "NOTE: packages of an earlier call were pending and came first. The data passed to this run was NOT "
                "taken; run again, or pass on_pending='load_then_run'."
            )

        if self.already_committed:
            lines.append(f"A run with run_id {self.run_id!r} had committed before: nothing was done again.")

        lines += map(_failure, self.failed_resources)
        lines += [f"NOTE: {notice.message}" for notice in self.notices]

        if verbosity > 1:
            lines.append(self.report.asstr())

        return "\n".join(lines)

    def __str__(self) -> str:
        return self.asstr(verbosity=1)

    def _headline(self) -> str:
        if self.started_at is None or not self.load_packages:
            return f"Pipeline {self.pipeline_name} load step did not start"

        if self.finished_at is None:
            since = elapsed(self.started_at, datetime.now(UTC))

            return f"Pipeline {self.pipeline_name} load step started {since} ago and did not finish"

        return f"Pipeline {self.pipeline_name} load step finished in {elapsed(self.started_at, self.finished_at)}"

    def _counted(self) -> str:
        loaded = sum(package.state == "loaded" for package in self.load_packages)
        total = len(self.load_packages)
        count = str(total) if loaded == total else f"{loaded} of {total}"

        return (
            f"{count} load package(s) were loaded to destination {self.destination_name} and into dataset "
            f"{self.dataset_name if self.load_packages else None}"
        )


def _failure(failure: ResourceFailure) -> str:
    return f"NOTE: resource {failure.resource!r} has failed and nothing of it was taken: {failure.message}"


def _rows_by_table(counts: Mapping[TableName, int]) -> list[dict[str, object]]:
    return [{"table_name": name, "rows": rows} for name, rows in counts.items()]


def _noticed(notices: Sequence[Notice], kind: str) -> dict[TableName, int]:
    counts: dict[TableName, int] = {}

    for notice in notices:
        if notice.kind == kind:
            counts[notice.table] = counts.get(notice.table, 0) + notice.count

    return counts


def _listed(key: str, metrics: Mapping[str, WriterMetrics]) -> list[dict[str, object]]:
    return [{key: name, **one.asdict()} for name, one in metrics.items()]
