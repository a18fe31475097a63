"""Types of values, coercion and variant columns."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from itertools import permutations

from tests.differential.cases import Case, case


class Colour(Enum):
    """An enumeration of texts."""

    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A data class, which both sides take as a dict."""

    x: int
    label: str


MOMENT = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))
KINDS: dict[str, object] = {
    "int": 1,
    "float": 2.5,
    "whole-float": 4.0,
    "text": "abc",
    "number-text": "12",
    "bool": True,
    "moment-text": "2024-01-02T03:04:05Z",
}
RICH: dict[str, object] = {
    "decimal": Decimal("1.25"),
    "whole-decimal": Decimal(7),
    "moment": MOMENT,
    "date": date(2024, 5, 6),
    "time": time(7, 8, 9),
    "bytes": b"ab\x00c",
    "uuid": uuid.UUID(int=7),
}
TYPES = ("text", "bigint", "double", "bool", "timestamp", "date", "time", "decimal", "binary", "json", "wei")
ISO_TEXTS = (
    "2024-01-02T03:04:05Z",
    "2024-01-02 03:04:05",
    "2024-01-02T03:04:05.123456+02:00",
    "20240102T030405Z",
    "2024-01-02T03:04",
    "2024-01-02T10",
    "2024-01-02T03:04:05.123456789Z",
    "2024-01-02T03:04:05-0800",
    "2024-01-02 03:04:05 +01:00",
)
NOT_ISO_TEXTS = ("2024-01-02", "03:04:05", "P1D", "2024-W01-1", "20240102", "2024", "2024-01", "tomorrow", "")
TARGETS: dict[str, tuple[object, ...]] = {
    "text": (1, 2.5, 1e20, -0.0, 1e-7, True, "x", Decimal("1.50"), MOMENT, date(2024, 1, 2), b"ab", time(1, 2)),
    "bigint": ("12", " 12 ", "0x1F", "-3", 2.0, Decimal(3), 2.5, "x", True, MOMENT, "1.0", "", b"ab"),
    "double": ("1.5", " 2 ", 3, Decimal("4.25"), True, "x", "1e5", MOMENT),
    "decimal": ("1.5", 2, 2.5, "x", True, "1e3", MOMENT),
    "bool": ("yes", "No", "t", "0", 1, 0, 2, 0.5, 0.0, "maybe", Decimal(0), Decimal("0.1"), MOMENT),
    "timestamp": ("2024-01-02", "2024-01-02T03:04:05+02:00", 1700000000, 1700000000.25, date(2024, 1, 2), "x", True),
    "date": ("2024-01-02", MOMENT, 1700000000, "2024-01-02T23:00:00-05:00", "x", True, 2.5),
    "time": ("03:04:05", "03:04:05.5", "x", 5, MOMENT),
    "binary": ("YWI=", "0x6162", 258, "not base64!", 2.5, True),
    "json": ('{"a": 1}', "[1, 2]", "x", "1", 5, True, {"a": [1]}, [1, {"b": None}]),
    "wei": ("12", 5, 2.0, Decimal(3), "x", 2.5),
}


def _orders(kinds: Mapping[str, object], length: int) -> list[dict[str, object]]:
    """Rows in which every order of ``length`` different kinds comes down one column of its own."""
    orders = [order for order in permutations(kinds, length) if not _variant_of_variant(order)]

    return [{"_".join(order).replace("-", ""): kinds[order[row]] for order in orders} for row in range(length)]


def _variant_of_variant(order: Sequence[str]) -> bool:
    """A text that cannot be the timestamp which an earlier text has made of the column's text variant."""
    first, *rest = order

    return first not in {"text", "number-text", "moment-text"} and rest[:-1] == ["moment-text"] and rest[-1] == "text"


def _targets() -> list[Case]:
    return [
        case(
            f"5.6-to-{target}",
            *({"id": number, "v": value} for number, value in enumerate(values)),
            columns={"v": {"data_type": target}},
        )
        for target, values in TARGETS.items()
    ]


