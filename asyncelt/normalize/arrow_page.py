"""Arrow pages: columns as they came, under safe names and the table's types. No flattening, no child tables.

Nested columns become ``json`` text. A column whose type is not that of the table is converted; what does not fit goes
to a variant column, as with other pages (the reference leaves it to the destination to refuse the load).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import BadRecord, NameCollision
from asyncelt.normalize.conform import ConformRules, Outcome, batch_of
from asyncelt.normalize.contract import Contract, Kept, contract_of, dropped, first_value, masked
from asyncelt.normalize.gating import Gate
from asyncelt.normalize.ids import random_ids
from asyncelt.normalize.place import Placement, Placer
from asyncelt.normalize.plain import json_text
from asyncelt.normalize.tables import Array, Lane
from asyncelt.normalize.view import SchemaView, TableView
from asyncelt.schema.arrow import column_from_arrow
from asyncelt.schema.model import Column
from asyncelt.schema.naming import Naming
from asyncelt.schema.system import DLT_ID, DLT_LOAD_ID, is_system_name, load_id_column, row_id_column
from asyncelt.types import ColumnName

__all__ = ["conform_arrow"]

SLICE: Final = 256


def conform_arrow(
    table: pa.Table, root: str, view: SchemaView, rules: ConformRules, gate: Gate, outcome: Outcome
) -> None:
    """Bring an Arrow table under the schema. A table without rows still adds its columns to the schema.

    A column ``_dlt_load_id`` without any value gets the id of this load. System columns that other rows of the table
    must have are filled: see `_required`.

    Raises:
        NameCollision: Two columns get the same name.
        SchemaError: A column's type has no counterpart.
        DataValidationError: The schema contract forbids what the page would add.
    """
    columns = view.table(root, None)
    rules = _required(table, columns, rules)
    contract = contract_of(view.schema, root, None)
    was_new = not columns.has_types()

    if was_new and contract.tables != "evolve":
        if contract.tables == "freeze":
            raise contract.refusal(root, None, "tables")

        return

    found = _columns(table, root, columns, view, rules, contract, gate, takes_new=was_new or view.evolves_once(root))
    placed, stays = _placed(found.lanes, columns, view, rules, contract, found.stays)
    added = [*found.added, *(new.column for new in placed.new)]

    for column, array in _system(table.num_rows, rules.rule.naming, rules):
        placed.columns[column.name] = array

        if columns.target(column.name) is None:
            columns.add(column)
            added.append(column)

    if added or columns.is_new:
        outcome.extend(columns, added, rules.resource)

    batch = batch_of(columns, placed, stays, table.num_rows)

    if batch.rows:
        outcome.batches.setdefault(root, []).append(batch)


def _required(table: pa.Table, columns: TableView, rules: ConformRules) -> ConformRules:
    """Add the load id and row ids where the table has them of dicts, which may not lack them, and the page has none.

    Not the ids of versions (scd2): they are made of the row, and others would make each row a new version.
    """
    naming = rules.rule.naming
    row_id = columns.columns.get(naming.path(DLT_ID))
    makes_ids = row_id is not None and not row_id.extra.get("x-row-version")

    return replace(
        rules,
        add_dlt_load_id=rules.add_dlt_load_id
        or _is_empty(table, DLT_LOAD_ID)
        or _is_missing(table, columns, naming.path(DLT_LOAD_ID), naming),
        add_dlt_id=rules.add_dlt_id or (makes_ids and _is_missing(table, columns, naming.path(DLT_ID), naming)),
    )


def _is_empty(table: pa.Table, name: str) -> bool:
    """Whether there is a column that has no value: for load ids, rows that were read from another dataset."""
    place = table.schema.get_field_index(name)

    return place >= 0 and table.column(place).null_count == table.num_rows


def _is_missing(table: pa.Table, columns: TableView, name: str, naming: Naming) -> bool:
    """Whether rows need a value in a column that the page does not have."""
    known = columns.columns.get(name)

    if known is None or known.nullable or known.data_type is None:
        return False

    return name not in {naming.path(one) for one in table.column_names}


class _Found(NamedTuple):
    lanes: dict[str, list[Lane]]
    added: list[Column]
    stays: Kept | None


def _columns(
    table: pa.Table,
    root: str,
    columns: TableView,
    view: SchemaView,
    rules: ConformRules,
    contract: Contract,
    gate: Gate,
    *,
    takes_new: bool,
) -> _Found:
    """The page's columns as lanes; those that the table does not have are added, or treated as its contract says."""
    naming = rules.rule.naming
    load_id = naming.path(DLT_LOAD_ID) if rules.add_dlt_load_id else None
    found = _Found({}, [], None)

    for name, field, values in _renamed(table, naming, root):
        given = column_from_arrow(ColumnName(name), field, view.capabilities)

        if given.data_type is None or name == load_id:
            continue

        if columns.target(name) is None:
            if contract.columns == "evolve" or takes_new or is_system_name(name):
                column = columns.declared(given)
                columns.add(column)
                found.added.append(column)
            elif contract.columns == "freeze":
                raise contract.refusal(root, name, "columns", first_value(values))
            else:
                if contract.columns == "discard_row":
                    found = found._replace(stays=_without(found.stays, values))

                continue

        if values.null_count < len(values):
            nested = given.data_type == "json"
            found.lanes[name] = [Lane(given.data_type, _as_text(values, root, gate) if nested else _storage(values))]

    return found


