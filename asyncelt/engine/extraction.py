"""The reading half of a run: every resource in a task of its own, its pages handed to whoever takes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import anyio

from asyncelt import current
from asyncelt.config import Limits
from asyncelt.engine.intake import ResourcePlan
from asyncelt.engine.plan import RunPlan, parents_of, reset_state
from asyncelt.extract.pages import Page
from asyncelt.extract.pump import PumpReport, pump
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.schema.model import Schema
from asyncelt.storage.state import StateDoc, decode_state, default_state

__all__ = ["Extraction", "Take", "document_of"]

Take: TypeAlias = Callable[[ResourcePlan, Page], Awaitable[None]]
"""Takes one page over; this is where a source waits."""


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
    reports: dict[tuple[str, str], PumpReport] = field(default_factory=dict)
    """By schema and resource."""

    async def run(self, take: Take, schema_of: Callable[[str], Schema]) -> None:
        """Read everything to its end.

        Args:
            take: Receives each page with the plan of its resource.
            schema_of: The schema of this name as of now, for `asyncelt.current.source_schema`.

        Raises:
            ExtractError: A source failed; the others have been cancelled.

        Cancellation:
            Safe; sources are closed in their own tasks and threads.
        """
        reset_state(self.state, self.plan, parents_of(self.reading))

        async with anyio.create_task_group() as tasks:
            for source, resource, plan in self.reading:
                tasks.start_soon(self._pump, source, resource, plan, take, schema_of)

    async def _pump(
        self, source: Source, resource: Resource, plan: ResourcePlan, take: Take, schema_of: Callable[[str], Schema]
    ) -> None:
        schema = schema_of(plan.schema_name)

        with current.activate_resource(
            self.state, plan.schema_name, resource.name, resource=resource, source=source, schema=schema
        ):
            report = await pump(resource, limits=self.limits, send=partial(take, plan))

        self.reports[plan.schema_name, plan.name] = report


def document_of(encoded: str | None, pipeline_name: str) -> StateDoc:
    """A state document to work on: the stored one, or that of a pipeline that has never run."""
    return default_state(pipeline_name) if encoded is None else decode_state(encoded)
