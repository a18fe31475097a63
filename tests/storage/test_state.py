from __future__ import annotations

import base64
import dataclasses
from collections import namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given, settings

from asyncelt.errors import ConfigError, StorageError
from asyncelt.schema.system import pipeline_state_table
from asyncelt.storage.state import (
    HexBytes,
    Wei,
    bump_state,
    decode_state,
    decode_typed_json,
    default_state,
    encode_state,
    encode_typed_json,
    migrate_state,
    state_hash,
    state_row_values,
)
from tests.support.strategies import state_values


class Mood(Enum):
    GOOD = "good"


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


Pair = namedtuple("Pair", "a b")

VALUES = {
    "decimal": Decimal("1.50"),
    "at": datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "zoned": datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    "naive": datetime(2024, 1, 2),
    "on": date(2024, 1, 2),
    "clock": time(1, 2, 3, 4),
    "raw": b"\x00\xff",
    "hex": HexBytes(b"\x01\x02"),
    "wei": Wei(2**200),
    "deep": [{"a": [Decimal(1), None, True, 1.5, "text"]}],
}


@settings(max_examples=60, deadline=None)
@given(state_values)
def test_values_come_back_as_they_were(value):
    assert decode_state(encode_state({"value": value})) == {"value": value}


def test_every_kind_of_value_keeps_its_type():
    found = decode_state(encode_state(VALUES))

    assert found == VALUES
    assert {key: type(value) for key, value in found.items()} == {key: type(value) for key, value in VALUES.items()}
    assert state_hash(found) == state_hash(VALUES)


def test_empty_bytes_stay_bytes():
    assert decode_state(encode_state({"raw": [b"", {"a": b""}]})) == {"raw": [b"", {"a": b""}]}


def test_values_that_become_simpler():
    uuid = UUID(int=5)
    doc = {"uuid": uuid, "enum": Mood.GOOD, "point": Point(1, datetime(2024, 1, 1)), "pair": Pair(1, 2), 3: "key"}

    assert decode_state(encode_state(doc)) == {
        "uuid": str(uuid),
        "enum": "good",
        "point": {"x": 1, "at": datetime(2024, 1, 1)},
        "pair": {"a": 1, "b": 2},
        "3": "key",
    }


@pytest.mark.parametrize(
    "value,path",
    [
        ({"sources": {"github": {"seen": {1, 2}}}}, r"state\['sources'\]\['github'\]\['seen'\] cannot be stored: set"),
        ({"a": [1, {"b": object()}]}, r"state\['a'\]\[1\]\['b'\] cannot be stored: object"),
        ({"a": 2**70}, r"state\['a'\] cannot be stored: int .*64-bit"),
        ({"a": float("nan"), "b": None}, r"state\['a'\] cannot be stored"),
        ({"a": [0.5, float("-inf")]}, r"state\['a'\]\[1\] cannot be stored"),
        ({"a": "\ud800"}, r"state\['a'\] cannot be stored"),
    ],
)
def test_values_that_cannot_be_stored_are_named(value, path):
    with pytest.raises(ConfigError, match=path):
        encode_state(value)


def test_the_local_part_is_not_stored_and_does_not_count():
    doc = {**default_state("p", "/here"), "x": 1}

    assert "_local" not in decode_state(encode_state(doc))
    assert state_hash(doc) == state_hash({**doc, "_local": {}, "_state_version": 9})


def test_the_first_hash_is_no_change_and_later_ones_are():
    first = bump_state(default_state("p"))
    same = bump_state(first)
    changed = bump_state({**first, "x": 1})
    again = bump_state({**default_state("p"), "x": 2}, previous=changed)

    assert [doc["_state_version"] for doc in (first, same, changed, again)] == [0, 0, 1, 2]
    assert changed["_version_hash"] == state_hash(changed)
    assert "_version_hash" not in default_state("p")


@pytest.mark.parametrize(
    "text", ["", "not json", base64.b64encode(b"abcd").decode(), encode_state({})[:10], "[1]", "ä"]
)
def test_damaged_states_are_refused(text):
    with pytest.raises(StorageError, match="stored pipeline state"):
        decode_state(text)


