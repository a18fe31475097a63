"""Numerics on the wire: decimal groups of four digits, from and to Arrow's binary decimals, column by column.

A value is ``int16 groups, int16 weight, uint16 sign, uint16 scale``, then the groups. The weight is the power of 10,000
of the first group; zero groups at either end are left out.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from asyncelt.destinations.postgres_impl.copy.arrays import Array, Bools, Bytes, Positions
from asyncelt.destinations.postgres_impl.copy.types import Refused

__all__ = ["decimals_from_wire", "number_from_wire", "number_to_wire", "wire_from_decimals"]

Limbs: TypeAlias = "npt.NDArray[np.uint64]"
"""One row of 32-bit limbs per value, least significant first, each in 64 bits to leave room for a carry."""

HEADER: Final = 8
_GROUP: Final = 10_000
_PAIR: Final = _GROUP * _GROUP
_LOW: Final = np.uint64(0xFFFFFFFF)
_NEGATIVE: Final = 0x4000
_SPECIAL: Final = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_MOST_DIGITS: Final = 131_072
"""Before the point. Behind it there are at most 16,383."""
_MOST_SCALE: Final = 16_383
_NUMBER: Final = re.compile(
    r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?\s*|\s*[+-]?(nan|inf|infinity)\s*", re.IGNORECASE | re.ASCII
)


def wire_from_decimals(values: Array) -> tuple[Positions, Bytes]:
    """Offsets and bytes of the wire form of a ``decimal128`` or ``decimal256`` array; nulls count as zero."""
    scale = values.type.scale
    magnitudes, is_negative = _magnitudes(values)
    groups = _groups(magnitudes, scale)
    is_used = groups != 0
    count = groups.shape[1]
    any_used = is_used.any(axis=1)
    first = np.where(any_used, is_used.argmax(axis=1), 0)
    last = np.where(any_used, count - is_used[:, ::-1].argmax(axis=1), 0)
    fields = np.empty((len(values), HEADER // 2 + count), ">u2")
    fields[:, 0] = last - first
    fields[:, 1] = np.where(any_used, count - _fraction_groups(scale) - 1 - first, 0).astype(np.int16).view(np.uint16)
    fields[:, 2] = np.where(is_negative & any_used, _NEGATIVE, 0)
    fields[:, 3] = scale
    fields[:, 4:] = groups
    places = np.arange(count)
    keep = np.ones(fields.shape, bool)
    keep[:, 4:] = (places >= first[:, None]) & (places < last[:, None])
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(HEADER + 2 * (last - first), out=offsets[1:])

    return offsets, fields[keep].view(np.uint8)


def decimals_from_wire(data: Bytes, starts: Positions, is_valid: Bools, kind: pa.DataType) -> Bytes:
    """The bytes of a decimal array of type ``kind`` out of the values that start at ``starts``.

    Raises:
        Refused: A value is no number, or has more digits than the type.
    """
    decimal: Any = kind
    scale = decimal.scale
    rows = np.flatnonzero(is_valid)
    halves = np.ndarray((len(data) - 1,), ">u2", data, strides=(1,))
    at = starts[rows]
    used = halves[at].astype(np.int64)
    weight = halves[at + 2].view(">i2").astype(np.int64)
    sign = halves[at + 4].astype(np.int64)

    for index in np.flatnonzero(sign > _NEGATIVE)[:1]:
        name = _SPECIAL.get(int(sign[index]), "no number")
        raise Refused(int(rows[index]), f"is {name}, which a decimal cannot hold; cast the column to text or double")

    fraction = _fraction_groups(scale)
    whole = max(-(-(decimal.precision - scale) // 4), 0)
    within = np.arange(used.sum()) - np.repeat(np.cumsum(used) - used, used)
    groups = halves[np.repeat(at + HEADER, used) + 2 * within]
    owner = np.repeat(np.arange(len(rows)), used)
    place = np.repeat(whole - 1 - weight, used) + within
    fits = (place >= 0) & (place < whole + fraction)

    for index in np.flatnonzero(~fits & (groups != 0))[:1]:
        raise Refused(int(rows[owner[index]]), f"has more digits than {decimal}")

    matrix = np.zeros((len(rows), whole + fraction), np.uint64)
    matrix[owner[fits], place[fits]] = groups[fits]

    for index in np.flatnonzero(_is_finer(matrix, decimal.precision - scale, scale))[:1]:
        raise Refused(int(rows[index]), f"has more digits than {decimal}")

    limbs = np.zeros((len(is_valid), decimal.byte_width // 4), np.uint64)
    limbs[rows] = _signed(_join(matrix, scale, decimal.byte_width // 4), sign == _NEGATIVE)

    return limbs.astype("<u4").view(np.uint8).reshape(-1)


def number_to_wire(text: str) -> bytes | None:
    """The wire form of one number written as text, of any size; None if it is none or too large for PostgreSQL."""
    if _NUMBER.fullmatch(text) is None:
        return None

    try:
        sign, digits, exponent = Decimal(text.strip()).as_tuple()
    except InvalidOperation:
        return None

    if not isinstance(exponent, int):
        special = "NaN" if exponent != "F" else "-Infinity" if sign else "Infinity"
        code = next(code for code, name in _SPECIAL.items() if name == special)

        return np.array([0, 0, code, 0], ">u2").tobytes()

    if len(digits) + exponent > _MOST_DIGITS or -exponent > _MOST_SCALE:
        return None

    scale = max(-exponent, 0)
    plain = "".join(map(str, digits)) + "0" * (max(exponent, 0) + -scale % 4)
    plain = "0" * (-len(plain) % 4) + plain
    groups = [int(plain[start : start + 4]) for start in range(0, len(plain), 4)]
    weight = len(groups) - _fraction_groups(scale) - 1
    used = [index for index, group in enumerate(groups) if group]

    if not used:
        return np.array([0, 0, 0, scale], ">u2").tobytes()

    kept = groups[used[0] : used[-1] + 1]
    header = [len(kept), (weight - used[0]) & 0xFFFF, _NEGATIVE if sign else 0, scale]

    return np.array(header + kept, ">u2").tobytes()


def number_from_wire(data: bytes) -> str:
    """One number as PostgreSQL writes it as text, with all its digits."""
    fields = np.frombuffer(data, ">u2").astype(int).tolist()
    used, weight, sign, scale = fields[:4]

    if sign in _SPECIAL:
        return _SPECIAL[sign]

    weight -= (weight & 0x8000) << 1
    groups = "".join(f"{group:04}" for group in fields[4 : 4 + used])
    groups = "0" * (4 * max(-1 - weight, 0)) + groups
    point = 4 * max(weight + 1, 0)
    groups = groups.ljust(point, "0")
    whole = groups[:point].lstrip("0") or "0"
    behind = groups[point:][:scale].ljust(scale, "0")

    return ("-" if sign == _NEGATIVE else "") + whole + ("." + behind if scale else "")


def _is_finer(groups: Limbs, whole: int, scale: int) -> Bools:
    """Whether digits stand in the first and last group where a type of so many digits has none."""
    found = np.zeros(len(groups), bool)

    if whole > 0 and whole % 4:
        found |= groups[:, 0] >= 10 ** (whole % 4)

    if scale % 4:
        found |= groups[:, -1] % np.uint64(10 ** (-scale % 4)) != 0

    return found


def _fraction_groups(scale: int) -> int:
    return -(-scale // 4)


def _magnitudes(values: Array) -> tuple[Limbs, Bools]:
    width = values.type.byte_width // 4
    content: Any = values.buffers()[1]
    raw = np.frombuffer(content, "<u4", (values.offset + len(values)) * width)
    limbs = raw.reshape(-1, width)[values.offset :].astype(np.uint64)

    if values.null_count:
        limbs[np.asarray(values.is_null())] = 0

    is_negative = limbs[:, -1] >> np.uint64(31) == 1

    return _signed(limbs, is_negative), is_negative


def _signed(limbs: Limbs, is_negative: Bools) -> Limbs:
    """The two's complement of the rows that are negative."""
    if not is_negative.any():
        return limbs

    flipped = limbs[is_negative] ^ _LOW
    carry = np.ones(len(flipped), np.uint64)

    for index in range(flipped.shape[1]):
        flipped[:, index] += carry
        carry = flipped[:, index] >> np.uint64(32)
        flipped[:, index] &= _LOW

    limbs[is_negative] = flipped

    return limbs


