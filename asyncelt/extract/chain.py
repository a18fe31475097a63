"""What happens to an item between its source and the gatherer: unfold, steps, choice of table. Sans I/O.

`Chain.process` is a plain generator. It does the work of one item in small pieces and, between them, yields
*requests* to whoever drives it:

* ``None``: a good moment to pause (nothing has to happen);
* an awaitable: await it and send its result back;
* `Offload`: call this function where blocking is allowed and send its result back;
* `Ahead`: await this, and do other items meanwhile if you like;
* `Pull`: send a list with the next items of this synchronous iterator, or None when it is at its end.

So the same code runs on the event loop (requests are awaited) and in the thread of a synchronous iterator, which
does the blocking ones itself and leaves only awaitables to the loop.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import partial
from inspect import isawaitable
from typing import cast

from asyncelt.extract.functions import is_async_function
from asyncelt.extract.headway import Headway
from asyncelt.extract.hinting import HintBook
from asyncelt.extract.items import Kind, Mark, Marked, Materialized, judged
from asyncelt.extract.jsonbody import rows_of
from asyncelt.extract.messages import Checkpoint, Message, Messages, SafePoint, stream_side
from asyncelt.extract.opened import Opened, open_steps, quick_steps
from asyncelt.extract.requests import Emit, TableName, Work
from asyncelt.extract.routing import Router
from asyncelt.extract.stepping import Spot, station
from asyncelt.extract.steps import Finishing, ItemStep, Settling, Step
from asyncelt.extract.tickets import Tickets
from asyncelt.extract.unfolding import SETTLED, UNFOLDED, Onward, settle, state_of_source, unfold
from asyncelt.flow import JsonBody

__all__ = ["Chain"]


class Chain:
    """One run of a resource's steps.

    Args:
        resource: Name of the resource, for errors.
        steps: In order.
        table: Name of the table, or a function of a row that gives it.
        emit: Receives what comes out.
        hints: Hints of the tables; None: they do not change with the data.
        offers: Whether transformers take what comes out, as `Offered`.
        keeps: Whether it goes to the resource's tables.
    """

    def __init__(
        self,
        resource: str,
        steps: Iterable[Step],
        table: TableName,
        emit: Emit,
        *,
        hints: HintBook | None = None,
        offers: bool = False,
        keeps: bool = True,
    ) -> None:
        opened = open_steps(steps)
        self.headway = Headway(resource, [step.run for step in opened if isinstance(step, Opened)])
        self.router = Router(table, emit, self.headway, hints=hints, offers=offers, keeps=keeps)
        self._quick = quick_steps(opened)
        self._stations = [
            station(step, Spot(self.headway, self.router, partial(self._from, index)))
            for index, step in enumerate(opened, 1)
        ]
        self.is_plain = not opened and self.router.has_one_table and not offers
        """Whether rows only have to be passed on, to the one table."""
        self.looks_ahead = any(
            isinstance(step, ItemStep) and (step.parallelized or is_async_function(step.function)) for step in opened
        )
        """Whether several items may be under way at a time: those of an asynchronous or parallelized transformer."""

    def settle(self, *, finished: bool) -> None:
        """Let steps write into the state what they hold back.

        Args:
            finished: The source has given all it has.

        Raises:
            ExtractError: A step misses something that should have come.
        """
        for run in self.headway.runs:
            if finished and isinstance(run, Finishing):
                run.finish()

            if isinstance(run, Settling):
                run.settle()

    def process_row(self, row: dict[object, object]) -> Work | None:
        """The same as `process` for one dict, without a generator where nothing asks for one.

        Returns:
            What is left to do, or None.

        Raises:
            ResourceExtractionError: User code raised.
        """
        index = 0

        for function, keep, label in self._quick:
            index += 1

            try:
                result = function(row)
            except Exception as error:
                self.headway.fail(error, f"in {label}")

            if keep and (result is True or result is False):
                if not result:
                    return None
            elif not keep and type(result) is dict:
                row = result
            elif result is None:
                return None
            else:
                return self._process_result(result, row if keep else None, index, label)

        if index < len(self._stations) or self.router.offers:
            return self.process(row, index=index)

        self.router.route_row(row)

        return None

    def _process_result(self, result: object, kept: object, index: int, label: str) -> Work:
        """Go on with what a step has returned for a row: None as ``kept`` for a map, the row for a filter."""
        try:
            if isawaitable(result):
                result = yield result
        except Exception as error:
            self.headway.fail(error, f"in {label}")

        if kept is None:
            yield from self.process(result, index=index)
        elif result:
            yield from self.process(kept, index=index)

    def process(self, item: object, mark: Mark | None = None, index: int = 0) -> Work:
        """All the work of one item.

        Args:
            item: Whatever a source or a step may yield.
            mark: What has been said of it; None: nothing.
            index: The first step that it goes through.

        Raises:
            ResourceExtractionError: User code raised.
        """
        while True:
            kind, item = judged(item)

            if kind is Kind.MARKED:
                marked = cast("Marked", item)
                item, mark = marked.item, marked.mark.inside(mark)

                if mark.hints is not None:
                    self.router.change_hints(marked.mark, mark.hints)

                if isinstance(item, Materialized):
                    self.router.out(mark.table_name or self.router.table, item)
                    return

                continue

            if kind in SETTLED:
                item = yield from settle(item, kind, self.headway)
                continue

            if kind in UNFOLDED:
                yield from unfold(item, kind, self._from(index, mark), self.headway)
                return

            if kind is Kind.MESSAGE:
                yield from self._receive(cast("Message | Messages | Checkpoint", item), index)
                return

            if index == len(self._stations):
                yield from self.router.route(item, mark)
                return

            step = self._stations[index]
            index += 1

            if step.needs_rows and isinstance(item, JsonBody):
                item = yield from rows_of(item, self.headway)

            item = yield from step.work(item, mark)

            if item is None:
                return

    def _from(self, index: int, mark: Mark | None) -> Onward:
        return partial(self.process, mark=mark, index=index)

    def _receive(self, item: Message | Messages | Checkpoint, index: int) -> Work:
        """What messages hold, unless the stream has it already; then the safe point that comes after it."""
        if isinstance(item, Checkpoint):
            self.settle(finished=False)
            point = SafePoint(state=copy.deepcopy(state_of_source()))
        elif isinstance(item, Messages):
            yield from self.process(item.item, _mark_of(item), index)
            point = SafePoint(item.tickets)
        else:
            side = stream_side.get()
            accepted = None if side is None else side.accept(item.origin, (item.receipt,))

            if accepted is None or not accepted.repeated:
                yield from self.process(item.value, _mark_of(item), index)

            point = SafePoint() if accepted is None else SafePoint(Tickets(accepted.tickets))

        self.router.emit(self.router.table, point)


def _mark_of(item: Message | Messages) -> Mark | None:
    return None if item.table_name is None else Mark(item.table_name)
