"""What a pipeline brings to each of its runs. Built once at the edge, frozen, handed down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asyncelt.budget import ByteBudget
from asyncelt.config import Settings
from asyncelt.load.protocol import Destination, Target
from asyncelt.observe import Event
from asyncelt.types import OnBusy

__all__ = ["Environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything the engine needs to know about a pipeline."""

    pipeline_name: str
    member: str
    dataset_name: str
    default_schema_name: str
    root: Path
    """Working folder of this pipeline and member."""
    destination: Destination
    settings: Settings
    budget: ByteBudget
    emit: Callable[[Event], None]
    on_busy: OnBusy = "wait"
    restore_from_destination: bool = True

    @property
    def target(self) -> Target:
        """Where sessions write."""
        return Target(pipeline_name=self.pipeline_name, dataset_name=self.dataset_name, member=self.member)
