"""Every error asyncelt raises, as one tree.

Two questions choose a class: who can fix it, and may it be tried again (``retryable``, the only thing the
retry loop looks at)::

    AsynceltError
    ├─ PipelineStepFailed              what run, extract, normalize, load and sync raise; the cause is below it
    ├─ ConfigError(ValueError)         a wrong argument or setting; raised before any I/O
    │  ├─ PipelineConfigMissing        no destination, or no schema yet
    │  ├─ ConfigValueMissing           (also KeyError) a value that is nowhere; names the places
    │  ├─ InvalidPipelineName          the name cannot be a folder
    │  ├─ ResourceNameMissing          data without a name and without table_name
    │  └─ UnknownDestination           no destination is registered under this name
    ├─ UsageError(RuntimeError)        API misused: closed, entered twice, outside a run
    │  └─ PipelineNotActive            deactivated without being active in this task
    ├─ PipelineBusy                    another owner holds the pipeline; retryable
    ├─ MessageNotCommitted             a stream ended before it had committed a message
    ├─ ExtractError
    │  ├─ InvalidResourceData          this value cannot be a resource
    │  ├─ ResourceExtractionError      user code raised; the original is __cause__
    │  ├─ SourceExhausted              a generator that was already consumed
    │  └─ IncrementalError             a cursor cannot be followed
    │     ├─ IncrementalCursorPathMissing, IncrementalCursorPathHasValueNone
    │     ├─ IncrementalCursorInvalidCoercion
    │     ├─ IncrementalPrimaryKeyMissing
    │     └─ IncrementalBoundaryChanged
    ├─ SchemaError
    │  ├─ SchemaConflict               two definitions that do not join
    │  │  └─ TableIdentifiersFrozen    another naming convention, and tables have data
    │  ├─ DataValidationError          the schema contract forbids this change
    │  ├─ NameCollision                two names become one
    │  └─ SchemaNotFound               (also KeyError)
    ├─ NormalizeError
    │  └─ BadRecord                    table, column, row and an excerpt of the value
    ├─ StorageError
    │  ├─ PackageCorrupt               a manifest or job file does not match
    │  ├─ DiskLimitReached             package files would take more than Limits.max_disk
    │  ├─ LoadPackageNotFound          (also FileNotFoundError)
    │  └─ CannotRestorePipeline        neither a working folder nor a destination knows the pipeline
    ├─ QueryError(ValueError)          a relation that cannot be read like this; raised before the destination is asked
    │  ├─ InvalidQuery                 not one SELECT, or not SQL at all
    │  ├─ UnknownTable                 (also KeyError) the dataset has no such table
    │  └─ UnknownColumn                (also KeyError) the relation has no such column
    └─ LoadError
       ├─ DestinationUnavailable       retryable: network, lock, server starting
       ├─ DestinationRejected          not retryable; server code, detail, hint
       │  ├─ UndefinedRelation         the statement names a table or dataset that is not there
       │  └─ TableBlocked              a lake table refuses rows of a load that is committed
       ├─ LoadTimeout(TimeoutError)    retryable
       ├─ LeaseLost                    another owner took over; this package can no longer commit
       │  └─ PositionsTaken            somebody else has committed messages of this package
       ├─ CommitUnknown                may have happened: ask by load id, never repeat blindly
       └─ Unsupported(NotImplementedError)
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import ClassVar, Final, Self

__all__ = [
    "AsynceltError",
    "AsynceltWarning",
    "BadRecord",
    "CannotRestorePipeline",
    "CommitUnknown",
    "ConfigError",
    "ConfigValueMissing",
    "DataValidationError",
    "DestinationRejected",
    "DestinationUnavailable",
    "DiskLimitReached",
    "ExtractError",
    "IncrementalBoundaryChanged",
    "IncrementalCursorInvalidCoercion",
    "IncrementalCursorPathHasValueNone",
    "IncrementalCursorPathMissing",
    "IncrementalError",
    "IncrementalPrimaryKeyMissing",
    "InvalidPipelineName",
    "InvalidQuery",
    "InvalidResourceData",
    "LeaseLost",
    "LoadError",
    "LoadPackageNotFound",
    "LoadTimeout",
    "NameCollision",
    "NormalizeError",
    "PackageCorrupt",
    "PipelineBusy",
    "PipelineConfigMissing",
    "PipelineNotActive",
    "PipelineStepFailed",
    "QueryError",
    "ResourceExtractionError",
    "ResourceNameMissing",
    "SchemaConflict",
    "SchemaError",
    "SchemaNotFound",
    "SourceExhausted",
    "StorageError",
    "TableBlocked",
    "TableIdentifiersFrozen",
    "UndefinedRelation",
    "UnknownColumn",
    "UnknownDestination",
    "UnknownTable",
    "Unsupported",
    "UsageError",
    "warn",
]


_REMEMBERED: Final = 200


class AsynceltWarning(UserWarning):
    """Something a user should know that does not fail a run."""


def warn(text: str, *, stacklevel: int = 1) -> None:
    """Warn of what a user should know. Python remembers each text for good; what this keeps of them stays small.

    Args:
        text: May differ each time.
        stacklevel: As in `warnings.warn`; 1 is the caller.
    """
    caller = sys._getframe(stacklevel)  # noqa: SLF001 - `warnings` finds the place in the same way
    known = caller.f_globals.setdefault("__warningregistry__", {})

    if len(known) > _REMEMBERED:
        known.clear()

    warnings.warn(text, AsynceltWarning, stacklevel=stacklevel + 1)


class AsynceltError(Exception):
    """Base of every error of this library."""

    retryable: ClassVar[bool] = False
    """Whether trying the same thing again may help."""


class PipelineStepFailed(AsynceltError):
    """A step of a pipeline failed; ``__cause__`` is the one real error, or a group where there are several."""

    def __init__(
        self,
        message: str,
        *,
        pipeline_name: str,
        step: str,
        load_id: str | None = None,
        has_pending_data: bool = False,
    ) -> None:
        super().__init__(message)
        self.pipeline_name = pipeline_name
        self.step = step
        self.load_id = load_id
        self.has_pending_data = has_pending_data
        """Whether packages wait for normalize or load afterwards."""
        self.is_package_partially_loaded = False
        """Always False where the destination commits a package whole."""
        self.pipeline: object = None
        """The pipeline, once the error has left one of its calls."""
        self.step_info: object = None
        """What the step had done until then, as one of the infos of `asyncelt.info`."""

    @property
    def exception(self) -> BaseException | None:
        """The error below this one, under the reference's name for it."""
        return self.__cause__


