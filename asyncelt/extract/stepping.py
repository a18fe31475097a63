"""What each kind of step does with an item. Sans I/O, as `Chain` is.

A handler gives back the item that goes on to the next step; None: nothing does, or it has gone on already.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import isawaitable
from itertools import count
from typing import Any, Final, TypeAlias

import pyarrow as pa

from asyncelt.errors import AsynceltError, DataValidationError
from asyncelt.extract.functions import is_async_function, with_meta
from asyncelt.extract.headway import Headway
from asyncelt.extract.items import JsonPage, Kind, Mark, kind_of
from asyncelt.extract.jsonbody import rows_of
from asyncelt.extract.models import ModelValidator, field_of
from asyncelt.extract.opened import AnyStep, Opened
from asyncelt.extract.requests import PAUSE_ROWS, Ahead, Offload, Request
from asyncelt.extract.routing import Router
from asyncelt.extract.steps import (
    FilterStep,
    ItemStep,
    MapStep,
    Passable,
    RowStep,
    SelectStep,
    ValidatorStep,
    YieldMapStep,
)
from asyncelt.extract.unfolding import Onward, called, each
from asyncelt.flow import DESCRIPTION_CHARS, JsonBody, Unloadable

__all__ = ["Spot", "Station", "station"]

_PLAIN: Final = frozenset({dict, str, int, float, bool, type(None), list})
"""What is known not to be awaitable."""

Doing: TypeAlias = Generator[Request, object, object | None]


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a step stands, and whom it turns to."""

    headway: Headway
    router: Router
    behind: Callable[[Mark | None], Onward]
    """What the steps behind it do with items of this mark."""


@dataclass(frozen=True, slots=True)
class Station:
    """A step at its place in a chain."""

    needs_rows: bool
    """Whether JSON bodies have to be parsed before it sees them."""
    work: Callable[[object, Mark | None], Doing]
    """What it does with an item and its mark."""


def station(step: AnyStep, spot: Spot) -> Station:
    """A step at its place."""
    return Station(step.needs_rows, partial(_HANDLERS[type(step)], step, spot))


# ---------------------------------------------------------------------- functions of rows


def _row_step(step: RowStep, spot: Spot, item: object, mark: Mark | None) -> Doing:
    """Map or filter."""
    function = with_meta(step.function, mark)
    keep = isinstance(step, FilterStep)
    results: list[object] = []

    for rows in _slices(item):
        try:
            for row in rows:
                result = function(row)

                if type(result) not in _PLAIN and isawaitable(result):
                    result = yield result

                if not keep:
                    results.append(result)
                elif result:
                    results.append(row)
        except Exception as error:
            spot.headway.fail(error, f"in {step.label}")

        if len(rows) == PAUSE_ROWS:
            yield None

    return _in_the_form_of(item, results)


def _validator(step: ValidatorStep, spot: Spot, item: object, mark: Mark | None) -> Doing:
    """Rows that are refused leave the chain here, as what they are: `Unloadable`.

    A cursor behind the validator is asked whether they are new, and moves past them, so that a row is refused in one
    run and not in each.
    """
    if isinstance(item, pa.Table):
        return item

    kept: list[object] = []
    numbers = count()

    for rows in _slices(item):
        for row, number in zip(rows, numbers, strict=False):
            try:
                made = step.function(row)
            except DataValidationError as error:
                if step.on_error == "fail":
                    spot.headway.error(error, f"row {number} of a page")
                    raise

                if _is_new(row, step, spot.headway):
                    spot.router.refuse(row, _unloadable(row, error), mark)
            except AsynceltError:
                raise
            except Exception as error:
                spot.headway.fail(error, "in its validator")
            else:
                if made is not None:
                    kept.append(made)

        if len(rows) == PAUSE_ROWS:
            yield None

    return _in_the_form_of(item, kept)


def _slices(item: object) -> Iterator[list[object]]:
    """The rows of an item, some at a time: between two slices somebody else may have a turn."""
    rows = item if isinstance(item, list) else [item]

    return (rows[start : start + PAUSE_ROWS] for start in range(0, len(rows), PAUSE_ROWS))


def _in_the_form_of(item: object, results: list[object]) -> object | None:
    """A page for a page, a row for a row. As in the reference, a page that has lost all its rows is gone."""
    if not isinstance(item, list):
        return results[0] if results else None

    return results if results or not item else None


def _is_new(row: object, step: ValidatorStep, headway: Headway) -> bool:
    """Whether a row that was refused is new to the cursor, if the resource has one."""
    known = step.function.field_of if isinstance(step.function, ModelValidator) else field_of

    return all(run.pass_by(row, partial(known, row)) for run in headway.runs if isinstance(run, Passable))


def _unloadable(row: object, error: Exception) -> Unloadable:
    return Unloadable(str(error), repr(row)[:DESCRIPTION_CHARS], kind=type(error).__name__, row=row)


def _yield_map(step: YieldMapStep, spot: Spot, item: object, mark: Mark | None) -> Doing:
    function, onward = with_meta(step.function, mark), spot.behind(mark)

    for row in item if isinstance(item, list) else (item,):
        if spot.headway.ended():
            break

        try:
            results = function(row)
        except Exception as error:
            spot.headway.fail(error, f"in {step.label}")

        if kind_of(type(results)) in (Kind.ASYNC_ITERABLE, Kind.AWAITABLE) or not isinstance(results, Iterable):
            yield from onward(results)
        else:
            yield from each(_guarded(results, step.label, spot.headway), onward, spot.headway)

        yield None

    return None


def _guarded(items: Iterable[object], label: str, headway: Headway) -> Iterator[object]:
    try:
        yield from items
    except Exception as error:
        headway.fail(error, f"in {label}")


# ---------------------------------------------------------------------- steps that see whole items


def _select(step: SelectStep, spot: Spot, item: object, mark: Mark | None) -> Doing:
    if mark is not None and mark.table_name is not None:
        return item if mark.table_name in step.names else None

    rows = yield from rows_of(item, spot.headway)

    return (yield from _row_step(FilterStep(step.keeps), spot, rows, None))


def _transform(step: ItemStep, spot: Spot, item: object, mark: Mark | None) -> Doing:
    if isinstance(item, JsonBody):
        item = item.data if item.items is None else JsonPage(item.data, item.items)

    call = partial(with_meta(step.function, mark), item)

    try:
        if not is_async_function(step.function):
            offload = Offload(partial(called, call))

            return (yield Ahead(offload) if step.parallelized else offload)

        result = call()

        return (yield Ahead(result)) if isawaitable(result) else result
    except Exception as error:
        spot.headway.fail(error, f"in transformer {step.name!r}")


def _page_step(step: Opened, spot: Spot, item: object, _mark: Mark | None) -> Doing:
    try:
        return step.run.apply(item) if step.work is None else (yield from step.work(item))
    except Exception as error:
        spot.headway.fail(error, "in a step")


_HANDLERS: Final[Mapping[type[AnyStep], Callable[[Any, Spot, object, Mark | None], Doing]]] = {
    MapStep: _row_step,
    FilterStep: _row_step,
    YieldMapStep: _yield_map,
    ValidatorStep: _validator,
    SelectStep: _select,
    ItemStep: _transform,
    Opened: _page_step,
}
