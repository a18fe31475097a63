"""The columns that say which row is which: row ids, parents, positions, root rows, the load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.errors import BadRecord, ConfigError
from asyncelt.normalize.coerce import coerce
from asyncelt.normalize.ids import nested_ids, random_ids, row_hash
from asyncelt.normalize.plain import typed_json
from asyncelt.normalize.tables import Array, Indices, Lane, Part, TablePart
from asyncelt.normalize.walk import Rule, Walker, as_row, excerpt
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import merge_strategy_of, requires_root_key
from asyncelt.schema.model import Column, Schema
from asyncelt.schema.naming import key_text
from asyncelt.schema.system import (
    DLT_ID,
    DLT_PREFIX,
    list_idx_column,
    load_id_column,
    parent_id_column,
    root_id_column,
    row_id_column,
)
from asyncelt.types import LoadId, TableName

__all__ = ["Identified", "Identity", "identify"]

RootIds = Literal["random", "key_hash", "row_hash"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """How rows of a page are told apart, as the schema has it."""

    rule: Rule
    root_ids: RootIds
    key: tuple[str, ...]
    """Columns of the primary key, for ``key_hash``."""
    root_key: bool
    """Whether nested rows carry the id of their root row."""
    merges: bool = False
    """Whether rows are merged, so that those with one id have to be told apart."""
    propagating: frozenset[str] = frozenset()
    """Tables whose row ids the rows nested in them carry as their root ids; the innermost of them counts."""

    @classmethod
    def of(cls, schema: Schema, root: TableName, rule: Rule, capabilities: Capabilities) -> Identity:
        """Read it off a schema; a table that the schema does not know has random ids.

        Raises:
            ConfigError: Ids are made of a primary key, and there is none.
        """
        table = schema.tables.get(root)

        if table is None:
            config = schema.normalizers.get("json")
            settings = config.get("config") if isinstance(config, dict) else None
            forced = isinstance(settings, dict) and settings.get("root_key_propagation") is True

            return cls(rule=rule, root_ids="random", key=(), root_key=forced)

        strategy = merge_strategy_of(schema, root, capabilities)
        root_ids: RootIds = "random"
        key = tuple(table.keys("primary_key"))

        if strategy in {"upsert", "insert-only", "cdc"}:
            root_ids = "key_hash"

            if not key:
                raise ConfigError(f"Table {root!r}: the merge strategy {strategy} needs a primary_key.")
        elif strategy == "scd2" and _row_version_column(schema, root) == DLT_ID:
            root_ids = "row_hash"

        return cls(
            rule=rule,
            root_ids=root_ids,
            key=key,
            root_key=requires_root_key(schema, root, capabilities),
            merges=strategy is not None,
            propagating=_propagating(schema),
        )


def _propagating(schema: Schema) -> frozenset[str]:
    found: object = schema.normalizers.get("json")

    for name in ("config", "propagation", "tables"):
        found = found.get(name) if isinstance(found, Mapping) else None

    return frozenset(found) if isinstance(found, Mapping) else frozenset()


def _row_version_column(schema: Schema, root: TableName) -> str | None:
    columns = schema.tables[root].columns.values()

    return next((column.name for column in columns if column.extra.get("x-row-version")), None)


@dataclass(slots=True)
class Identified:
    """Row ids of all tables of a part."""

    identity: Identity
    ids: dict[str, Array]
    hashed: set[str] = field(default_factory=set)
    """Tables whose ids come again when the same rows come again."""

    def columns_of(self, table: TablePart, load_id: LoadId) -> list[tuple[Column, Array]]:
        """System columns of a table in the reference's order."""
        naming = self.identity.rule.naming
        found: list[tuple[Column, Array]] = []
        nested = table.parent is not None

        if nested and self.identity.root_key:
            found.append((root_id_column(naming), self._root_ids(table)))

        if not nested or self.identity.rule.is_root(table.name):
            found.append((load_id_column(naming), _repeated(load_id, table.rows)))
        else:
            found.append((parent_id_column(naming), self.parent_ids(table)))
            found.append((list_idx_column(naming), _integers(cast("Indices", table.list_idx))))

        found.append((row_id_column(naming), self.ids[table.name]))

        return found

    def root_rows_of(self, table: TablePart, first: int) -> Array | None:
        """Numbers of the root rows that rows came with, from ``first``; None where no two root rows have one id."""
        if not self.identity.merges or next(iter(self.ids)) not in self.hashed or self._has_own_root(table):
            return None

        rows = np.arange(table.rows) if table.root_rows is None else table.root_rows

        return _integers(rows + first)

    def _root_ids(self, table: TablePart) -> Array:
        """Id of the row that counts as each row's root: the root row, or one nested in it that has keys of its own."""
        current, rows = table, np.arange(table.rows)

        while current.parent is not None and current.parents is None:
            rows = cast("Indices", current.parent_rows)[rows]
            current = current.parent

            if current.parent is not None and current.name in self.identity.propagating:
                return _taken(self.ids[current.name], rows)

        return _taken(next(iter(self.ids.values())), cast("Indices", table.root_rows))

    def _has_own_root(self, table: TablePart) -> bool:
        """Whether the table, or one that it is nested in, is nested here and a root table to the loader."""
        current: TablePart | None = table

        while current is not None and current.parent is not None:
            if self.identity.rule.is_root(current.name):
                return True

            current = current.parent

        return False

    def parent_ids(self, table: TablePart) -> Array:
        """Id of each row's parent."""
        parent_rows = cast("Indices", table.parent_rows)

        if table.parents is None:
            return _taken(self.ids[cast("TablePart", table.parent).name], parent_rows)

        known = {parent.name: _texts(self.ids[parent.name]) for parent in table.parents}
        pairs = zip(table.parents, parent_rows.tolist(), strict=True)

        return cast("Array", pa.array([known[parent.name][row] for parent, row in pairs], pa.string()))


