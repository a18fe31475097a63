"""The reading half of a run: every resource in a task of its own, its pages handed to whoever takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import anyio

from asyncelt import current
from asyncelt.config import Limits
from asyncelt.engine.holding import Holds, Take
from asyncelt.engine.intake import ResourcePlan
from asyncelt.engine.plan import RunPlan, parents_of, reset_state, resource_plan
from asyncelt.engine.withdrawing import failures_of, may_fail, put_back, shared_state, sources_of
from asyncelt.errors import DataValidationError, ExtractError
from asyncelt.extract.graph import Branch, connected
from asyncelt.extract.messages import StreamSide, entered
from asyncelt.extract.points import Cuts
from asyncelt.extract.pump import PumpReport, Send, pump
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.flow import ResourceFailure
from asyncelt.schema.model import Schema
from asyncelt.storage.state import StateDoc, decode_state, default_state

__all__ = ["Extraction", "Port", "Take", "document_of"]


class Port(Cuts, Protocol):
    """A resource of a stream, as the stream sees it."""

    @property
    def scope(self) -> anyio.CancelScope:
        """Cancelled when no more is wanted of the resource."""
        ...

    @property
    def side(self) -> StreamSide:
        """What its messages are told to."""
        ...


@dataclass(slots=True)
class Extraction:
    """Reads the resources of a run.

    The state document belongs to it: resources change it in place while they run, and it is what the package carries
    when all of them have ended.
    """

    plan: RunPlan
    reading: Sequence[tuple[Source, Resource, ResourcePlan]]
    state: StateDoc
    limits: Limits
    holds: Holds | None = None
    """Where pages of resources wait that the run may have to do without. None (a stream, which cannot wait for their
    end): every resource that fails fails the run."""
    forced_nesting: int | None = None
    """What the destination says about ``max_table_nesting``."""
    port_of: Callable[[ResourcePlan], Port] | None = None
    """In a stream: who cuts a resource's data, and may end it."""
    reports: dict[tuple[str, str], PumpReport] = field(default_factory=dict)
    """By schema and resource."""
    custom_metrics: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    """Figures that resources have counted themselves, by schema and resource."""
    failures: list[ResourceFailure] = field(default_factory=list)
    """Resources that the run does without: their pages were not handed on, and their state is as it was."""

    @property
    def waited_s(self) -> float:
        """How long held resources have waited for memory."""
        return 0.0 if self.holds is None else self.holds.waited_s

    async def run(self, take: Take, schema_of: Callable[[str], Schema]) -> None:
        """Read everything to its end.

        A resource that fails is left out as a whole if its ``on_error`` says so, with the transformers that read from
        it. It fails the run all the same if tables are being refreshed, since their old rows go, and if the source has
        changed the state that its resources share, since nobody can tell which change was this one's.

        Args:
            take: Receives each page with the plan of its resource.
            schema_of: The schema of this name as of now, for `asyncelt.current.source_schema`.

        Raises:
            ExtractError: A source failed; the others have been cancelled.

        Cancellation:
            Safe; sources are closed in their own tasks and threads.
        """
        is_needed = self.holds is not None and any(may_fail(resource) for _, resource, _ in self.reading)
        before = sources_of(self.state) if is_needed else {}
        reset_state(self.state, self.plan, parents_of(self.reading))

        with ExitStack() as stack:
            trees = [
                (source, tree)
                for source, resources in self._by_source()
                for tree in stack.enter_context(connected(resources))
            ]

            # One after the other, or all side by side; a resource and its transformers always are.
            for group in [[tree] for tree in trees] if self.limits.next_item_mode == "fifo" else [trees]:
                async with anyio.create_task_group() as tasks:
                    for source, tree in group:
                        is_tolerant = any(branch.resource.on_error != "fail" for branch in tree.all())

                        if self.holds is not None and is_tolerant:
                            tasks.start_soon(self._pump_held, self.holds, source, tree, take, schema_of)
                            continue

                        for branch in tree.all():
                            tasks.start_soon(self._pump, source, branch, take, schema_of)

        for failure in self.failures:
            put_back(self.state, before, failure)
            self.reports.pop((failure.schema_name, failure.resource), None)

    async def _pump_held(
        self, holds: Holds, source: Source, tree: Branch, take: Take, schema_of: Callable[[str], Schema]
    ) -> None:
        """Read a resource and its transformers to their end before the first page is handed on."""
        schema_name = self._plan_of(source, tree.resource).schema_name
        shared = shared_state(sources_of(self.state), schema_name)
        failed: dict[int, Exception] = {}
        hold = await holds.open()

        async def read(branch: Branch) -> None:
            try:
                await self._pump(source, branch, hold.take, schema_of)
            except ExtractError as error:
                if branch.resource.on_error == "fail" or self.plan.refresh is not None:
                    raise

                failed[id(branch)] = error

        try:
            async with anyio.create_task_group() as tasks:
                for branch in tree.all():
                    tasks.start_soon(read, branch)

            if failed and shared_state(sources_of(self.state), schema_name) != shared:
                raise next(iter(failed.values()))

            failures = list(failures_of(tree, failed, schema_name))
            self.failures += failures
            await hold.release(take, without={one.resource for one in failures})
        finally:
            await hold.close()

    def _by_source(self) -> list[tuple[Source, list[Resource]]]:
        found: dict[int, tuple[Source, list[Resource]]] = {}

        for source, resource, _ in self.reading:
            found.setdefault(id(source), (source, []))[1].append(resource)

        return list(found.values())

    async def _pump(self, source: Source, branch: Branch, take: Take, schema_of: Callable[[str], Schema]) -> None:
        resource = branch.resource
        plan = self._plan_of(source, resource)
        schema = schema_of(plan.schema_name)
        metrics: dict[str, object] = {}

        with current.activate_resource(
            self.state,
            plan.schema_name,
            resource.name,
            resource=resource,
            source=source,
            schema=schema,
            metrics=metrics,
        ):
            report = await self._pumped(branch, plan, partial(take, plan))

        if branch.keeps:
            self.reports[plan.schema_name, plan.name] = report

        if metrics:
            self.custom_metrics[plan.schema_name, resource.name] = metrics

    async def _pumped(self, branch: Branch, plan: ResourcePlan, send: Send) -> PumpReport:
        # What a stream has ended early, it has cancelled: then there is no other report.
        report = PumpReport(resource=plan.name)

        try:
            if self.port_of is None:
                report = await pump(branch.resource, limits=self.limits, send=send, link=branch.link)
            else:
                port = self.port_of(plan)

                with port.scope, entered(port.side):
                    link = replace(branch.link, cuts=port)
                    report = await pump(branch.resource, limits=self.limits, send=send, link=link)
        except DataValidationError as error:
            # A model that refuses a row does not know where the row was to go.
            error.schema_name = error.schema_name or plan.schema_name
            error.table_name = error.table_name or plan.table_name

            raise

        return report

    def _plan_of(self, source: Source, resource: Resource) -> ResourcePlan:
        """The plan of a resource; one that only feeds transformers is not among those that are read for themselves."""
        known = next((plan for _, one, plan in self.reading if one is resource), None)

        return known or resource_plan(source, resource, self.forced_nesting)


def document_of(encoded: str | None, pipeline_name: str) -> StateDoc:
    """A state document to work on: the stored one, or that of a pipeline that has never run."""
    return default_state(pipeline_name) if encoded is None else decode_state(encoded)
