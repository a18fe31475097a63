"""Merge by delete and insert (behaviour.md 7.4), row by row: the reference for the SQL of other destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pyarrow as pa

from asyncelt.errors import SchemaError, Unsupported
from asyncelt.schema.model import Column, Table
from asyncelt.types import ColumnName, TableName

__all__ = ["merge_chain"]


def merge_chain(
    chain: Sequence[Table], target: Mapping[TableName, pa.Table], staged: Mapping[TableName, pa.Table]
) -> dict[TableName, pa.Table]:
    """The chain's tables after the merge.

    Args:
        chain: The root table and its nested tables, parents first.
        target: Rows that are there, of every table of the chain.
        staged: Rows that arrive, of every table of the chain, with the same columns.
    """
    root = chain[0]
    _refuse_sql_conditions(root)
    gone = _matches(root, target[root.name], staged[root.name])
    kept = _survivors(root, staged[root.name])
    doomed = {root.name: _only(target[root.name], gone)}
    stays = {root.name: _only(staged[root.name], kept)}
    result = {root.name: _joined(_without(target[root.name], gone), stays[root.name])}

    for one in chain[1:]:
        gone = _belonging(one, chain, target[one.name], doomed)
        arriving = _once_per_row_key(one, root, staged[one.name])
        arriving = _only(arriving, _belonging(one, chain, arriving, stays))
        doomed[one.name] = _only(target[one.name], gone)
        stays[one.name] = arriving
        result[one.name] = _joined(_without(target[one.name], gone), arriving)

    return result


def _refuse_sql_conditions(root: Table) -> None:
    for hint in ("x-merge-source-filter", "x-merge-destination-scope"):
        if root.hints.get(hint):
            raise Unsupported(f"Table {root.name!r}: the memory destination cannot evaluate the SQL of {hint}.")


def _matches(root: Table, target: pa.Table, staged: pa.Table) -> set[int]:
    """Positions of target rows whose primary key or merge key is staged. A key with a null matches nothing."""
    found: set[int] = set()

    for hint in ("primary_key", "merge_key"):
        keys = root.keys(hint)

        if keys:
            arriving = {key for key in _keys(staged, keys) if None not in key}
            found.update(at for at, key in enumerate(_keys(target, keys)) if key in arriving)

    return found


def _survivors(root: Table, staged: pa.Table) -> list[int]:
    """Positions of staged root rows that are inserted, in the order in which they arrived."""
    positions = list(range(staged.num_rows))
    keys = root.keys("primary_key")

    if keys and not root.hints.get("x-stage-data-deduplicated"):
        best: dict[tuple[object, ...], int] = {}
        wins = _comparison(root, staged)

        for at, key in enumerate(_keys(staged, keys)):
            if key not in best or wins(at, best[key]):
                best[key] = at

        positions = sorted(best.values())

    flag = next((one for one in root.columns.values() if one.hard_delete), None)

    if flag is not None:
        values = staged.column(flag.name).to_pylist()
        positions = [at for at in positions if not _is_deleted(flag, values[at])]

    return positions


def _is_deleted(flag: Column, value: object) -> bool:
    return value is True if flag.data_type == "bool" else value is not None


def _comparison(root: Table, staged: pa.Table) -> Callable[[int, int], bool]:
    """Whether a later row wins over an earlier one of the same key: by ``dedup_sort``, else always."""
    sorts = [
        (staged.column(name).to_pylist(), one.dedup_sort == "desc")
        for name, one in root.columns.items()
        if one.dedup_sort
    ]

    def compare(later: int, earlier: int) -> int:
        for values, descending in sorts:
            left, right = values[later], values[earlier]

            if left == right:
                continue

            if left is None or right is None:
                return 1 if left is None else -1

            return -1 if (left > right) == descending else 1

        return -1

    return lambda later, earlier: compare(later, earlier) < 0


def _once_per_row_key(one: Table, root: Table, staged: pa.Table) -> pa.Table:
    row_key = one.keys("row_key")

    if not row_key or not root.keys("primary_key") or root.hints.get("x-stage-data-deduplicated"):
        return staged

    last = {key: at for at, key in enumerate(_keys(staged, row_key))}

    return _only(staged, last.values())


def _belonging(one: Table, chain: Sequence[Table], rows: pa.Table, owners: Mapping[TableName, pa.Table]) -> set[int]:
    """Positions of nested rows whose root row, or parent row where there is no root key, is in ``owners``."""
    root_key, parent_key = one.keys("root_key"), one.keys("parent_key")
    parent = next(table for table in chain if table.name == one.parent)
    link, owner = (root_key, chain[0]) if root_key else (parent_key, parent)
    row_key = owner.keys("row_key") or owner.keys("unique") or owner.keys("primary_key")

    if not link or len(row_key) != 1:
        raise SchemaError(
            f"Table {one.name!r} cannot be merged: nothing connects its rows with table {owner.name!r}. It needs a "
            "root key (_dlt_root_id) or a parent key (_dlt_parent_id), and that table a row key (_dlt_id)."
        )

    owned = {key for key in _keys(owners[owner.name], row_key) if None not in key}

    return {at for at, key in enumerate(_keys(rows, link)) if key in owned}


def _keys(rows: pa.Table, columns: Sequence[ColumnName]) -> list[tuple[object, ...]]:
    return list(zip(*(rows.column(name).to_pylist() for name in columns), strict=True))


def _only(rows: pa.Table, positions: Iterable[int]) -> pa.Table:
    return rows.take(pa.array(sorted(positions), pa.int64()))


def _without(rows: pa.Table, positions: set[int]) -> pa.Table:
    return _only(rows, (at for at in range(rows.num_rows) if at not in positions))


def _joined(first: pa.Table, second: pa.Table) -> pa.Table:
    return pa.concat_tables([first, second])
