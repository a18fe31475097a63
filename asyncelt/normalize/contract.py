"""Schema contracts while rows are conformed: which new tables and columns are taken, and what the others cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import DataValidationError
from asyncelt.normalize.place import Placement
from asyncelt.normalize.tables import Array, Lane, TablePart
from asyncelt.normalize.view import TableView
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.system import is_system_name
from asyncelt.types import JsonValue, TableName

__all__ = [
    "Contract",
    "Kept",
    "Verdict",
    "contract_of",
    "dropped",
    "first_value",
    "is_refused",
    "judge",
    "kept_rows",
    "masked",
]

Mode = Literal["evolve", "freeze", "discard_row", "discard_value"]
Kept = npt.NDArray[np.bool_]
"""True for the rows of a table that stay."""

EVOLVE: Final = "evolve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The contract of one table."""

    schema_name: str = ""
    tables: Mode = EVOLVE
    columns: Mode = EVOLVE
    data_type: Mode = EVOLVE

    def __bool__(self) -> bool:
        return not self.tables == self.columns == self.data_type == EVOLVE

    def refusal(
        self, table: str, column: str | None, entity: Literal["tables", "columns", "data_type"], item: object = None
    ) -> DataValidationError:
        """The error of a change that it forbids, with the value that asks for it."""
        what = f"table {table!r}" if column is None else f"column {column!r} of table {table!r}"

        return DataValidationError(
            f"The schema contract freezes {entity}, and the data brings the new {what}. Add it to the declared "
            f"columns, or set {entity} of schema_contract to evolve, discard_row or discard_value.",
            schema_name=self.schema_name,
            table_name=table,
            column_name=column,
            schema_entity=entity,
            contract_mode=getattr(self, entity),
            schema_contract={"tables": self.tables, "columns": self.columns, "data_type": self.data_type},
            data_item=item,
        )


@dataclass(slots=True)
class Verdict:
    """What a contract says about the columns that a part brings."""

    columns: list[str] = field(default_factory=list)
    """Left out, the rows stay."""
    rows: Kept | None = None
    """True for the rows to leave out."""


def contract_of(schema: Schema, table: str, parent: str | None) -> Contract:
    """The contract in force: the table's own, else that of its parents, else the schema's."""
    known = schema.tables.get(TableName(table)) or schema.tables.get(TableName(parent or table))

    if is_system_name(table):
        return Contract()

    return _expanded(schema.name, _inherited(schema, known) or schema.settings.get("schema_contract"))


def is_refused(name: TableName, known: Schema, announced: Schema) -> bool:
    """Whether a root table that its resource announces may not come into being.

    Args:
        name: Of the table.
        known: The schema before; the table is new where it has no column with a type there.
        announced: The schema with the hints of the table's resource, which may bring a contract.

    Raises:
        DataValidationError: The contract freezes tables.
    """
    before = known.tables.get(name)

    if before is not None and any(column.data_type for column in before.columns.values()):
        return False

    contract = contract_of(announced, name, None)

    if contract.tables == "freeze":
        raise contract.refusal(name, None, "tables")

    return contract.tables != EVOLVE


def _inherited(schema: Schema, table: Table | None) -> JsonValue:
    while table is not None:
        if found := table.hints.get("schema_contract"):
            return found

        table = schema.tables.get(table.parent) if table.parent is not None else None

    return None


def _expanded(schema_name: str, setting: JsonValue) -> Contract:
    if not setting:
        return Contract()

    if isinstance(setting, str):
        mode = cast("Mode", setting)

        return Contract(schema_name=schema_name, tables=mode, columns=mode, data_type=mode)

    return Contract(schema_name=schema_name, **cast("dict[str, Mode]", dict(cast("Mapping[str, Mode]", setting))))


def kept_rows(table: TablePart, kept: Mapping[str, Kept]) -> Kept | None:
    """Rows whose parents stay; None where all do."""
    if table.parent is None or not kept:
        return None

    rows = cast("npt.NDArray[np.int64]", table.parent_rows)

    if table.parents is None:
        above = kept.get(table.parent.name)

        return None if above is None else above[rows]

    pairs = zip(table.parents, rows.tolist(), strict=True)

    return np.array([parent.name not in kept or bool(kept[parent.name][row]) for parent, row in pairs], dtype=bool)


def masked(lanes: Mapping[str, list[Lane]], kept: Kept) -> dict[str, list[Lane]]:
    """Lanes without the values of rows that do not stay."""
    mask = pa.array(kept)
    found: dict[str, list[Lane]] = {}

    for name, column in lanes.items():
        left = [lane._replace(values=_where(mask, lane.values)) for lane in column]
        left = [lane for lane in left if lane.values.null_count < len(lane.values)]

        if left:
            found[name] = left

    return found


def _where(mask: pa.BooleanArray, values: Array) -> Array:
    return cast("Array", pc.if_else(mask, values, pa.scalar(None, values.type)))


def judge(
    contract: Contract, table: TableView, placed: Placement, *, was_new: bool, evolves_once: bool, first_row: int
) -> Verdict:
    """Decide about the columns that a part adds to a table.

    Args:
        contract: Of the table.
        table: As it would be with the new columns.
        placed: The new columns and their values.
        was_new: Whether the table had no columns before; then those of its first row are always taken.
        evolves_once: Whether all columns of its first load are taken.
        first_row: Number of its first row.

    Raises:
        DataValidationError: The contract freezes what the part would change.
    """
    verdict = Verdict()

    for found in placed.new:
        name = found.column.name

        if is_system_name(name) or name in verdict.columns:
            continue

        entity: Literal["columns", "data_type"] = "data_type" if found.column.variant else "columns"
        mode = contract.data_type if found.column.variant else contract.columns

        if not found.column.variant and (evolves_once or (was_new and found.row == first_row)):
            mode = EVOLVE

        if mode == "freeze":
            raise contract.refusal(table.name, name, entity, first_value(placed.columns[name]))

        if mode == "discard_value":
            verdict.columns.extend([name, *(() if found.column.variant else placed.variants_of.get(name, ()))])
        elif mode == "discard_row":
            here = np.asarray(pc.is_valid(placed.columns[name]))
            verdict.rows = here if verdict.rows is None else verdict.rows | here

    return verdict


def first_value(values: Array) -> object:
    """The first value of a column that is not null; what to show of it is up to who catches the error."""
    valid = values.drop_null()

    return valid[0].as_py() if len(valid) else None


def dropped(columns: Iterable[str], placed: Placement, table: TableView, before: Mapping[str, Column]) -> None:
    """Take columns out of a placement, and out of the table what was not in it before."""
    gone = set(columns)
    placed.new = [found for found in placed.new if found.column.name not in gone]

    for name in gone:
        placed.columns.pop(name, None)

    table.back_to(before, gone)
