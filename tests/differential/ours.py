"""The same case through asyncelt, in this process, with the pages in any of the forms it takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import asyncelt
from tests.differential.cases import Case, Run, is_json
from tests.differential.reading import read_dataset
from tests.differential.reference import DATASET, PIPELINE, Outcome

__all__ = ["FORMS", "forms_of", "quick_forms", "run_case"]

FORMS = ("pages", "bytes", "ndjson", "one-by-one", "by-two", "at-once", "steps")
"""Pages as the reference gets them; as one JSON array each; as JSON lines; re-cut into pages of 1, of 2, and one;
pages again, but extracted, normalized and loaded by three calls."""


def forms_of(case: Case) -> tuple[str, ...]:
    """The forms that can carry the case's values without loss."""
    if case.forms is not None:
        return case.forms

    as_json = all(is_json(item) for run in case.runs for page in run.pages for item in page)
    as_lines = as_json and all(isinstance(item, dict) for run in case.runs for page in run.pages for item in page)

    return tuple(form for form in FORMS if (form != "bytes" or as_json) and (form != "ndjson" or as_lines))


def quick_forms(case: Case, number: int) -> frozenset[str]:
    """Those that CI runs: the pages as they are, and one of the others by turns; neighbours are about the same rule."""
    first, *others = forms_of(case)

    return frozenset({first, others[number % len(others)]} if others else {first})


async def run_case(case: Case, form: str, folder: Path) -> Outcome:
    """Do the case's runs in a fresh pipeline; the dataset as far as it got, and the first error's text."""
    database = folder / "asyncelt.duckdb"
    options = {"naming_convention": case.naming} if case.naming else {}
    pipeline = asyncelt.pipeline(
        PIPELINE,
        destination=asyncelt.destinations.duckdb(str(database), **options),
        dataset_name=DATASET,
        pipelines_dir=str(folder / "pipelines"),
    )
    error = None
    notices: list[str] = []

    try:
        for run in case.runs:
            with asyncelt.config.values({"schema.naming": run.naming} if run.naming else {}):
                info = await _loaded(pipeline, run, form)

            notices += [notice.kind for notice in getattr(info, "notices", ())]
    except asyncelt.AsynceltError as raised:
        error = _told(raised)

    return Outcome(read_dataset(database, DATASET), error, tuple(notices))


async def _loaded(pipeline: asyncelt.Pipeline, run: Run, form: str) -> object:
    schema = asyncelt.Schema.from_dict(run.schema) if run.schema is not None else None

    if form != "steps":
        return await pipeline.run(_resource(run, form), schema=schema, **run.arguments)

    await pipeline.extract(_resource(run, form), schema=schema, **run.arguments)
    normalized = await pipeline.normalize()
    await pipeline.load()

    return normalized


def _resource(run: Run, form: str) -> object:
    resource = asyncelt.resource(_pages(run, form), name=run.table_name, **run.hints)

    if run.nested_hints:
        resource.apply_hints(
            nested_hints={tuple(path.split("/")): dict(hints) for path, hints in run.nested_hints.items()}
        )

    return resource


async def _pages(run: Run, form: str) -> AsyncIterator[object]:
    pages = run.counted(asyncelt.current.resource_state()) if run.counts else run.pages

    for page in _cut(pages, form):
        yield page


def _cut(pages: Sequence[Sequence[object]], form: str) -> Iterator[object]:
    if form in {"pages", "steps"}:
        yield from (list(page) for page in pages)
    elif form == "bytes":
        yield from (json.dumps(list(page), ensure_ascii=False).encode() for page in pages)
    elif form == "ndjson":
        yield from ("".join(json.dumps(item) + "\n" for item in page).encode() for page in pages)
    else:
        rows = [item for page in pages for item in page]
        step = {"one-by-one": 1, "by-two": 2}.get(form, max(len(rows), 1))
        yield from (rows[start : start + step] for start in range(0, len(rows), step))


def _told(error: BaseException) -> str:
    texts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error

    while current is not None and id(current) not in seen:
        seen.add(id(current))
        texts.append(f"{type(current).__name__}: {current}")
        inner = current.exceptions[0] if isinstance(current, BaseExceptionGroup) else None
        current = inner or current.__cause__ or current.__context__

    return "\ncaused by ".join(texts)
