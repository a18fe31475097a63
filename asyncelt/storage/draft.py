"""A package on its way: a folder that is garbage until it is sealed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asyncelt.storage.disk import DiskMeter
from asyncelt.types import LoadId

__all__ = ["PackageDraft"]


@dataclass(frozen=True, slots=True)
class PackageDraft:
    """A package that is being built."""

    load_id: LoadId
    folder: Path
    disk: DiskMeter
    """Counts what is written into it."""

    @property
    def jobs_folder(self) -> Path:
        """Where job files are written."""
        return self.folder / "jobs"

    @property
    def pages_folder(self) -> Path:
        """Where page files are written."""
        return self.folder / "pages"
