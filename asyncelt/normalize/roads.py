"""Which road a page takes to columns: the compiled extension, Arrow's JSON reader, ``pa.array``, or row by row.

All four give the same tables; the first is the quickest, the last takes everything. A stream remembers what its pages
have shown, so that a road that fails is not tried on every page; nothing remembered changes a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isqrt
from time import thread_time
from typing import Any, Final, cast

import msgspec

from asyncelt.flow import JsonBody
from asyncelt.normalize.bodies import Raw, among, decode, is_sound, later, rows_of, texts_of, within
from asyncelt.normalize.gating import Gate
from asyncelt.normalize.json_road import TextLeaves, array_of, array_of_lines, read_rows
from asyncelt.normalize.plain_road import part_of_plain_json, part_of_plain_rows
from asyncelt.normalize.rows import part_of_rows
from asyncelt.normalize.shred import Names, shred
from asyncelt.normalize.tables import Array, Part, Source
from asyncelt.normalize.to_arrow import dump_rows, infer, only_json_floats
from asyncelt.normalize.walk import Rule

__all__ = ["Roads", "Stream"]

PART_BYTES: Final = 2 * 1024 * 1024
"""JSON text that is read in one go; much more of it is slower by the row."""
PART_ROWS: Final = 20_000
PART_CELLS: Final = 4_000_000
"""Rows times columns of one part: an object keyed by id makes a column per row."""
FIRST_ROWS: Final = isqrt(PART_CELLS)
"""Rows in the first part of a stream, whose width is not known yet: there may be a column per row."""
ROW_ROAD_ROWS: Final = 5_000
PATIENCE: Final = 32
"""Pages for which a road that has failed is not tried again."""
FIRST_SLICE: Final = 256
SMALLEST_SLICE: Final = 64
"""Rows that go through ``pa.array`` at once."""
SLICEABLE_S: Final = 1e-5
"""Seconds per row up to which ``pa.array`` is cut into slices; slices of few rows cost more later than they save."""


@dataclass(slots=True)
class Stream:
    """What the pages of one table have shown so far. Shared by threads; every field is replaced, never changed."""

    leaves: TextLeaves = field(default_factory=dict)
    rest: dict[str, int] = field(default_factory=dict)
    """Road to the number of pages for which it is left alone."""
    rows: int = FIRST_ROWS
    """Rows that may become one part for their width."""
    row_bytes: int = 1
    """Length of a row as JSON, about."""
    cost: dict[str, float] = field(default_factory=dict)
    """Road to seconds of the processor per row."""

    def open(self, road: str) -> bool:
        """Whether the road is worth trying for this page."""
        left = self.rest.get(road, 0)

        if left > 0:
            self.rest = {**self.rest, road: left - 1}

        return left == 0

    def close(self, road: str) -> None:
        """Leave a road alone for some pages."""
        self.rest = {**self.rest, road: PATIENCE}

    def part_rows(self) -> int:
        """Rows that become one part."""
        return max(1, min(self.rows, PART_ROWS, PART_BYTES // self.row_bytes))

    def has_shape(self, rows: int, columns: int, nbytes: int) -> None:
        """Note how wide and how long a part was: columns may stay as many as they are, or grow with the rows."""
        self.rows = max(1, min(PART_CELLS // max(columns, 1), isqrt(PART_CELLS * rows // max(columns, 1))))

        if nbytes:
            self.row_bytes = max(1, nbytes // rows)

    def prefers_array(self) -> bool:
        """Whether ``pa.array`` is the quicker road, and short enough by the row to be cut into slices.

        Both are measured: the one without a figure is next.
        """
        array, text = self.cost.get("array"), self.cost.get("json")

        if text is None or array is None:
            return text is not None and text < SLICEABLE_S

        return array < text and array < SLICEABLE_S

    def measured(self, road: str, seconds: float, rows: int) -> None:
        """Note what a road cost."""
        now = seconds / max(rows, 1)
        before = self.cost.get(road, now)
        self.cost = {**self.cost, road: 0.7 * before + 0.3 * now}


@dataclass(frozen=True, slots=True, kw_only=True)
class Roads:
    """The roads under one rule."""

    root: str
    rule: Rule
    names: Names
    stream: Stream
    gate: Gate
    wei_digits: int
    compiled: bool
    """Whether to take the road through the extension."""

    def of_rows(self, rows: Sequence[object]) -> list[Part]:
        """Parts of a page of dicts."""
        parts: list[Part] = []
        start = 0

        while start < len(rows):
            piece = rows[start : start + self.stream.part_rows()]
            parts.extend(self._of_piece(piece))
            start += len(piece)

        return parts

    def of_bodies(self, bodies: Sequence[JsonBody]) -> list[Part]:
        """Parts of JSON bodies, of all together where they are plain.

        Raises:
            BadRecord: One is no JSON, or has nothing at the path it names.
        """
        parts = self._of_plain_bodies(bodies) if self._plain() else None

        if parts is not None:
            return parts

        return [part for body in bodies for part in self.of_body(body)]

    def _of_plain_bodies(self, bodies: Sequence[JsonBody]) -> list[Part] | None:
        try:
            with self.gate.lock:
                texts = [within(body, self.root) for body in bodies]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

        def items(counts: Sequence[int]) -> Callable[[int], object]:
            return among([later(text) for text in texts], counts)

        part = part_of_plain_json(texts, items, self.root, self.names)

        return self._plain_parts(part)

    def _plain(self) -> bool:
        return self.compiled and self.rule.excludes is None and self.stream.open("plain")

    def _plain_parts(self, part: Part | None) -> list[Part] | None:
        """The part of plain rows, nothing where there were no rows; None where another road has to be taken."""
        if part is None:
            self.stream.close("plain")
            return None

        if not part.source.rows:
            return []

        self.stream.has_shape(part.source.rows, sum(len(table.lanes) for table in part.tables), 0)

        return [part]

    def of_body(self, body: JsonBody) -> list[Part]:
        """Parts of a JSON body.

        Raises:
            BadRecord: It is no JSON, or has nothing at the path it names.
        """
        try:
            with self.gate.lock:
                data = within(body, self.root)

            part = self._whole(data) if self._columns() else None

            return [part] if part is not None else self._in_pieces(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            with self.gate.lock:
                rows = rows_of(body, self.root)

            return self.by_rows(rows)

    def _whole(self, data: Raw) -> Part | None:
        """One part of a whole body, without a look at its rows; None where that does not work."""
        if self._is_large(data):
            return None

        with self.gate.lock:
            text = bytes(data).strip()
            text = array_of([text]) if text.startswith(b"[") and text.endswith(b"]") else array_of_lines(text)

            if not is_sound(text):
                return None

        return self._of_text(text, later(data))

    def _is_large(self, data: Raw) -> bool:
        """Whether a body has to be cut: by its bytes, or because it may have more rows than make one part."""
        size = memoryview(data).nbytes

        return size > PART_BYTES or (size > 2 * self.stream.rows and bytes(data).count(b"{") > self.stream.rows)

    def _in_pieces(self, data: Raw) -> list[Part]:
        with self.gate.lock:
            texts = texts_of(data)

        parts: list[Part] = []
        is_large = self._is_large(data)

        for piece in _pieces(texts, self.stream):
            part = self._piece(piece) if is_large and self._columns() else None
            parts.extend([part] if part is not None else self.by_rows(self._decoded(piece)))

        return parts

    def _piece(self, texts: Sequence[Raw]) -> Part | None:
        with self.gate.lock:
            data = array_of([b"[" + b",".join(texts) + b"]"])

            if not is_sound(data):
                return None

        part = self._of_text(data, lambda number: decode(texts[number]))

        # A document that is no object may have been read as something else, or not at all.
        return part if part is not None and part.source.rows == len(texts) else None

    def by_rows(self, rows: Sequence[object]) -> list[Part]:
        """Parts of any rows, by the road that is exact for everything."""
        return [
            part_of_rows(
                rows[start : start + ROW_ROAD_ROWS], self.root, self.rule, wei_digits=self.wei_digits, gate=self.gate
            )
            for start in range(0, len(rows), ROW_ROAD_ROWS)
        ]

    def _columns(self) -> bool:
        return self.rule.excludes is None and self.stream.open("columns")

    def _of_piece(self, rows: Sequence[object]) -> list[Part]:
        if self._plain():
            plain = rows if type(rows) is list else list(rows)
            parts = self._plain_parts(part_of_plain_rows(plain, self.root, self.names, self.gate))

            if parts is not None:
                return parts

        parts = self._of_columns(rows) if self._columns() else None

        return self.by_rows(rows) if parts is None else parts

    def _of_columns(self, rows: Sequence[object]) -> list[Part] | None:
        stream = self.stream
        parts: list[Part] | None = None

        if stream.prefers_array() or not stream.open("json"):
            parts = self._of_array(rows)
        else:
            began = thread_time()
            dumped = dump_rows(rows, self.gate)

            if dumped.data is not None:
                parts = self._of_json(rows, dumped.data)
                stream.measured("json", thread_time() - began, len(rows))
            elif dumped.has_other_types:
                stream.close("json")
                parts = self._of_array(rows)

        if parts is None:
            stream.close("columns")

        return parts

    def _of_json(self, rows: Sequence[object], data: bytes) -> list[Part] | None:
        # NaN and the infinities have been written as null.
        if b"null" in data and not only_json_floats(rows, self.gate):
            return self._of_array(rows)

        part = self._of_text(data, rows.__getitem__)

        return [part] if part is not None and part.source.rows == len(rows) else None

    def _of_array(self, rows: Sequence[object]) -> list[Part] | None:
        parts: list[Part] = []
        start = 0
        size = self._slice(self.stream.cost.get("array", self.gate.slice_s / FIRST_SLICE))

        while start < len(rows):
            piece = rows[start : start + size]

            with self.gate.lock:
                began = thread_time()
                array = infer(piece)
                took = thread_time() - began

            self.stream.measured("array", took, len(piece))
            part = (
                None
                if array is None
                else self._part(_fields(array), Source(piece.__getitem__, len(piece)), ambiguous=False)
            )

            if part is None:
                return None

            parts.append(part)
            start += len(piece)
            size = min(self._slice(took / len(piece)), size * 4)

        return parts

    def _slice(self, seconds_per_row: float) -> int:
        """Rows that take about one slice of time."""
        return max(SMALLEST_SLICE, int(self.gate.slice_s / max(seconds_per_row, 1e-7)))

    def _of_text(self, data: bytes, item: Callable[[int], object]) -> Part | None:
        read, leaves = read_rows(data, self.stream.leaves)

        if leaves is not self.stream.leaves:
            self.stream.leaves = leaves

        # Without rows there is nothing to tell columns from; what is known of earlier pages would bring some.
        if read is None or not read.rows:
            return None

        return self._part(read.fields, Source(item, read.rows), ambiguous=True, nbytes=len(data))

    def _part(
        self, fields: Sequence[tuple[str, Array]], source: Source, *, ambiguous: bool, nbytes: int = 0
    ) -> Part | None:
        tables = shred(fields, source.rows, self.root, self.names, ambiguous=ambiguous)

        if tables is None:
            return None

        if source.rows:
            self.stream.has_shape(source.rows, sum(len(table.lanes) for table in tables), nbytes)

        return Part(tables=tables, source=source)

    def _decoded(self, lines: Sequence[Raw]) -> Sequence[object]:
        found: list[object] = []

        def steps() -> Iterator[None]:
            for line in lines:
                found.append(decode(line))
                yield

        self.gate.run(steps())

        return found


def _pieces(texts: Sequence[Raw], stream: Stream) -> Iterator[Sequence[Raw]]:
    start = size = 0

    for number, text in enumerate(texts):
        size += memoryview(text).nbytes

        if size >= PART_BYTES or number - start + 1 >= stream.rows:
            yield texts[start : number + 1]
            start, size = number + 1, 0

    if start < len(texts):
        yield texts[start:]


def _fields(array: Array) -> Sequence[tuple[str, Array]]:
    struct = cast("Any", array)

    return [(name, struct.field(i)) for i, name in enumerate(struct.type.names)]
