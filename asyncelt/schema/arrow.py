"""Between columns and Arrow types: the one type that data of a column has inside the engine, and the way back."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from asyncelt.errors import SchemaError
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.model import Column
from asyncelt.types import ColumnName, DataType

__all__ = ["arrow_schema", "arrow_type", "column_from_arrow"]

DECIMAL128_DIGITS: Final = 38
DECIMAL256_DIGITS: Final = 76
BIGINT_BITS: Final = 64
UNIT_DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
FIXED_TYPES: Final[dict[DataType, pa.DataType]] = {
    "text": pa.string(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "binary": pa.binary(),
    "json": pa.string(),
}


def arrow_type(column: Column, capabilities: Capabilities) -> pa.DataType:
    """The Arrow type of a column's data between normalizing and loading.

    Timestamps carry UTC unless the column says ``timezone: false``; their unit follows the precision (3 → ms, 6 → us,
    9 → ns). Integers always have 64 bits. Decimals without a precision take the destination's.

    Raises:
        SchemaError: The column has no type yet, or more digits than Arrow or the destination can hold.
    """
    if column.data_type is None:
        raise SchemaError(f"Column {column.name!r} has no data type yet, so it has no Arrow type.")

    if fixed := FIXED_TYPES.get(column.data_type):
        return fixed

    digits = capabilities.timestamp_precision if column.precision is None else column.precision

    if column.data_type == "timestamp":
        if column.timezone is False:
            return pa.timestamp(_unit(digits))

        # Columns with a zone hold microseconds at least, whatever is asked for (the reference's do too).
        return pa.timestamp(_unit(max(digits, 6)), tz="UTC")

    if column.data_type == "time":
        return pa.time64("ns" if _unit(digits) == "ns" else "us")

    if column.data_type == "wei":
        return _wei(capabilities.wei_precision)

    return _decimal(column, capabilities)


def arrow_schema(columns: list[Column], capabilities: Capabilities) -> pa.Schema:
    """Arrow schema of the columns that have a type, in the given order; all fields nullable.

    Whether a column may be null is checked where rows are, not by Arrow.
    """
    return pa.schema([pa.field(c.name, arrow_type(c, capabilities)) for c in columns if c.data_type is not None])


def column_from_arrow(name: ColumnName, field: pa.Field[Any], capabilities: Capabilities | None = None) -> Column:
    """The column that Arrow data brings with it.

    Struct, list and map types become ``json``; dictionaries count as their values, extension types as their storage;
    a field of nulls only has no type yet. Integers below 64 bits keep their width as precision.

    Args:
        name: Final name of the column.
        field: Type and nullability.
        capabilities: When given, the column is that of *loaded data* rather than of a declaration: naive timestamps
            count as UTC, and a precision that is the destination's own is left out.

    Raises:
        SchemaError: No column type can hold this Arrow type (durations, intervals).
    """
    found = _properties(field.type)

    if found is None:
        raise SchemaError(
            f"Column {name!r}: the Arrow type {field.type} has no counterpart; cast it before it is loaded "
            "(a duration, for instance, to int64)."
        )

    if capabilities is not None and found.get("data_type") in {"timestamp", "time"}:
        found.pop("timezone", None)

        if found.get("precision") == capabilities.timestamp_precision:
            found.pop("precision", None)

    return Column(name=name, nullable=field.nullable, **found)


def _unit(digits: int) -> Any:
    return next((unit for unit, held in UNIT_DIGITS.items() if digits <= held), "ns")


def _wei(precision: tuple[int, int]) -> pa.DataType:
    digits, scale = precision

    if digits <= DECIMAL128_DIGITS:
        return pa.decimal128(digits, scale)

    # Arrow stops at 76 digits; of a larger type (78 digits hold 256 bits) the leading ones are kept.
    held = min(digits, DECIMAL256_DIGITS)

    return pa.decimal256(held, max(0, scale - (digits - held)))


def _decimal(column: Column, capabilities: Capabilities) -> pa.DataType:
    default_digits, default_scale = capabilities.decimal_precision
    digits = default_digits if column.precision is None else column.precision
    scale = min(default_scale, digits) if column.scale is None else column.scale
    bound = min(capabilities.max_decimal_precision, DECIMAL256_DIGITS)

    if not 0 < digits <= bound:
        raise SchemaError(
            f"Column {column.name!r}: decimals of {digits} digits cannot be held; the destination holds {bound}."
        )

    return pa.decimal128(digits, scale) if digits <= DECIMAL128_DIGITS else pa.decimal256(digits, scale)


def _properties(kind: pa.DataType) -> dict[str, Any] | None:
    """Data type, precision, scale and timezone; empty for a type of nulls, None for one that cannot be loaded."""
    types = pa.types

    if isinstance(kind, pa.BaseExtensionType):
        return _properties(kind.storage_type)

    if types.is_dictionary(kind):
        return _properties(kind.value_type)

    if types.is_null(kind):
        return {}

    if types.is_integer(kind):
        narrow = {} if kind.bit_width == BIGINT_BITS else {"precision": kind.bit_width}

        return {"data_type": "bigint", **narrow}

    if types.is_timestamp(kind):
        found: dict[str, Any] = {"data_type": "timestamp", "precision": UNIT_DIGITS[kind.unit]}

        return found if kind.tz is not None else {**found, "timezone": False}

    if types.is_time(kind):
        return {"data_type": "time", "precision": UNIT_DIGITS[kind.unit]}

    if types.is_decimal(kind):
        return {"data_type": "decimal", "precision": kind.precision, "scale": kind.scale}

    if types.is_fixed_size_binary(kind):
        return {"data_type": "binary", "precision": kind.byte_width}

    simple = next((data_type for data_type, tests in _SIMPLE if any(test(kind) for test in tests)), None)

    return None if simple is None else {"data_type": simple}


_SIMPLE: Final[tuple[tuple[DataType, tuple[Any, ...]], ...]] = (
    ("text", (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)),
    ("double", (pa.types.is_floating,)),
    ("bool", (pa.types.is_boolean,)),
    ("date", (pa.types.is_date,)),
    ("binary", (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)),
    ("json", (pa.types.is_nested,)),
)