def test_a_state_may_be_plain_json():
    assert decode_state('{"a": 1}') == {"a": 1}


def test_marked_text_that_does_not_parse_stays_text():
    values = ["\uf026abc", "\uf027never", "\uf026", "", "\uf02ex", "\uf0291"]

    assert decode_typed_json(encode_typed_json(values)) == values


def test_the_row_has_the_columns_of_the_table():
    doc = bump_state(default_state("p"))
    at = datetime(2024, 1, 1, tzinfo=UTC)
    row = state_row_values(doc, "123.4", at)

    assert list(pipeline_state_table().columns) == list(row)
    assert (row["version"], row["engine_version"], row["pipeline_name"], row["created_at"]) == (0, 4, "p", at)
    assert len(row["_dlt_id"]) == 14
    assert state_row_values(doc, "1", at, "id")["_dlt_id"] == "id"
    assert decode_state(row["state"])["_version_hash"] == row["version_hash"]


def test_older_engines_are_brought_up_to_date_and_newer_refused():
    old = {
        "_state_engine_version": 1,
        "_state_version": 3,
        "pipeline_name": "p",
        "destination": "dlt.destinations.duckdb",
    }
    new = migrate_state(old)

    assert (new["_state_engine_version"], new["destination_type"], new["destination_name"]) == (
        4,
        "dlt.destinations.duckdb",
        None,
    )
    assert "destination" not in new

    with pytest.raises(StorageError, match="engine version 5"):
        migrate_state({"_state_engine_version": 5})


# ------------------------------------------------------------------------------------- against the reference


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("dlt")
    from dlt.common import versioned_state

    return versioned_state


@settings(max_examples=60, deadline=None)
@given(value=state_values.filter(lambda value: "b''" not in repr(value)))  # which it reads as text
def test_the_reference_reads_ours_and_writes_the_same(reference, value):
    doc = {"pipeline_name": "p", "value": value}

    assert reference.compress_state(doc) == encode_state(doc)
    assert reference.decompress_state(encode_state(doc)) == doc
    assert reference.generate_state_version_hash(doc, ["_local"]) == state_hash(doc)


def test_special_values_are_written_as_the_reference_writes_them(reference):
    from dlt.common.libs.hexbytes import HexBytes as TheirHexBytes
    from dlt.common.wei import Wei as TheirWei

    theirs = {**VALUES, "hex": TheirHexBytes("0x0102"), "wei": TheirWei(2**200)}

    assert reference.compress_state(theirs) == encode_state(VALUES)
    assert decode_state(reference.compress_state(theirs)) == VALUES


def test_versions_move_as_the_reference_s_do(reference):
    ours = default_state("p")
    theirs = default_state("p")

    for number in (None, 1, 1, 2):
        ours, theirs["n"] = {**ours, "n": number}, number
        ours = bump_state(ours)
        reference.bump_state_version_if_modified(theirs, ["_local"])

        assert theirs == ours


def test_a_document_of_a_real_run():
    """Recorded from a run of the reference."""
    text = (
        "eNpVjssKwjAQRf9ltpaKUBAKLnThTs1CqCASxiTaaJqWzqSg4r+b+oC6Pff5AEmMbGRnWrK1h3yS/JDxZ+sHSpaARkYyLD1WBnLQ"
        "BAk0tjGuN35h3apItTlhcCxJlabCf23ACPL9mx76CLH1yHFM8q15DzhOB5hSHdRVH+Hf/Cn3wbn4/XtXlkhlbAiLtbDLUX1VQpz0"
        "XY3nxXFKa789F6JTl+yCHW6yXaj0agbPF3XVYKU="
    )
    doc = decode_state(text)

    assert (doc["pipeline_name"], doc["dataset_name"], doc["schema_names"]) == ("orc", "ds", ["orc"])
    assert doc["_version_hash"] == state_hash(doc) == "uBNPiF+okcPPfdzc/AWb7sNnTgWPvcj4javaO4XumdM="
    assert encode_state(doc) == text
