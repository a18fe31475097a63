"""One item to rows: the reference's flattening, key by key. The definition that the columnar road must match.

It serves pages that columns cannot express, and tells for single rows what columns have lost: the order of a row's
keys, the type of a value before numbers were merged, which tables a row fills.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from asyncelt.errors import BadRecord
from asyncelt.normalize.plain import SCALARS, unwrap
from asyncelt.normalize.tables import Collisions
from asyncelt.schema.naming import Naming
from asyncelt.schema.system import DLT_ID

__all__ = ["Nesting", "Rule", "TableRows", "Walker", "excerpt"]

VALUE = "value"
LIST = "list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What of the schema decides how items are taken apart."""

    naming: Naming
    max_nesting: int
    """Levels of nesting that become columns and tables."""
    keeps_json: Callable[[str, str], bool]
    """(table, column): whether dicts and lists stay whole there."""
    json_columns: frozenset[tuple[str, str]] = frozenset()
    """(table, column) of the schema's ``json`` columns: two rules that differ here take rows apart differently."""
    is_typed: Callable[[str, str], bool]
    """(table, column): whether the column has a type already."""
    is_root: Callable[[str], bool]
    """Whether a table stands on its own although rows nest in it (it has keys of its own)."""
    excludes: Callable[[str, str], bool] | None = None
    """(table, column): whether a table's filters drop the column; None: nothing is filtered."""


@dataclass(slots=True)
class Nesting:
    """One dict level of one table: names of its keys, found once."""

    path: tuple[str, ...]
    names: dict[str, tuple[str, bool, str]] = field(default_factory=dict)
    """Raw key to (column, whether it stays whole, the key's own name)."""
    below: dict[str, Nesting] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class TableRows:
    """Rows of one table in the making."""

    name: str
    path: tuple[str, ...]
    level: Nesting
    rows: list[dict[str, object]] = field(default_factory=list)
    parents: list[TableRows] = field(default_factory=list)
    parent_rows: list[int] = field(default_factory=list)
    list_idx: list[int] = field(default_factory=list)
    root_rows: list[int] = field(default_factory=list)
    origins: dict[str, tuple[tuple[str, ...], str]] = field(default_factory=dict)
    """Column to the level and raw key that filled it first."""
    may_collide: bool = False
    looked_at: set[str] = field(default_factory=set)
    """Columns of which it is known what the first value that was too deep made of them."""


