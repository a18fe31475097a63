"""What does the load step into Postgres cost over a bare COPY of the same bytes, and a merge over the reference's?

``load``: a package of flat rows is committed, directly and by way of staging tables, into a new table and again into
the table that it has filled; beside it the same rows, encoded already, are copied by one COPY per file into a table
with the same index. ``merge``: rows are merged by key into a table that has many, by a run of asyncelt and one of the
reference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

import asyncelt
from asyncelt.destinations.postgres_impl.copy import CopyColumn, encode
from asyncelt.flow import Package
from asyncelt.load.protocol import Session, Target
from asyncelt.schema.model import Table as TableSchema
from asyncelt.schema.system import load_id_column, row_id_column
from asyncelt.testing.packages import make_commit, make_package
from asyncelt.types import TableName
from benchmarks.data import SHAPES, pool
from tests.support.postgres import PostgresServer, ask

DATASET = "data"
NAME = "flat"
KEY = "id"
BATCH_ROWS = 8192
_SETTINGS = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL", "ENABLE_RUNTIME_TRACE": "false"}


@dataclass(slots=True)
class Spent:
    """Of one piece of work, in seconds."""

    wall: float = 0.0
    server: float = 0.0
    """Processor time of the server, all its processes."""
    commit: Spent | None = None
    """The part of it that is the commit's transaction."""


@dataclass(slots=True)
class Rounds:
    """The same piece of work several times."""

    spent: list[Spent] = field(default_factory=list)

    @property
    def wall(self) -> float:
        """Median."""
        return statistics.median(one.wall for one in self.spent)

    @property
    def server(self) -> float:
        """Median."""
        return statistics.median(one.server for one in self.spent)


@contextmanager
def metered(server: PostgresServer) -> Iterator[Spent]:
    """Time and processor time of the server inside the block."""
    spent, start, before = Spent(), time.perf_counter(), _server_cpu(server)

    yield spent

    spent.wall = time.perf_counter() - start
    spent.server = _server_cpu(server) - before


def _server_cpu(server: PostgresServer) -> float:
    """Of the postmaster, its children, and those that have ended."""
    assert server.process is not None
    postmaster, ticks = server.process.pid, 0

    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue

        if int(folder.name) == postmaster:
            ticks += sum(map(int, stat[11:15]))
        elif int(stat[1]) == postmaster:
            ticks += sum(map(int, stat[11:13]))

    return ticks / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------------------------------------- load