def identify(part: Part, identity: Identity) -> Identified:
    """Give every row its id: the user's, a hash where rows must be found again, else a random one.

    Raises:
        BadRecord: A row has no value for a column of its key.
    """
    found = Identified(identity, {})

    for table in part.tables:
        found.ids[table.name] = _with_user_ids(table, _generated(part, table, found), found)

    return found


def _generated(part: Part, table: TablePart, found: Identified) -> Array:
    if table.parent is None:
        if found.identity.root_ids == "random":
            return random_ids(table.rows)

        found.hashed.add(table.name)

        return _key_hashes(part, found.identity) if found.identity.root_ids == "key_hash" else _row_hashes(part)

    if found.identity.rule.is_root(table.name):
        return random_ids(table.rows)

    parents = [table.parent] if table.parents is None else table.parents

    if not any(parent.name in found.hashed for parent in parents):
        return random_ids(table.rows)

    found.hashed.add(table.name)
    positions = cast("Indices", table.list_idx).tolist()

    return nested_ids(_texts(found.parent_ids(table)), table.name, positions)


def _with_user_ids(table: TablePart, generated: Array, found: Identified) -> Array:
    given = table.lanes.get(DLT_ID)

    if not given:
        return generated

    found.hashed.add(table.name)
    ids = generated

    for lane in given:
        text = coerce(lane.values, lane.kind, "text", pa.string()).values
        usable = pc.and_(pc.is_valid(text), pc.not_equal(text, ""))
        ids = cast("Array", pc.if_else(pc.fill_null(usable, fill_value=False), text, ids))

    return ids


def _key_hashes(part: Part, identity: Identity) -> Array:
    root = part.tables[0]
    lanes = [root.lanes.get(name, []) for name in identity.key]

    if all(len(found) == 1 and _carries_json(found[0]) for found in lanes):
        columns = [cast("Any", found[0].values).to_pylist() for found in lanes]
        names = identity.key
        # One at a time: those of a page would take more memory than the page.
        keys: Iterable[dict[str, object]] = (
            dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)
        )
    else:
        keys = (_key_of(part, row, identity) for row in range(root.rows))

    return cast("Array", pa.array([row_hash(typed_json(key)) for key in keys], pa.string()))


def _carries_json(lane: Lane) -> bool:
    return lane.kind in {"text", "bigint", "bool"} and not lane.ambiguous and lane.values.null_count == 0


def _key_of(part: Part, row: int, identity: Identity) -> dict[str, object]:
    walker = Walker(part.tables[0].path[0], identity.rule)
    item = part.source.item(row)
    walker.feed(item, row)
    flat = walker.root.rows[0]

    try:
        return {name: flat[name] for name in identity.key}
    except KeyError as error:
        raise BadRecord(
            "the row has no value for this column of its primary key, from which its row id is made.",
            table=walker.root.name,
            column=str(error.args[0]),
            row=row,
            value=excerpt(item),
        ) from None


def _row_hashes(part: Part) -> Array:
    root = part.tables[0]
    items = (part.source.item(row) for row in range(root.rows))
    hashes = [row_hash(typed_json({k: v for k, v in _row(item) if not k.startswith(DLT_PREFIX)})) for item in items]

    return cast("Array", pa.array(hashes, pa.string()))


def _row(item: object) -> list[tuple[str, object]]:
    return [(key_text(key), value) for key, value in as_row(item).items()]


def _taken(values: Array, rows: Indices) -> Array:
    return values.take(cast("Any", _integers(rows)))


def _integers(values: Indices) -> Array:
    return cast("Array", pa.array(cast("Any", values), pa.int64()))


def _texts(values: Array) -> list[str]:
    return cast("list[str]", cast("Any", values).to_pylist())


def _repeated(text: str, count: int) -> Array:
    return cast("Array", pa.repeat(text, count))
