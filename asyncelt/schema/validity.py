"""Tables that keep every version of their records (merge strategy ``scd2``): which columns say what is valid when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from asyncelt.errors import SchemaError
from asyncelt.schema.model import Table
from asyncelt.types import ColumnName, JsonValue

__all__ = ["Validity"]

MARKS: Final = ("x-row-version", "x-valid-from", "x-valid-to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Of one table. A version is told by ``version``; it is active while ``valid_to`` is ``active_until``."""

    version: ColumnName
    """The row id, which is a hash of the record, or a column that the user has named."""
    valid_from: ColumnName
    valid_to: ColumnName
    active_until: datetime | None
    """What ``valid_to`` is in versions that are valid now; None: null."""
    boundary: datetime | None
    """When old versions end and new ones begin; None: when the package was made."""

    @classmethod
    def of(cls, root: Table) -> Validity:
        """Read it off the table's hints.

        Raises:
            SchemaError: The table has not all of the columns.
        """
        marked = {mark: one for one in root.columns.values() for mark in MARKS if one.extra.get(mark)}

        if missing := [mark for mark in MARKS if mark not in marked]:
            raise SchemaError(
                f"Table {root.name!r} cannot be merged by scd2: no column is marked {' or '.join(missing)}. Give "
                '{"disposition": "merge", "strategy": "scd2"} as its write disposition, which marks them.'
            )

        version, valid_from, valid_to = (marked[mark] for mark in MARKS)

        return cls(
            version=version.name,
            valid_from=valid_from.name,
            valid_to=valid_to.name,
            active_until=_moment(valid_to.extra.get("x-active-record-timestamp")),
            boundary=_moment(root.hints.get("x-boundary-timestamp")),
        )

    def boundary_of(self, created_at: float) -> datetime:
        """The boundary of a package made at this unix time."""
        return self.boundary or datetime.fromtimestamp(created_at, UTC)


def _moment(value: JsonValue) -> datetime | None:
    """A stored timestamp in UTC, which is what it is in if it names no zone."""
    if value is None:
        return None

    found = datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else datetime.fromisoformat(str(value))

    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
