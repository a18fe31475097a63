"""Pages: what leaves the extract room. Rows and small pages are gathered, large ones are cut; order is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from asyncelt.config import Limits
from asyncelt.extract.items import Materialized
from asyncelt.extract.points import Cut
from asyncelt.extract.requests import Singles
from asyncelt.extract.sizes import sampled_row_bytes, size_of
from asyncelt.flow import ArrowPage, JsonBody, JsonPages, Origin, Payload, Rows
from asyncelt.schema.hints import TableHints

__all__ = ["Gatherer", "Page"]

_HELD = 4
"""All tables of one resource together hold back at most this many times ``gather_bytes``."""
_ROWS_WEIGH = 2
"""Python rows take more bytes than their JSON, so as many more of them make one page ..."""
_MANY_ROWS = 4_000
"""... if it has fewer rows than this: what each of its columns costs is shared by enough of them then."""
_SAMPLE_BYTES = 32 * 1024
"""Rows are measured so often that at most about this many bytes pass unmeasured ..."""
_SAMPLE_ROWS = 64
"""... and at most this many rows."""
_PLAIN = frozenset({dict, str, int, float, bool})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of one table."""

    resource: str
    table_name: str
    """As given by the user; not normalized."""
    payload: Payload
    rows: int
    """0 where it is not known without parsing."""
    nbytes: int
    """Exact for JSON and Arrow, an estimate for Python objects."""
    hints: TableHints | None = None
    """The table's hints from this page on, where they have changed."""
    origins: tuple[Origin, ...] = ()
    """Of rows that are loaded from quarantine: the lines they lie in."""


@dataclass(slots=True)
class _Buffer:
    """What has been gathered for one table, all of one kind."""

    kind: type[Rows | JsonPages | ArrowPage] = Rows
    rows: list[object] = field(default_factory=list)
    bodies: list[JsonBody] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    count: int = 0
    nbytes: float = 0.0
    measured: int = 0
    """Single rows up to here are part of ``nbytes``."""
    check_at: int = 1
    """The next single row to be measured."""


