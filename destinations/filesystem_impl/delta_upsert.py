"""Upserts into Delta tables: in one commit, rows go and others come. Blocking.

Files of a plain table that have rows that go are written anew without them, as files of Iceberg tables are: a DuckDB
that goes to disk where memory ends finds out by their keys which these are, and then all rows stream past once. Any
other table is left to the driver's MERGE, which knows what else there is to do, and keeps the rows of a load in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.schema import PrimitiveType
from deltalake.transaction import RemoveAction
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.delta_files import is_plain, now_ms, write_files
from asyncelt.destinations.filesystem_impl.delta_views import files_of, see
from asyncelt.destinations.filesystem_impl.going import Going, places_of
from asyncelt.destinations.filesystem_impl.lake import LakeWrite
from asyncelt.destinations.filesystem_impl.staged import DOOMED, Doomed, Staged, bounds, flag_of
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.destinations.filesystem_impl.views import FILE_COLUMN, PLACE_COLUMN
from asyncelt.destinations.sql.names import column, table
from asyncelt.failpoints import failpoint
from asyncelt.schema.model import Table

__all__ = ["upsert"]

_GOES: Final = "_asyncelt_goes"
"""Column of an upsert's source: the row says which nested rows go, and is no row itself."""
_ORDERED: Final[Mapping[str, type]] = {"long": int, "integer": int, "string": str}
"""Types of keys by whose bounds files are left out."""
_SEEN: Final = "_asyncelt_target"
"""View over files of the table."""
_FILES: Final = "_asyncelt_files"
_AT: Final = "_asyncelt_at"
"""A file's place among them."""


def upsert(
    staged: Staged, store: Store, write: LakeWrite, definition: Table, target: DeltaTable, properties: CommitProperties
) -> bool:
    """Put staged rows in the place of those that go.

    Returns:
        False: nothing was done, since the table has no column by which rows that go could be found. So none go.
    """
    fields = {one.name for one in target.schema().fields}

    if staged.doomed is None:
        raise AssertionError("an upsert says which rows go")

    if not fields.issuperset(staged.doomed.columns):
        return False

    # Columns that only one of the two has: the driver adds those of the load, and keeps the values of the others.
    if is_plain(target) and fields == set(staged.select.named_selects) and PLACE_COLUMN not in fields:
        _replace(staged, staged.doomed, store, write, target, properties)
    else:
        _merge(staged, staged.doomed, write, definition, target, properties)

    return True


def _replace(
    staged: Staged,
    doomed: Doomed,
    store: Store,
    write: LakeWrite,
    target: DeltaTable,
    properties: CommitProperties,
) -> None:
    files = _candidates(staged, doomed, target)
    going = _going(staged, doomed, store, write, target, files)
    touched = files.take(pa.array(list(going), pa.int64()))
    staged.forget_doomed()

    def rows() -> Iterator[pa.RecordBatch]:
        for at, gone in going.items():
            yield from _rest(staged, store, write, target, files.slice(at, 1), gone)

        # Into the same files: small loads would leave many small ones.
        yield from staged.reader()

    # Not removed when the commit fails: it may have been made all the same, and then they are the table's.
    come = write_files(store, write.table, target, rows())
    gone = [
        RemoveAction(path, data_change=True, deletion_timestamp=now_ms(), size=size, partition_values={})
        for path, size in zip(*(touched.column(one).to_pylist() for one in ("path", "size_bytes")), strict=True)
    ]
    failpoint("filesystem.before_table_commit")
    target.create_write_transaction([*come, *gone], "append", target.schema(), commit_properties=properties)


def _candidates(staged: Staged, doomed: Doomed, target: DeltaTable) -> pa.Table:
    """Files that may have rows that go, by their bounds."""
    files = files_of(target)

    for name, least, most in _bounds(staged, doomed, target):
        if {f"min.{name}", f"max.{name}"}.issubset(files.column_names):
            lowest, highest = pc.field(f"min.{name}"), pc.field(f"max.{name}")
            may = (lowest.is_null() | (lowest <= most)) & (highest.is_null() | (highest >= least))
            files = files.filter(may)

    return files


