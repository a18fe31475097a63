"""The two sides of the differential suite as fixtures: the reference's process, and what each made of a case."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.differential import cases, ours, reading, reference_worker
from tests.differential.cases import Case
from tests.differential.reference import Outcome, Reference, available

Ours = Callable[[Case, str], Awaitable[Outcome]]


@pytest.fixture(scope="session")
def reference_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    """The reference library in a process of its own, for the whole session."""
    if not available():
        pytest.skip("the reference library (dlt) is not installed")

    with Reference(tmp_path_factory.mktemp("reference")) as process:
        yield process


@pytest.fixture(scope="session")
def reference(reference_process: Reference, request: pytest.FixtureRequest) -> Callable[[Case], Outcome]:
    """What the reference makes of a hand-written case.

    Answers are remembered between sessions under everything they depend on: the case, the versions, and the code that
    asks and reads. ``--cache-clear`` forgets them.
    """
    cache = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("differential")) if cache else None
    salt = _salt()

    def answer(case: Case) -> Outcome:
        if folder is None:
            return reference_process.ask(case)

        path = folder / hashlib.sha256(salt + repr(case).encode()).hexdigest()

        if path.exists():
            return pickle.loads(path.read_bytes())

        outcome = reference_process.ask(case)
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(pickle.dumps(outcome))
        unfinished.replace(path)

        return outcome

    return answer


def _salt() -> bytes:
    versions = [importlib.metadata.version(name) for name in ("dlt", "duckdb", "pyarrow")]
    code = [Path(module.__file__).read_bytes() for module in (cases, reading, reference_worker)]

    return repr((versions, code)).encode()


@pytest.fixture(scope="session")
def outcomes() -> dict[tuple[str, str], Outcome]:
    """What asyncelt made of hand-written cases so far, by case id and form."""
    return {}


@pytest.fixture
def run_ours(outcomes: dict[tuple[str, str], Outcome], tmp_path: Path) -> Ours:
    """What asyncelt makes of a hand-written case in one form; run once per session."""

    async def run(case: Case, form: str) -> Outcome:
        if (case.id, form) not in outcomes:
            outcomes[case.id, form] = await ours.run_case(case, form, tmp_path)

        return outcomes[case.id, form]

    return run
