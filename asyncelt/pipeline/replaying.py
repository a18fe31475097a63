"""The calls about rows that could not be loaded."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import pyarrow as pa

from asyncelt.engine.intake import ResourcePlan
from asyncelt.engine.plan import resource_plan
from asyncelt.engine.replaying import ReplayRequest
from asyncelt.engine.run import RunRequest
from asyncelt.info.steps import LoadInfo
from asyncelt.pipeline.base import PipelineBase
from asyncelt.pipeline.whole import RunCall
from asyncelt.reading.relation import Relation
from asyncelt.schema.quarantine import quarantine_table

__all__ = ["ReplayCalls"]

_LINES_AT_ONCE = 1_000


class ReplayCalls(PipelineBase):
    """Quarantine."""

    def quarantined(self) -> Relation:
        """Rows of this pipeline that could not be loaded and have not been replayed since; does no I/O.

        A lazy relation: ``await pipeline.quarantined().df()``, or narrowed with ``where`` first. Without rows where
        nothing ever was quarantined.

        Raises:
            PipelineConfigMissing: There is no destination.
            ConfigError: The destination cannot be read with SQL.
        """
        naming = self.naming
        table = quarantine_table(naming)
        dataset = self._relations()

        # The first row that is quarantined makes the table.
        if table.name not in dataset.tables:
            from asyncelt.reading.parsing import no_rows  # sqlglot, which an import of asyncelt does without

            return dataset.query(no_rows(table.columns.values()))

        status, record, tries, pipeline = (
            f'"{naming.path(name)}"' for name in ("status", "record_id", "tries", "pipeline_name")
        )
        columns = ", ".join(f'line."{name}"' for name in table.columns)

        # Names of ours, never a user's.
        later = f'SELECT 1 FROM "{table.name}" AS later WHERE later.{record} = line.{record}'  # noqa: S608
        query = f'SELECT {columns} FROM "{table.name}" AS line WHERE line.{pipeline} = ?'  # noqa: S608
        query += f" AND line.{status} = 'quarantined' AND NOT EXISTS ({later} AND later.{tries} > line.{tries})"

        return dataset.query(query, parameters=[self._name])

    async def replay(
        self, data: object = None, *, where: str | None = None, raise_on_failed_jobs: bool | None = None
    ) -> LoadInfo:
        """Load rows from quarantine again; each leaves it in the commit that brings it into its table, exactly once.

        Rows are loaded as they were quarantined: behind all steps of their resource, which are not gone through
        again, and beside its state, which does not move. Rows that fail again stay, with a higher count of tries;
        those of which only a description was kept stay as well. Pending packages are loaded first.

        Args:
            data: Resources or sources: rows of these resources are loaded, by their hints as they are now. None: rows
                of all resources, under the schema as it is.
            where: A condition in SQL over the columns of the quarantine table, ``"error_kind = 'BadRecord'"``.
            raise_on_failed_jobs: As for `load`.

        Raises:
            ConfigError: The destination cannot be read with SQL, or a resource's hints are wrong.
            PipelineBusy: Another owner is at work and ``on_busy`` is ``raise``.
            PipelineStepFailed: Anything else; names the step, and what is pending afterwards.

        Cancellation:
            Safe at any await. Until the package is sealed nothing has happened; then the next call commits it.
        """
        with self._entered():
            plans = None if data is None else await self._plans(data)
            call = RunCall(
                request=RunRequest(sources=()),
                file_format=self._checked_format(None),
                has_data=True,
                on_pending="load_then_run",
                raises=self._raises(raise_on_failed_jobs),
                format_given=self._format_given,
                replay=ReplayRequest(lines=partial(self._open_lines, where), plans=plans),
            )

            return await self._run(call, data)

    async def _plans(self, data: object) -> Mapping[tuple[str, str], ResourcePlan]:
        forced = self._environment().capabilities.max_table_nesting
        plans = [
            replace(resource_plan(source, resource, forced), on_error="quarantine")
            for source in await self._sources(data, None)
            for resource in source.selected_resources.values()
        ]

        return {(plan.schema_name, plan.name): plan for plan in plans}

    async def _open_lines(self, where: str | None) -> AsyncGenerator[pa.Table, None]:
        """The lines to replay, as of now: what earlier replays have loaded is not among them."""
        naming = self.naming
        table = quarantine_table(naming)

        if table.name not in self._relations().tables:
            return

        found = self.quarantined().where(f"\"{naming.path('payload_form')}\" <> 'repr'")
        found = found if where is None else found.where(where)

        async with aclosing(found.iter_arrow(_LINES_AT_ONCE)) as batches:
            async for lines in batches:
                yield lines
