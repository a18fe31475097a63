"""What a thread has produced and not handed over yet."""

from __future__ import annotations

from typing import get_args

import pyarrow as pa

from asyncelt.extract.requests import Note, Offered, Singles
from asyncelt.extract.sizes import sampled_row_bytes, size_of
from asyncelt.extract.thread import OwnThread
from asyncelt.flow import JsonBody

__all__ = ["Outbox"]

_WEIGH_ROWS = 64
_NO_ROW = (list, JsonBody, pa.Table, *get_args(Note))
"""Everything else is a row."""


class Outbox:
    """What a thread has produced and not handed over yet. Rows that come one by one travel as one `Singles`."""

    def __init__(self, thread: OwnThread, *, eager: bool) -> None:
        self.weight = 0.0
        """About how many bytes wait, as of the last `emit`."""
        self._thread = thread
        self._eager = eager
        self._run: list[object] | None = None
        self._table = ""
        self._parks = 0

    def emit(self, table: str, item: object) -> None:
        """Leave one item for the loop."""
        if type(item) is dict or not isinstance(item, _NO_ROW):
            self.emit_row(table, item)
            return

        if self._parks != self._thread.parks:
            self.begin()

        self._run = None
        self.weight += _weight(item)
        self._thread.put((table, item))

    def emit_row(self, table: str, row: object) -> None:
        """Leave one row for the loop."""
        if self._parks != self._thread.parks:
            self.begin()

        run = self._run

        if run is None or table != self._table:
            run = [row]
            self._run, self._table = None if self._eager else run, table
            self.weight += size_of(row)
            self._thread.put((table, Singles(run)))
            return

        run.append(row)

        if len(run) % _WEIGH_ROWS == 0:
            self.weight += size_of(row) * _WEIGH_ROWS

    def begin(self) -> None:
        """What was put before the thread was parked belongs to the loop now."""
        self._parks = self._thread.parks
        self._run = None
        self.weight = 0.0


def _weight(item: object) -> float:
    if isinstance(item, Note):
        return _weight(item.item) if isinstance(item, Offered) else 0.0

    if isinstance(item, JsonBody):
        return len(item.data)

    if isinstance(item, pa.Table):
        return item.nbytes

    return sampled_row_bytes(item) * len(item) if isinstance(item, list) else size_of(item)
