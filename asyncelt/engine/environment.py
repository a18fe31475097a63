"""What a pipeline brings to each of its runs. Built once at the edge, frozen, handed down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from asyncelt.budget import ByteBudget
from asyncelt.config import Settings
from asyncelt.errors import PipelineConfigMissing
from asyncelt.load.protocol import Destination, Session, Target
from asyncelt.load.staging import connected
from asyncelt.observe import Event
from asyncelt.schema.capabilities import Capabilities
from asyncelt.storage.head import HeadFile
from asyncelt.types import OnBusy

__all__ = ["Environment", "without_destination"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Everything the engine needs to know about a pipeline."""

    pipeline_name: str
    member: str
    dataset_name: str
    default_schema_name: str
    root: Path
    """Working folder of this pipeline and member."""
    head_file: HeadFile
    """Of that folder."""
    destination: Destination | None
    """None: only extract works, and rules are those of a destination that can do everything."""
    settings: Settings
    budget: ByteBudget
    emit: Callable[[Event], None]
    staging: Destination | None = None
    """Where job files go before the destination loads them; None: it loads them from the packages."""
    on_busy: OnBusy = "wait"
    restore_from_destination: bool = True
    dev_mode: bool = False
    start_anew: bool = False
    """Whether what the working folder holds is removed first."""

    @property
    def target(self) -> Target:
        """Where sessions write."""
        return Target(pipeline_name=self.pipeline_name, dataset_name=self.dataset_name, member=self.member)

    @property
    def place(self) -> str | None:
        """Destination and dataset in one: where the head's packages are. None without a destination."""
        if self.destination is None:
            return None

        return f"{self.destination.destination_type} {self.destination.location} {self.dataset_name}"

    @property
    def capabilities(self) -> Capabilities:
        """What the destination can do."""
        return self.destination.capabilities if self.destination is not None else Capabilities()

    def connect(self) -> AbstractAsyncContextManager[Session]:
        """A session of the destination that can load packages.

        Raises:
            PipelineConfigMissing: There is none.
        """
        return connected(self.required_destination, self.staging, self.target)

    @property
    def required_destination(self) -> Destination:
        """The destination.

        Raises:
            PipelineConfigMissing: There is none.
        """
        if self.destination is None:
            raise without_destination(self.pipeline_name)

        return self.destination


def without_destination(pipeline_name: str) -> PipelineConfigMissing:
    """The error of a call that needs a destination where there is none."""
    return PipelineConfigMissing(
        f"Pipeline {pipeline_name!r} has no destination: asyncelt.pipeline({pipeline_name!r}, destination='duckdb')."
    )
