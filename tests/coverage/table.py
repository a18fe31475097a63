"""Writes ``docs/coverage.md``: each member of the reference with the tests that prove it.

``make coverage-table`` runs it; a test fails when the file is out of date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.coverage.exceptions import ACCEPTED, LEFT_OUT, MISSING
from tests.coverage.members import stored
from tests.coverage.probes import PROBES
from tests.coverage.proofs import proofs

__all__ = ["FILE", "document", "exception_of", "unproved"]

FILE = Path(__file__).parents[2] / "docs" / "coverage.md"
KINDS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("accepted", ACCEPTED),
    ("left out", LEFT_OUT),
    ("missing", MISSING),
)
TITLES = {
    "pipeline": "`pipeline()`",
    "attach": "`attach()`",
    "run": "`run()`",
    "resource": "`resource()`",
    "transformer": "`transformer()`",
    "source": "`source()`",
    "Pipeline": "Pipeline",
    "Resource": "Resource",
    "Source": "Source",
    "ResourceDict": "Resources of a source",
    "incremental": "`incremental()`",
    "Incremental": "Incremental",
    "mark": "`mark`",
    "current": "`current`",
    "contract": "Schema contract",
    "disposition": "Write disposition",
    "refresh": "Refresh",
}
HEAD = """# Coverage of dlt

Every member and option of dlt's pipeline, resources, sources, cursors, marks and schema contracts, taken from the signatures of
dlt 1.31, with the tests that prove it here. This page is written by `make coverage-table` from marks on the tests
(`@pytest.mark.covers`) and from the cases of the differential suite, which both libraries run. The suite fails when the page is
out of date, when a member has no test, and when dlt has a member that is not listed. Paths are those below `tests/`.

*accepted*: there, so that programs need not be changed, and without effect. *left out*: not there, on purpose. *missing*: not
there yet. What differs in the data is listed in [departures](departures.md), what differs in calls in
[coming from dlt](coming-from-dlt.md).
"""


def exception_of(name: str) -> tuple[str, str] | None:
    """``accepted``, ``left out`` or ``missing``, and why; None for what has to be proved."""
    for kind, reasons in KINDS:
        for given in (name, name.rpartition(".")[0]):
            if given in reasons:
                return kind, reasons[given]

    return None


def unproved(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Members that have neither a test nor a reason to have none."""
    names = [name for group in stored().values() for name in group] + list(PROBES)

    return [name for name in names if name not in found and exception_of(name) is None]


def document() -> str:
    """The page."""
    found = proofs()

    return "\n".join([HEAD, *_summary(found), *_members(found), *_probes(found)]) + "\n"


def _summary(found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "| | members and options | proved | accepted | left out | missing |"
    yield "| --- | --: | --: | --: | --: | --: |"

    for group, names in stored().items():
        kinds = [_kind(name, found) for name in names]
        counts = " | ".join(str(kinds.count(kind)) for kind in ("proved", "accepted", "left out", "missing"))
        yield f"| {TITLES[group]} | {len(names)} | {counts} |"


def _kind(name: str, found: Mapping[str, Sequence[str]]) -> str:
    exception = exception_of(name)

    return exception[0] if exception is not None else "proved" if name in found else "unproved"


def _members(found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for group, names in stored().items():
        yield from ("", f"## {TITLES[group]}", "", "| | proved by |", "| --- | --- |")

        for name in names:
            exception = exception_of(name)
            proof = _tests(found.get(name, ()))

            if exception is not None:
                kind, why = exception
                proof = f"*{kind}*: {why}" + (f"; {proof}" if proof else "")

            yield f"| `{name.partition('.')[2]}` | {proof} |"


def _probes(found: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from ("", "## Probes", "", "What an engine of this kind has to be asked first.", "")
    yield from ("| | | proved by |", "| --- | --- | --- |")

    for name, question in PROBES.items():
        yield f"| {name.partition('.')[2]} | {question} | {_tests(found.get(name, ()))} |"


def _tests(tests: Sequence[str]) -> str:
    """By file, so that its name stands once."""
    files: dict[str, list[str]] = {}

    for test in tests:
        file, _, function = test.partition("::")
        files.setdefault(file, []).append(function.removeprefix("test_"))

    return "; ".join(
        f"`{file}`" + (": " + ", ".join(name.replace("_", " ") for name in names) if any(names) else "")
        for file, names in files.items()
    )


if __name__ == "__main__":
    FILE.write_text(document())
