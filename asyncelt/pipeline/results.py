"""Infos from what the engine has done."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncelt.engine.loading import Loaded, LoadedBundle
from asyncelt.engine.run import Extracted, Normalized
from asyncelt.extract.graph import edges
from asyncelt.extract.pump import PumpReport
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.flow import Notice
from asyncelt.info.packages import LoadPackageInfo, extracted_info, package_info
from asyncelt.info.report import RunReport, StageReport
from asyncelt.info.steps import (
    ExtractInfo,
    ExtractMetrics,
    LoadInfo,
    LoadJobMetrics,
    LoadMetrics,
    NormalizeInfo,
    NormalizeMetrics,
    WriterMetrics,
)
from asyncelt.info.text import utc
from asyncelt.load.protocol import Destination
from asyncelt.storage.extracted import ExtractedPackage
from asyncelt.storage.manifest import SealedPackage

__all__ = ["Maker", "described", "loaded_packages", "run_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """Makes the infos of one call."""

    pipeline: object
    pipeline_name: str
    first_run: bool
    staging: Destination | None
    dataset_name: str | None

    def extract(
        self, extracted: Extracted | None, data: Sequence[Mapping[str, str]], *, started_at: datetime | None = None
    ) -> ExtractInfo:
        """What extract returns, or would have returned in a fused run. Of one that has failed nothing is left."""
        if extracted is None:
            return ExtractInfo(
                pipeline=self.pipeline,
                pipeline_name=self.pipeline_name,
                first_run=self.first_run,
                started_at=started_at,
                finished_at=datetime.now(UTC),
                extract_data_info=tuple(data),
            )

        packages = {one.load_id: one for one in extracted.packages}

        return ExtractInfo(
            pipeline=self.pipeline,
            pipeline_name=self.pipeline_name,
            first_run=self.first_run,
            load_packages=tuple(extracted_info(one) for one in extracted.packages),
            metrics={
                load_id: (_extract_metrics(extracted, name, packages.get(load_id)),)
                for name, load_id in extracted.plan.load_ids.items()
                if not extracted.packages or load_id in packages
            },
            started_at=utc(extracted.started_at),
            finished_at=utc(extracted.finished_at),
            extract_data_info=tuple(data),
            failed_resources=extracted.failures,
        )

    def normalize(self, normalized: Sequence[Normalized], *, started_at: datetime | None = None) -> NormalizeInfo:
        """What normalize returns."""
        times = [*(one.started_at for one in normalized), *(one.finished_at for one in normalized)]

        return NormalizeInfo(
            pipeline=self.pipeline,
            pipeline_name=self.pipeline_name,
            first_run=self.first_run,
            load_packages=tuple(package_info(sealed) for one in normalized for sealed in one.packages),
            metrics={
                sealed.package.load_id: (_normalize_metrics(one, sealed),)
                for one in normalized
                for sealed in one.packages
            },
            started_at=utc(min(times)) if times else started_at,
            finished_at=utc(max(times)) if times else datetime.now(UTC),
            notices=tuple(_notices(normalized)),
        )

    def load(
        self,
        loaded: Loaded,
        destination: Destination,
        *,
        started_at: datetime,
        report: RunReport,
        known: Sequence[LoadPackageInfo] = (),
        notices: Sequence[Notice] = (),
        extracted: Extracted | None = None,
        run_id: str | None = None,
        already_committed: bool = False,
        data_taken: bool = True,
    ) -> LoadInfo:
        """What load and run return."""
        done, staging, dataset_name = list(loaded_packages(loaded)), self.staging, self.dataset_name

        return LoadInfo(
            pipeline=self.pipeline,
            pipeline_name=self.pipeline_name,
            first_run=self.first_run,
            load_packages=(*(package for _, package in done), *known),
            metrics={package.load_id: (_package_metrics(bundle, package, dataset_name),) for bundle, package in done},
            started_at=started_at,
            finished_at=datetime.now(UTC),
            destination_type=destination.destination_type,
            destination_name=destination.destination_name,
            destination_displayable_credentials=destination.location,
            destination_fingerprint=_fingerprint(destination.location),
            staging_type=staging.destination_type if staging is not None else None,
            staging_name=staging.destination_name if staging is not None else None,
            staging_displayable_credentials=staging.location if staging is not None else None,
            dataset_name=dataset_name,
            run_id=run_id,
            already_committed=already_committed,
            data_taken=data_taken,
            notices=tuple(notices),
            custom_metrics=_by_name(extracted.custom_metrics) if extracted is not None else {},
            failed_resources=extracted.failures if extracted is not None else (),
            report=report,
        )


def described(data: object) -> list[Mapping[str, str]]:
    """Name and kind of what was passed, in the reference's words."""
    items = data if isinstance(data, list | tuple) and data and not isinstance(data[0], dict) else [data]

    return [{"name": _name_of(one), "data_type": _kind_of(one)} for one in items[:100] if one is not None]


def _name_of(data: object) -> str:
    # A column of a frame may be called "name".
    said = (getattr(data, attribute, None) for attribute in ("name", "__name__"))

    return next((name for name in said if isinstance(name, str)), "")


def _kind_of(data: object) -> str:
    if isinstance(data, Source):
        return "source"

    return "resource" if isinstance(data, Resource) else type(data).__name__


def _fingerprint(location: str) -> str:
    return base64.b64encode(hashlib.shake_128(location.encode()).digest(15)).decode()


