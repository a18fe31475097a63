"""Binary COPY into Arrow batches, value by value."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, localcontext
from functools import partial
from typing import Any

import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy.columns import CopyColumn

__all__ = ["decode"]

_HEADER = 19
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 - the zone is part of the Arrow type
_DAY = date(2000, 1, 1)


def decode(chunks: Iterable[bytes], columns: Sequence[CopyColumn], *, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a COPY in batches of at most ``batch_rows``; an empty one if there are none."""
    kinds = [_kind(one.type) for one in columns]
    schema = pa.schema([pa.field(one.name, arrow) for one, (arrow, _) in zip(columns, kinds, strict=True)])
    rows: list[list[object]] = []
    count = 0

    def batch() -> pa.RecordBatch:
        nonlocal rows
        values = [[row[at] for row in rows] for at in range(len(columns))]
        rows = []

        return pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)], schema=schema
        )

    for raw in _rows(chunks):
        rows.append([None if value is None else kind[1](value) for value, kind in zip(raw, kinds, strict=True)])

        if len(rows) >= batch_rows:
            count += 1
            yield batch()

    if rows or not count:
        yield batch()


def _rows(chunks: Iterable[bytes]) -> Iterator[list[bytes | None]]:
    source = iter(chunks)
    buffer = bytearray()
    at = 0

    def take(size: int) -> bytes:
        nonlocal at

        while len(buffer) - at < size:
            del buffer[:at]
            at = 0
            buffer.extend(next(source))

        at += size

        return bytes(buffer[at - size : at])

    take(_HEADER)

    while (fields := struct.unpack("!h", take(2))[0]) >= 0:
        row: list[bytes | None] = []

        for _ in range(fields):
            size = struct.unpack("!i", take(4))[0]
            row.append(None if size < 0 else take(size))

        yield row


def _number(layout: str, value: bytes) -> Any:
    return struct.unpack(layout, value)[0]


def _moment(value: bytes) -> datetime:
    return _EPOCH + timedelta(microseconds=_number("!q", value))


def _time(value: bytes) -> time:
    return _moment(value).time()


def _date(value: bytes) -> date:
    return _DAY + timedelta(days=_number("!i", value))


def _decimal(value: bytes) -> Decimal:
    count, weight, sign, scale = struct.unpack("!hhHh", value[:8])
    digits = struct.unpack(f"!{count}h", value[8:])

    with localcontext(prec=1000):
        total = sum((Decimal(digit).scaleb(4 * (weight - at)) for at, digit in enumerate(digits)), Decimal(0))

        return (-total if sign == 0x4000 else total).quantize(Decimal(1).scaleb(-scale))


_FIXED: dict[str, tuple[pa.DataType, Callable[[bytes], object]]] = {
    "smallint": (pa.int64(), partial(_number, "!h")),
    "integer": (pa.int64(), partial(_number, "!i")),
    "bigint": (pa.int64(), partial(_number, "!q")),
    "real": (pa.float64(), partial(_number, "!f")),
    "double precision": (pa.float64(), partial(_number, "!d")),
    "boolean": (pa.bool_(), lambda value: value != b"\0"),
    "date": (pa.date32(), _date),
    "bytea": (pa.binary(), bytes),
    "jsonb": (pa.string(), lambda value: value[1:].decode()),
}


def _kind(name: str) -> tuple[pa.DataType, Callable[[bytes], object]]:
    if name in _FIXED:
        return _FIXED[name]

    if name.startswith("numeric"):
        digits = re.search(r"\((\d+),(\d+)\)", name)
        precision, scale = (38, 9) if digits is None else (int(digits[1]), int(digits[2]))

        return (
            pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(min(precision, 76), scale)
        ), _decimal

    if name.startswith("timestamp"):
        return (pa.timestamp("us") if "without" in name else pa.timestamp("us", "UTC")), _moment

    if name.startswith("time"):
        return pa.time64("us"), _time

    return pa.string(), bytes.decode
