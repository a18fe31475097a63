"""DuckDB's errors as ours, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from asyncelt.destinations.busy import Busy
from asyncelt.errors import DestinationRejected, DestinationUnavailable, LoadError, UndefinedRelation

__all__ = ["Interrupted", "translate", "translated"]


class Interrupted(DestinationUnavailable):
    """The statement was interrupted because its caller was cancelled; its transaction is rolled back."""


def translate(error: duckdb.Error, doing: str) -> LoadError:
    """Our error for one of DuckDB's. ``doing`` completes the sentence "DuckDB failed while ..."."""
    message = f"DuckDB failed while {doing}: {error}"

    if isinstance(error, duckdb.InterruptException):
        return Interrupted(message)

    if isinstance(error, duckdb.IOException) and ("lock" in str(error).lower()):
        return Busy(message)

    if isinstance(error, duckdb.IOException) and "not a valid" in str(error).lower():
        return DestinationRejected(message, code=type(error).__name__)

    if isinstance(error, duckdb.OutOfMemoryException):
        return DestinationRejected(message, hint="raise memory_limit of the destination, or make smaller packages.")

    if isinstance(error, (duckdb.IOException, duckdb.TransactionException, duckdb.ConnectionException)):
        return DestinationUnavailable(message)

    if isinstance(error, duckdb.FatalException):
        return DestinationUnavailable(message)

    if isinstance(error, duckdb.CatalogException) and "does not exist" in str(error):
        return UndefinedRelation(message, code=type(error).__name__)

    return DestinationRejected(message, code=type(error).__name__)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors for DuckDB's inside the block."""
    try:
        yield
    except duckdb.Error as error:
        raise translate(error, doing) from error