CASES: tuple[Case, ...] = (
    case("5.5-json-kinds", {f"c_{key}": value for key, value in KINDS.items()}),
    case("5.5-python-kinds", {f"c_{key}": value for key, value in RICH.items()}),
    case("5.5-python-kinds-in-nested", {"id": 1, "d": RICH, "l": [RICH, RICH]}),
    case("5.5-python-kinds-in-list", {"id": 1, "l": list(RICH.values())}),
    case("5.5-iso-texts", *({"id": number, "t": text} for number, text in enumerate(ISO_TEXTS))),
    case("5.5-iso-texts-apart", {f"t{number}": text for number, text in enumerate(ISO_TEXTS)}),
    case("5.5-not-iso-texts-apart", {f"t{number}": text for number, text in enumerate(NOT_ISO_TEXTS)}),
    case("5.5-iso-then-not", {"t": ISO_TEXTS[0]}, *({"t": text} for text in NOT_ISO_TEXTS)),
    case("5.5-not-then-iso", {"t": "x"}, *({"t": text} for text in ISO_TEXTS)),
    case("5.5-iso-texts-in-list", {"id": 1, "l": [ISO_TEXTS[0], ISO_TEXTS[2], "x"]}),
    case("5.5-naive-moment-is-utc", {"t": datetime(2024, 1, 2, 3, 4, 5)}),
    case("5.5-moment-of-another-zone", {"t": datetime(2024, 1, 2, 3, 4, 5, tzinfo=EAST)}),
    case("5.5-moment-without-zone-hint", {"t": MOMENT}, columns={"t": {"data_type": "timestamp", "timezone": False}}),
    case("5.5-naive-moment-without-zone-hint", {"t": datetime(2024, 1, 2, 3)}, columns={"t": {"timezone": False}}),
    case("5.5-date-then-moment", {"t": date(2024, 1, 2)}, {"t": MOMENT}),
    case("5.5-moment-then-date", {"t": MOMENT}, {"t": date(2024, 1, 2)}),
    case("5.5-enum", {"c": Colour.RED}, {"c": Colour.BLUE}),
    case("5.5-data-class", {"p": Point(1, "a")}, {"p": Point(2, "b")}),
    case("5.5-data-class-items", Point(1, "a"), Point(2, "b")),
    case("5.5-large-integers-of-64-bit", {"v": 2**63 - 1, "w": -(2**63)}, {"v": 2**53 + 1, "w": 1}),
    case("5.5-large-integer-after-float", {"v": 0.5}, {"v": 2**53 + 1}),
    case("5.4-page-with-inner-lists", 1, [2, 3], [[4], {"x": 5}]),
    case("5.5-small-and-large-floats", {"v": 1e-300}, {"v": 1.7976931348623157e308}, {"v": 0.1 + 0.2}),
    case("5.5-text-of-all-sorts", {"t": "'quoted'"}, {"t": 'a"b\\c'}, {"t": "line\nbreak\ttab"}, {"t": "日本 😀"}),
    case("5.5-text-with-control-characters", {"t": "a\x01b"}, {"t": "\u2028"}, {"t": ""}),
    case("5.5-preferred-by-column", {"v": "1"}, columns={"v": {"data_type": "bigint"}}),
    case("5.5-text-hint-keeps-iso", {"t": ISO_TEXTS[0]}, columns={"t": {"data_type": "text"}}),
    case(
        "5.6-variants-of-one-column",
        *({"v": value} for value in (1, "abc", 2.5, True, date(2024, 1, 2), "2", 2.0, Decimal(3))),
    ),
    case("5.6-variants-over-runs", {"v": 1}, then=[[{"v": "a"}], [{"v": 2.5}, {"v": "b"}], [{"v": "3"}]]),
    case("5.6-variant-infers-a-timestamp", {"v": 1}, {"v": "2024-01-02T03:04:05Z"}),
    case("5.6-variants-in-lists", {"l": [1, "a", 2.5, True]}, {"l": ["b", 2]}),
    case("5.6-variants-in-nested", {"d": {"v": 1}, "l": [{"v": "x"}]}, {"d": {"v": "y"}, "l": [{"v": 1}]}),
    case("5.6-dict-at-a-scalar-column", {"v": 1}, {"v": {"k": 2}}, {"v": [3]}),
    case("5.6-bool-then-ints", {"v": True}, {"v": 1}, {"v": 0}, {"v": 7}, {"v": "yes"}, {"v": 0.5}),
    case("5.6-int-then-bool", {"v": 1}, {"v": True}, {"v": False}),
    case("5.6-float-then-bool-and-int", {"v": 1.5}, {"v": True}, {"v": 0}, {"v": 1}),
    case("5.6-text-then-everything", {"v": "x"}, {"v": 1}, {"v": 1.0}, {"v": 1e16}, {"v": True}, {"v": None}),
    case("5.6-every-pair-of-json-kinds", *_orders(KINDS, 2)),
    case("5.6-every-triple-of-json-kinds", *_orders(KINDS, 3)),
    case("5.6-every-pair-of-python-kinds", *_orders({**KINDS, **RICH}, 2)),
    *_targets(),
    case("5.6-decimals-to-text", {"v": "x"}, *({"v": Decimal(text)} for text in ("1E+5", "1E-10", "100.000", "0E-5"))),
    case("5.6-moments-to-text", {"v": "x"}, {"v": MOMENT}, {"v": MOMENT.astimezone(EAST)}, {"v": datetime(2024, 1, 2)}),
    case("5.9-decimal-precision", {"v": Decimal("1.123456789")}, {"v": Decimal("1.1234567891")}),
    case(
        "5.9-decimal-hint",
        {"v": Decimal("1.125")},
        columns={"v": {"data_type": "decimal", "precision": 10, "scale": 2}},
    ),
    case("5.9-text-precision", {"v": "abc"}, columns={"v": {"data_type": "text", "precision": 2}}),
    case("5.9-bigint-precision", {"v": 5}, columns={"v": {"data_type": "bigint", "precision": 16}}),
    case("5.9-timestamp-precision", {"v": MOMENT}, columns={"v": {"data_type": "timestamp", "precision": 3}}),
    case("5.9-binary", {"v": b"\x00"}, {"v": bytes(range(256))}),
)