def _without(stays: Kept | None, values: Array) -> Kept:
    """Rows that stay when those with a value here go."""
    empty = np.asarray(pc.is_null(values))

    return empty if stays is None else stays & empty


def _renamed(table: pa.Table, naming: Naming, root: str) -> Iterator[tuple[str, pa.Field[pa.DataType], Array]]:
    taken: dict[str, str] = {}

    for field, values in zip(table.schema, table.columns, strict=True):
        if pa.types.is_null(field.type):
            continue

        name = naming.path(field.name)

        if name in taken:
            raise NameCollision(
                f"Table {root!r}: the Arrow columns {taken[name]!r} and {field.name!r} both become {name!r}; "
                "rename one of them."
            )

        taken[name] = field.name
        array = values.chunk(0) if values.num_chunks == 1 else values.combine_chunks()
        yield name, field, cast("Array", array)


def _placed(
    lanes: dict[str, list[Lane]],
    columns: TableView,
    view: SchemaView,
    rules: ConformRules,
    contract: Contract,
    stays: Kept | None,
) -> tuple[Placement, Kept | None]:
    before = dict(columns.columns)
    placer = Placer(
        table=columns,
        rules=view.rules,
        naming=rules.rule.naming,
        value_at=lambda _row, _column: None,
        now=float(rules.load_id),
    )
    placed = placer.place(lanes if stays is None else masked(lanes, stays))

    # Columns of their own the page has added before: what is new here are variants.
    if placed.new and contract.data_type != "evolve":
        names = [found.column.name for found in placed.new]

        if contract.data_type == "freeze":
            raise contract.refusal(columns.name, names[0], "data_type", first_value(placed.columns[names[0]]))

        if contract.data_type == "discard_row":
            for name in names:
                stays = _without(stays, placed.columns[name])

        dropped(names, placed, columns, before)

    return placed, stays


def _system(rows: int, naming: Naming, rules: ConformRules) -> Iterator[tuple[Column, Array]]:
    if rules.add_dlt_load_id:
        yield load_id_column(naming), cast("Array", pa.repeat(rules.load_id, rows))

    if rules.add_dlt_id:
        yield row_id_column(naming), random_ids(rows)


def _storage(values: Array) -> Array:
    kind = values.type

    return cast("Array", values.storage) if isinstance(kind, pa.BaseExtensionType) else values  # type: ignore[attr-defined]


def _as_text(values: Array, root: str, gate: Gate) -> Array:
    pieces: list[pa.Array[pa.Scalar[pa.DataType]]] = []

    def steps() -> Iterator[None]:
        for start in range(0, len(values), SLICE):
            found = cast("Any", values.slice(start, SLICE)).to_pylist(maps_as_pydicts="lossy")
            pieces.append(pa.array([None if value is None else json_text(value) for value in found], pa.string()))
            yield

    try:
        gate.run(steps())
    except (TypeError, UnicodeEncodeError) as error:
        raise BadRecord(f"the nested values cannot be written as JSON: {error}.", table=root) from error

    return pa.concat_arrays(pieces) if pieces else values
