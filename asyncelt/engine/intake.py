"""The doorway from extract to normalize: pages are paid for, numbered and named here.

Belongs to the event loop. Numbering and the merging of a resource's hints happen without an await between them,
so the schema as of a page's number always has the hints of its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from asyncelt.budget import BudgetAccount
from asyncelt.engine.book import SchemaBook
from asyncelt.errors import ConfigError, DataValidationError
from asyncelt.extract.pages import Page
from asyncelt.flow import RawBatch, Refusal
from asyncelt.normalize.contract import is_refused
from asyncelt.normalize.units import refusal_of
from asyncelt.observe import Advanced, BudgetSample, Event
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.hints import TableHints, merge_table_hints
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import Naming
from asyncelt.schema.system import DLT_PREFIX, is_system_table
from asyncelt.types import OnError, TableName

__all__ = ["Announcer", "Intake", "ResourcePlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcePlan:
    """What the engine knows about one resource of a run."""

    name: str
    schema_name: str
    hints: Callable[[str], TableHints]
    """Hints for a raw table name that this resource yields to."""
    max_nesting: int | None
    table_name: str | None = None
    """Raw name of its table; None where a function of each row names it."""
    write_disposition: str = "append"
    on_error: OnError = "fail"
    parents: tuple[str, ...] = ()
    """The resource that it transforms, then what that one transforms."""


@dataclass(slots=True)
class Announcer:
    """Lays the hints of resources over schemas, each table's once per run. Nothing here awaits."""

    book: SchemaBook
    namings: Mapping[str, Naming]
    capabilities: Capabilities
    tables: dict[tuple[str, str, str], TableName | None] = field(default_factory=dict)
    """(schema, resource, raw table name) of every table that has been announced -> its final name, None if refused."""
    hinted: dict[str, Schema] = field(default_factory=dict)
    """The schemas as they would be if only hints had changed them: the reference counts that as a version."""
    old: frozenset[tuple[str, TableName]] = field(init=False)
    """Tables, by schema, that were there before the run."""

    def __post_init__(self) -> None:
        self.old = frozenset((name, table) for name, one in self.book.all().items() for table in one.tables)

    def announce(self, plan: ResourcePlan, raw_name: str, news: TableHints | None = None) -> TableName | None:
        """Merge the resource's hints for this table into the schema, once per run and when there are news of them.

        Returns:
            The final name; None where a contract does not let the table come into being.

        Raises:
            DataValidationError: The contract freezes tables, and this one is new.
            ConfigError: The name is that of a system table.
        """
        key = (plan.schema_name, plan.name, raw_name)

        if key not in self.tables or news is not None:
            self.tables[key] = self._merge_hints(plan, raw_name, news)

        return self.tables[key]

    def _merge_hints(self, plan: ResourcePlan, raw_name: str, news: TableHints | None) -> TableName | None:
        naming = self.namings[plan.schema_name]
        hints = news or plan.hints(raw_name)
        schema = self.book[plan.schema_name]
        merged = merge_table_hints(schema, hints, naming, self.capabilities)
        name = TableName(naming.path(raw_name))

        if is_system_table(name):
            raise ConfigError(
                f"Resource {plan.name!r} yields rows to table {raw_name!r}, in which asyncelt keeps its own records: "
                "choose another table_name."
            )

        if is_refused(name, schema, merged):
            return None

        if news is not None and (plan.schema_name, name) not in self.old:
            merged = _own_columns_last(schema, merged, name)

        self.book.set(merged)
        hinted = self.hinted.get(plan.schema_name, schema)
        # Until rows have changed a schema, both are the same.
        is_same = hinted is schema
        self.hinted[plan.schema_name] = (
            merged if is_same else merge_table_hints(hinted, hints, naming, self.capabilities)
        )

        return name

    def final_name(self, plan: ResourcePlan, raw_name: str) -> TableName:
        """A table's name under the convention of the resource's schema."""
        return TableName(self.namings[plan.schema_name].path(raw_name))

    def announce_all(self, plans: Iterable[ResourcePlan]) -> None:
        """A resource that yielded nothing is in the schema too, and replaces its tables if it is to."""
        for plan in plans:
            if plan.table_name is None:
                continue

            try:
                self.announce(plan, plan.table_name)
            except DataValidationError:
                # Its rows have been set aside, or there were none.
                if plan.on_error == "fail":
                    raise


def _own_columns_last(schema: Schema, merged: Schema, name: TableName) -> Schema:
    """Columns of late hints go before those that each row has got: as if no row had been quicker than the hints."""
    before, after = schema.tables.get(name), merged.tables[name]

    if before is None or after.columns.keys() == before.columns.keys():
        return merged

    own = {key: one for key, one in before.columns.items() if key.lower().startswith(DLT_PREFIX)}
    table = replace(after, columns={**{key: one for key, one in after.columns.items() if key not in own}, **own})

    return replace(merged, tables={**merged.tables, name: table})


@dataclass(slots=True)
class Intake:
    """Hands pages on to the workers, in the order in which they are numbered."""

    pipeline_name: str
    announcer: Announcer
    budget: BudgetAccount
    pages: MemoryObjectSendStream[RawBatch]
    emit: Callable[[Event], None]
    is_replay: bool = False
    """Whether the pages were extracted by an earlier call, which has reported them."""
    is_paid: bool = False
    """Whether memory for the pages has been reserved already."""
    count: int = 0
    rows: int = 0
    nbytes: int = 0
    waited_s: float = 0.0
    """How long resources have waited for memory."""

    async def send(self, plan: ResourcePlan, page: Page) -> None:
        """Take one page over; waits while the memory budget is used up. Pages of a table that is refused are dropped.

        Raises:
            DataValidationError: The schema contract freezes tables, the page is of a new one, and the resource does
                not say that this costs only its rows.

        Cancellation:
            Safe. A page that was not handed on gives its bytes back when the run's budget account closes.
        """
        if not self.is_paid:
            began = perf_counter()
            await self.budget.reserve(page.nbytes)
            self.waited_s += perf_counter() - began

        refusal: Refusal | None = None

        try:
            table = self.announcer.announce(plan, page.table_name, page.hints)
        except DataValidationError as error:
            if plan.on_error == "fail":
                raise

            table, refusal = self.announcer.final_name(plan, page.table_name), refusal_of(error)

        if table is None:
            self.budget.release(page.nbytes)

            return

        self.rows += page.rows
        self.nbytes += page.nbytes
        raw = RawBatch(
            page=self.count,
            schema_name=plan.schema_name,
            resource=plan.name,
            table=table,
            payload=page.payload,
            rows=page.rows,
            nbytes=page.nbytes,
            max_nesting=plan.max_nesting,
            on_error=plan.on_error,
            refusal=refusal,
            origins=page.origins,
        )
        self.count += 1

        if not self.is_replay:
            self.emit(
                Advanced(
                    pipeline_name=self.pipeline_name, stage="extract", name=plan.name, rows=page.rows, bytes=page.nbytes
                )
            )

        budget = self.budget.budget
        self.emit(BudgetSample(pipeline_name=self.pipeline_name, used=budget.used, limit=budget.limit))

        try:
            await self.pages.send(raw)
        except anyio.BrokenResourceError:
            # Normalizing has failed and is about to cancel this task; its error is the one to report.
            await anyio.sleep_forever()
