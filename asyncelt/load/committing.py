"""The load step: bring a sealed bundle to the destination and commit it whole, with retries.

The only place that decides what is tried again. A commit whose answer was lost is settled by asking for its
load ids, never by repeating blindly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from asyncelt._async import each, retrying
from asyncelt.config import Settings
from asyncelt.errors import AsynceltError, CommitUnknown, DestinationUnavailable, LoadError
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.outages import Outage
from asyncelt.load.protocol import Commit, CommitResult, Session
from asyncelt.observe import Advanced, Event

__all__ = ["LoadReport", "load_bundle"]


@dataclass(slots=True)
class LoadReport:
    """What the load step did."""

    result: CommitResult | None = None
    retries: int = 0


async def load_bundle(
    session: Session, commit: Commit, settings: Settings, emit: Callable[[Event], None], *, max_parallel: int | None
) -> LoadReport:
    """Make every package of ``commit`` visible in one transaction, or none.

    Args:
        session: Open; its lease is held.
        commit: The bundle.
        settings: Workers and retries.
        emit: Receives events, on the loop.
        max_parallel: The destination's own bound on parallel jobs.

    Raises:
        LoadError: Not retryable, or retried as often as allowed. The bundle stays sealed.

    Cancellation:
        Safe. A COMMIT that was sent is awaited by the session, up to its deadline.
    """
    outage = Outage(commit.target.pipeline_name, commit.packages[0].load_id, emit)
    on_retry = outage.failed
    await retrying(partial(session.migrate, commit), settings.retry, on_retry=on_retry)
    jobs = [(package, job) for package in commit.packages for job in package.jobs]
    await _load_jobs(session, commit, jobs, settings, emit, on_retry, max_parallel)
    failpoint("load.before_commit")
    result = await retrying(partial(_commit, session, commit), settings.retry, on_retry=on_retry)
    failpoint("load.after_commit")
    outage.over()

    return LoadReport(result=result, retries=outage.retries)


async def _load_jobs(
    session: Session,
    commit: Commit,
    jobs: Sequence[tuple[Package, JobFile]],
    settings: Settings,
    emit: Callable[[Event], None],
    on_retry: Callable[[AsynceltError, float], None],
    max_parallel: int | None,
) -> None:
    workers = min(settings.limits.load_workers, max_parallel or settings.limits.load_workers)

    async def one(item: tuple[Package, JobFile]) -> None:
        package, job = item

        try:
            await retrying(partial(session.load, commit, package, job), settings.retry, on_retry=on_retry)
        except LoadError as error:
            error.at(load_id=package.load_id, table=job.table, job_id=job.job_id)
            raise

        emit(
            Advanced(
                pipeline_name=commit.target.pipeline_name,
                stage="load",
                name=job.table,
                rows=job.rows,
                bytes=job.nbytes,
            )
        )

    await each(one, jobs, at_once=max(workers, 1))


async def _commit(session: Session, commit: Commit) -> CommitResult:
    try:
        return await session.commit(commit)
    except CommitUnknown as unknown:
        load_ids = tuple(package.load_id for package in commit.packages)
        found = await session.committed(load_ids)

        if found == frozenset(load_ids):
            return CommitResult(load_ids=load_ids)

        # Not there, and the session has settled that it will not come: repeating it is safe.
        raise DestinationUnavailable(f"The commit of load package {load_ids[0]} did not arrive. {unknown}") from unknown
