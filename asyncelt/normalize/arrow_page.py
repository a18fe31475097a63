"""Arrow pages: columns as they came, under safe names and the table's types. No flattening, no child tables.

Nested columns become ``json`` text. A column whose type is not that of the table is converted; what does not fit goes
to a variant column, as with other pages (the reference leaves it to the destination to refuse the load).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

import pyarrow as pa

from asyncelt.errors import BadRecord, NameCollision
from asyncelt.flow import TableBatch
from asyncelt.normalize.conform import ConformRules, Outcome
from asyncelt.normalize.gating import Gate
from asyncelt.normalize.ids import random_ids
from asyncelt.normalize.place import Placement, Placer
from asyncelt.normalize.plain import json_text
from asyncelt.normalize.tables import Array, Lane
from asyncelt.normalize.view import SchemaView, TableView
from asyncelt.schema.arrow import column_from_arrow
from asyncelt.schema.model import Column
from asyncelt.schema.naming import Naming
from asyncelt.schema.system import DLT_LOAD_ID, load_id_column, row_id_column
from asyncelt.types import ColumnName

__all__ = ["conform_arrow"]

SLICE: Final = 256


def conform_arrow(table: pa.Table, root: str, view: SchemaView, rules: ConformRules, gate: Gate, outcome: Outcome) -> None:
    """Bring an Arrow table under the schema. A table without rows still adds its columns to the schema.

    Raises:
        NameCollision: Two columns get the same name.
        SchemaError: A column's type has no counterpart.
    """
    columns = view.table(root, None)
    naming = rules.rule.naming
    added: list[Column] = []
    lanes: dict[str, list[Lane]] = {}
    load_id_name = naming.path(DLT_LOAD_ID)

    for name, field, values in _renamed(table, naming, root):
        if rules.add_dlt_load_id and name == load_id_name:
            continue

        found = column_from_arrow(ColumnName(name), field, view.capabilities)

        if found.data_type is None:
            continue

        known = columns.target(name)

        if known is None:
            column = columns.declared(found)
            columns.add(column)
            added.append(column)

        if values.null_count < len(values):
            source = found.data_type
            lanes[name] = [Lane(source, _as_text(values, root, gate) if source == "json" else _storage(values))]

    placed = _placed(lanes, columns, view, rules)
    added.extend(found.column for found in placed.new)

    for column, array in _system(table.num_rows, naming, rules):
        placed.columns[column.name] = array

        if columns.target(column.name) is None:
            columns.add(column)
            added.append(column)

    if added or columns.is_new:
        outcome.extend(columns, added, rules.resource)

    if table.num_rows:
        data = pa.Table.from_arrays(list(placed.columns.values()), names=list(placed.columns))
        outcome.batches.setdefault(root, []).append(TableBatch(table=columns.name, data=data, rows=table.num_rows))


def _renamed(table: pa.Table, naming: Naming, root: str) -> Iterator[tuple[str, pa.Field, Array]]:
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


def _placed(lanes: dict[str, list[Lane]], columns: TableView, view: SchemaView, rules: ConformRules) -> Placement:
    placer = Placer(
        table=columns,
        rules=view.rules,
        naming=rules.rule.naming,
        value_at=lambda row, column: None,
        now=float(rules.load_id),
    )

    return placer.place(lanes)


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
            found = values.slice(start, SLICE).to_pylist(maps_as_pydicts="lossy")
            pieces.append(pa.array([None if value is None else json_text(value) for value in found], pa.string()))
            yield

    try:
        gate.run(steps())
    except (TypeError, UnicodeEncodeError) as error:
        raise BadRecord(f"the nested values cannot be written as JSON: {error}.", table=root) from error

    return cast("Array", pa.concat_arrays(pieces))
