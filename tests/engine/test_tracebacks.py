"""What a traceback of a failed run shows: the user's code and the place of the error, little between them."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import asyncelt
from asyncelt.errors import BadRecord, PipelineStepFailed

MOST_FRAMES = 16


async def failure(tmp_path: Path, data: object, **options: Any) -> PipelineStepFailed:
    options.setdefault("destination", asyncelt.destinations.memory())
    nesting = options.pop("max_table_nesting", None)
    pipeline = asyncelt.pipeline("p", pipelines_dir=tmp_path / "work", dataset_name="data", **options)
    resource = asyncelt.resource(data, name="t", max_table_nesting=nesting)

    with pytest.raises(PipelineStepFailed) as caught:
        await pipeline.run(resource)

    return caught.value


def frames_of(error: BaseException | None) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)] if error is not None else []


def shown(error: BaseException) -> list[str]:
    """The names of all frames that are printed, of the error and of its causes."""
    return shown(error.__cause__) + frames_of(error) if error.__cause__ is not None else frames_of(error)


async def test_a_value_without_a_type_is_told_in_few_frames(tmp_path: Path) -> None:
    error = await failure(tmp_path, [{"id": 1, "took": timedelta(seconds=3)}])
    assert "timedelta" in str(error)
    assert len(shown(error)) <= MOST_FRAMES, "".join(traceback.format_exception(error))


async def test_a_value_that_holds_itself_is_named_with_table_and_column(tmp_path: Path) -> None:
    endless: list[object] = []
    endless.append(endless)
    error = await failure(tmp_path, [{"id": 1}, {"id": 2, "loop": {"of": endless}}], max_table_nesting=0)
    assert isinstance(error.__cause__, BadRecord)
    assert "'t', column 'loop'" in str(error)
    assert len(shown(error)) <= MOST_FRAMES


async def test_an_error_of_a_resource_begins_in_its_code(tmp_path: Path) -> None:
    def token() -> str:
        return {"user": "ada"}["token"]

    async def pages() -> AsyncIterator[dict[str, object]]:
        yield {"id": 1, "token": token()}

    error = await failure(tmp_path, pages())
    original = error.__cause__.__cause__ if error.__cause__ is not None else None
    assert isinstance(original, KeyError)
    assert frames_of(original) == ["pages", "token"]
    assert len(shown(error)) <= MOST_FRAMES, "".join(traceback.format_exception(error))


async def test_what_may_be_a_defect_of_ours_keeps_all_its_frames(tmp_path: Path) -> None:
    def fault(_: str) -> None:
        raise ZeroDivisionError

    error = await failure(tmp_path, [{"id": 1}], destination=asyncelt.destinations.memory(fault=fault))
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "fault" in frames_of(error.__cause__)


async def test_all_frames_are_shown_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCELT_FULL_TRACEBACKS", "1")
    error = await failure(tmp_path, [{"id": 1, "took": timedelta(seconds=3)}])
    assert len(shown(error)) > MOST_FRAMES