def _groups(limbs: Limbs, scale: int) -> npt.NDArray[np.uint16]:
    """Groups of four digits, most significant first, aligned at the decimal point."""
    columns = [np.ascontiguousarray(limbs[:, index]) for index in range(limbs.shape[1])]
    behind = scale % 4
    lowest: list[Any] = []

    if behind:
        lowest.append(_divide(columns, 10**behind) * np.uint64(10 ** (4 - behind)))

    while columns:
        pair = _divide(columns, _PAIR)
        upper = pair // np.uint64(_GROUP)
        lowest += [pair - upper * np.uint64(_GROUP), upper]

    groups = np.zeros((len(limbs), len(lowest)), np.uint16)

    for index, group in enumerate(lowest):
        groups[:, len(lowest) - 1 - index] = group

    return groups


def _divide(columns: list[Any], divisor: int) -> Any:
    """Divide in place, drop leading limbs that are zero everywhere, return the remainder."""
    by = np.uint64(divisor)
    remainder = np.zeros(len(columns[0]) if columns else 0, np.uint64)

    for index in reversed(range(len(columns))):
        current = (remainder << np.uint64(32)) | columns[index]
        columns[index] = current // by
        remainder = current - columns[index] * by

    while columns and not columns[-1].any():
        columns.pop()

    return remainder


def _join(groups: Limbs, scale: int, width: int) -> Limbs:
    """The numbers behind rows of groups, as ``width`` limbs. The inverse of `_groups`."""
    columns = [np.zeros(len(groups), np.uint64) for _ in range(width)]
    behind = scale % 4
    count = groups.shape[1]

    for index in range(count):
        group = groups[:, index]
        factor = _GROUP

        if behind and index == count - 1:
            factor = 10**behind
            group = group // np.uint64(10 ** (4 - behind))

        carry = group

        for place in range(min(width, index // 2 + 1)):
            current = columns[place] * np.uint64(factor) + carry
            columns[place] = current & _LOW
            carry = current >> np.uint64(32)

    return np.stack(columns, axis=1) if columns else np.zeros((len(groups), 0), np.uint64)
