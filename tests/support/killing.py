"""Processes to be killed. Each is forked off one that has imported everything already, so that it is there at once.

``python killing.py MODULE...`` is that one: it takes a job as a line of JSON, answers with the id of the process it has
forked, and with that process's exit code once it has ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, cast

__all__ = ["KILLED", "REFERENCE", "Doomed", "Nursery"]

KILLED = -signal.SIGKILL
"""Exit code of a process that was killed."""
ROOT = Path(__file__).parents[2]
MODULES = (
    "anyio._backends._asyncio",
    "asyncelt.destinations.duckdb_impl.session",
    "asyncelt.destinations.filesystem_impl.delta",
    "asyncelt.destinations.filesystem_impl.query",
    "asyncelt.destinations.filesystem_impl.s3.place",
    "asyncelt.destinations.filesystem_impl.session",
    "asyncelt.destinations.postgres_impl.database",
    "asyncelt.pipeline",
    "asyncelt.testing",
    "asyncelt.sources",
    "duckdb",
    "nats.js.api",
    "pyarrow.compute",
    "pyarrow.json",
    "pyarrow.parquet",
    "redis.asyncio",
    "sqlglot.dialects.duckdb",
)
REFERENCE = (
    "dlt",
    "dlt._workspace._plugins",
    "dlt._workspace.cli._plugins",
    "dlt.destinations",
    "dlt.destinations.impl.duckdb.duck",
    "dlt.destinations.impl.filesystem.filesystem",
    "dlt.destinations.impl.postgres.postgres",
    "dlt.sources.helpers.requests",
    "duckdb",
    "fsspec.implementations.local",
    "pandas",
    "pendulum.locales.en.locale",
    "pyarrow.compute",
    "pyarrow.parquet",
    "sqlalchemy",
)
"""What the reference imports in a run, most of it when it gets there."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A process of a nursery."""

    pid: int
    answers: IO[str]
    errors: Path

    def kill(self) -> None:
        """Kill it, if it is still there."""
        os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask it to end, if it is still there."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; to be called once.

        Returns:
            Its exit code, or the negative number of the signal that has ended it.

        Raises:
            AssertionError: It has failed by itself.
        """
        code = int(self.answers.readline())

        if code not in {0, KILLED, -signal.SIGTERM}:
            raise AssertionError(f"the process failed:\n{self.errors.read_text()}")

        return code


class Nursery:
    """Starts processes, one at a time, as a context manager.

    Args:
        folder: For the traceback of one that fails.
        modules: What all of them have imported when they start.
        environment: Variables that all of them have.
    """

    def __init__(
        self, folder: Path, modules: Sequence[str] = MODULES, environment: Mapping[str, str] | None = None
    ) -> None:
        self._errors = folder / "errors.txt"
        self._modules = modules
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._last: Doomed | None = None

    def __enter__(self) -> Nursery:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", **self._environment}
        command = [sys.executable, __file__, *self._modules]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None

        self._end_last()
        self._process.communicate()

    def start(
        self, function: Callable[..., object], *arguments: object, environment: Mapping[str, str] | None = None
    ) -> Doomed:
        """Call a function of a module in a new process, with these variables added to its environment."""
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._end_last()
        job = (function.__module__, function.__qualname__, arguments, dict(environment or {}), str(self._errors))
        self._process.stdin.write(json.dumps(job, default=str) + "\n")
        self._process.stdin.flush()

        self._last = Doomed(int(self._process.stdout.readline()), self._process.stdout, self._errors)

        return self._last

    def _end_last(self) -> None:
        """Nobody else would end one that a test has given up waiting for. One that is over keeps its id."""
        if self._last is not None:
            with suppress(ProcessLookupError):
                self._last.kill()


def _main() -> None:
    last: list[int] = []

    for module in sys.argv[1:]:
        importlib.import_module(module)

    # Looking for garbage in what is shared would copy all of it.
    gc.freeze()

    for line in sys.stdin:
        pid = os.fork()

        if pid == 0:
            _run(*json.loads(line))

        print(pid, flush=True)
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        print(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status, flush=True)
        last.append(pid)

        # A dead process keeps its id until now, so that whoever killed it has not killed another one.
        if len(last) > 1:
            os.waitpid(last.pop(0), 0)


def _run(module: str, function: str, arguments: list[object], environment: dict[str, str], errors: str) -> None:
    os.environ.update(environment)
    os.dup2(2, 1)

    try:
        importlib.reload(importlib.import_module("asyncelt.failpoints"))  # it reads the environment when it is imported
        cast("Callable[..., object]", getattr(importlib.import_module(module), function))(*arguments)
    except BaseException:
        Path(errors).write_text(traceback.format_exc())
        os._exit(1)

    os._exit(0)


if __name__ == "__main__":
    _main()
