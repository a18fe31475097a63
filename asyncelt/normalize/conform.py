"""Parts to typed tables under a schema: columns, row ids, what is new."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import BadRecord
from asyncelt.flow import Notice, TableBatch
from asyncelt.normalize.identify import Identity, identify
from asyncelt.normalize.order import introduced, value_finder
from asyncelt.normalize.place import Introduction, Placement, Placer
from asyncelt.normalize.tables import Array, Part, TablePart
from asyncelt.normalize.view import SchemaView, TableView
from asyncelt.normalize.walk import Rule, excerpt
from asyncelt.schema.model import Column, TableDelta
from asyncelt.schema.system import DLT_ID
from asyncelt.types import LoadId, TableName

__all__ = ["ConformRules", "Outcome", "conform_part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformRules:
    """What is the same for all tables of a page."""

    load_id: LoadId
    rule: Rule
    resource: str
    add_dlt_id: bool
    add_dlt_load_id: bool


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


def conform_part(part: Part, view: SchemaView, rules: ConformRules, identity: Identity, outcome: Outcome) -> None:
    """Bring one part under the schema as ``view`` has it, and ``view`` forward by what the part adds.

    Raises:
        BadRecord: A value that may not be missing, or that no column can hold.
        Ambiguous: The part has to be made again, row by row.
    """
    new: dict[str, list[Introduction]] = {}
    ids = identify(part, identity)

    for table in part.tables:
        columns = view.table(table.name, None if table.parent is None else table.parent.name)
        user_ids = table.lanes.get(DLT_ID)
        lanes = table.lanes if user_ids is None else {k: v for k, v in table.lanes.items() if k != DLT_ID}
        placer = Placer(
            table=columns,
            rules=view.rules,
            naming=rules.rule.naming,
            value_at=value_finder(part, table, rules.rule),
            now=float(rules.load_id),
        )
        placed = placer.place(lanes)
        system = ids.columns_of(table, rules.load_id if rules.add_dlt_load_id else None, add_id=rules.add_dlt_id)
        _check_missing(part, table, columns, placed, system)

        for column, values in system:
            placed.columns[column.name] = values

            if columns.target(column.name) is None:
                columns.add(column)
                placed.new.append(Introduction(0, column.name, column))

        if placed.new:
            new[table.name] = placed.new

        _note(table, placed, outcome)
        batch = TableBatch(table=columns.name, data=_table(placed.columns, table.rows), rows=table.rows)
        outcome.batches.setdefault(table.name, []).append(batch)

    if new:
        for name, added in introduced(part, new, rules.rule):
            outcome.extend(view.tables[name], added, rules.resource)

    for (name, column), count in part.collisions.items():
        outcome.note(
            "collision", name, column, count, f"several keys became {column!r}; the later one of each row was kept"
        )


def _table(columns: Mapping[str, Array], rows: int) -> pa.Table:
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def _note(table: TablePart, placed: Placement, outcome: Outcome) -> None:
    for name, count in placed.chained.items():
        outcome.note(
            "variant_of_variant", table.name, name, count, "the values fit neither their column nor its first variant"
        )


def _check_missing(
    part: Part, table: TablePart, view: TableView, placed: Placement, system: Iterable[tuple[Column, Array]]
) -> None:
    """Refuse rows that have no value where there must be one."""
    own = {column.name for column, _ in system}

    for name, column in view.required():
        if name in own or name.startswith("_dlt"):
            continue

        found = [placed.columns[key] for key in (name, *placed.variants_of.get(name, ())) if key in placed.columns]

        if any(values.null_count == 0 for values in found):
            continue

        present = np.zeros(table.rows, dtype=bool)

        for values in found:
            present |= np.asarray(pc.is_valid(values))

        if not present.all():
            row = table.root_of(int(np.argmin(present)))
            raise BadRecord(
                "the column may not be null and this row has no value for it; give it one, or declare nullable=True.",
                table=table.name,
                column=name,
                row=row,
                value=excerpt(part.source.item(row)),
            )
