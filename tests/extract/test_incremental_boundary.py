"""Rows at the last value: none is loaded twice or lost, however many there are, and the state stays small."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import orjson
import pyarrow as pa
import pytest

import asyncelt
from asyncelt.errors import AsynceltWarning, IncrementalBoundaryChanged
from asyncelt.extract.incremental.boundary import CEILING, WARN_ABOVE
from asyncelt.extract.incremental.digests import digest, legacy_digest
from asyncelt.sources import incremental
from tests.extract.test_incremental import State, cursor_of, rows_of

pytestmark = pytest.mark.filterwarnings("ignore:Resource 'r', cursor 'at'")

MANY = CEILING + 500
FORMS = {
    "pages": lambda rows: [rows[start : start + 1000] for start in range(0, len(rows), 1000)],
    "bytes": lambda rows: [msgspec.json.encode(rows)],
    "arrow": lambda rows: [pa.Table.from_pylist(rows)] if rows else [],
}


def rows(numbers: Sequence[int], at: int = 1) -> list[dict[str, object]]:
    return [{"id": number, "at": at} for number in numbers]


async def run(state: State, data: list[dict[str, object]], form: str = "pages", **hints: object) -> list[int]:
    resource = asyncelt.resource(FORMS[form](data), name="r", incremental=incremental("at"), **hints)  # type: ignore[call-overload]

    return [row["id"] for row in await rows_of(resource, state)]  # type: ignore[index]


@pytest.mark.parametrize("form", FORMS)
async def test_a_crowd_is_known_by_its_number_and_sum(form: str) -> None:
    state: State = {}
    assert len(await run(state, rows(range(MANY)), form)) == MANY
    assert cursor_of(state)["unique_hashes"] == []
    assert len(orjson.dumps(state)) < 500

    shuffled = random.Random(1).sample(range(MANY), MANY)
    assert await run(state, rows([*shuffled, MANY, MANY + 1]), form) == [MANY, MANY + 1]
    assert await run(state, rows(range(MANY + 3)), form) == [MANY + 2]
    assert await run(state, [], form) == []
    assert await run(state, rows(range(MANY + 3)), form) == []
    assert await run(state, rows([1], at=2), form) == [1]
    assert cursor_of(state)["unique_hashes"] == [digest({"id": 1, "at": 2})]
    assert "boundary" not in cursor_of(state)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "numbers",
    [[*range(1, MANY), MANY], [MANY, *range(MANY)], range(5)],
    ids=["one-is-gone-and-one-is-new", "a-new-one-comes-first", "most-are-gone"],
)
async def test_a_crowd_that_is_another_one_fails_before_anything_is_lost(form: str, numbers: Sequence[int]) -> None:
    state: State = {}
    await run(state, rows(range(MANY)), form)

    with pytest.raises(IncrementalBoundaryChanged, match=f"{MANY} rows with the last value were loaded by earlier"):
        await run(state, rows(numbers), form)


async def test_a_crowd_that_is_merged_comes_again() -> None:
    state: State = {}
    hints = {"primary_key": "id", "write_disposition": "merge"}
    await run(state, rows(range(MANY)), **hints)

    assert await run(state, rows(range(5)), **hints) == list(range(5))


async def test_a_crowd_grows_out_of_rows_that_were_known_one_by_one() -> None:
    state: State = {}
    assert len(await run(state, rows(range(CEILING)))) == CEILING
    assert len(cursor_of(state)["unique_hashes"]) == CEILING  # type: ignore[arg-type]
    assert await run(state, rows(range(CEILING + 5))) == list(range(CEILING, CEILING + 5))
    assert cursor_of(state)["unique_hashes"] == []
    assert await run(state, rows(range(CEILING + 6))) == [CEILING + 5]


async def test_a_crowd_of_another_value_is_forgotten() -> None:
    state: State = {}
    await run(state, rows(range(MANY)))
    cursor_of(state)["last_value"] = 5

    assert await run(state, rows([1], at=5)) == [1]


async def test_many_rows_at_the_last_value_are_told_once() -> None:
    state: State = {}

    with pytest.warns(AsynceltWarning, match=r"many rows \(201\) share the last value"):
        await run(state, rows(range(WARN_ABOVE + 1)))

    with pytest.warns(AsynceltWarning, match=f"more than {CEILING} rows share the last value"):
        await run(state, rows(range(MANY)))


async def test_digests_of_older_releases_are_known() -> None:
    state: State = {}
    await run(state, rows([1]))
    cursor_of(state)["unique_hashes"] = [legacy_digest({"id": 1, "at": 1})]

    assert await run(state, rows([1, 2])) == [2]
    assert sorted(len(item) for item in cursor_of(state)["unique_hashes"]) == [20, 20]  # type: ignore[attr-defined]
    assert await run(state, rows([1, 2])) == []
    assert await run(state, rows([3], at=2)) == [3]
    assert [len(item) for item in cursor_of(state)["unique_hashes"]] == [12]  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_rows_that_repeat_within_a_run_are_all_loaded(step: int) -> None:
    state: State = {}
    data = rows([1, 1, 2], at=1) + rows([3, 3], at=2)
    pages = [data[start : start + step] for start in range(0, len(data), step)]
    resource = asyncelt.resource(pages, name="r", incremental=incremental("at"))

    assert len(await rows_of(resource, state)) == 5
    assert cursor_of(state)["unique_hashes"] == [digest({"id": 3, "at": 2})]


async def test_digests_of_values_that_json_does_not_know() -> None:
    odd = {"id": 1, "big": 2**70, "text": "\ud800", "data": b"\x00"}

    assert digest(odd) == digest(dict(reversed(odd.items())))
    assert digest(odd) != digest({**odd, "big": 2**70 + 1})
