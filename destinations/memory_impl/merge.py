"""Merging by every strategy, row by row: the reference for the SQL of other destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import pyarrow as pa

from asyncelt.errors import SchemaError, Unsupported
from asyncelt.flow import ROOT_ROW
from asyncelt.schema.model import Column, Table
from asyncelt.schema.validity import Validity
from asyncelt.types import ColumnName, MergeStrategy, TableName

__all__ = ["merge_chain"]

Row: TypeAlias = "dict[str, object]"
Rows: TypeAlias = "list[Row]"
Key: TypeAlias = "tuple[object, ...]"

NEVER_COMPARED: Final = ("primary_key", "row_key", "parent_key", "root_key", "hard_delete")
KEYED: Final = frozenset({"upsert", "insert-only", "cdc"})


@dataclass(slots=True)
class _Merge:
    """One chain while it is merged: what is there and what arrives. The strategies change both."""

    chain: tuple[Table, ...]
    target: dict[TableName, Rows]
    staged: dict[TableName, Rows]
    strategy: MergeStrategy
    created_at: float

    @property
    def root(self) -> Table:
        return self.chain[0]

    @property
    def arriving(self) -> Rows:
        return self.staged[self.root.name]

    @property
    def there(self) -> Rows:
        return self.target[self.root.name]


def merge_chain(
    chain: Sequence[Table],
    target: Mapping[TableName, pa.Table],
    staged: Mapping[TableName, pa.Table],
    strategy: MergeStrategy,
    created_at: float,
) -> dict[TableName, pa.Table]:
    """The chain's tables after the merge.

    Args:
        chain: The root table and its nested tables, parents first.
        target: Rows that are there, of every table of the chain.
        staged: Rows that arrive, in the order in which they arrive; of tables that have none, nothing.
        strategy: How.
        created_at: When the package was made, in unix time.

    Raises:
        SchemaError: The tables lack the columns that the strategy works with.
        Unsupported: A condition in SQL is given.
    """
    merge = _Merge(
        chain=tuple(chain),
        target={name: rows.to_pylist() for name, rows in target.items()},
        staged={one.name: staged[one.name].to_pylist() if one.name in staged else [] for one in chain},
        strategy=strategy,
        created_at=created_at,
    )
    _refuse_sql_conditions(merge.root)

    if strategy in KEYED and not merge.root.keys("primary_key"):
        raise SchemaError(f"Table {merge.root.name!r}: the merge strategy {strategy} needs a primary_key.")

    if merge.arriving or strategy == "delete-insert":
        _STRATEGIES[strategy](merge)

    return {name: pa.Table.from_pylist(merge.target[name], schema=rows.schema) for name, rows in target.items()}


# ------------------------------------------------------------------------------------------------ strategies


def _delete_insert(merge: _Merge) -> None:
    by_primary = _arriving_keys(merge, merge.root.keys("primary_key"))
    by_merge = _arriving_keys(merge, merge.root.keys("merge_key"))
    _delete(merge, lambda row: by_primary(row) or by_merge(row))
    _keep_one_per_key(merge)
    _drop_flagged(merge)
    _keep_nested(merge)
    _insert_all(merge)


def _upsert(merge: _Merge) -> None:
    primary_key = merge.root.keys("primary_key")
    arrives = _arriving_keys(merge, primary_key)

    if merge.strategy == "cdc":
        merge_key = merge.root.keys("merge_key")
        in_partition = _arriving_keys(merge, merge_key) if merge_key else lambda _row: True
        _delete(merge, lambda row: not arrives(row) and in_partition(row))

    _keep_one_per_key(merge)
    _carry_over(merge)
    unchanged = _unchanged(merge)
    _delete(merge, arrives, keep=unchanged)
    _drop_flagged(merge)
    _keep_nested(merge)
    known = {_key(row, primary_key) for row in merge.there}
    merge.staged[merge.root.name] = [row for row in merge.arriving if _key(row, primary_key) not in known]
    _insert_all(merge)


def _insert_only(merge: _Merge) -> None:
    primary_key = merge.root.keys("primary_key")
    known = {_key(row, primary_key) for row in merge.there}
    _drop_flagged(merge)
    _keep_one_per_key(merge)
    merge.staged[merge.root.name] = [row for row in merge.arriving if _key(row, primary_key) not in known]
    _keep_nested(merge)
    _insert_all(merge)


def _scd2(merge: _Merge) -> None:
    root = merge.root
    validity = Validity.of(root)
    boundary = validity.boundary_of(merge.created_at)
    _keep_one_per_key(merge)
    _keep_one_per(merge, [validity.version])
    merge_key = root.keys("merge_key")
    in_partition = _arriving_keys(merge, merge_key) if merge_key else lambda _row: True
    versions = {row[validity.version] for row in merge.arriving}
    active = [row for row in merge.there if row[validity.valid_to] == validity.active_until]
    known = {row[validity.version] for row in active}

    for row in active:
        if row[validity.version] not in versions and in_partition(row):
            row[validity.valid_to] = boundary

    merge.staged[root.name] = [
        {**row, validity.valid_from: boundary, validity.valid_to: validity.active_until}
        for row in merge.arriving
        if row[validity.version] not in known
    ]
    _keep_nested(merge)

    for one in merge.chain[1:]:
        row_key = one.keys("row_key")
        ids = {_key(row, row_key) for row in merge.target[one.name]} if row_key else set()
        merge.staged[one.name] = [row for row in merge.staged[one.name] if _key(row, row_key) not in ids]

    _insert_all(merge)


_STRATEGIES: Final[Mapping[MergeStrategy, Callable[[_Merge], None]]] = {
    "delete-insert": _delete_insert,
    "upsert": _upsert,
    "cdc": _upsert,
    "insert-only": _insert_only,
    "scd2": _scd2,
}

# ------------------------------------------------------------------------------------------ what has arrived


def _refuse_sql_conditions(root: Table) -> None:
    for hint in ("x-merge-source-filter", "x-merge-destination-scope"):
        if root.hints.get(hint):
            raise Unsupported(f"Table {root.name!r}: the memory destination cannot evaluate the SQL of {hint}.")


def _keep_one_per_key(merge: _Merge) -> None:
    """Of root rows with one primary key keep the first by ``dedup_sort``, else the last to arrive."""
    primary_key = merge.root.keys("primary_key")

    if primary_key and not merge.root.hints.get("x-stage-data-deduplicated"):
        _keep_one_per(merge, primary_key)


def _keep_one_per(merge: _Merge, keys: Sequence[ColumnName]) -> None:
    """Insert-only keeps the first to arrive, as it would if the rows came in loads of their own."""
    best: dict[Key, int] = {}
    wins = _comparison(merge)

    for at, row in enumerate(merge.arriving):
        key = _key(row, keys)

        if key not in best or wins(row, merge.arriving[best[key]]):
            best[key] = at

    merge.staged[merge.root.name] = [merge.arriving[at] for at in sorted(best.values())]


def _comparison(merge: _Merge) -> Callable[[Row, Row], bool]:
    """Whether a later row wins over an earlier one of the same key."""
    sorts = [(name, one.dedup_sort == "desc") for name, one in merge.root.columns.items() if one.dedup_sort]
    last_wins = merge.strategy != "insert-only"

    def wins(later: Row, earlier: Row) -> bool:
        for name, descending in sorts:
            left, right = later.get(name), earlier.get(name)

            if left == right:
                continue

            if left is None or right is None:
                return right is None

            return bool(left > right) == descending  # type: ignore[operator]  # values of one column

        return last_wins

    return wins


def _drop_flagged(merge: _Merge) -> None:
    """Root rows that are flagged by ``hard_delete`` are not inserted."""
    flag = _flag_of(merge)

    if flag is not None:
        merge.staged[merge.root.name] = [row for row in merge.arriving if not _is_set(flag, row)]


def _flag_of(merge: _Merge) -> Column | None:
    columns = merge.root.columns.values()

    return next((one for one in columns if one.hard_delete and one.data_type is not None), None)


def _is_set(flag: Column, row: Row) -> bool:
    value = row.get(flag.name)

    return value is True if flag.data_type == "bool" else value is not None


def _keep_nested(merge: _Merge) -> None:
    """Nested rows stay with the root row that they came with; of those with one id, the last."""
    for one in merge.chain[1:]:
        link, owner = _link_of(merge, one)
        row_key = one.keys("row_key")
        owners = {(row.get(_row_key_of(owner)), row.get(ROOT_ROW)) for row in merge.staged[owner.name]}
        rows = [row for row in merge.staged[one.name] if (row.get(link), row.get(ROOT_ROW)) in owners]
        told_apart = merge.strategy == "scd2" or merge.root.keys("primary_key")

        if row_key and told_apart and not merge.root.hints.get("x-stage-data-deduplicated"):
            last = {_key(row, row_key): at for at, row in enumerate(rows)}
            rows = [rows[at] for at in sorted(last.values())]

        merge.staged[one.name] = rows


# ---------------------------------------------------------------------------------------------- the target


def _delete(merge: _Merge, goes: Callable[[Row], bool], keep: Callable[[Row], bool] | None = None) -> None:
    """Delete root rows with all that hangs below them; those that ``keep`` names lose only that."""
    gone = {merge.root.name: [row for row in merge.there if goes(row)]}

    for one in merge.chain[1:]:
        # Nothing hangs below a row that is not there, whatever columns the tables have.
        if not merge.target[one.name]:
            gone[one.name] = []
            continue

        link, owner = _link_of(merge, one)
        owners = {row.get(_row_key_of(owner)) for row in gone[owner.name]}
        gone[one.name] = [row for row in merge.target[one.name] if row.get(link) in owners]

    for one in merge.chain:
        going = {id(row) for row in gone[one.name] if one is not merge.root or keep is None or not keep(row)}
        merge.target[one.name] = [row for row in merge.target[one.name] if id(row) not in going]


def _arriving_keys(merge: _Merge, keys: Sequence[ColumnName]) -> Callable[[Row], bool]:
    """Whether a row of the target has a key that has arrived. A key with a null matches nothing."""
    arriving = {key for row in merge.arriving if None not in (key := _key(row, keys))} if keys else set()

    return lambda row: bool(arriving) and _key(row, keys) in arriving


def _carry_over(merge: _Merge) -> None:
    """What the target holds in columns that the schema does not know stays with the row."""
    for one in merge.chain:
        keys = merge.root.keys("primary_key") if one is merge.root else one.keys("row_key")

        if keys:
            old = {_key(row, keys): row for row in merge.target[one.name]}
            merge.staged[one.name] = [
                {**_foreign(one, old.get(_key(row, keys))), **row} for row in merge.staged[one.name]
            ]


def _foreign(one: Table, row: Row | None) -> Row:
    return {} if row is None else {name: value for name, value in row.items() if name not in one.columns}


def _unchanged(merge: _Merge) -> Callable[[Row], bool] | None:
    """With ``skip_unchanged_rows``: a row of the target about which the staged row of its key says nothing new."""
    root = merge.root

    if not root.hints.get("x-merge-skip-unchanged-rows"):
        return None

    primary_key, flag = root.keys("primary_key"), _flag_of(merge)
    arriving = {_key(row, primary_key): row for row in merge.arriving}
    known = {name: one for name, one in root.columns.items() if one.data_type is not None}
    compared = [name for name, one in known.items() if one.extra.get("x-row-version")] or [
        name
        for name, one in known.items()
        if name.lower() != "_dlt_load_id" and not any(getattr(one, hint) for hint in NEVER_COMPARED)
    ]

    if len(merge.chain) > 1:
        compared.append(_row_key_of(root))

    def unchanged(row: Row) -> bool:
        new = arriving.get(_key(row, primary_key))

        if new is None or (flag is not None and _is_set(flag, new)):
            return False

        return all(new.get(name) == row.get(name) for name in compared)

    return unchanged


def _insert_all(merge: _Merge) -> None:
    for one in merge.chain:
        merge.target[one.name] = [*merge.target[one.name], *merge.staged[one.name]]


# --------------------------------------------------------------------------------------------------- links


def _link_of(merge: _Merge, one: Table) -> tuple[ColumnName, Table]:
    """The column that connects a nested row with its root row, or with its parent where it has no root key."""
    parent = next(table for table in merge.chain if table.name == one.parent)

    # Where the root is itself nested in a table of another chain, root keys may lead to that one.
    if (root_key := one.keys("root_key")) and not merge.root.keys("root_key"):
        return root_key[0], merge.root

    if parent_key := one.keys("parent_key"):
        return parent_key[0], parent

    raise SchemaError(
        f"Table {one.name!r} cannot be merged: nothing connects its rows with table {merge.root.name!r}. It needs a "
        "root key (_dlt_root_id) or a parent key (_dlt_parent_id)."
    )


def _row_key_of(one: Table) -> ColumnName:
    versions = tuple(name for name, spec in one.columns.items() if spec.extra.get("x-row-version"))

    for names in (one.keys("row_key"), versions, one.keys("unique"), one.keys("primary_key")):
        if len(names) == 1:
            return names[0]

    raise SchemaError(
        f"Table {one.name!r} has nested tables but no column that identifies a row (a row key such as _dlt_id, a "
        "unique column, or a primary key of one column)."
    )


def _key(row: Row, columns: Iterable[ColumnName]) -> Key:
    return tuple(row.get(name) for name in columns)