class ConfigError(AsynceltError, ValueError):
    """An argument or a setting is wrong. Always raised before any I/O."""


class PipelineConfigMissing(ConfigError):
    """The step needs a destination or a schema and there is none."""


class ConfigValueMissing(ConfigError, KeyError):
    """A config value or secret is nowhere; the message names every place where it was looked for."""

    # Not KeyError's, which shows the message in quotes.
    __str__ = Exception.__str__


class InvalidPipelineName(ConfigError):
    """The pipeline name cannot be used as the name of a folder."""


class ResourceNameMissing(ConfigError):
    """Data was passed that has no name of its own, without ``table_name``."""


class UnknownDestination(ConfigError):
    """No destination is registered under this name."""


class UsageError(AsynceltError, RuntimeError):
    """The API was used in a way that cannot work: closed, entered twice, outside a run."""


class PipelineNotActive(UsageError):
    """The pipeline is not the active one of this task."""


class PipelineBusy(AsynceltError):
    """Another owner runs this pipeline (and member) now."""

    retryable = True


class MessageNotCommitted(AsynceltError):
    """A stream ended before a message was committed by it."""


class ExtractError(AsynceltError):
    """Base of what goes wrong while data is read from sources."""


class InvalidResourceData(ExtractError, TypeError):
    """This value cannot be turned into a resource; the message says what can."""


class ResourceExtractionError(ExtractError):
    """User code raised while a resource was read; the original error is ``__cause__``."""

    def __init__(self, message: str, *, resource: str) -> None:
        super().__init__(message)
        self.resource = resource


class SourceExhausted(ExtractError):
    """A generator or source that has been consumed was passed again."""


class IncrementalError(ExtractError):
    """The cursor of an incremental resource cannot be followed through its data."""


class IncrementalCursorPathMissing(IncrementalError):
    """A row does not have the cursor's field."""


class IncrementalCursorPathHasValueNone(IncrementalError):
    """A row has no value in the cursor's field."""


class IncrementalCursorInvalidCoercion(IncrementalError):
    """The cursor's value in a row cannot be compared with the start or the end of the range."""


class IncrementalPrimaryKeyMissing(IncrementalError):
    """A row does not have the field that tells it from others with the same cursor value."""


class IncrementalBoundaryChanged(IncrementalError):
    """Too many rows share the last value to remember each of them, and those loaded before did not come first again."""


class SchemaError(AsynceltError):
    """Base of what goes wrong with schemas."""


class SchemaConflict(SchemaError):
    """Two definitions of a table or column do not join."""


class TableIdentifiersFrozen(SchemaConflict):
    """Another naming convention would name tables and columns anew that have received data."""


