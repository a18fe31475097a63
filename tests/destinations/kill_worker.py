"""Commits one package in a process of its own, to be killed. See `test_kill.py`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pyarrow as pa

from asyncelt import destinations
from asyncelt.load.protocol import Commit, Destination, Target
from asyncelt.schema.model import Table
from asyncelt.schema.system import pipeline_state_table
from asyncelt.testing import make_commit, make_package, state_row
from asyncelt.types import TableName

TARGET = Target(pipeline_name="killed", dataset_name="ds")
LOAD_ID = "1700000002.5"


def destination_of(kind: str, folder: Path) -> Destination:
    if kind == "duckdb":
        return destinations.duckdb(folder / "data.duckdb")

    if kind in {"postgres", "postgres_staged"}:
        threshold = 0 if kind == "postgres_staged" else None

        return destinations.postgres((folder / "dsn").read_text(), staging_threshold=threshold)

    if kind == "s3":
        # The server that the test has started, and a prefix of its own.
        url, endpoint, key, secret = (folder / "s3.txt").read_text().split()
        credentials = {"aws_access_key_id": key, "aws_secret_access_key": secret}

        return destinations.filesystem(url, endpoint_url=endpoint, credentials=credentials)

    return destinations.filesystem(folder / "files")


async def commit(kind: str, folder: Path, *, load_id: str = LOAD_ID, parent: str | None = None) -> Commit:
    """Make the package, the same each time, and commit it."""
    destination = destination_of(kind, folder)
    # The new column of the second load is there, or not, whatever happens to its rows.
    rows = pa.table({"load": [load_id] * 3, f"in_{load_id.partition('.')[0]}": [True] * 3})
    tables = [pipeline_state_table()]

    if kind in {"delta", "iceberg"}:
        tables.append(Table(name=TableName("one"), resource="one", hints={"table_format": kind}))

    package = await asyncio.to_thread(
        make_package,
        folder / f"packages-{os.urandom(4).hex()}",
        load_id,
        {"one": rows, "_dlt_pipeline_state": state_row(TARGET, load_id, load_id)},
        target=TARGET,
        tables=tables,
        capabilities=destination.capabilities,
        replaced=["one"],
        parent_load_id=parent,
    )

    async with destination.connect(TARGET) as session:
        lease = await session.acquire(TARGET.pipeline_name, "")
        made = make_commit(TARGET, lease, package, run_id=load_id)
        await session.migrate(made)

        for job in package.jobs:
            await session.load(made, package, job)

        await session.commit(made)

    return made


def commit_once(kind: str, folder: str) -> None:
    """The commit that is killed."""
    asyncio.run(commit(kind, Path(folder), parent="1700000001.5"))