def rows_of(first: int, count: int) -> pa.Table:
    """Flat rows with ids that nobody else has, as a run would have them in its job files."""
    shape = pool(SHAPES[NAME])
    pages = [pa.Table.from_pylist(page) for page in shape.pages("dict", min(count, SHAPES[NAME].distinct))]
    table = pa.concat_tables([*pages] * -(-count // sum(page.num_rows for page in pages))).slice(0, count)
    ids = pa.array([f"{number:x}.{os.urandom(5).hex()}"[-14:] for number in range(first, first + count)])
    created = table["created_at"].cast(pa.timestamp("us", "UTC"))

    return (
        table.set_column(table.schema.get_field_index("created_at"), "created_at", created)
        .set_column(0, KEY, pa.array(range(first, first + count)))
        .append_column("_dlt_load_id", pa.array(["1"] * count))
        .append_column("_dlt_id", ids)
    )


@dataclass(frozen=True, slots=True)
class Load:
    """What is loaded again and again."""

    server: PostgresServer
    packages: tuple[Package, ...]
    encoded: tuple[tuple[Path, ...], ...]
    columns: tuple[str, ...]
    target: Target


def prepare(server: PostgresServer, folder: Path, rows: int, files: int) -> Load:
    """Two packages of the same size, and their files as the bytes that are sent."""
    target = Target(pipeline_name="bench", dataset_name=DATASET)
    columns = {one.name: one for one in (load_id_column(), row_id_column())}
    schema = TableSchema(name=TableName(NAME), resource=NAME, columns=columns)
    packages: list[Package] = []
    encoded: list[tuple[Path, ...]] = []
    names: tuple[str, ...] = ()

    for number in range(2):
        table = rows_of(number * rows, rows)
        size = -(-rows // files)
        before = packages[-1] if packages else None
        package = make_package(
            folder,
            f"{1_700_000_000 + number}.5",
            {NAME: [table.slice(at, size) for at in range(0, rows, size)]},
            target=target,
            tables=[schema],
            schema=None if before is None else before.schema,
            capabilities=asyncelt.destinations.postgres().capabilities,
            parent_load_id=None if before is None else before.load_id,
        )
        packages.append(package)
        encoded.append(tuple(_encode(package.path_of(job)) for job in package.jobs))
        names = tuple(pq.read_schema(package.path_of(package.jobs[0])).names)

    return Load(server, tuple(packages), tuple(encoded), names, target)


def _encode(path: Path) -> Path:
    into = path.with_suffix(".copy")

    with into.open("wb") as out, pq.ParquetFile(path) as file:
        kinds = [CopyColumn(one.name, _TYPES[str(one.type)]) for one in file.schema_arrow]

        for piece in encode(file.iter_batches(BATCH_ROWS), kinds):
            out.write(piece)

    return into


_TYPES: Mapping[str, str] = {
    "int64": "bigint",
    "double": "double precision",
    "string": "character varying",
    "large_string": "character varying",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp with time zone",
}


async def ours(load: Load, *, threshold: int | None, copies: int) -> list[Spent]:
    """The load step of both packages: into a new table, and into one that has rows."""
    dsn = load.server.new_database()
    found: list[Spent] = []

    async with asyncelt.destinations.postgres(dsn, staging_threshold=threshold).connect(load.target) as session:
        lease = await session.acquire(load.target.pipeline_name, "")

        for package in load.packages:
            commit = make_commit(load.target, lease, package)
            await session.migrate(commit)

            with metered(load.server) as spent:
                await _load_jobs(session, commit, package, copies)

                with metered(load.server) as spent.commit:
                    await session.commit(commit)

            found.append(spent)

    _check(dsn, DATASET, load)

    return found


async def _load_jobs(session: Session, commit: Any, package: Package, copies: int) -> None:
    limiter = anyio.CapacityLimiter(copies)

    async def one(job: Any) -> None:
        async with limiter:
            await session.load(commit, package, job)

    async with anyio.create_task_group() as tasks:
        for job in package.jobs:
            tasks.start_soon(one, job)


async def bare(load: Load) -> list[Spent]:
    """COPY of the same bytes into the same tables, each package in a transaction; the index is there from the start."""
    dsn = load.server.new_database()
    found: list[Spent] = []

    async with asyncelt.destinations.postgres(dsn).connect(load.target) as session:
        empty = make_commit(load.target, await session.acquire("bench", ""), load.packages[0])
        await session.migrate(empty)

    async with _connected(dsn) as connection:
        await connection.execute(f'CREATE UNIQUE INDEX ON {DATASET}.{NAME} ("_dlt_id")')

        for files in load.encoded:
            with metered(load.server) as spent:
                async with connection.transaction():
                    for path in files:
                        await connection.copy_to_table(
                            NAME, source=path, schema_name=DATASET, format="binary", columns=list(load.columns)
                        )

            found.append(spent)

    _check(dsn, DATASET, load)

    return found


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)

    try:
        yield connection
    finally:
        await connection.close()


def _check(dsn: str, dataset: str, load: Load) -> None:
    expected = sum(job.rows for package in load.packages for job in package.jobs)
    found = ask(dsn, f"SELECT count(*), count(DISTINCT _dlt_id) FROM {dataset}.{NAME}")[0]

    if found != (expected, expected):
        raise RuntimeError(f"{found} rows and ids instead of {expected}")


def bench_load(options: argparse.Namespace) -> Table:
    """The table of the load step."""
    ways = {"bare COPY": Rounds(), "direct": Rounds(), "staged": Rounds()}
    again = {name: Rounds() for name in ways}

    with tempfile.TemporaryDirectory(prefix="pg-") as home, PostgresServer(Path(home) / "server") as server:
        load = prepare(server, Path(home) / "packages", options.rows, options.files)
        size = sum(path.stat().st_size for path in load.encoded[0])
        parquet = sum(job.nbytes for job in load.packages[0].jobs)

        for _ in range(options.rounds):
            for name, found in (
                ("bare COPY", asyncio.run(bare(load))),
                ("direct", asyncio.run(ours(load, threshold=None, copies=1))),
                ("staged", asyncio.run(ours(load, threshold=0, copies=options.copies))),
            ):
                ways[name].spent.append(found[0])
                again[name].spent.append(found[1])

                if name == "staged":
                    for number, rounds in enumerate((ways, again)):
                        commit = found[number].commit
                        assert commit is not None
                        rounds.setdefault(f"{name}, its commit alone", Rounds()).spent.append(commit)

    table = Table(
        title=f"load step, {options.rows:,} flat rows in {options.files} files: {parquet / 1e6:.0f} MB of Parquet, "
        f"{size / 1e6:.0f} MB sent (aim: direct 1.5x of bare, staged 2.2x)"
    )

    for column in ("", "wall, s", "server's CPU, s", "of bare"):
        table.add_column(column, justify="right" if column else "left")

    for title, rounds in (("into a new table", ways), ("into the same again", again)):
        for name, one in rounds.items():
            ratio = one.wall / rounds["bare COPY"].wall
            table.add_row(f"{name}, {title}", f"{one.wall:.2f}", f"{one.server:.2f}", f"{ratio:.2f}")

    return table


# --------------------------------------------------------------------------------------------------- merge


def merge_once(side: str, dsn: str, folder: str, rows: int, into: int) -> float:
    """Fill a table, then merge into it; seconds of the second run. In a process of its own."""
    os.environ.update(_SETTINGS, DLT_DATA_DIR=str(Path(folder) / "home"))
    fill = _pages(0, into)
    # Half of the keys are there.
    change = _pages(into - rows // 2, rows)

    if side == "ours":
        return asyncio.run(_merge_ours(dsn, folder, fill, change))

    return _merge_reference(dsn, folder, fill, change)


def _pages(first: int, count: int) -> list[pa.Table]:
    table = rows_of(first, count).drop_columns(["_dlt_load_id", "_dlt_id"])

    return [table.slice(at, 50_000) for at in range(0, count, 50_000)]


async def _merge_ours(dsn: str, folder: str, fill: list[pa.Table], change: list[pa.Table]) -> float:
    pipeline = asyncelt.pipeline(
        "bench", destination=asyncelt.destinations.postgres(dsn), dataset_name=DATASET, pipelines_dir=folder
    )

    async def pages(tables: list[pa.Table]) -> AsyncIterator[pa.Table]:
        for one in tables:
            yield one

    await pipeline.run(pages(fill), table_name=NAME, write_disposition="merge", primary_key=KEY)
    start = time.perf_counter()
    await pipeline.run(pages(change), table_name=NAME, write_disposition="merge", primary_key=KEY)

    return time.perf_counter() - start


def _merge_reference(dsn: str, folder: str, fill: list[pa.Table], change: list[pa.Table]) -> float:
    import dlt

    pipeline = dlt.pipeline(
        "bench", destination=dlt.destinations.postgres(dsn), dataset_name=DATASET, pipelines_dir=folder
    )

    def run(tables: list[pa.Table]) -> None:
        resource = dlt.resource(iter(tables), name=NAME, write_disposition="merge", primary_key=KEY)
        pipeline.run(resource, loader_file_format="csv")

    run(fill)
    start = time.perf_counter()
    run(change)

    return time.perf_counter() - start


def bench_merge(options: argparse.Namespace) -> Table:
    """The table of merging."""
    rounds: dict[str, Rounds] = {"asyncelt": Rounds(), "reference, csv": Rounds()}

    with tempfile.TemporaryDirectory(prefix="pg-") as home, PostgresServer(Path(home) / "server") as server:
        for number in range(options.rounds):
            signatures = set()

            for name, one in rounds.items():
                dsn, folder = server.new_database(), str(Path(home) / f"{number}-{name[:4]}")
                one.spent.append(_in_process(name, dsn, folder, options))
                signatures.add(_signature(dsn))
                shutil.rmtree(folder, ignore_errors=True)

            if len(signatures) != 1:
                raise RuntimeError(f"the sides have merged differently: {signatures}")

    table = Table(title=f"run that merges {options.rows:,} rows by key into {options.into:,}, half of the keys known")

    for column in ("", "wall, s", "times faster"):
        table.add_column(column, justify="right" if column else "left")

    for name, one in rounds.items():
        table.add_row(name, f"{one.wall:.2f}", f"{rounds['reference, csv'].wall / one.wall:.1f}")

    return table


def _in_process(name: str, dsn: str, folder: str, options: argparse.Namespace) -> Spent:
    job = json.dumps(["ours" if name == "asyncelt" else "reference", dsn, folder, options.rows, options.into])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_postgres", "one", job], capture_output=True, text=True, check=False
    )

    if done.returncode:
        raise RuntimeError(done.stderr[-800:])

    return Spent(wall=float(done.stdout.split()[-1]))


def _signature(dsn: str) -> tuple[Any, ...]:
    return ask(dsn, f"SELECT count(*), count(DISTINCT {KEY}), sum({KEY}), sum(quantity) FROM {DATASET}.{NAME}")[0]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_postgres", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    load = commands.add_parser("load", help="the load step against a bare COPY")
    load.add_argument("--rows", type=int, default=1_000_000, help="of each of two packages")
    load.add_argument("--files", type=int, default=4)
    load.add_argument("--copies", type=int, default=4, help="files that are staged at once")
    load.add_argument("--rounds", type=int, default=3)
    merge = commands.add_parser("merge", help="a merge against the reference's")
    merge.add_argument("--rows", type=int, default=100_000)
    merge.add_argument("--into", type=int, default=5_000_000)
    merge.add_argument("--rounds", type=int, default=1)
    commands.add_parser("one").add_argument("job", type=json.loads)
    options = parser.parse_args()

    if options.command == "one":
        print(merge_once(*options.job))
    else:
        Console(width=120).print((bench_load if options.command == "load" else bench_merge)(options))


if __name__ == "__main__":
    main()
