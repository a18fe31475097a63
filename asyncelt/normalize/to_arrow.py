"""Dict pages to Arrow by either of two roads, with what inference would merge silently found out.

``pa.array(rows)`` is one step and carries dates, decimals and bytes; it holds the interpreter lock all the while.
``orjson.dumps`` and Arrow's JSON reader hold it only for the dump. Which one is quicker depends on the shape of the
rows, so a stream measures both and goes on with the better one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast

import msgspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from asyncelt.normalize.gating import Gate
from asyncelt.normalize.json_road import array_of
from asyncelt.normalize.tables import Array

__all__ = ["Dumped", "dump_rows", "infer", "only_json_floats"]

OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
SLICE: Final = 256
NOT_IN_JSON: Final = (b"\xcb\x7f\xf0", b"\xcb\xff\xf0", b"\xcb\x7f\xf8", b"\xcb\xff\xf8")
"""How MessagePack writes the infinities and NaN."""


class Dumped(NamedTuple):
    """Rows as JSON, as far as that goes."""

    data: bytes | None
    """What `read_rows` takes; None where something could not be written."""
    has_other_types: bool
    """Whether that was for values of types that JSON does not have, so that Arrow may still take the rows."""


def dump_rows(items: Sequence[object], gate: Gate) -> Dumped:
    """Write rows as JSON.

    Also finds rows that no road through Arrow survives: nested too deeply, or with keys, integers or text that Arrow
    refuses.
    """
    pieces: list[bytes] = []
    others: list[type] = []

    def note(value: object) -> None:
        if not others:
            others.append(type(value))

    def steps() -> Iterator[None]:
        for start in range(0, len(items), SLICE):
            pieces.append(orjson.dumps(items[start : start + SLICE], note, OPTIONS))
            yield

    try:
        gate.run(steps())
    except TypeError:
        return Dumped(None, has_other_types=False)

    return Dumped(None if others else array_of(pieces), has_other_types=bool(others))


def only_json_floats(items: Sequence[object], gate: Gate) -> bool:
    """Whether no value in the rows is NaN or infinite. Looks at their bytes, so a look-alike may say no."""
    found: list[bool] = []
    encode = msgspec.msgpack.Encoder().encode

    def steps() -> Iterator[None]:
        for start in range(0, len(items), SLICE):
            data = encode(items[start : start + SLICE])
            found.append(any(pattern in data for pattern in NOT_IN_JSON))
            yield

    gate.run(steps())

    return not any(found)


def infer(items: Sequence[object]) -> Array | None:
    """Rows by ``pa.array``; None where it refuses them or would merge values of different types."""
    try:
        array = cast("Array", pa.array(items))
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return None

    return array if pa.types.is_struct(array.type) and _is_honest(array, items) else None


def _is_honest(array: Array, values: Sequence[object]) -> bool:
    """Whether every value of ``array`` has the type it had in Python.

    Looks at the source only where inference is known to merge: numbers, bytes, dates, decimals, lists.
    """
    kind = array.type

    if pa.types.is_struct(kind):
        children = array.flatten() if array.null_count else [array.field(i) for i in range(kind.num_fields)]  # type: ignore[attr-defined]
        names = cast("Any", kind).names

        for name, child in zip(names, children, strict=True):
            if _needs_look(child) and not _is_honest(child, _below(values, name)):
                return False

        return True

    kinds = set(map(type, values))
    kinds.discard(type(None))

    if pa.types.is_list(kind):
        if not kinds <= {list, tuple}:
            return False

        inner = cast("Array", array.flatten())  # type: ignore[attr-defined]

        return not _needs_look(inner) or _is_honest(
            inner, list(chain.from_iterable(cast("list[list[object]]", [v for v in values if v])))
        )

    return len(kinds) <= 1


def _below(values: Sequence[object], name: str) -> Sequence[object]:
    try:
        return list(map(cast("Callable[[object], object]", itemgetter(name)), values))
    except (KeyError, TypeError):
        return [value.get(name) if isinstance(value, dict) else None for value in values]


def _needs_look(array: Array) -> bool:
    kind = array.type

    if pa.types.is_string(kind) or pa.types.is_int64(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return False

    if pa.types.is_float64(kind):
        # An integer or a bool that became a float is integral.
        with np.errstate(invalid="ignore"):
            return bool(pc.any(pc.equal(pc.floor(array), array)).as_py())

    return array.null_count < len(array)
