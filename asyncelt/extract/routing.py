"""Where items go at the end of their chain: to transformers, and to a table, whose news of hints goes before them."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from asyncelt.errors import ConfigError
from asyncelt.extract.headway import Headway
from asyncelt.extract.hinting import HintBook
from asyncelt.extract.items import Mark, Marked
from asyncelt.extract.jsonbody import rows_of
from asyncelt.extract.requests import PAUSE_ROWS, Emit, HintNews, Offered, TableName, Work
from asyncelt.flow import Unloadable
from asyncelt.schema.hints import TableHints

__all__ = ["Router"]


class Router:
    """Knows the table of each item, and what is new about the hints of that table.

    Args:
        table: Name of the table, or a function of a row that gives it.
        emit: Receives what comes out. A reader that runs the chain in a thread puts its own outbox here.
        headway: Of the resource; counts what comes out.
        hints: Hints of the tables; None: they do not change with the data.
        offers: Whether transformers take what comes out, as `Offered`.
        keeps: Whether it goes to the resource's tables.
    """

    def __init__(
        self, table: TableName, emit: Emit, headway: Headway, *, hints: HintBook | None, offers: bool, keeps: bool
    ) -> None:
        self.emit = emit
        self.offers = offers
        self._table = table
        self._headway = headway
        self._hints = hints
        self._keeps = keeps

    @property
    def table(self) -> str:
        """The table, where there is just one."""
        return self._table if isinstance(self._table, str) else self._headway.resource

    @property
    def has_one_table(self) -> bool:
        """Whether rows that bring no table of their own all go to one."""
        return isinstance(self._table, str)

    def route(self, item: object, mark: Mark | None) -> Work:
        """Send an item to transformers and to its table: where its mark says, or the resource."""
        table = None if mark is None else mark.table_name

        if self.offers:
            # Its hints, if it has any, are of this resource's tables.
            self.emit("", Offered(item if table is None else Marked(item, Mark(table))))

        if not self._keeps:
            self._count(item)
        elif table is None and callable(self._table):
            yield from self._route_by_function(item)
        else:
            self._send(table or self.table, item)

    def route_row(self, row: dict[object, object]) -> None:
        """The same for a dict that brings no table, where there are no transformers. Most rows come here: no frills."""
        table = self._table if isinstance(self._table, str) else self._table_of(row)

        if self._hints is not None and self._hints.is_live:
            self._tell(table, self._news_of(table, row))

        self._headway.rows += 1
        self.emit(table, row)

    def refuse(self, row: object, instead: Unloadable, mark: Mark | None) -> None:
        """Send on a row that cannot be loaded."""
        if self._keeps:
            table = None if mark is None else mark.table_name
            self.out(table or (self._table_of(row) if callable(self._table) else self.table), [instead])

    def out(self, table: str, item: object) -> None:
        """Send an item to a table, whatever its hints."""
        self.emit(table, item)
        self._count(item)

    def change_hints(self, mark: Mark, hints: Mapping[str, object]) -> None:
        """Hints that have come with the data; a table name among them is the resource's from here on."""
        is_variant = mark.create_table_variant
        name = hints.get("table_name")

        try:
            if isinstance(name, str) and name and not is_variant:
                self._table = name

            if self._hints is not None:
                table = mark.table_name if is_variant and mark.table_name else self.table
                self._tell(table, self._hints.change(hints, table, is_variant=is_variant))
        except Exception as error:
            self._headway.fail(error, "in hints that came with its data")

    def _route_by_function(self, item: object) -> Work:
        item = yield from rows_of(item, self._headway)

        if not isinstance(item, list):
            self._send(self._table_of(item), item)
            return

        groups: dict[str, list[object]] = {}

        for number, row in enumerate(item, 1):
            name = self._table_of(row)
            news = self._news_of(name, row)

            if news is not None:
                if rows := groups.pop(name, None):
                    self.out(name, rows)

                self._tell(name, news)

            groups.setdefault(name, []).append(row)

            if number % PAUSE_ROWS == 0:
                yield None

        for table, rows in groups.items():
            self.out(table, rows)

    def _send(self, table: str, item: object) -> None:
        self._tell(table, self._news_of(table, item))
        self.out(table, item)

    def _tell(self, table: str, news: TableHints | None) -> None:
        if news is not None:
            self.emit(table, HintNews(news))

    def _news_of(self, table: str, row: object) -> TableHints | None:
        """The hints of a row's table, if they are new."""
        if self._hints is None or not self._hints.is_live:
            return None

        try:
            return self._hints.news_of(table, row)
        except Exception as error:
            self._headway.fail(error, f"in the hints of table {table!r}")

    def _table_of(self, row: object) -> str:
        """What the ``table_name`` function says."""
        try:
            name = self._table(row)  # type: ignore[operator]
        except Exception as error:
            self._headway.fail(error, "in the table_name function")

        if not isinstance(name, str) or not name:
            wrong = ConfigError(f"The table_name function must return the name of a table, not {name!r}.")
            raise self._headway.error(wrong, "in the table_name function") from None

        return name

    def _count(self, item: object) -> None:
        if isinstance(item, list):
            self._headway.rows += len(item)
        else:
            self._headway.rows += item.num_rows if isinstance(item, pa.Table) else 1
