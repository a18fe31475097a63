"""The contract between two destinations: one keeps job files for a while, the other loads them from there. Public.

A destination of files opens a `Staging`; one that loads from there (`LoadsFromStaging`) puts the job files of a package
into it before the commit, reads them from it within the commit, and clears it afterwards::

    async with destination.connect_staged(target, staging) as session:   # else as without staging
        await session.load(commit, package, job)                         # puts the file
        await session.commit(commit)                                     # reads the files, then clears
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

from asyncelt.errors import ConfigError
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Destination, Session, Target
from asyncelt.types import FileFormat, LoadId

__all__ = [
    "LoadsFromStaging",
    "Staging",
    "StagingDestination",
    "check_staging",
    "connected",
    "formats_with",
]


class Staging(Protocol):
    """Job files of one pipeline, where its destination finds them. Used by one session, ended with it."""

    async def put(self, package: Package, job: JobFile) -> None:
        """Bring a job's file there, unless it is. Its name depends on package and job alone.

        A package that is tried again, by this process or another, brings only what is missing.

        Cancellation:
            Nothing half-written is left.
        """
        ...

    async def forget(self) -> None:
        """Look again what is there, at the next `put`: something has failed."""
        ...

    async def clear(self, load_id: LoadId, *, keep: bool) -> None:
        """End a package that has been committed, and those before it: nobody can commit them any more.

        Never raises because of the other side: what stays is removed with a later package.

        Args:
            load_id: The committed package.
            keep: Leave the files there.
        """
        ...

    def path_of(self, package: Package, job: JobFile) -> str:
        """The name of a job's file, the same each time."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Where a file lies on this machine; None: it has to be read with `span`."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes of a file; None if it is not there. Blocking, for any thread but that of the event loop."""
        ...

    def span(self, path: str, start: int, stop: int) -> bytes | None:
        """The bytes from ``start`` to before ``stop``; None if the file is not there. Blocking, like `size`."""
        ...


@runtime_checkable
class StagingDestination(Protocol):
    """A destination of files, as a place where those of others wait."""

    def check_staging(self) -> None:
        """Refuse what would not work, without I/O.

        Raises:
            ConfigError: Says why.
        """
        ...

    def staging(self, target: Target, reader: str) -> AbstractAsyncContextManager[Staging]:
        """Open it; makes no request.

        Args:
            target: Whose files.
            reader: The destination that loads them, by its location: what others have staged for another one is theirs.
        """
        ...


@runtime_checkable
class LoadsFromStaging(Protocol):
    """A destination that can load job files from a staging destination."""

    def connect_staged(self, target: Target, staging: StagingDestination) -> AbstractAsyncContextManager[Session]:
        """A session that does."""
        ...


def check_staging(destination: Destination, staging: Destination) -> None:
    """Refuse two that do not fit, without I/O.

    Raises:
        ConfigError: Names both.
    """
    name, place = destination.destination_name, staging.destination_name

    if not isinstance(destination, LoadsFromStaging) or not destination.capabilities.staging_file_formats:
        raise ConfigError(
            f"Destination {name!r} takes no staging destination, so {place!r} cannot be one: it loads the files of a "
            "package itself. Leave staging out."
        )

    if not isinstance(staging, StagingDestination):
        raise ConfigError(
            f"Destination {place!r} cannot keep files for {name!r}. Use a destination of files for staging: "
            "asyncelt.destinations.filesystem(...)."
        )

    if not formats_with(destination, staging):
        raise ConfigError(f"Destination {name!r} reads no files of the kinds that {place!r} keeps. Leave staging out.")

    staging.check_staging()


def formats_with(destination: Destination, staging: Destination | None) -> tuple[FileFormat, ...]:
    """Formats of job files that can be used, the best first."""
    capabilities = destination.capabilities

    if staging is None:
        return capabilities.file_formats

    return tuple(one for one in capabilities.staging_file_formats if one in staging.capabilities.file_formats)


def connected(
    destination: Destination, staging: Destination | None, target: Target
) -> AbstractAsyncContextManager[Session]:
    """A session of the destination, by way of the staging destination where there is one.

    Raises:
        ConfigError: They do not fit.
    """
    if staging is None:
        return destination.connect(target)

    check_staging(destination, staging)
    assert isinstance(destination, LoadsFromStaging) and isinstance(staging, StagingDestination)  # noqa: S101, PT018

    return destination.connect_staged(target, staging)
