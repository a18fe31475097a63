"""How far one run of a resource has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from asyncelt.errors import AsynceltError, ConfigError, ExtractError, ResourceExtractionError, SchemaError, UsageError
from asyncelt.extract.steps import PageStepRun

__all__ = ["Headway"]


class Headway:
    """The rows so far, whether more are wanted, and errors that say where the resource failed.

    Args:
        resource: Name of the resource.
        runs: Its steps that see whole items. Each of them may have had enough.
    """

    def __init__(self, resource: str, runs: Sequence[PageStepRun] = ()) -> None:
        self.resource = resource
        self.runs = runs
        self.rows = 0
        """Rows and bodies that came out so far."""
        self._is_stopped = False

    def stop(self) -> None:
        """Nobody wants any more."""
        self._is_stopped = True

    def ended(self) -> bool:
        """Whether no further item is to be read."""
        return self._is_stopped or (bool(self.runs) and any(run.done for run in self.runs))

    def error(self, error: BaseException, where: str) -> AsynceltError:
        """What user code raised, as an error that names the resource and the position: itself if it is one of ours."""
        if isinstance(error, ExtractError | SchemaError | ConfigError | UsageError):
            error.add_note(f"In resource {self.resource!r}, {where}, after {self.rows} rows.")

            return error

        return ResourceExtractionError(
            f"resource {self.resource!r} failed {where} after {self.rows} rows: {type(error).__name__}: {error}",
            resource=self.resource,
        )

    def fail(self, error: BaseException, where: str) -> NoReturn:
        """Raise what `error` returns."""
        own = self.error(error, where)

        if own is error:
            raise own

        raise own from error
