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

from collections.abc import Generator, Iterable, Iterator, Mapping
from functools import partial
from inspect import isawaitable
from typing import NoReturn, cast

import pyarrow as pa

from asyncelt.errors import AsynceltError, ConfigError, ExtractError, ResourceExtractionError, SchemaError, UsageError
from asyncelt.extract.functions import is_async_function
from asyncelt.extract.hinting import HintBook
from asyncelt.extract.items import JsonPage, Kind, Marked, Materialized, judged, kind_of
from asyncelt.extract.jsonbody import parse_in_slices
from asyncelt.extract.messages import Checkpoint, Message, Messages
from asyncelt.extract.models import through_validator
from asyncelt.extract.opened import Opened, opened, quick_steps
from asyncelt.extract.requests import Ahead, Emit, HintNews, Offered, Offload, Request, TableName, Work
from asyncelt.extract.steps import (
    FilterStep,
    Finishing,
    ItemStep,
    PageStepRun,
    RowStep,
    SelectStep,
    Settling,
    Step,
    ValidatorStep,
    YieldMapStep,
)
from asyncelt.extract.unfolding import SETTLED, UNFOLDED, called, each, received, settle, unfold
from asyncelt.flow import JsonBody, Unloadable
from asyncelt.schema.hints import TableHints

__all__ = ["Chain", "extraction_error"]

_PAUSE_ROWS = 32
"""Rows between two pauses. Small, because nobody knows how long a user's function takes."""