class DataValidationError(SchemaError):
    """The schema contract forbids a change that the data asks for.

    The attributes are the reference's. None: it is not known, or has no part in it.
    """

    def __init__(
        self,
        message: str,
        *,
        schema_name: str | None = None,
        table_name: str | None = None,
        column_name: str | None = None,
        schema_entity: str | None = None,
        contract_mode: str | None = None,
        schema_contract: Mapping[str, str] | None = None,
        data_item: object = None,
    ) -> None:
        super().__init__(message)
        self.schema_name = schema_name
        self.table_name = table_name
        self.column_name = column_name
        self.schema_entity = schema_entity
        """``tables``, ``columns`` or ``data_type``."""
        self.contract_mode = contract_mode
        self.schema_contract = schema_contract
        """The mode of each entity."""
        self.data_item = data_item
        """What broke it: the first value of a column, or the row that a model refuses."""


class NameCollision(SchemaError):
    """Two different names become the same after normalization."""


class SchemaNotFound(SchemaError, KeyError):
    """The pipeline has no schema of this name."""

    __str__ = Exception.__str__


class NormalizeError(AsynceltError):
    """Base of what goes wrong while rows become columns."""


class BadRecord(NormalizeError):
    """A value that can neither be kept nor be put into a variant column."""

    def __init__(
        self, message: str, *, table: str, column: str | None = None, row: int | None = None, value: str | None = None
    ) -> None:
        where = (
            f"table {table!r}"
            + (f", column {column!r}" if column else "")
            + (f", row {row}" if row is not None else "")
        )
        excerpt = f" Value: {value}" if value is not None else ""
        super().__init__(f"{where}: {message}{excerpt}")
        self.table = table
        self.column = column
        self.row = row
        self.value = value


class StorageError(AsynceltError):
    """Base of what goes wrong with local files."""


class PackageCorrupt(StorageError):
    """A manifest or a job file is missing, cut off or does not match its record."""


class DiskLimitReached(StorageError):
    """Package files would take more of the disk than ``Limits.max_disk`` allows."""


class LoadPackageNotFound(StorageError, FileNotFoundError):
    """There is no load package with this id."""


class CannotRestorePipeline(StorageError):
    """Neither a working folder nor the destination knows this pipeline."""


class QueryError(AsynceltError, ValueError):
    """Base of what is wrong with a relation; always raised before the destination is asked."""


class InvalidQuery(QueryError):
    """This is not one SELECT, or not SQL of this dialect."""


class UnknownTable(QueryError, KeyError):
    """The dataset has no table of this name."""

    # Not KeyError's, which shows the message in quotes.
    __str__ = Exception.__str__


class UnknownColumn(QueryError, KeyError):
    """The relation, or one of its tables, has no column of this name."""

    __str__ = Exception.__str__


class LoadError(AsynceltError):
    """Base of what goes wrong at the destination."""

    load_id: str | None = None
    """The package it is about, where that is known."""
    table: str | None = None
    job_id: str | None = None

    def at(self, *, load_id: str | None = None, table: str | None = None, job_id: str | None = None) -> Self:
        """The same error, knowing where it happened; what it knew before stays."""
        self.load_id = self.load_id or load_id
        self.table = self.table or table
        self.job_id = self.job_id or job_id

        return self


class DestinationUnavailable(LoadError):
    """The destination cannot be reached now, or something else holds it; nothing was changed."""

    retryable = True


class DestinationRejected(LoadError):
    """The destination refused the data or the statement; trying again will not help."""

    def __init__(
        self, message: str, *, code: str | None = None, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message + (f" Detail: {detail}" if detail else "") + (f" Hint: {hint}" if hint else ""))
        self.code = code
        self.detail = detail
        self.hint = hint


class UndefinedRelation(DestinationRejected):
    """The statement names a table, a view or a dataset that the destination does not have."""


class TableBlocked(DestinationRejected):
    """A table in a table format refuses rows of a load that is committed.

    They are kept until the table is mended, or until they are given up for this table. What does not need the table
    goes on.
    """


class TablesBehind(DestinationUnavailable):
    """The load is committed, but not all of its tables have it yet. Trying again, or any later call, brings them."""


class LoadTimeout(LoadError, TimeoutError):
    """The destination did not answer in time; the work is safe to repeat."""

    retryable = True


class LeaseLost(LoadError):
    """Another owner has taken over this pipeline; the package at hand cannot be committed any more."""


class PositionsTaken(LeaseLost):
    """Somebody else has committed messages of this package."""


class CommitUnknown(LoadError):
    """The connection broke during COMMIT: the package may or may not be there. Ask by load id."""


class Unsupported(LoadError, NotImplementedError):
    """The destination cannot do what was asked; the message names what it can."""
