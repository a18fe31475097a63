"""Where a DuckDB finds the job files of a commit: in the package, or where they have been staged. Blocking."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import duckdb

from asyncelt.errors import AsynceltError, DestinationUnavailable
from asyncelt.flow import JobFile, Package
from asyncelt.load.staging import Staging
from asyncelt.storage.formats import EXTENSIONS

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["JobPaths", "job_paths", "local_job_path"]

JobPaths: TypeAlias = Callable[[Package, JobFile], str]
"""Under which address DuckDB reads a job's file."""

T = TypeVar("T")

_numbers: Final = itertools.count()


class _Source:
    """Staged files for DuckDB, which remembers what went wrong."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self.error: AsynceltError | None = None

    def span(self, path: str, start: int, stop: int) -> bytes:
        return self._noting(lambda: self._staging.span(path, start, stop), path)

    def size(self, path: str) -> int:
        return self._noting(lambda: self._staging.size(path), path)

    def _noting(self, read: Callable[[], T | None], path: str) -> T:
        try:
            found = read()

            if found is None:
                raise DestinationUnavailable(f"The staged file {path} is gone: somebody has removed it.")
        except AsynceltError as error:
            self.error = error
            raise

        return found


def local_job_path(package: Package, job: JobFile) -> str:
    """The file in the package."""
    return str(package.path_of(job))


@contextmanager
def job_paths(connection: DuckDBPyConnection, staging: Staging | None) -> Iterator[JobPaths]:
    """Let the connection read staged files inside the block: those of this machine by their path, others through us."""
    if staging is None:
        yield local_job_path

        return

    # Its driver is needed for files elsewhere only; sessions that share a DuckDB have each a scheme of their own.
    scheme = f"asyncelt{next(_numbers)}"
    source = _Source(staging)
    registered: list[Callable[[str, str], str]] = []

    def address_of(path: str, extension: str) -> str:
        if not registered:
            module = importlib.import_module("asyncelt.destinations.objects")
            objects = module.Objects(source.span, source.size, scheme=scheme)
            connection.register_filesystem(objects)
            registered.append(objects.address_of)

        return registered[0](path, extension)

    def path_of(package: Package, job: JobFile) -> str:
        path = staging.path_of(package, job)
        local = staging.local_path(path)

        return str(local) if local is not None else address_of(path, f".{EXTENSIONS[job.file_format]}")

    try:
        yield path_of
    except (duckdb.Error, AsynceltError) as error:
        # DuckDB knows nothing but the text of what went wrong when it asked for the bytes.
        if source.error is not None:
            raise source.error from error

        raise
    finally:
        if registered:
            connection.unregister_filesystem(scheme)