class Walker:
    """Takes items apart into rows per table. Not safe to share between threads.

    Rows of a table are in the order of items, then of the reference's depth-first walk.
    """

    def __init__(self, root: str, rule: Rule) -> None:
        self.rule = rule
        self.tables: dict[str, TableRows] = {}
        self.collisions: Collisions = {}
        self.log: list[tuple[TableRows, dict[str, object]]] | None = None
        """Rows in the order of the walk, while somebody wants it."""
        self._names: dict[tuple[str, ...], str] = {}
        self.root = self.table((root,))

    def table(self, path: tuple[str, ...]) -> TableRows:
        """The rows of the table that a path leads to."""
        name = self._names.get(path)

        if name is None:
            name = self._names[path] = self.rule.naming.join(*path)

        table = self.tables.get(name)

        if table is None:
            table = self.tables[name] = TableRows(name, path, Nesting(()))

        return table

    def feed(self, item: object, number: int) -> None:
        """Add one item.

        Raises:
            BadRecord: It holds a value of a type that no column can hold, or is nested too deeply for Python.
        """
        try:
            row = item if type(item) is dict else as_row(item)
            self._row(row, self.root, self.rule.max_nesting, None, -1, 0, number)
        except TypeError as error:
            raise BadRecord(f"{error}.", table=self.root.name, row=number, value=excerpt(item)) from error
        except RecursionError:
            raise BadRecord("the row is nested too deeply.", table=self.root.name, row=number) from None

    def _row(
        self,
        value: Mapping[str, object],
        table: TableRows,
        levels: int,
        parent: TableRows | None,
        parent_row: int,
        idx: int,
        number: int,
    ) -> None:
        flat, lists = self._flatten(value, table, levels, number)
        row = len(table.rows)

        if not self._keep(flat, table, parent, parent_row, idx, number):
            return

        for path, content in lists.items():
            self._list(content, self.table(table.path + path), levels - 1, table, row, number)

    def _keep(
        self,
        flat: dict[str, object],
        table: TableRows,
        parent: TableRows | None,
        parent_row: int,
        idx: int,
        number: int,
    ) -> bool:
        if self.rule.excludes is not None:
            for column in [column for column in flat if self.rule.excludes(table.name, column)]:
                del flat[column]

            if not flat and self.rule.excludes(table.name, DLT_ID):
                return False

        table.rows.append(flat)
        table.root_rows.append(number)

        if parent is not None:
            table.parents.append(parent)
            table.parent_rows.append(parent_row)
            table.list_idx.append(idx)

        if self.log is not None:
            self.log.append((table, flat))

        return True

    def _list(
        self, values: list[object], table: TableRows, levels: int, parent: TableRows, parent_row: int, number: int
    ) -> None:
        for idx, element in enumerate(values):
            value = element if type(element) in SCALARS else unwrap(element)

            if type(value) is dict:
                self._row(value, table, levels, parent, parent_row, idx, number)
            elif type(value) is list:
                self._row({LIST: value}, table, levels - 1, parent, parent_row, idx, number)
            else:
                self._keep({VALUE: value}, table, parent, parent_row, idx, number)

    def _flatten(
        self, item: Mapping[str, object], table: TableRows, levels: int, number: int
    ) -> tuple[dict[str, object], dict[tuple[str, ...], list[object]]]:
        flat: dict[str, object] = {}
        lists: dict[tuple[str, ...], list[object]] = {}
        stack: list[tuple[Mapping[str, object], int, Nesting]] = [(item, levels, table.level)]

        while stack:
            current, left, level = stack.pop()
            names = level.names

            for key, raw in current.items():
                found = names.get(key) if type(key) is str else None
                column, whole, own = found or self._name(key, level, table)
                value = raw
                kind = type(value)

                if kind not in SCALARS:
                    if kind is not dict and kind is not list:
                        value = self._unwrap(raw, table, column, number)
                        kind = type(value)

                    if left > 0 and not whole:
                        if kind is dict:
                            stack.append((value, left - 1, self._below(level, own)))  # type: ignore[arg-type]
                            continue

                        if kind is list:
                            lists[(*level.path, own)] = value  # type: ignore[assignment]
                            continue

                    if (kind is dict or kind is list) and column not in table.looked_at:
                        self._stays_whole(key, level, table, column)

                if table.may_collide and column in flat:
                    where = (table.name, column)
                    self.collisions[where] = self.collisions.get(where, 0) + 1

                flat[column] = value

        return flat, lists

    def _stays_whole(self, key: str, level: Nesting, table: TableRows, column: str) -> None:
        """A value too deep to be taken apart makes its new column ``json``: later ones stay whole at any depth."""
        table.looked_at.add(column)

        if self.rule.is_typed(table.name, column) or any(row.get(column) is not None for row in table.rows):
            return

        if key in level.names:
            level.names[key] = (column, True, level.names[key][2])

    def _unwrap(self, value: object, table: TableRows, column: str, number: int) -> object:
        try:
            return unwrap(value)
        except TypeError as error:
            raise BadRecord(f"{error}.", table=table.name, column=column, row=number, value=excerpt(value)) from error

    def _name(self, key: object, level: Nesting, table: TableRows) -> tuple[str, bool, str]:
        own = self.rule.naming.path(key)
        column = self.rule.naming.join(*level.path, own) if level.path else own
        found = (column, self.rule.keeps_json(table.name, column), own)

        if type(key) is str:
            level.names[key] = found

        origin = (level.path, str(key))
        table.may_collide = table.may_collide or table.origins.setdefault(column, origin) != origin

        return found

    def _below(self, level: Nesting, own: str) -> Nesting:
        found = level.below.get(own)

        if found is None:
            found = level.below[own] = Nesting((*level.path, own))

        return found


def as_row(item: object) -> Mapping[str, object]:
    """An item as a row: dicts and models as they are, everything else under ``value``."""
    value = unwrap(item)

    return value if type(value) is dict else {VALUE: value}


def excerpt(value: object, limit: int = 120) -> str:
    """The beginning of a value's printed form."""
    try:
        text = repr(value)
    except Exception as error:  # a user's own __repr__ must not hide the real problem
        text = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"

    return text if len(text) <= limit else text[: limit - 1] + "…"
