"""Type detection of the first value of a column."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from asyncelt.errors import SchemaError
from asyncelt.normalize.detect import DETECTIONS, detect

NOW = 1_700_000_000.0


class HexBytes(bytes):
    """Stands for the class of this name that blockchain libraries bring."""


@pytest.mark.parametrize(
    ("detection", "value", "data_type", "expected"),
    [
        ("iso_timestamp", "2024-01-01T10:30:00Z", "text", "timestamp"),
        ("iso_timestamp", "2024-01-01 10:30", "text", "timestamp"),
        ("iso_timestamp", "2024-01-01T10", "text", "timestamp"),
        ("iso_timestamp", "20240101T103000.5+0200", "text", "timestamp"),
        ("iso_timestamp", "2024/01/01 10:30:00", "text", "timestamp"),
        ("iso_timestamp", "2024-01-01T10:30:00.123456789Z", "text", "timestamp"),
        ("iso_timestamp", "2024-01-01", "text", None),
        ("iso_timestamp", "2024-W01-1", "text", None),
        ("iso_timestamp", "10:30:00", "text", None),
        ("iso_timestamp", "P1D", "text", None),
        ("iso_timestamp", "1700000000", "text", None),
        ("iso_timestamp", "2024-01-01T24:00:00", "text", None),
        ("iso_timestamp", "", "text", None),
        ("iso_timestamp", 1700000000, "bigint", None),
        ("iso_date", "2024-01-01", "text", "date"),
        ("iso_date", "2024", "text", "date"),
        ("iso_date", "2024-01-01T10:30", "text", None),
        ("iso_date", "10:30", "text", None),
        ("timestamp", 1_700_000_000, "bigint", "timestamp"),
        ("timestamp", 1_700_000_000.5, "double", "timestamp"),
        ("timestamp", 1_700_000_000 + 5 * 31_536_000, "bigint", "timestamp"),
        ("timestamp", 1_700_000_001 + 5 * 31_536_000, "bigint", None),
        ("timestamp", float("nan"), "double", None),
        ("timestamp", True, "bool", None),
        ("timestamp", "1700000000", "text", None),
        ("large_integer", 2**63 - 1, "bigint", None),
        ("large_integer", 2**63, "bigint", "wei"),
        ("large_integer", -(2**70), "bigint", None),
        ("large_integer", 578960446186580977117854925043439539267, "bigint", "text"),
        ("large_integer", Decimal(2**63), "decimal", None),
        ("hexbytes_to_text", HexBytes(b"a"), "binary", "text"),
        ("hexbytes_to_text", b"a", "binary", None),
        ("wei_to_double", Decimal(1), "wei", "double"),
        ("wei_to_double", Decimal(1), "decimal", None),
    ],
)  # fmt: skip
def test_detections(detection: str, value: Any, data_type: Any, expected: Any) -> None:
    """Each detection recognises what the reference's recognises."""
    assert expected == detect(value, data_type, [detection], NOW)


def test_the_first_detection_that_recognises_the_value_decides() -> None:
    """Detections are asked in the order of the schema; without any, nothing is detected."""
    assert detect(2**63, "bigint", ["iso_timestamp", "large_integer", "timestamp"], 2.0**63) == "wei"
    assert detect(2**63, "bigint", ["timestamp", "large_integer"], 2.0**63) == "timestamp"
    assert detect("2024-01-01T10:30", "text", [], NOW) is None


def test_an_unknown_detection_is_refused() -> None:
    """The error names it and lists what there is."""
    with pytest.raises(SchemaError, match=r"'is_prime'.*iso_date"):
        detect(1, "bigint", ["is_prime"], NOW)


def test_the_names_are_those_of_the_reference() -> None:
    """Stored schemas of the reference name these."""
    expected = {"timestamp", "iso_timestamp", "iso_date", "large_integer", "hexbytes_to_text", "wei_to_double"}

    assert expected == set(DETECTIONS)
