"""Pipelines into memory, whose destination can be made to fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import asyncelt


class Faults:
    """Raises at the next passes of a step of the destination."""

    def __init__(self) -> None:
        self.at: dict[str, list[BaseException]] = {}

    def raise_at(self, step: str, error: BaseException, times: int = 1) -> None:
        """Raise ``error`` at the next ``times`` passes."""
        self.at.setdefault(step, []).extend([error] * times)

    def __call__(self, step: str) -> None:
        if self.at.get(step):
            raise self.at[step].pop(0)


@pytest.fixture
def faults() -> Faults:
    """What goes wrong at the destination."""
    return Faults()


@pytest.fixture
def memory(faults: Faults) -> Any:
    """A destination that all pipelines of a test share."""
    return asyncelt.destinations.memory(fault=faults)


@pytest.fixture
def make(tmp_path: Path, memory: Any) -> Callable[..., asyncelt.Pipeline]:
    """Makes pipelines that share a working folder and a destination, as processes one after the other do."""

    def make(name: str = "p", **options: Any) -> asyncelt.Pipeline:
        options.setdefault("destination", memory)
        options.setdefault("dataset_name", "data")
        options.setdefault("pipelines_dir", tmp_path / "work")
        options.setdefault("settings", asyncelt.Settings(retry=asyncelt.Retry(attempts=2, first_s=0.0)))

        return asyncelt.pipeline(name, **options)

    return make