def loaded_packages(loaded: Loaded) -> Iterable[tuple[LoadedBundle, LoadPackageInfo]]:
    """Every package that a call has loaded, and the one that it failed at, with its bundle."""
    for bundle in loaded.bundles:
        updates = bundle.report.result.schema_updates if bundle.report.result is not None else {}

        for sealed in bundle.packages:
            load_id = sealed.package.load_id

            yield (
                bundle,
                package_info(
                    sealed,
                    outcome=bundle.outcomes.get(load_id),
                    status="loaded" if bundle.is_loaded else "aborted" if bundle.is_aborted else None,
                    schema_update=updates.get(load_id),
                    completed_at=bundle.finished_at if bundle.is_loaded else None,
                ),
            )


def run_report(extracted: Extracted | None, normalized: Sequence[Normalized], loaded: Loaded) -> RunReport:
    """The stages that a call came to."""
    stages = []

    if extracted is not None:
        stages.append(
            StageReport(
                stage="extract",
                started_at=utc(extracted.started_at),
                finished_at=utc(extracted.finished_at),
                rows=sum(one.rows for one in extracted.reports.values()),
                bytes=sum(one.nbytes for one in extracted.reports.values()),
                waited_s=extracted.waited_s,
            )
        )

    if normalized:
        stages.append(
            _stage_of_packages("normalize", [one for done in normalized for one in done.packages], normalized)
        )

    if loaded.bundles:
        committed = [one for bundle in loaded.bundles if bundle.is_loaded for one in bundle.packages]
        retries = sum(bundle.report.retries for bundle in loaded.bundles)
        stages.append(_stage_of_packages("load", committed, loaded.bundles, retries))

    peak = max((one.peak_memory for one in normalized), default=0)

    return RunReport(stages=tuple(stages), peak_memory=peak)


def _stage_of_packages(
    stage: str, packages: Sequence[SealedPackage], parts: Sequence[Normalized | LoadedBundle], retries: int = 0
) -> StageReport:
    jobs = [job for one in packages for job in one.package.jobs]

    return StageReport(
        stage=stage,  # type: ignore[arg-type]  # one of the two above
        started_at=utc(min(one.started_at for one in parts)),
        finished_at=utc(max(one.finished_at for one in parts)),
        rows=sum(job.rows for job in jobs),
        bytes=sum(job.nbytes for job in jobs),
        retries=retries,
    )


def _extract_metrics(extracted: Extracted, schema_name: str, package: ExtractedPackage | None) -> ExtractMetrics:
    start, end = extracted.started_at, extracted.finished_at
    tables: dict[str, WriterMetrics] = {}
    resources: dict[str, WriterMetrics] = {}
    plans = [one for one in extracted.plan.resources if one.schema_name == schema_name]

    for (schema, name), report in extracted.reports.items():
        if schema != schema_name:
            continue

        resources[name] = WriterMetrics("", report.rows, report.nbytes, start, end)

        for table, one in _table_metrics(report, start, end).items():
            tables[table] = tables[table] + one if table in tables else one

    files = package.sizes if package is not None else {}

    return ExtractMetrics(
        schema_name=schema_name,
        started_at=utc(start),
        finished_at=utc(end),
        job_metrics={
            name: WriterMetrics(name, _rows_in(package, name), size, start, end) for name, size in files.items()
        },
        table_metrics=tables,
        resource_metrics=resources,
        custom_metrics={
            name: found for (schema, name), found in extracted.custom_metrics.items() if schema == schema_name
        },
        dag=tuple(edge for one in plans for edge in edges((one.name, *one.parents))),
        hints={one.name: {"write_disposition": one.write_disposition, "table_name": one.table_name} for one in plans},
    )


def _by_name(metrics: Mapping[tuple[str, str], Mapping[str, object]]) -> dict[str, Mapping[str, object]]:
    """Figures by resource; ``schema.resource`` where two schemas have one of the same name."""
    names = Counter(name for _, name in metrics)

    return {name if names[name] == 1 else f"{schema}.{name}": found for (schema, name), found in metrics.items()}


def _table_metrics(report: PumpReport, start: float, end: float) -> dict[str, WriterMetrics]:
    return {table: WriterMetrics("", rows, 0, start, end) for table, rows in report.tables.items()}


def _rows_in(package: ExtractedPackage | None, file: str) -> int:
    return sum(page.rows for page in package.pages if page.file == file) if package is not None else 0


def _normalize_metrics(normalized: Normalized, sealed: SealedPackage) -> NormalizeMetrics:
    start, end = normalized.started_at, normalized.finished_at
    package = sealed.package
    jobs = {
        job.job_id: WriterMetrics(str(package.path_of(job)), job.rows, job.nbytes, start, end) for job in package.jobs
    }
    tables: dict[str, WriterMetrics] = {}

    for job in package.jobs:
        one = jobs[job.job_id]
        tables[job.table] = tables[job.table] + one if job.table in tables else one

    return NormalizeMetrics(started_at=utc(start), finished_at=utc(end), job_metrics=jobs, table_metrics=tables)


def _notices(normalized: Iterable[Normalized]) -> Iterable[Notice]:
    for one in normalized:
        yield from one.notices


def _package_metrics(bundle: LoadedBundle, package: LoadPackageInfo, dataset_name: str | None) -> LoadMetrics:
    start, end = utc(bundle.started_at), utc(bundle.finished_at)

    return LoadMetrics(
        started_at=start,
        finished_at=end,
        dataset_name=dataset_name,
        job_metrics={
            job.job_id: LoadJobMetrics(
                job_id=job.job_id,
                file_path=job.file_path,
                table_name=job.table_name,
                started_at=start,
                finished_at=end,
                state=job.state.removesuffix("_jobs"),
                retry_count=bundle.report.retries,
            )
            for job in package.all_jobs
        },
    )
