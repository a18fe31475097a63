"""Lanes into columns: which column a value goes to, and what type a new column gets. The first value decides.

A lane whose values do not fit its column goes on to a variant column, ``<column>__v_<type>``. Where the reference
gives up, because a value fits neither its column nor the variant, the variant gets a variant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, cast

import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import BadRecord
from asyncelt.normalize.coerce import coerce
from asyncelt.normalize.coerce_lanes import first_valid
from asyncelt.normalize.detect import detect
from asyncelt.normalize.tables import Array, Lane
from asyncelt.normalize.view import SchemaRules, TableView
from asyncelt.schema.model import Column
from asyncelt.schema.naming import Naming
from asyncelt.types import DataType

__all__ = ["Ambiguous", "Introduction", "Placement", "Placer"]

NUMBERS: Final[frozenset[DataType]] = frozenset({"bigint", "double", "decimal", "wei", "bool"})
INDIFFERENT: Final[dict[DataType, frozenset[DataType]]] = {
    "double": NUMBERS,
    "decimal": NUMBERS,
    "timestamp": frozenset({"timestamp"}),
}
"""Targets for which it does not matter what an ambiguous lane has lost: whether 1.0 was written 1, or in which zone."""
LONGEST_CHAIN: Final = 8


class Ambiguous(Exception):
    """A lane has lost what is needed here; the page has to be taken apart row by row."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """A column that a page adds, and the row and value that added it."""

    row: int
    base: str
    """Column of the row as it was taken apart: the one whose variant this is, or the column itself."""
    column: Column


@dataclass(slots=True)
class Placement:
    """Columns of one table of one part."""

    columns: dict[str, Array] = field(default_factory=dict)
    new: list[Introduction] = field(default_factory=list)
    variants_of: dict[str, list[str]] = field(default_factory=dict)
    chained: dict[str, int] = field(default_factory=dict)
    """Variants of variants, with the number of their values."""


@dataclass(slots=True, kw_only=True)
class Placer:
    """Places the lanes of one table.

    Attributes:
        value_at: (row, column) to the source's own value; asked only where a lane is ambiguous.
        now: Unix seconds that ``timestamp`` detection compares with.
    """

    table: TableView
    rules: SchemaRules
    naming: Naming
    value_at: Callable[[int, str], object]
    now: float

    def place(self, lanes: Mapping[str, list[Lane]]) -> Placement:
        """Bring all lanes into columns, adding columns to the table where there are none."""
        placed = Placement()
        target_of = self.table.target
        columns = placed.columns

        for name, found in lanes.items():
            target = target_of(name)

            if target is not None and len(found) == 1:
                lane = found[0]

                if lane.kind == target[0] and lane.values.type == target[1] and name not in columns:
                    columns[name] = lane.values
                    continue

            self._column(placed, name, found, name, depth=0)

        return placed

    def _column(self, placed: Placement, name: str, lanes: list[Lane], base: str, *, depth: int) -> None:
        if depth > LONGEST_CHAIN:
            raise BadRecord("the value fits no variant of its column.", table=self.table.name, column=name)

        column: Column | None = None
        target = self.table.target(name)

        if target is None:
            column = self._infer(name, lanes, variant=depth > 0)
            target = self.table.target_of(column)

        accepted, rejected = self._fit(lanes, target)

        if accepted is not None:
            self._take(placed, name, accepted, column, base, depth)

        for variant, group in self._by_variant(name, target[0], rejected).items():
            placed.variants_of.setdefault(base, []).append(variant)
            self._column(placed, variant, group, base, depth=depth + 1)

    def _by_variant(self, name: str, target: DataType, rejected: list[Lane]) -> dict[str, list[Lane]]:
        groups: dict[str, list[Lane]] = {}

        for lane in rejected:
            kept = lane if lane.kind != target else _widened(lane)
            groups.setdefault(self._variant_name(name, kept.kind), []).append(kept)

        return groups

    def _fit(self, lanes: list[Lane], target: tuple[DataType, pa.DataType]) -> tuple[Array | None, list[Lane]]:
        accepted: list[Array] = []
        rejected: list[Lane] = []

        for lane in lanes:
            if lane.kind == target[0] and lane.values.type == target[1]:
                accepted.append(lane.values)
                continue

            if lane.ambiguous and target[0] not in INDIFFERENT[lane.kind]:
                raise Ambiguous

            done = coerce(lane.values, lane.kind, target[0], target[1])

            if done.values.null_count < len(done.values):
                accepted.append(done.values)

            if done.failed is not None:
                nothing = pa.scalar(None, lane.values.type)
                left = cast("Array", pc.if_else(done.failed, lane.values, nothing))
                # Of merged numbers only those that are no integers are left, and no doubt with them.
                rejected.append(Lane(lane.kind, left, lane.ambiguous and lane.kind != "double"))

        return _merged(accepted), rejected

    def _take(self, placed: Placement, name: str, values: Array, column: Column | None, base: str, depth: int) -> None:
        if column is not None:
            self.table.add(column)
            placed.new.append(Introduction(_first_row(values), base, column))

        if depth > 1:
            placed.chained[name] = placed.chained.get(name, 0) + len(values) - values.null_count

        known = placed.columns.get(name)
        placed.columns[name] = values if known is None else cast("Array", pc.coalesce(values, known))

    def _infer(self, name: str, lanes: list[Lane], *, variant: bool) -> Column:
        data_type = None if variant else self.rules.preferred_type(name)

        if data_type is None:
            row, first = min(((_first_row(lane.values), lane) for lane in lanes), key=lambda item: item[0])

            try:
                value = first.values[row].as_py()
            except OverflowError as error:
                raise BadRecord(
                    "the time is, as UTC, outside of the years 1 to 9999.", table=self.table.name, column=name
                ) from error

            value = int(value) if first.kind == "wei" else Decimal(value) if first.kind == "decimal" else value
            kind = first.kind

            if first.ambiguous and kind == "double":
                value = self.value_at(row, name)
                kind = "double" if type(value) is float else "bigint"

            data_type = detect(value, kind, self.rules.detections, self.now) or kind

        return self.table.declared(self.rules.infer(name, data_type, variant=variant))

    def _variant_name(self, name: str, kind: DataType) -> str:
        if kind == "json":
            # Tables written by early versions of the reference call the type by another name.
            old = self.naming.join(name, "v_complex")
            known = self.table.columns.get(old)

            if known is not None and known.variant:
                return old

        return self.naming.join(name, f"v_{kind}")


def _widened(lane: Lane) -> Lane:
    """Values of a column's own type that are still too large for it, as a type that holds them."""
    if lane.kind == "bigint":
        return Lane("wei", cast("Array", lane.values.cast(pa.decimal256(76, 0))))

    return Lane("text", coerce(lane.values, lane.kind, "text", pa.string()).values)


def _first_row(values: Array) -> int:
    """Row of the first value; the number of rows where there is none."""
    found = first_valid(values)

    return len(values) if found is None else found


def _merged(values: list[Array]) -> Array | None:
    if not values:
        return None

    return values[0] if len(values) == 1 else cast("Array", pc.coalesce(*values))
