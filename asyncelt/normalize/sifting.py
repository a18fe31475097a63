"""Telling the rows of a page that cannot be loaded from those that can.

A page is tried whole; one that fails is tried in halves, and those in halves again, each with the schema as the rows
before it have left it, until the rows that fail stand alone. What is left is then one page like any other. This costs
about two tries per bad row and level, and nothing where there is no bad row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import BadRecord, DataValidationError, NormalizeError
from asyncelt.flow import ArrowPage, Conformed, RawBatch, Refusal
from asyncelt.normalize.units import Content, Units, refusal_of, units_of
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import apply_delta
from asyncelt.schema.model import Schema, SchemaDelta
from asyncelt.schema.system import is_system_name

__all__ = ["REFUSALS", "Refused", "Sifted", "Try", "check_required", "check_storable", "refused_whole", "sift"]

REFUSALS = (NormalizeError, DataValidationError)
"""Errors that are about rows: without some of them, the page could be loaded."""

Try = Callable[[RawBatch, Schema], Conformed]
"""Brings a page under a schema, or raises one of `REFUSALS`."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A row that cannot be loaded."""

    number: int
    """Of the row in its page, from 0."""
    content: Content
    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """A page without the rows that cannot be loaded."""

    conformed: Conformed
    refused: tuple[Refused, ...]
    rows: int
    """Rows that the page had."""
    batch: RawBatch
    """What was conformed: the rows that are left."""


def check_required(conformed: Conformed, batch: RawBatch, schema: Schema) -> None:
    """Refuse an Arrow page with nulls where there may be none, which otherwise the destination would find.

    Other pages have been checked when this is called.

    Raises:
        BadRecord: Names the column and the first row.
    """
    if not isinstance(batch.payload, ArrowPage) or not batch.payload.table.num_rows:
        return

    table = apply_delta(schema, conformed.delta).tables[batch.table]
    required = [name for name, column in table.columns.items() if not column.nullable and not is_system_name(name)]

    for data in (one.data for one in conformed.batches if one.table == batch.table):
        for name in required:
            row = _first_without(data, name)

            if row is not None:
                raise BadRecord("the column may not be null.", table=batch.table, column=name, row=row)


def check_storable(conformed: Conformed, schema: Schema, capabilities: Capabilities) -> None:
    """Refuse a page with values that the destination cannot store, which otherwise it would find itself.

    Raises:
        BadRecord: Names the table, the column and the first row.
    """
    if capabilities.check_rows is None:
        return

    tables = apply_delta(schema, conformed.delta).tables

    for batch in conformed.batches:
        capabilities.check_rows(tables[batch.table], batch.data)


def _first_without(data: pa.Table, name: str) -> int | None:
    """Number of the first row without a value in a column; None where all have one."""
    if name not in data.schema.names:
        return 0

    missing = np.flatnonzero(pc.is_null(data.column(name)).to_numpy())

    return int(missing[0]) if len(missing) else None


def refused_whole(batch: RawBatch, refusal: Refusal) -> Sifted:
    """A page of which nothing may be loaded, for the same reason."""
    units = units_of(batch.payload, batch.table)
    refused = tuple(
        Refused(number, units.content(number), units.hopeless.get(number, refusal)) for number in range(len(units))
    )

    return Sifted(conformed=_nothing(len(units)), refused=refused, rows=len(units), batch=batch)


def sift(batch: RawBatch, schema: Schema, attempt: Try) -> Sifted:
    """Leave out of a page what cannot be loaded. Blocking.

    Args:
        batch: The page; it has failed once.
        schema: As of the page's number.
        attempt: Brings pages under schemas.

    Raises:
        NormalizeError: The page fails although each of its rows does not.
        DataValidationError: Likewise.
    """
    units = units_of(batch.payload, batch.table)
    bad: dict[int, Refusal] = dict(units.hopeless)
    kept = [number for number in range(len(units)) if number not in bad]

    if isinstance(batch.payload, ArrowPage) and (error := _fails_without_rows(batch, batch.payload, schema, attempt)):
        bad, kept = dict.fromkeys(kept, error), []

    while True:
        page = replace(batch, payload=units.page(kept), rows=len(kept) if batch.rows else 0)

        try:
            conformed = attempt(page, schema) if kept else _nothing(0)
            break
        except REFUSALS:
            halves = _Halves(units, batch, attempt)
            found, after = halves.search(kept, schema)

            if not found:
                # No row fails for what comes before it, but one does for what comes after: the first one without a
                # value in a column that may not be null, and gets its type only later.
                found, _ = halves.search(kept, after)

            if not found:
                raise

            bad |= found
            kept = [number for number in kept if number not in found]

    refused = tuple(Refused(number, units.content(number), bad[number]) for number in sorted(bad))

    return Sifted(conformed=replace(conformed, root_rows=len(units)), refused=refused, rows=len(units), batch=page)


@dataclass(slots=True)
class _Halves:
    units: Units
    batch: RawBatch
    attempt: Try

    def search(self, numbers: Sequence[int], schema: Schema) -> tuple[dict[int, Refusal], Schema]:
        """The rows that fail, each tried after all that come before it, and the schema as the others make it."""
        found: dict[int, Refusal] = {}
        after = self._search(numbers, schema, found)

        return found, after

    def _search(self, numbers: Sequence[int], schema: Schema, found: dict[int, Refusal]) -> Schema:
        batch = replace(self.batch, payload=self.units.page(numbers), rows=len(numbers) if self.batch.rows else 0)

        try:
            conformed = self.attempt(batch, schema)
        except REFUSALS as error:
            if len(numbers) == 1:
                found[numbers[0]] = refusal_of(error, row=numbers[0])

                return schema

            middle = len(numbers) // 2

            return self._search(numbers[middle:], self._search(numbers[:middle], schema, found), found)

        return apply_delta(schema, conformed.delta) if conformed.delta else schema


def _fails_without_rows(batch: RawBatch, page: ArrowPage, schema: Schema, attempt: Try) -> Refusal | None:
    """Why an Arrow page cannot be loaded because of its columns, which every row of it has."""
    try:
        attempt(replace(batch, payload=ArrowPage(page.table.slice(0, 0)), rows=0), schema)
    except REFUSALS as error:
        return refusal_of(error)

    return None


def _nothing(rows: int) -> Conformed:
    return Conformed(delta=SchemaDelta(), batches=(), root_rows=rows)
