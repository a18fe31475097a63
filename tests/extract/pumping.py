"""Runs a pump and shows what it sent, in plain values."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import anyio

from asyncelt.config import Limits
from asyncelt.extract.pages import Page
from asyncelt.extract.pump import PumpReport, pump
from asyncelt.extract.resource import Resource
from asyncelt.flow import ArrowPage, JsonPages, Rows


@dataclass
class Pumped:
    """Pages in the order in which they were sent."""

    pages: list[Page] = field(default_factory=list)
    report: PumpReport | None = None

    async def send(self, page: Page) -> None:
        await anyio.lowlevel.checkpoint()
        self.pages.append(page)

    def rows(self, table: str | None = None) -> list[object]:
        """Rows of one table, or of all; JSON bodies are parsed, Arrow tables turned into rows."""
        found: list[object] = []

        for page in self.pages:
            if table is not None and page.table_name != table:
                continue

            if isinstance(page.payload, Rows):
                found += page.payload.items
            elif isinstance(page.payload, ArrowPage):
                found += page.payload.table.to_pylist()
            else:
                assert isinstance(page.payload, JsonPages)
                found += [json.loads(body.data) for body in page.payload.bodies]

        return found


async def pumped(resource: Resource, *, limits: Limits | None = None, flush_after_s: float | None = None) -> Pumped:
    """Pump a resource to its end."""
    result = Pumped()
    result.report = await pump(resource, limits=limits or Limits(), send=result.send, flush_after_s=flush_after_s)

    return result
