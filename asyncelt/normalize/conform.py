"""Parts to typed tables under a schema: columns, row ids, what is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import BadRecord
from asyncelt.flow import ROOT_ROW, Notice, TableBatch
from asyncelt.normalize.contract import Kept, contract_of, dropped, judge, kept_rows, masked
from asyncelt.normalize.identify import Identity, identify
from asyncelt.normalize.order import introduced, value_finder
from asyncelt.normalize.place import Introduction, Placement, Placer
from asyncelt.normalize.tables import Part, TablePart
from asyncelt.normalize.view import SchemaView, TableView
from asyncelt.normalize.walk import Rule, excerpt
from asyncelt.schema.model import Column, TableDelta
from asyncelt.schema.system import DLT_ID, is_system_name
from asyncelt.types import LoadId, TableName

__all__ = ["ConformRules", "Outcome", "batch_of", "conform_part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformRules:
    """What is the same for all tables of a page."""

    load_id: LoadId
    rule: Rule
    resource: str
    add_dlt_id: bool
    """Whether Arrow data gets it; rows always do."""
    add_dlt_load_id: bool
    """The same."""
    max_columns: int


@dataclass(slots=True)
class Outcome:
    """What conforming the parts of a page has given so far."""

    batches: dict[str, list[TableBatch]] = field(default_factory=dict)
    deltas: dict[str, TableDelta] = field(default_factory=dict)
    notices: dict[tuple[str, str, str | None], Notice] = field(default_factory=dict)

    def note(self, kind: str, table: str, column: str | None, count: int, message: str) -> None:
        """Count something worth knowing, once per column and kind."""
        key = (kind, table, column)
        known = self.notices.get(key)
        total = count + (known.count if known else 0)
        self.notices[key] = Notice(kind=kind, table=TableName(table), column=column, count=total, message=message)

    def extend(self, view: TableView, columns: Sequence[Column], resource: str) -> None:
        """Add new columns of a table to what the page adds."""
        known = self.deltas.get(view.name)
        self.deltas[view.name] = TableDelta(
            name=view.name,
            columns=(*(known.columns if known else ()), *columns),
            parent=view.parent if view.is_new else None,
            resource=resource if view.is_new and view.parent is None else None,
            is_new=view.is_new,
        )


def conform_part(
    part: Part, view: SchemaView, rules: ConformRules, identity: Identity, outcome: Outcome, first_row: int = 0
) -> None:
    """Bring one part under the schema as ``view`` has it, and ``view`` forward by what the part adds.

    Its root rows are numbered from ``first_row`` where they have to be told apart.

    Raises:
        BadRecord: A value that may not be missing, or that no column can hold.
        DataValidationError: The schema contract forbids what the part would add.
        Ambiguous: The part has to be made again, row by row.
    """
    new: dict[str, list[Introduction]] = {}
    kept: dict[str, Kept] = {}
    ids = identify(part, identity)

    for table in part.tables:
        columns = view.table(table.name, None if table.parent is None else table.parent.name)
        stays = kept_rows(table, kept)
        placed, stays = _placed(part, table, columns, view, rules, stays)

        if stays is not None:
            kept[table.name] = stays

            if not stays.any():
                continue

        system = ids.columns_of(table, rules.load_id)
        _check_missing(part, table, columns, placed, stays)

        for column, values in system:
            placed.columns[column.name] = values

            if columns.target(column.name) is None:
                columns.add(column)
                placed.new.append(Introduction(_first(stays), column.name, column))

        numbers = ids.root_rows_of(table, first_row)

        if numbers is not None:
            placed.columns[ROOT_ROW] = numbers

        if placed.new:
            new[table.name] = placed.new
            _check_width(columns, placed, rules.max_columns)

        _note(table, placed, outcome)
        outcome.batches.setdefault(table.name, []).append(batch_of(columns, placed, stays, table.rows))

    if new:
        for name, added in introduced(part, new, rules.rule):
            outcome.extend(view.tables[name], added, rules.resource)

    for (owner, key), count in part.collisions.items():
        outcome.note("collision", owner, key, count, f"several keys became {key!r}; the later one of each row was kept")


def _placed(
    part: Part, table: TablePart, columns: TableView, view: SchemaView, rules: ConformRules, stays: Kept | None
) -> tuple[Placement, Kept | None]:
    """Columns of a table, and the rows that stay, under its contract."""
    lanes = (
        {name: found for name, found in table.lanes.items() if name != DLT_ID} if DLT_ID in table.lanes else table.lanes
    )
    contract = contract_of(view.schema, table.name, columns.parent)
    was_new = bool(contract) and not columns.has_types()

    if was_new and contract.tables != "evolve":
        if contract.tables == "freeze":
            raise contract.refusal(table.name, None, "tables")

        return Placement(), np.zeros(table.rows, dtype=bool)

    while True:
        before = dict(columns.columns) if contract else {}
        placer = Placer(
            table=columns,
            rules=view.rules,
            naming=rules.rule.naming,
            value_at=value_finder(part, table, rules.rule),
            now=float(rules.load_id),
        )
        placed = placer.place(lanes if stays is None else masked(lanes, stays))

        if not contract or not placed.new:
            return placed, stays

        once = table.parent is None and (view.evolves_once(table.name) or was_new)
        verdict = judge(contract, columns, placed, was_new=was_new, evolves_once=once, first_row=_first(stays))

        if verdict.rows is None:
            dropped(verdict.columns, placed, columns, before)

            return placed, stays

        # Rows that go may have brought columns that the others do not bring, or have been the first of one.
        columns.back_to(before, [found.column.name for found in placed.new])
        stays = ~verdict.rows if stays is None else stays & ~verdict.rows


def _first(stays: Kept | None) -> int:
    return 0 if stays is None else int(np.argmax(stays))


def batch_of(columns: TableView, placed: Placement, stays: Kept | None, rows: int) -> TableBatch:
    """The rows that stay, in the columns that have values."""
    data = pa.Table.from_arrays(list(placed.columns.values()), names=list(placed.columns))

    if stays is not None:
        data = data.filter(pa.array(stays))
        rows = int(np.count_nonzero(stays))

    return TableBatch(table=columns.name, data=data, rows=rows)


def _note(table: TablePart, placed: Placement, outcome: Outcome) -> None:
    for name, count in placed.chained.items():
        outcome.note(
            "variant_of_variant", table.name, name, count, "the values fit neither their column nor its first variant"
        )


def _check_width(columns: TableView, placed: Placement, limit: int) -> None:
    if len(columns.columns) > limit:
        raise BadRecord(
            f"the table would get more than {limit} columns. An object keyed by ids makes a column of every key: "
            "declare the field as json, or set max_table_nesting.",
            table=columns.name,
            column=placed.new[-1].column.name,
        )


def _check_missing(part: Part, table: TablePart, view: TableView, placed: Placement, stays: Kept | None) -> None:
    """Refuse rows that have no value where there must be one."""
    for name in view.required():
        if is_system_name(name):
            continue

        found = [placed.columns[key] for key in (name, *placed.variants_of.get(name, ())) if key in placed.columns]

        if any(values.null_count == 0 for values in found):
            continue

        present = np.zeros(table.rows, dtype=bool) if stays is None else ~stays

        for values in found:
            present |= np.asarray(pc.is_valid(values))

        if not present.all():
            row = table.root_of(int(np.argmin(present)))
            raise BadRecord(
                "the column may not be null and this row has no value for it; give it one, declare nullable=True, or "
                "make the table anew with refresh='drop_resources'.",
                table=table.name,
                column=name,
                row=row,
                value=excerpt(part.source.item(row)),
            )
