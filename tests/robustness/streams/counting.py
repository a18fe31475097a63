"""What of the numbered messages is in the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from tests.robustness.streams.producer import CHILDREN
from tests.support.postgres import ask, left_behind

__all__ = ["counted", "nothing_doubled"]

_IS_THERE = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'data' AND table_name = 'numbers'"
_DOUBLED = """
SELECT n, count(*), min(_dlt_load_id), max(_dlt_load_id) FROM data.numbers
GROUP BY n HAVING count(*) > 1 ORDER BY n LIMIT 5
"""
_COUNTS = "SELECT count(*), count(DISTINCT n), min(n), max(n) FROM data.numbers"
_CHILDREN = f"""
SELECT count(*) FROM (
    SELECT n.n FROM data.numbers n JOIN data.numbers__parts p ON p._dlt_parent_id = n._dlt_id
    GROUP BY n.n HAVING count(*) = {CHILDREN} AND count(DISTINCT p.nr) = {CHILDREN} AND min(p."of") = n.n
    AND max(p."of") = n.n
) AS complete
"""
_ALL_CHILDREN = "SELECT count(*) FROM data.numbers__parts"
_WITHOUT_LOAD = (
    "SELECT count(*) FROM data.numbers WHERE _dlt_load_id NOT IN (SELECT load_id FROM data._dlt_loads WHERE status = 0)"
)


def query(address: str, *statements: str) -> list[list[tuple[Any, ...]]]:
    """The rows of each statement, from a database file that nobody has open, or from a server."""
    if address.startswith("postgresql:"):
        return [ask(address, statement) for statement in statements]

    if not Path(address).exists():
        return [[(0,)] for _ in statements]

    with duckdb.connect(address, read_only=True) as connection:
        return [connection.execute(statement).fetchall() for statement in statements]


def nothing_doubled(address: str) -> None:
    """Whatever is there is there once."""
    if query(address, _IS_THERE) != [[(1,)]]:
        return

    [doubled] = query(address, _DOUBLED)
    assert doubled == [], f"doubled, with their counts and loads: {doubled}"


def counted(address: str, numbers: int) -> None:
    """Numbers from 0 on are there, each once, complete, with the record of its load, and nothing else is."""
    nothing_doubled(address)
    [counts], [(complete,)], [(children,)], [(unknown,)] = query(
        address, _COUNTS, _CHILDREN, _ALL_CHILDREN, _WITHOUT_LOAD
    )
    assert counts == (numbers, numbers, 0, numbers - 1), f"{counts} of {numbers}"
    assert (complete, children) == (numbers, numbers * CHILDREN)
    assert unknown == 0

    if address.startswith("postgresql:"):
        assert left_behind(address) == []
