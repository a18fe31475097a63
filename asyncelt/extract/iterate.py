"""Looking at a resource's rows with ``async for``, outside any run."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from asyncelt import current
from asyncelt.config import Limits
from asyncelt.extract.chain import Chain
from asyncelt.extract.driver import Driver
from asyncelt.extract.jsonbody import parse_in_slices
from asyncelt.extract.messages import SafePoint
from asyncelt.extract.readers import open_reader
from asyncelt.extract.requests import HintNews, Singles
from asyncelt.flow import JsonBody

if TYPE_CHECKING:
    from asyncelt.extract.resource import Resource

__all__ = ["iterate_rows"]


async def iterate_rows(resource: Resource) -> AsyncIterator[object]:
    """The rows of a resource after all its steps; Arrow tables as they are.

    Its state is a copy, to be thrown away: that of the run at hand, else of the active pipeline, else an empty one.

    Raises:
        ResourceExtractionError: User code raised.
        SourceExhausted: The data can be read only once, and has been.
    """
    rows: deque[object] = deque()

    def take(_table: str, item: object) -> None:
        if isinstance(item, HintNews | SafePoint):
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

    state, source_name = current.copy_of_state(resource.source_name, resource.name)
    metrics: dict[str, object] = {}

    def entered() -> AbstractContextManager[None]:
        # Never across a yield: what runs between two rows is not the resource's.
        return current.activate_resource(state, source_name, resource.name, resource=resource, metrics=metrics)

    with entered():
        reading = resource.reading(partial(current.resource_state_of, state, source_name))
        chain = Chain(resource.name, reading.steps, resource.table_name, take, hints=resource.hint_book())
        reader = await open_reader(reading.data, Driver(chain, Limits(), _nothing, ready=rows, eager=True))

    try:
        more = True

        while more:
            with entered():
                more = await reader.read()

            while rows:
                yield rows.popleft()
    finally:
        with entered():
            await reader.close(None)


async def _nothing() -> None:
    """There is nobody to hand pages to."""
