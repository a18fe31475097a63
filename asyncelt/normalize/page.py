"""The doorway of the room: one page in, typed tables out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import cast

import pyarrow as pa

from asyncelt.errors import BadRecord
from asyncelt.flow import ArrowPage, Conformed, RawBatch, Rows, TableBatch, Unloadable
from asyncelt.normalize.arrow_page import conform_arrow
from asyncelt.normalize.conform import ConformRules, Outcome, conform_part
from asyncelt.normalize.gating import Gate
from asyncelt.normalize.identify import Identity
from asyncelt.normalize.place import Ambiguous
from asyncelt.normalize.plain_road import is_available
from asyncelt.normalize.roads import Roads, Stream
from asyncelt.normalize.rules import rule_of
from asyncelt.normalize.shred import Names
from asyncelt.normalize.tables import Part
from asyncelt.normalize.view import SchemaRules, SchemaView, Target, rules_of
from asyncelt.normalize.walk import Rule, as_row, excerpt
from asyncelt.schema.arrow import arrow_type
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Schema, SchemaDelta, Table
from asyncelt.schema.naming import Naming
from asyncelt.types import LoadId, TableName

__all__ = ["NormalizeContext", "Normalizer", "Shredded"]

CACHED_TABLES = 4096
ROWS_PER_PAGE = 1 << 32
"""More than a page can have: the distance between the numbers of the first rows of two pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeContext:
    """What normalizing needs to know, the same for all pages of a run and schema."""

    load_id: LoadId
    naming: Naming
    capabilities: Capabilities
    gate: AbstractContextManager[object] = field(default_factory=threading.Lock)
    """Reusable; held around each piece of work that holds the interpreter lock."""
    slice_s: float = 0.005
    """How long such a piece may take, about, in seconds."""
    compiled: bool = field(default_factory=is_available)
    """Whether plain rows go through the compiled extension. Never changes the result."""
    arrow_add_dlt_id: bool = False
    arrow_add_dlt_load_id: bool = False
    max_columns: int = 20_000
    """Columns of a table beyond which no page may add more: an object keyed by id makes one per key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shredded:
    """A page in columns, not yet under a schema. Immutable; may be conformed any number of times."""

    batch: RawBatch
    parts: tuple[Part, ...]
    rows: int
    json_columns: frozenset[tuple[str, str]] = frozenset()
    """Columns of dicts and lists that were kept whole, because the schema said so."""


class Normalizer:
    """Turns pages into typed tables. One per run and schema; may be used by several threads at once.

    Keeps only what makes the next page quicker: no page influences the result of another one.
    """

    def __init__(self, context: NormalizeContext) -> None:
        self._context = context
        self._targets: dict[TableName, tuple[Table, dict[str, Target]]] = {}
        self._rules: tuple[object, SchemaRules] | None = None
        self._known_rules: dict[tuple[TableName, int | None], tuple[Schema, Rule]] = {}
        self._names: dict[TableName, Names] = {}
        self._streams: dict[TableName, Stream] = {}
        self._gate = Gate(context.gate, context.slice_s)

    @property
    def context(self) -> NormalizeContext:
        """What it knows."""
        return self._context

    def shred(self, batch: RawBatch, schema: Schema) -> Shredded:
        """Take a page apart into columns per table. The heavy half; ``schema`` only gives hints.

        Raises:
            BadRecord: A value that no column can hold, or text that is no JSON.
        """
        payload = batch.payload

        if isinstance(payload, ArrowPage):
            return Shredded(batch=batch, parts=(), rows=payload.table.num_rows)

        roads = self._roads(batch, schema)
        parts: list[Part] = []

        if isinstance(payload, Rows):
            parts.extend(roads.of_rows(self._as_rows(payload.items, batch.table)))
        else:
            parts.extend(roads.of_bodies(payload.bodies))

        rows = sum(part.source.rows for part in parts)

        return Shredded(batch=batch, parts=tuple(parts), rows=rows, json_columns=roads.rule.json_columns)

    def _as_rows(self, items: Sequence[object], table: str) -> Sequence[object]:
        kinds = set(map(type, items))

        if kinds <= {dict}:
            return items

        if Unloadable in kinds:
            raise BadRecord(next(item.message for item in items if isinstance(item, Unloadable)), table=table)

        rows: list[object] = []

        try:
            self._gate.run(map(rows.append, map(as_row, items)))
        except TypeError as error:
            item = items[len(rows)]
            raise BadRecord(f"{error}.", table=table, row=len(rows), value=excerpt(item)) from error

        return rows

    def conform(self, shredded: Shredded, schema: Schema) -> Conformed:
        """Bring a page under a schema: types, variants, row ids, and what it adds to the schema.

        May be called again for the same page with a newer schema; only random row ids differ then.

        Raises:
            BadRecord: A row has no value where it must have one, or a value that no column can hold.
        """
        batch = shredded.batch
        context = self._context
        rule = self._rule(batch, schema)

        if rule.json_columns != shredded.json_columns and shredded.parts:
            # A page before this one has made a column json, and so its dicts are no longer taken apart.
            shredded = self._by_rows(shredded, schema)

        rules = self._rules_of(schema)
        identity = Identity.of(schema, batch.table, rule, context.capabilities)
        view = SchemaView(schema, rules, context.capabilities, self._targets_of)
        outcome = Outcome()
        is_arrow = isinstance(batch.payload, ArrowPage)
        settings = ConformRules(
            load_id=context.load_id,
            rule=rule,
            resource=batch.resource,
            add_dlt_id=context.arrow_add_dlt_id or not is_arrow,
            add_dlt_load_id=context.arrow_add_dlt_load_id or not is_arrow,
            max_columns=context.max_columns,
        )

        if isinstance(batch.payload, ArrowPage):
            conform_arrow(batch.payload.table, batch.table, view, settings, self._gate, outcome)
        elif isinstance(batch.payload, Rows) and not batch.payload.items:
            # A table that is to exist without rows, with the columns that rows would have.
            conform_arrow(pa.table({}), batch.table, view, settings, self._gate, outcome)

        first_row = batch.page * ROWS_PER_PAGE

        for part in shredded.parts:
            try:
                conform_part(part, view, settings, identity, outcome, first_row)
            except Ambiguous:
                return self.conform(self._by_rows(shredded, schema), schema)

            first_row += part.source.rows

        return Conformed(
            delta=SchemaDelta(tables=tuple(outcome.deltas.values())),
            batches=tuple(_joined(batches) for batches in outcome.batches.values()),
            notices=tuple(outcome.notices.values()),
            root_rows=shredded.rows,
        )

    def _by_rows(self, shredded: Shredded, schema: Schema) -> Shredded:
        """The same page by the road that loses nothing."""
        roads = self._roads(shredded.batch, schema)
        parts = [
            made
            for part in shredded.parts
            for made in roads.by_rows([part.source.item(row) for row in range(part.source.rows)])
        ]

        return Shredded(
            batch=shredded.batch, parts=tuple(parts), rows=shredded.rows, json_columns=roads.rule.json_columns
        )

    def _roads(self, batch: RawBatch, schema: Schema) -> Roads:
        rule = self._rule(batch, schema)
        names = self._names.get(batch.table)

        if len(self._streams) >= CACHED_TABLES and batch.table not in self._streams:
            self._streams, self._names, self._known_rules = {}, {}, {}

        if names is None or names.rule is not rule:
            names = self._names[batch.table] = Names(rule)

        return Roads(
            root=batch.table,
            rule=rule,
            names=names,
            stream=self._streams.setdefault(batch.table, Stream()),
            gate=self._gate,
            wei_digits=self._context.capabilities.wei_precision[0],
            compiled=self._context.compiled,
        )

    def _rule(self, batch: RawBatch, schema: Schema) -> Rule:
        key = (batch.table, batch.max_nesting)
        known = self._known_rules.get(key)

        if known is None or known[0] is not schema:
            rule = rule_of(
                schema,
                self._rules_of(schema),
                batch.table,
                naming=self._context.naming,
                capabilities=self._context.capabilities,
                max_nesting=batch.max_nesting,
            )
            known = self._known_rules[key] = (schema, rule)

        return known[1]

    def _rules_of(self, schema: Schema) -> SchemaRules:
        known = self._rules

        if known is None or known[0] is not schema.settings:
            known = self._rules = (schema.settings, rules_of(schema.settings))

        return known[1]

    def _targets_of(self, table: Table) -> dict[str, Target]:
        known = self._targets.get(table.name)

        if known is None or known[0] is not table:
            if len(self._targets) >= CACHED_TABLES:
                self._targets.clear()

            targets = {
                name: (column.data_type, arrow_type(column, self._context.capabilities))
                for name, column in table.columns.items()
                if column.data_type is not None
            }
            known = self._targets[table.name] = (table, cast("dict[str, Target]", targets))

        return known[1]


def _joined(batches: list[TableBatch]) -> TableBatch:
    if len(batches) == 1:
        return batches[0]

    data = pa.concat_tables([batch.data for batch in batches], promote_options="default")

    return TableBatch(table=batches[0].table, data=data, rows=data.num_rows)
