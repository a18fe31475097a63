"""Looking at a resource's rows with ``async for``, outside any run."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pyarrow as pa

from asyncelt.config import Limits
from asyncelt.extract.chain import Chain
from asyncelt.extract.driver import Driver
from asyncelt.extract.jsonbody import parse_in_slices
from asyncelt.extract.pump import state_of_run
from asyncelt.extract.readers import open_reader
from asyncelt.extract.requests import HintNews, Singles
from asyncelt.flow import JsonBody

if TYPE_CHECKING:
    from asyncelt.extract.resource import Resource

__all__ = ["iterate_rows"]


async def iterate_rows(resource: Resource) -> AsyncIterator[object]:
    """The rows of a resource after all its steps; Arrow tables as they are.

    Raises:
        ResourceExtractionError: User code raised.
        SourceExhausted: The data can be read only once, and has been.
    """
    rows: deque[object] = deque()

    def take(_table: str, item: object) -> None:
        if isinstance(item, HintNews):
            return

        if isinstance(item, Singles):
            rows.extend(item.rows)
        elif isinstance(item, list):
            rows.extend(item)
        elif isinstance(item, JsonBody):
            for part in parse_in_slices(item):
                rows.extend(part)
        elif not isinstance(item, pa.Table) or item.num_rows:
            rows.append(item)

    reading = resource.reading(lambda name: copy.deepcopy(state_of_run(name)))
    chain = Chain(resource.name, reading.steps, resource.table_name, take, hints=resource.hint_book())
    reader = await open_reader(reading.data, Driver(chain, Limits(), _nothing, ready=rows, eager=True))

    try:
        more = True

        while more:
            more = await reader.read()

            while rows:
                yield rows.popleft()
    finally:
        await reader.close(None)


async def _nothing() -> None:
    """There is nobody to hand pages to."""
