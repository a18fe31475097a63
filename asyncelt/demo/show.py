"""The demo itself: serve, ingest, ask, and say in words what happened."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import urlencode

import anyio
import pyarrow as pa
from rich.console import Console
from rich.table import Table

import asyncelt
from asyncelt.demo.api import Client, connect, serve
from asyncelt.demo.catalog import read_catalog
from asyncelt.progress import RichProgress, amount
from asyncelt.types import JsonValue

__all__ = ["run_demo"]

DATABASE = "asyncelt_demo.duckdb"
WORKING_FOLDER = ".asyncelt_demo"
DATASET = "environment"
PAGE_ITEMS = 10

Item = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far the API has been read: a moment, and what was seen of that very moment."""

    since: str = ""
    seen: frozenset[str] = frozenset()

    def is_new(self, item: Item) -> bool:
        """Whether the item was not read before this position."""
        return str(item["installed_at"]) > self.since or _label(item) not in self.seen

    def after(self, items: Sequence[Item]) -> Position:
        """The position behind these items, which come in the order of their moments."""
        if not items:
            return self

        newest = str(items[-1]["installed_at"])
        labels = frozenset(_label(item) for item in items if item["installed_at"] == newest)

        return Position(since=newest, seen=labels | self.seen if newest == self.since else labels)


@dataclass(slots=True)
class Tally:
    """What the resource met, for the closing words."""

    pages: int = 0
    fresh: int = 0
    resumed: bool = False


class Queries(Protocol):
    """The part of an SQL client that is used here."""

    async def query(self, sql: str) -> pa.Table:
        """Run one statement."""
        ...


async def run_demo(
    folder: Path,
    *,
    reset: bool = False,
    console: Console | None = None,
    read: Callable[[], Sequence[Item]] = read_catalog,
) -> None:
    """Load this environment's distributions into DuckDB, showing progress and two answers.

    The first run loads everything; each further run only what has been installed or changed since, because the
    position in the API is part of the pipeline's state, committed together with the rows.

    Args:
        folder: Where the database and the working folder go.
        reset: Remove both first.
        console: Where to print; the terminal when None.
        read: Finds what is to be served; called in a thread.
    """
    out = console or Console(highlight=False)

    if reset:
        await anyio.to_thread.run_sync(_remove, folder)

    catalog = await anyio.to_thread.run_sync(read)
    pipeline = asyncelt.pipeline(
        "asyncelt_demo",
        destination=asyncelt.destinations.duckdb(str(folder / DATABASE)),
        dataset_name=DATASET,
        pipelines_dir=str(folder / WORKING_FOLDER),
        progress=RichProgress(out),
    )
    tally = Tally()

    async with serve(catalog) as port, connect(port) as client:
        out.print(f"{len(catalog)} installed distributions are served as a paginated JSON API on 127.0.0.1:{port}\n")
        started = time.perf_counter()
        info = await pipeline.run(distributions(client, tally))
        seconds = time.perf_counter() - started

    out.print(f"\n{info}\n", markup=False)

    async with pipeline.sql_client() as sql:
        tables = await _show_tables(sql, out)
        await _answer_questions(sql, tables, out)

    out.print(f"\n{_closing_words(tally, seconds)}")
    out.print(f"The tables are in {DATABASE}, dataset {DATASET}.", style="dim")


@asyncelt.resource(name="distributions", primary_key="name", write_disposition="merge")
async def distributions(client: Client, tally: Tally) -> AsyncGenerator[Sequence[Item]]:
    """Pages of distributions that were installed or changed since the last run that has committed."""
    state = asyncelt.current.resource_state()
    position = Position(
        since=cast("str", state.get("since", "")), seen=frozenset(cast("list[str]", state.get("seen", [])))
    )
    tally.resumed = bool(position.since)
    query = {"limit": PAGE_ITEMS} | ({"since": position.since} if position.since else {})
    path: str | None = f"/distributions?{urlencode(query)}"

    while path is not None:
        page = await client.get(path)
        items = cast("Sequence[Item]", page["items"])
        fresh = [item for item in items if position.is_new(item)]
        position = position.after(items)
        state.update(since=position.since, seen=sorted(position.seen))
        tally.pages += 1
        tally.fresh += len(fresh)

        if fresh:
            yield fresh

        path = cast("str | None", page.get("next"))


def _label(item: Item) -> str:
    return f"{item['name']} {item['version']}"


# ------------------------------------------------------------------------------------------- reading it back


async def _show_tables(sql: Queries, out: Console) -> set[str]:
    """Print every table of the dataset with its number of rows; returns the tables' names."""
    found = await sql.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema() ORDER BY table_name"
    )
    names = cast("list[str]", found.column(0).to_pylist())
    counts = [(await sql.query(f'SELECT count(*) FROM "{name}"')).column(0)[0].as_py() for name in names]  # noqa: S608
    table = Table(title="Tables", title_justify="left", box=None, pad_edge=False, header_style="dim")
    table.add_column("table")
    table.add_column("rows", justify="right")

    for name, count in zip(names, counts, strict=True):
        table.add_row(name, f"{count:,}", style="dim" if name.startswith("_dlt") else "")

    out.print(table)

    return set(names)


BIGGEST = """
SELECT d.name AS distribution, d.version, count(*) AS files, sum(f.size) AS bytes
FROM distributions AS d JOIN distributions__files AS f ON f._dlt_parent_id = d._dlt_id
GROUP BY ALL ORDER BY bytes DESC NULLS LAST, distribution LIMIT 5
"""

MOST_WANTED = """
SELECT r.name AS requirement, count(DISTINCT d.name) AS asked_for_by,
       count(i.name) > 0 AS installed
FROM distributions AS d JOIN distributions__requirements AS r ON r._dlt_parent_id = d._dlt_id
LEFT JOIN distributions AS i ON regexp_replace(lower(i.name), '[-_.]+', '-', 'g') = r.name
GROUP BY r.name ORDER BY asked_for_by DESC, requirement LIMIT 5
"""

QUESTIONS = (
    ("Which distributions bring the most bytes?", BIGGEST, "distributions__files"),
    ("Which requirement is asked for most?", MOST_WANTED, "distributions__requirements"),
)


async def _answer_questions(sql: Queries, tables: set[str], out: Console) -> None:
    for title, question, needed in QUESTIONS:
        out.print()

        if needed not in tables:
            out.print(f"{title} Nothing here has any: there is no table {needed}.")
            continue

        _print_answer(title, await sql.query(question), out)


def _print_answer(title: str, answer: pa.Table, out: Console) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")

    for field in answer.schema:
        table.add_column(field.name, justify="left" if pa.types.is_string(field.type) else "right")

    for row in answer.to_pylist():
        table.add_row(*(_cell(name, value) for name, value in row.items()))

    out.print(table)


def _cell(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int() | float() | Decimal():
            return amount(float(value)) if name == "bytes" else f"{value:,}"
        case _:
            return str(value)


def _closing_words(tally: Tally, seconds: float) -> str:
    took = f"{seconds:.1f} s, {tally.pages} page{'s' if tally.pages != 1 else ''} read"

    if not tally.resumed:
        return f"First run: loaded all {tally.fresh} ({took}). Run it again: it loads only what is new."

    if tally.fresh == 0:
        return f"Nothing new since the last run, so nothing was loaded ({took}). Install something and run it again."

    return f"Loaded the {tally.fresh} that are new or changed since the last run ({took})."


def _remove(folder: Path) -> None:
    shutil.rmtree(folder / WORKING_FOLDER, ignore_errors=True)

    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()
