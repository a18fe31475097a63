"""A server whose disk is full: the run says so, its package waits, and goes through when there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncelt
from asyncelt import destinations
from asyncelt.errors import PipelineStepFailed
from tests.support.postgres import PostgresServer, ask, left_behind

SIZE = "70m"
LEFT = 6_000_000
ROWS = 12_000
"""12 MB, for which there is no room then."""
BALLAST = "SELECT repeat(md5(n::text), 25) AS t FROM generate_series(1, 2500) AS n"
"""Two megabytes."""


@pytest.fixture
def full_server(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server in a mount namespace, the data folder of which is a small disk in memory."""
    folder = tmp_path / "server"
    # Waits for the end of its input, and then the disk goes with the namespace.
    script = f"mkdir -p {folder}/data && mount -t tmpfs -o size={SIZE},mode=700 tmpfs {folder}/data && echo up && cat"
    folder.mkdir()
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stderr is not None

    if holder.stdout.readline() != "up\n":
        pytest.skip(f"this system lets nobody mount a disk: {holder.stderr.read()}")

    inside = ("nsenter", "-t", str(holder.pid), "--user", "--mount", "--preserve-credentials")

    try:
        with PostgresServer(folder, inside=inside, options=("--waldir", str(folder / "wal"))) as server:
            yield server
    finally:
        holder.communicate()


def fill(server: PostgresServer) -> None:
    """Until little is left. The log is elsewhere: a server that cannot write it ends."""
    assert server.process is not None
    ask(server.dsn(), "CREATE TABLE ballast (t text)")

    while True:
        disk = os.statvfs(f"/proc/{server.process.pid}/root{server.data}")

        if disk.f_bavail * disk.f_frsize < LEFT:
            return

        ask(server.dsn(), f"INSERT INTO ballast {BALLAST}")


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [None, 0], ids=["direct", "staged"])
async def test_a_disk_that_is_full_is_named_and_the_package_goes_through_later(
    full_server: PostgresServer, tmp_path: Path, threshold: int | None
) -> None:
    dsn = full_server.dsn()
    pipeline = asyncelt.pipeline(
        "full",
        destination=destinations.postgres(dsn, staging_threshold=threshold),
        dataset_name="raw",
        pipelines_dir=tmp_path / "work",
        settings=asyncelt.Settings(retry=asyncelt.Retry(attempts=2, first_s=0.01)),
    )
    await pipeline.run([{"id": 0, "text": ""}], table_name="items")
    fill(full_server)
    rows = [{"id": number, "text": os.urandom(500).hex()} for number in range(1, ROWS + 1)]

    with pytest.raises(PipelineStepFailed, match=r"No space left on device Hint: make room on the server's disk"):
        await pipeline.run(rows, table_name="items")

    assert pipeline.has_pending_data
    assert ask(dsn, "SELECT count(*) FROM raw.items") == [(1,)]
    assert left_behind(dsn) == []

    ask(dsn, "DROP TABLE ballast", "CHECKPOINT")
    await pipeline.load()
    assert ask(dsn, "SELECT count(*), sum(id) FROM raw.items") == [(ROWS + 1, ROWS * (ROWS + 1) // 2)]