class Gatherer:
    """Joins and cuts what one resource gives, table by table, into pages of a good size.

    The cuts depend on the data alone, never on time (except where `flush` is called), so a run is repeatable.
    Not a coroutine in sight: full pages appear in `ready`, in the order in which they have to be sent.

    Args:
        resource: Name of the resource.
        limits: ``gather_bytes`` and ``gather_rows`` bound gathered pages, ``buffer_max_*`` Arrow pages.
        on_first: Called when the first row is held back after nothing was.
    """

    def __init__(self, resource: str, limits: Limits, on_first: Callable[[], None] | None = None) -> None:
        self.ready: deque[Page | Cut] = deque()
        self._resource = resource
        self._limits = limits
        self._buffers: dict[str, _Buffer] = {}
        self._held = 0.0
        self._hints: dict[str, TableHints] = {}
        self._on_first = on_first

    def add(self, table: str, item: object) -> None:
        """Take data in any form in which it comes out of a chain."""
        if type(item) is dict:
            self.add_row(table, item)
        elif isinstance(item, Singles):
            self.add_run(table, item.rows)
        elif isinstance(item, list):
            self.add_rows(table, item)
        elif isinstance(item, JsonBody):
            self.add_body(table, item)
        elif isinstance(item, pa.Table):
            self.add_arrow(table, item)
        else:
            self.add_row(table, item)

    def add_row(self, table: str, row: object) -> None:
        """Take one row."""
        buffer = self._buffers.get(table)

        if buffer is None or buffer.kind is not Rows:
            buffer = self._open(table, Rows)

        buffer.rows.append(row)

        if len(buffer.rows) >= buffer.check_at:
            self._measure(table, buffer)

    def add_run(self, table: str, rows: list[object]) -> None:
        """Take rows that came one by one: the same as `add_row` for each of them, in less time."""
        start = 0

        while start < len(rows):
            buffer = self._buffers.get(table)

            if buffer is None or buffer.kind is not Rows:
                buffer = self._open(table, Rows)

            piece = rows[start : start + max(buffer.check_at - len(buffer.rows), 1)]
            start += len(piece)
            buffer.rows += piece

            if len(buffer.rows) >= buffer.check_at:
                self._measure(table, buffer)

    def add_rows(self, table: str, rows: list[object]) -> None:
        """Take a page of rows; the list itself is not kept."""
        if isinstance(rows, Materialized):
            self._seal(table, self._open(table, Rows))
            return

        if not rows:
            return

        average = max(sampled_row_bytes(rows), 1.0)
        start = 0

        while start < len(rows):
            buffer = self._buffers.get(table)

            if buffer is None or buffer.kind is not Rows:
                buffer = self._open(table, Rows)

            self._settle(buffer)
            count = len(buffer.rows)
            fitting = self._fitting(buffer, average, count + 1)

            if count < _MANY_ROWS < count + fitting:
                fitting = max(_MANY_ROWS - count, self._fitting(buffer, average, _MANY_ROWS))

            room = max(1, min(fitting, self._limits.gather_rows - count))
            piece = rows[start : start + room]
            start += len(piece)
            buffer.rows += piece
            buffer.measured = len(buffer.rows)
            buffer.check_at = buffer.measured + 1
            self._grow(table, buffer, average * len(piece))

    def add_body(self, table: str, body: JsonBody) -> None:
        """Take a JSON body; never cut."""
        if not body.data:
            return

        buffer = self._buffers.get(table)

        if buffer is None or buffer.kind is not JsonPages:
            buffer = self._open(table, JsonPages)

        if buffer.bodies and buffer.nbytes + len(body.data) > self._limits.gather_bytes:
            self._seal(table, buffer)
            buffer = self._open(table, JsonPages)

        buffer.bodies.append(body)
        self._grow(table, buffer, len(body.data))

    def add_arrow(self, table: str, data: pa.Table) -> None:
        """Take columns. An empty table is a page too: it makes the table exist."""
        limits = self._limits
        nbytes = data.nbytes
        pieces = max(-(-nbytes // limits.buffer_max_bytes), -(-data.num_rows // limits.buffer_max_items), 1)
        step = max(-(-data.num_rows // pieces), 1)

        for start in range(0, max(data.num_rows, 1), step):
            piece = data if pieces == 1 else data.slice(start, step)
            buffer = self._buffers.get(table)

            if buffer is not None and (
                buffer.kind is not ArrowPage
                or not buffer.tables[0].schema.equals(piece.schema, check_metadata=True)
                or buffer.nbytes + piece.nbytes > limits.gather_bytes
                or buffer.count + piece.num_rows > limits.gather_rows
            ):
                self._seal(table, buffer)

            buffer = self._buffers.get(table) or self._open(table, ArrowPage)
            buffer.tables.append(piece)
            buffer.count += piece.num_rows
            self._grow(table, buffer, piece.nbytes)

            if pieces > 1 and table in self._buffers:
                self._seal(table, buffer)

    def set_hints(self, table: str, hints: TableHints) -> None:
        """From here on, a table has these hints: they go with its next page."""
        buffer = self._buffers.get(table)

        if buffer is not None:
            self._seal(table, buffer)

        self._hints[table] = hints

    def flush(self) -> None:
        """Move everything that is held back to `ready`, tables in the order in which their rows began."""
        for table, buffer in list(self._buffers.items()):
            self._seal(table, buffer)

    def cut(self, cut: Cut) -> None:
        """Let a cut follow everything that was taken so far."""
        self.flush()
        self.ready.append(cut)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held back (there may be pages in `ready`)."""
        return not self._buffers

    def _open(self, table: str, kind: type[Rows | JsonPages | ArrowPage]) -> _Buffer:
        """A new buffer; what the table held in another form goes first."""
        earlier = self._buffers.get(table)

        if earlier is not None:
            self._seal(table, earlier)

        if not self._buffers and self._on_first is not None:
            self._on_first()

        buffer = self._buffers[table] = _Buffer(kind=kind)

        return buffer

    def _measure(self, table: str, buffer: _Buffer) -> None:
        """Count single rows that came since the last time, each as large as the last one."""
        count = len(buffer.rows)
        size = max(size_of(buffer.rows[-1]), 1)
        added = size * (count - buffer.measured)
        buffer.measured = count
        room = int(self._most_bytes(Rows, count) - buffer.nbytes - added)
        every = max(1, min(_SAMPLE_ROWS, _SAMPLE_BYTES // size, room // size)) if count > 8 else 1
        buffer.check_at = min(count + every, max(self._limits.gather_rows, count + 1))
        self._grow(table, buffer, added)

    def _settle(self, buffer: _Buffer) -> None:
        """Count single rows that have not been measured, before a page is added to them."""
        unmeasured = len(buffer.rows) - buffer.measured

        if unmeasured:
            added = size_of(buffer.rows[-1]) * unmeasured
            buffer.measured = len(buffer.rows)
            buffer.nbytes += added
            self._held += added

    def _grow(self, table: str, buffer: _Buffer, added: float) -> None:
        buffer.nbytes += added
        self._held += added
        count = max(len(buffer.rows), buffer.count)

        most = self._most_bytes(buffer.kind, count)

        if buffer.nbytes >= most or count >= self._limits.gather_rows:
            self._seal(table, buffer)
        elif self._held > _HELD * most:
            largest = max(self._buffers, key=lambda name: self._buffers[name].nbytes)
            self._seal(largest, self._buffers[largest])

    def _most_bytes(self, kind: type[Rows | JsonPages | ArrowPage], count: int) -> int:
        """Of a page that has so many rows."""
        return self._limits.gather_bytes * (_ROWS_WEIGH if kind is Rows and count < _MANY_ROWS else 1)

    def _fitting(self, buffer: _Buffer, average: float, count: int) -> int:
        """How many more rows, of so many bytes each, a page can take that has so many rows then."""
        return int((self._most_bytes(Rows, count) - buffer.nbytes) / average)

    def _seal(self, table: str, buffer: _Buffer) -> None:
        self._settle(buffer)
        del self._buffers[table]
        self._held = self._held - buffer.nbytes if self._buffers else 0.0
        payload: Payload

        if buffer.kind is Rows:
            payload = Rows(_clean(buffer.rows))
        elif buffer.kind is JsonPages:
            payload = JsonPages(tuple(buffer.bodies))
        else:
            tables = buffer.tables
            payload = ArrowPage(tables[0] if len(tables) == 1 else pa.concat_tables(tables))

        self.ready.append(
            Page(
                resource=self._resource,
                table_name=table,
                payload=payload,
                rows=max(len(buffer.rows), buffer.count),
                nbytes=max(int(buffer.nbytes), 1),
                hints=self._hints.pop(table, None),
            )
        )


def _clean(rows: list[object]) -> list[object]:
    """The rows as the normalizer takes them: no None, and a dict for whatever merely behaves like one."""
    odd = {kind for kind in set(map(type, rows)) - _PLAIN if kind is type(None) or _is_rowlike(kind)}

    if not odd:
        return rows

    return [_clean_one(row) if type(row) in odd else row for row in rows]


def _is_rowlike(kind: type) -> bool:
    """Mappings, and database rows such as those of sqlite3 and asyncpg."""
    if issubclass(kind, dict):
        return False

    return issubclass(kind, Mapping) or (hasattr(kind, "keys") and hasattr(kind, "__getitem__"))


def _clean_one(row: object) -> object:
    return {"value": None} if row is None else dict(row)  # type: ignore[call-overload]