def extraction_error(resource: str, rows: int, error: BaseException, where: str) -> AsynceltError:
    """What user code raised, as an error that names the resource and the position."""
    if isinstance(error, ExtractError | SchemaError | ConfigError | UsageError):
        error.add_note(f"In resource {resource!r}, {where}, after {rows} rows.")

        return error

    return ResourceExtractionError(
        f"resource {resource!r} failed {where} after {rows} rows: {type(error).__name__}: {error}", resource=resource
    )


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
        self.resource = resource
        self.rows = 0
        """Rows and bodies that came out so far."""
        self._steps = opened(steps)
        self.opened = [step.run for step in self._steps if isinstance(step, Opened)]
        """Runs of the steps that see whole items."""
        self._quick = quick_steps(self._steps)
        self._table = table
        self._hints = hints
        self.emit = emit
        """Where items go at the end. A reader that runs the chain in a thread puts its own outbox here."""
        self._offers = offers
        self._keeps = keeps
        self._is_stopped = False
        self.is_plain = not self._steps and isinstance(table, str) and not offers
        """Whether rows only have to be passed on to `emit`, with `table`."""

    @property
    def table(self) -> str:
        """The table, where there is just one."""
        return self._table if isinstance(self._table, str) else self.resource

    @property
    def looks_ahead(self) -> bool:
        """Whether several items may be under way at a time: those of an asynchronous or parallelized transformer."""
        return any(
            isinstance(step, ItemStep) and (step.parallelized or is_async_function(step.function))
            for step in self._steps
        )

    def ended(self) -> bool:
        """Whether a step has had enough: no further item is to be read."""
        return self._is_stopped or (bool(self.opened) and any(run.done for run in self.opened))

    def stop(self) -> None:
        """Nobody wants any more."""
        self._is_stopped = True

    def settle(self, *, finished: bool) -> None:
        """Let steps write into the state what they hold back.

        Args:
            finished: The source has given all it has.

        Raises:
            ExtractError: A step misses something that should have come.
        """
        for run in self.opened:
            if finished and isinstance(run, Finishing):
                run.finish()

            if isinstance(run, Settling):
                run.settle()

    def error(self, error: BaseException, where: str) -> AsynceltError:
        """``error`` as the resource's own: itself where it is one of ours."""
        return extraction_error(self.resource, self.rows, error, where)

    def fail(self, error: BaseException, where: str) -> NoReturn:
        """Raise what `error` returns."""
        own = self.error(error, where)

        if own is error:
            raise own

        raise own from error

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
                self.fail(error, f"in {label}")

            if keep and (result is True or result is False):
                if not result:
                    return None
            elif not keep and type(result) is dict:
                row = result
            elif result is None:
                return None
            else:
                return self._process_result(result, row if keep else None, index, label)

        if index < len(self._steps) or self._offers:
            return self.process(row, index)

        name = self._table if isinstance(self._table, str) else self._table_for(row)

        if self._hints is not None and self._hints.is_live:
            self._tell(name, self._hints_of_row(name, row))

        self.rows += 1
        self.emit(name, row)

        return None

    def _process_result(self, result: object, kept: object, index: int, label: str) -> Work:
        """Go on with what a step has returned for a row: None as ``kept`` for a map, the row for a filter."""
        try:
            if isawaitable(result):
                result = yield result
        except Exception as error:
            self.fail(error, f"in {label}")

        if kept is None:
            yield from self.process(result, index)
        elif result:
            yield from self.process(kept, index)

    def process(self, item: object, index: int = 0, table: str | None = None) -> Work:
        """All the work of one item, beginning with step ``index``.

        Raises:
            ResourceExtractionError: User code raised.
        """
        while True:
            kind, item = judged(item)

            if kind is Kind.MARKED:
                marked = cast("Marked", item)
                item, table = marked.item, marked.table_name or table

                if marked.hints is not None:
                    self._change_hints(marked, marked.hints)

                if isinstance(item, Materialized):
                    self._out(table or self.table, item)
                    return

                continue

            if kind in SETTLED:
                item = yield from settle(self, item, kind)
                continue

            if kind in UNFOLDED:
                yield from unfold(self, item, kind, index, table)
                return

            if kind is Kind.MESSAGE:
                yield from received(self, cast("Message | Messages | Checkpoint", item), index)
                return

            if index == len(self._steps):
                yield from self._route(item, table)
                return

            step = self._steps[index]
            index += 1

            if isinstance(step, YieldMapStep):
                rows = yield from self._rows_of(item)
                yield from self._yield_map(step, rows, index, table)
                return

            if isinstance(step, SelectStep):
                item = yield from self._select(step, item, table)
                continue

            if isinstance(step, ValidatorStep):
                rows = yield from self._rows_of(item)
                item = rows if isinstance(rows, pa.Table) else (yield from through_validator(self, step, rows, table))
                continue

            item = yield from self._step(step, item)

    # ------------------------------------------------------------------ steps

    def _step(self, step: RowStep | ItemStep | Opened, item: object) -> Generator[Request, object, object | None]:
        if isinstance(step, ItemStep):
            return (yield from self._transform(step, item))

        if isinstance(step, RowStep) or step.needs_rows:
            item = yield from self._rows_of(item)

        if isinstance(step, RowStep):
            return (yield from self._row_step(step, item))

        if step.work is None:
            return self._apply(step.run, item)

        try:
            return (yield from step.work(item))
        except Exception as error:
            self.fail(error, "in a step")

    def _rows_of(self, item: object) -> Generator[Request, object, object]:
        """A JSON body as its rows; everything else as it is."""
        if not isinstance(item, JsonBody):
            return item

        rows: list[object] = []
        parts = parse_in_slices(item)

        while True:
            try:
                part = next(parts, None)
            except ExtractError as error:
                self.fail(error, "in a JSON body")

            if part is None:
                return rows

            rows += part
            yield None

    def _apply(self, run: PageStepRun, item: object) -> object | None:
        try:
            return run.apply(item)
        except Exception as error:
            self.fail(error, "in a step")

    def _row_step(self, step: RowStep, item: object) -> Generator[Request, object, object | None]:
        """Map or filter. As in the reference, a page that is filtered to nothing is gone."""
        keep = isinstance(step, FilterStep)
        rows = item if isinstance(item, list) else [item]
        results: list[object] = []

        for start in range(0, len(rows), _PAUSE_ROWS):
            try:
                for row in rows[start : start + _PAUSE_ROWS]:
                    result = step.function(row)

                    if type(result) not in _PLAIN and isawaitable(result):
                        result = yield result

                    if not keep:
                        results.append(result)
                    elif result:
                        results.append(row)
            except Exception as error:
                self.fail(error, f"in {step.label}")

            if len(rows) > _PAUSE_ROWS:
                yield None

        if not isinstance(item, list):
            return results[0] if results else None

        return results if results or not keep or not item else None

    def _select(self, step: SelectStep, item: object, table: str | None) -> Generator[Request, object, object | None]:
        if table is not None:
            return item if table in step.names else None

        return (yield from self._row_step(FilterStep(step.keeps), (yield from self._rows_of(item))))

    def _yield_map(self, step: YieldMapStep, item: object, index: int, table: str | None) -> Work:
        for row in item if isinstance(item, list) else (item,):
            if self.ended():
                return

            try:
                results = step.function(row)
            except Exception as error:
                self.fail(error, f"in {step.label}")

            if kind_of(type(results)) in (Kind.ASYNC_ITERABLE, Kind.AWAITABLE) or not isinstance(results, Iterable):
                yield from self.process(results, index, table)
            else:
                yield from each(self, self._guarded(results, step.label), index, table)

            yield None

    def _guarded(self, items: Iterable[object], label: str) -> Iterator[object]:
        try:
            yield from items
        except Exception as error:
            self.fail(error, f"in {label}")

    def _transform(self, step: ItemStep, item: object) -> Generator[Request, object, object]:
        if isinstance(item, JsonBody):
            item = item.data if item.items is None else JsonPage(item.data, item.items)

        call = partial(step.function, item)

        try:
            if not is_async_function(step.function):
                offload = Offload(partial(called, call))

                return (yield Ahead(offload) if step.parallelized else offload)

            result = call()

            return (yield Ahead(result)) if isawaitable(result) else result
        except Exception as error:
            self.fail(error, f"in transformer {step.name!r}")

    # ------------------------------------------------------------------ tables

    def _change_hints(self, marked: Marked, hints: Mapping[str, object]) -> None:
        """Hints that have come with the data; a table name among them is the resource's from here on."""
        name = hints.get("table_name")

        try:
            if isinstance(name, str) and name and not marked.is_variant:
                self._table = name

            if self._hints is not None:
                table = marked.table_name if marked.is_variant and marked.table_name else self.table
                self._tell(table, self._hints.change(hints, table, is_variant=marked.is_variant))
        except Exception as error:
            self.fail(error, "in hints that came with its data")

    def _tell(self, table: str, news: TableHints | None) -> None:
        if news is not None:
            self.emit(table, HintNews(news))

    def _hints_of_row(self, table: str, row: object) -> TableHints | None:
        if self._hints is None or not self._hints.is_live:
            return None

        try:
            return self._hints.news_of(table, row)
        except Exception as error:
            self.fail(error, f"in the hints of table {table!r}")

    def _route(self, item: object, table: str | None) -> Work:
        if self._offers:
            self.emit("", Offered(item if table is None else Marked(item, table)))

        if not self._keeps:
            self._count(item)
            return

        if table is None and callable(self._table):
            yield from self._route_by_function(item)
            return

        name = table or self.table
        self._tell(name, self._hints_of_row(name, item))
        self._out(name, item)

    def _route_by_function(self, item: object) -> Work:
        item = yield from self._rows_of(item)

        if not isinstance(item, list):
            name = self._table_for(item)
            self._tell(name, self._hints_of_row(name, item))
            self._out(name, item)
            return

        groups: dict[str, list[object]] = {}

        for number, row in enumerate(item, 1):
            name = self._table_for(row)
            news = self._hints_of_row(name, row)

            if news is not None:
                if rows := groups.pop(name, None):
                    self._out(name, rows)

                self._tell(name, news)

            groups.setdefault(name, []).append(row)

            if number % _PAUSE_ROWS == 0:
                yield None

        for table, rows in groups.items():
            self._out(table, rows)

    def _table_for(self, row: object) -> str:
        try:
            name = self._table(row)  # type: ignore[operator]
        except Exception as error:
            self.fail(error, "in the table_name function")

        if not isinstance(name, str) or not name:
            wrong = ConfigError(f"The table_name function must return the name of a table, not {name!r}.")
            raise self.error(wrong, "in the table_name function") from None

        return name

    def refuse(self, row: object, instead: Unloadable, table: str | None) -> None:
        """Send on a row that cannot be loaded; no further step sees it."""
        if self._keeps:
            name = table or (self._table_for(row) if callable(self._table) else self.table)
            self._out(name, [instead])

    def _out(self, table: str, item: object) -> None:
        self.emit(table, item)
        self._count(item)

    def _count(self, item: object) -> None:
        if isinstance(item, list):
            self.rows += len(item)
        else:
            self.rows += item.num_rows if isinstance(item, pa.Table) else 1


_PLAIN = frozenset({dict, str, int, float, bool, type(None), list})