def _going(
    staged: Staged, doomed: Doomed, store: Store, write: LakeWrite, target: DeltaTable, files: pa.Table
) -> dict[int, Going]:
    """Rows that go, by the place of their file among the files that may have some: only their keys are read."""
    if not files.num_rows:
        return {}

    attached = see(staged.connection, _SEEN, store, write.table, target, files, placed=True)
    staged.connection.register(_FILES, pa.table({FILE_COLUMN: attached, _AT: range(len(attached))}))
    goes = exp.Exists(this=exp.select(exp.Literal.number(1)).from_(table(DOOMED)).where(doomed.matches(_SEEN)))
    same = exp.EQ(this=column(FILE_COLUMN, _SEEN), expression=column(FILE_COLUMN, _FILES))
    select = exp.select(column(_AT, _FILES), column(PLACE_COLUMN, _SEEN)).from_(table(_SEEN)).where(goes)
    found: dict[int, Going] = {}

    # Outer: a file that DuckDB called otherwise than it was given must not count as one that stays as it is.
    for batch in staged.read(select.join(table(_FILES), on=same, join_type="left")):
        files_at, places = batch.columns

        for at in pc.unique(files_at).to_pylist():
            if at is None:
                raise AssertionError(f"{write.table}: DuckDB calls files otherwise than they were given: {attached}")

            found.setdefault(at, Going()).add(places_of(places.filter(pc.equal(files_at, at))))

    return dict(sorted(found.items()))


def _rest(
    staged: Staged, store: Store, write: LakeWrite, target: DeltaTable, file: pa.Table, gone: Going
) -> Iterator[pa.RecordBatch]:
    """The rows of one file that stay."""
    see(staged.connection, _SEEN, store, write.table, target, file, placed=True)
    names = [one.name for one in target.schema().fields]
    select = exp.select(*map(column, (*names, PLACE_COLUMN))).from_(table(_SEEN))

    for batch in staged.read(select):
        yield gone.rest_of(batch.select(names), places_of(batch.column(PLACE_COLUMN)))


def _merge(
    staged: Staged,
    doomed: Doomed,
    write: LakeWrite,
    definition: Table,
    target: DeltaTable,
    properties: CommitProperties,
) -> None:
    """Rows of a root table are updated; nested rows go with those of the old root row, and others come."""
    # Before the rows are asked for: nothing else may be asked meanwhile.
    between = list(_between(staged, doomed, target))

    if write.root is None:
        same = " AND ".join([*(f"target.{_quoted(key)} = source.{_quoted(key)}" for key in write.keys), *between])
        flagged = flag_of(definition, "source")
        gone = None if flagged is None else flagged.sql(dialect="databricks")
        merger = target.merge(
            staged.read(staged.select),
            same,
            source_alias="source",
            target_alias="target",
            merge_schema=True,
            commit_properties=properties,
        )

        if gone is not None:
            merger = merger.when_matched_delete(gone)

        coming = None if gone is None else f"NOT {gone}"
        merger.when_matched_update_all().when_not_matched_insert_all(coming).execute()

        return

    (link,), names = doomed.columns, staged.select.named_selects
    rows = staged.select.select(exp.alias_(exp.false(), _GOES, quoted=True))
    going = exp.select(
        exp.alias_(column("row_key"), link, quoted=True), exp.alias_(exp.true(), _GOES, quoted=True)
    ).from_(table(DOOMED))
    merger = target.merge(
        staged.read(exp.Union(this=rows, expression=going, distinct=False, by_name=True)),
        " AND ".join([f"source.{_GOES} AND target.{_quoted(link)} = source.{_quoted(link)}", *between]),
        source_alias="source",
        target_alias="target",
        merge_schema=True,
        commit_properties=properties,
    )
    columns = {_quoted(name): f"source.{_quoted(name)}" for name in names}
    merger.when_matched_delete().when_not_matched_insert(columns, predicate=f"NOT source.{_GOES}").execute()


def _between(staged: Staged, doomed: Doomed, target: DeltaTable) -> Iterator[str]:
    """What all keys of the load lie between: files whose bounds say that they have none of them are not read."""
    for name, least, most in _bounds(staged, doomed, target):
        yield f"target.{_quoted(name)} BETWEEN {_literal(least)} AND {_literal(most)}"


def _bounds(staged: Staged, doomed: Doomed, target: DeltaTable) -> Iterator[tuple[str, object, object]]:
    """The least and the greatest value of columns by which rows are found that go."""
    types = {one.name: str(one.type.type) for one in target.schema().fields if isinstance(one.type, PrimitiveType)}

    for name, value in zip(doomed.columns, doomed.values, strict=True):
        kind = _ORDERED.get(types.get(name, ""))
        least, most = bounds(staged.connection, value) if kind else (None, None)

        if kind and isinstance(least, kind) and isinstance(most, kind):
            yield name, least, most


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
