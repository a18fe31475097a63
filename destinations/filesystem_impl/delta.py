"""Delta tables of a dataset: one commit per table and package. Blocking.

Each commit carries an application transaction: who (pipeline and member), and the load id as a number, which grows. So
a package that is written again is recognised, by whomever. A commit is refused when another one has come in between;
then the transaction is looked up again. Rows are streamed from the staged files, a batch at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from sqlglot import exp

from asyncelt.destinations.filesystem_impl.lake import LakeWrite
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.destinations.filesystem_impl.views import view_of, view_over
from asyncelt.destinations.sql.names import column, identifier, table
from asyncelt.errors import DestinationRejected, DestinationUnavailable
from asyncelt.failpoints import failpoint
from asyncelt.schema.model import Column, Table
from asyncelt.types import LoadId

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Application", "attach_delta", "write_delta"]

_BATCH_ROWS = 65_536
_ATTEMPTS = 20
_MEMORY = "256MB"
"""Of the reader of staged files; what deduplicates more than that goes to disk."""
_AS_TEXT = frozenset({"time", "json"})
"""Types that Delta does not have."""


@dataclass(frozen=True, slots=True)
class Application:
    """What is written into a table's log with the rows."""

    pipeline_name: str
    member: str
    load_id: LoadId

    @property
    def name(self) -> str:
        """Whose packages come in the order of their versions."""
        return f"asyncelt/{self.pipeline_name}/{self.member}"

    @property
    def version(self) -> int:
        """Grows with each package of a pipeline's member."""
        return int(Decimal(self.load_id) * 1_000_000)

    def properties(self) -> CommitProperties:
        """Of the commit. No retries: it must not come twice after another session has made it."""
        return CommitProperties(
            app_transactions=[Transaction(self.name, self.version)],
            custom_metadata={"load_id": self.load_id, "pipeline_name": self.pipeline_name},
            max_commit_retries=0,
        )


def write_delta(store: Store, write: LakeWrite, definition: Table, application: Application) -> None:
    """Make the commit, unless it has been made.

    Raises:
        DestinationRejected: The table does not take the rows.
        DestinationUnavailable: Others commit all the time.
    """
    address, options = store.table_address(write.table)

    for _ in range(_ATTEMPTS):
        current = DeltaTable(address, storage_options=options) if DeltaTable.is_deltatable(address, options) else None

        if current is not None and (current.transaction_version(application.name) or -1) >= application.version:
            return

        failpoint("filesystem.before_table")

        try:
            _write(store, write, definition, current or address, options, application.properties())
        except CommitFailedError:
            # Another session was quicker, perhaps with this very package.
            continue
        except DeltaError as error:
            raise DestinationRejected(f"Delta table {address}, load {application.load_id}: {error}") from error

        failpoint("filesystem.after_table")

        return

    raise DestinationUnavailable(f"Delta table {address}: other writers were quicker {_ATTEMPTS} times.")


def attach_delta(connection: DuckDBPyConnection, store: Store, definition: Table) -> None:
    """Make a view over the newest version of a table, if there is one."""
    address, options = store.table_address(definition.name)

    if not DeltaTable.is_deltatable(address, options):
        return

    name = f"_asyncelt_delta_{definition.name}".replace('"', "_")
    rows = DeltaTable(address, storage_options=options).to_pyarrow_dataset()
    connection.register(name, rows)
    connection.execute(view_over(name, definition, rows.schema.names))


def _write(
    store: Store,
    write: LakeWrite,
    definition: Table,
    target: DeltaTable | str,
    options: dict[str, str],
    properties: CommitProperties,
) -> None:
    if not write.files:
        if isinstance(target, DeltaTable):
            target.delete(commit_properties=properties)

        return

    with _rows(store, write, definition) as rows:
        if write.mode == "upsert" and isinstance(target, DeltaTable):
            same = " AND ".join(f"target.{_quoted(key)} = source.{_quoted(key)}" for key in write.keys)
            merger = target.merge(
                rows,
                same,
                source_alias="source",
                target_alias="target",
                merge_schema=True,
                commit_properties=properties,
            )
            merger.when_matched_update_all().when_not_matched_insert_all().execute()

            return

        write_deltalake(
            target,
            rows,
            mode="overwrite" if write.mode == "overwrite" else "append",
            schema_mode="merge",
            storage_options=options,
            commit_properties=properties,
        )


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


@contextmanager
def _rows(store: Store, write: LakeWrite, definition: Table) -> Iterator[pa.RecordBatchReader]:
    """The staged rows; of those with one key, in an upsert, the last."""
    columns = [one for one in definition.columns.values() if one.data_type is not None]
    select = exp.select(*map(_value, columns)).from_(table(write.table))

    if write.mode == "upsert":
        select = _last_of_each(select, write.table, write.keys)

    with duckdb.connect(":memory:", config={"threads": "1", "memory_limit": _MEMORY}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(view_of(definition, store.attach(connection, write.files)))

        yield connection.execute(select.sql(dialect="duckdb")).to_arrow_reader(_BATCH_ROWS)


def _value(one: Column) -> exp.Expression:
    value: exp.Expression = column(one.name)

    if one.data_type in _AS_TEXT:
        value = exp.cast(value, "VARCHAR")

    return exp.Alias(this=value, alias=identifier(one.name))


def _last_of_each(select: exp.Select, name: str, keys: Sequence[str]) -> exp.Select:
    at = exp.Window(this=exp.RowNumber())
    numbered = exp.select(exp.Star(), exp.alias_(at, "_asyncelt_at")).from_(table(name)).subquery("numbered")
    order = exp.Order(expressions=[exp.Ordered(this=exp.column("_asyncelt_at"), desc=True)])
    place = exp.Window(this=exp.RowNumber(), partition_by=[column(key) for key in keys], order=order)

    first = exp.EQ(this=place, expression=exp.Literal.number(1))

    last = exp.select(*select.expressions).from_(numbered)
    last.set("qualify", exp.Qualify(this=first))

    return last
