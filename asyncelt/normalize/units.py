"""The rows of a page one by one, whatever form it came in, so that some of them can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps
from typing import Protocol, TypeAlias

import msgspec
import pyarrow as pa

from asyncelt.errors import BadRecord
from asyncelt.flow import ArrowPage, JsonBody, JsonPages, Payload, Refusal, Rows, Unloadable
from asyncelt.normalize.bodies import Raw, decode, rows_of, texts_of, within

__all__ = ["Content", "JsonText", "Units", "refusal_of", "units_of"]


@dataclass(frozen=True, slots=True)
class JsonText:
    """One JSON document, not parsed."""

    data: bytes


Content: TypeAlias = "JsonText | JsonBody | pa.Table | object"
"""One row: a JSON document, a whole body that cannot be taken apart, an Arrow table of one row, or a value."""


class Units(Protocol):
    """The rows of one page."""

    @property
    def hopeless(self) -> dict[int, Refusal]:
        """Those of which it is clear by now that they cannot be loaded."""
        ...

    def __len__(self) -> int: ...

    def page(self, numbers: Sequence[int]) -> Payload:
        """A page of these rows alone."""
        ...

    def content(self, number: int) -> Content:
        """One row."""
        ...


def units_of(payload: Payload, table: str) -> Units:
    """Take a page apart. Blocking; does as little as it can."""
    if isinstance(payload, Rows):
        return _RowUnits(payload.items)

    if isinstance(payload, ArrowPage):
        return _ArrowUnits(payload.table)

    texts: list[Raw | JsonBody] = []
    hopeless: dict[int, Refusal] = {}

    for body in payload.bodies:
        for text, error in _texts(body, table):
            if error is not None:
                hopeless[len(texts)] = refusal_of(error, body.items)

            texts.append(text)

    return _JsonUnits(texts, hopeless)


def refusal_of(error: Exception, path: str | None = None, row: int | None = None) -> Refusal:
    """What to keep of an error.

    Args:
        error: What was raised.
        path: Of the items in a body that cannot be taken apart.
        row: Number of the row in its page; the error counts from where the try began.
    """
    message, column = str(error), None

    if isinstance(error, BadRecord):
        column = error.column

        if row is not None:
            message = message.replace(f", row {error.row}", f", row {row}", 1)

    return Refusal(kind=type(error).__name__, message=message, column=column or path)


@dataclass(frozen=True, slots=True)
class _RowUnits:
    items: Sequence[object]

    @property
    def hopeless(self) -> dict[int, Refusal]:
        return {
            number: Refusal(kind=item.kind, message=item.message)
            for number, item in enumerate(self.items)
            if type(item) is Unloadable
        }

    def __len__(self) -> int:
        return len(self.items)

    def page(self, numbers: Sequence[int]) -> Rows:
        return Rows([self.items[number] for number in numbers])

    def content(self, number: int) -> object:
        return self.items[number]


@dataclass(frozen=True, slots=True)
class _ArrowUnits:
    table: pa.Table

    @property
    def hopeless(self) -> dict[int, Refusal]:
        return {}

    def __len__(self) -> int:
        return self.table.num_rows

    def page(self, numbers: Sequence[int]) -> ArrowPage:
        return ArrowPage(self.table.take(pa.array(numbers, pa.int64())))

    def content(self, number: int) -> pa.Table:
        return self.table.slice(number, 1)


@dataclass(frozen=True, slots=True)
class _JsonUnits:
    texts: Sequence[Raw | JsonBody]
    hopeless: dict[int, Refusal]

    def __len__(self) -> int:
        return len(self.texts)

    def page(self, numbers: Sequence[int]) -> JsonPages:
        texts = [text for number in numbers if not isinstance(text := self.texts[number], JsonBody)]

        return JsonPages((JsonBody(b"[" + b",".join(texts) + b"]"),))

    def content(self, number: int) -> JsonText | JsonBody:
        text = self.texts[number]

        return text if isinstance(text, JsonBody) else JsonText(bytes(text))


def _texts(body: JsonBody, table: str) -> list[tuple[Raw | JsonBody, Exception | None]]:
    """The documents of a body, not parsed; of one that is no JSON its lines, and if that is no help either, itself."""
    try:
        texts = texts_of(within(body, table))

        return [(text, None) for text in texts]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    except BadRecord as error:
        return [(body, error)]

    try:
        # What only a lenient reader takes: its rows are written down anew, with the names for NaN that it takes.
        return [(dumps(row).encode(), None) for row in rows_of(body, table)]
    except BadRecord as error:
        found = _lines(body)

        return found or [(body, error)]


def _lines(body: JsonBody) -> list[tuple[Raw | JsonBody, Exception | None]]:
    """The lines of a body whose first line is a document; else nothing."""
    lines = [line for line in body.data.split(b"\n") if line and not line.isspace()]

    if body.items is not None or len(lines) < 2:
        return []

    found: list[tuple[Raw | JsonBody, Exception | None]] = []

    for line in lines:
        try:
            decode(line)
        except (ValueError, RecursionError) as error:
            if not found:
                return []

            found.append((JsonBody(line), error))
        else:
            found.append((line.strip(), None))

    return found
