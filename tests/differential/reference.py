"""The other end of :mod:`tests.differential.reference_worker`: starts it once, asks it, remembers the answers."""

from __future__ import annotations

import importlib.util
import os
import pickle
import struct
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.differential.cases import Case
from tests.differential.reading import Dataset

__all__ = ["PIPELINE", "Outcome", "Reference", "available"]

PIPELINE = "differential"
DATASET = "data"
ROOT = Path(__file__).resolve().parents[2]
LENGTH = struct.Struct(">I")


def available() -> bool:
    """Whether the reference library is installed."""
    return importlib.util.find_spec("dlt") is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one side made of a case: the dataset as far as it got, and the first error's text."""

    dataset: Dataset
    error: str | None = None
    notices: tuple[str, ...] = ()
    """Kinds of what asyncelt reported in the runs' infos."""


@dataclass(slots=True)
class Reference:
    """The reference library in a process of its own, as a context manager. One request at a time."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _answers: dict[str, Outcome] = field(default_factory=dict)

    def __enter__(self) -> Reference:
        self._start()

        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        process, self._process = self._process, None

        if process is not None:
            _end(process)

    def answer(self, case: Case) -> Outcome:
        """What the reference makes of the case; asked once per case id and session."""
        if case.id not in self._answers:
            self._answers[case.id] = self.ask(case)

        return self._answers[case.id]

    def ask(self, case: Case) -> Outcome:
        """Run the case, without remembering it."""
        process = self._process or self._start()

        try:
            return _asked(process, case)
        except BaseException:
            # A test that timed out. The answer is still to come, and would be taken for that to the next question.
            self._process = None
            _end(process)
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self.environment, "DLT_DATA_DIR": str(self.folder), "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.differential.reference_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=environment,
        )

        return self._process


def _asked(process: subprocess.Popen[bytes], case: Case) -> Outcome:
    assert process.stdin is not None and process.stdout is not None
    body = pickle.dumps((PIPELINE, DATASET, case), protocol=pickle.HIGHEST_PROTOCOL)
    process.stdin.write(LENGTH.pack(len(body)) + body)
    process.stdin.flush()
    head = process.stdout.read(LENGTH.size)

    if len(head) < LENGTH.size:
        raise RuntimeError("the reference's process has ended")

    outcome: Outcome = pickle.loads(process.stdout.read(LENGTH.unpack(head)[0]))

    return outcome


def _end(process: subprocess.Popen[bytes]) -> None:
    # It has nothing that it could save, and would take seconds to forget what it has imported.
    process.kill()
    assert process.stdin is not None and process.stdout is not None
    process.stdout.close()

    with suppress(BrokenPipeError):
        process.stdin.close()

    process.wait()
