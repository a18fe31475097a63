"""What a dataset of files needs of the place where the files are: a local folder, or a prefix in a bucket."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from asyncelt.destinations.filesystem_impl.blocked import Blocked
from asyncelt.destinations.filesystem_impl.content import Content
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.load.protocol import Commit, Lease

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["Carrier", "Journal", "Place", "Store"]


class Store(Protocol):
    """Small files and names. Blocking; called by a session's thread. Paths are relative to the dataset."""

    @property
    def address(self) -> str:
        """For messages."""
        ...

    def exists(self) -> bool:
        """Whether there is anything of the dataset."""
        ...

    def names(self, folder: str, *, begin: str = "", after: str = "") -> list[str]:
        """Names of the files in a folder of the dataset, none if there is no such folder.

        Args:
            folder: Which.
            begin: What they begin with.
            after: What they sort behind.
        """
        ...

    def files(self) -> list[str]:
        """Paths of all Parquet and JSON lines files, sorted."""
        ...

    def read(self, path: str) -> bytes | None:
        """A small file; None if it is not there."""
        ...

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """Small files that are there, in order."""
        ...

    def read_each(self, paths: Sequence[str]) -> list[bytes | None]:
        """Small files, in order; None for those that are not there."""
        ...

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """Write small files. Each is there with all of its content or not at all; durable on return."""
        ...

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """A file of this machine that is written inside the block. Afterwards it is, or a copy of it, in its place."""
        ...

    def remove(self, paths: Sequence[str]) -> None:
        """Remove files; one that is not there is fine."""
        ...

    def settle(self, paths: Sequence[str]) -> str | None:
        """Make sure that data files are there and stay there.

        Returns:
            One that is missing; None: all are there.
        """
        ...

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """Bytes of files, in order; None for those that are not there."""
        ...

    def span(self, path: str, start: int, stop: int) -> bytes | None:
        """The bytes of a file from ``start`` to before ``stop``; None if it is not there."""
        ...

    def local_path(self, path: str) -> Path | None:
        """Where a file lies on this machine; None: it does not."""
        ...

    def abort_uploads(self, paths: Collection[str]) -> None:
        """Remove what was on its way to these files when its owner died."""
        ...

    def abort_stale_uploads(self, tables: Collection[str]) -> None:
        """Remove what writers of these tables have begun long ago: they were killed, since nobody takes so long."""
        ...

    def table_address(self, name: str) -> tuple[str, dict[str, str]]:
        """Address of a table in a table format, and options with which its driver gets there."""
        ...

    def reading(self) -> AbstractContextManager[None]:
        """Inside the block what DuckDB could not read of attached files is raised as the error that it was."""
        ...

    def check(self) -> None:
        """Find out whether files can be written, as far as that can be seen without writing any.

        Raises:
            OSError: They cannot.
        """
        ...

    def attach(self, connection: DuckDBPyConnection, paths: Sequence[str]) -> list[str]:
        """Addresses under which this DuckDB can read the files, in order."""
        ...


class Journal(Protocol):
    """Which commits there were, in order, and who may make the next one. Blocking, like `Store`.

    `recent`, `position` and the beginning of a `turn` look anew; the others tell what has been seen then.
    """

    def content(self) -> Content:
        """What all commits together have made of the dataset."""
        ...

    def recent(self) -> Sequence[Marker]:
        """Commits behind the last checkpoint, oldest first."""
        ...

    @property
    def is_long(self) -> bool:
        """Whether it is time for a checkpoint."""
        ...

    def fold(self) -> None:
        """Make a checkpoint of all commits that there are, all of which have been followed. Inside a `turn`."""
        ...

    def blocked(self) -> Sequence[Blocked]:
        """What is left to do of commits that a table has refused, oldest first."""
        ...

    def position(self) -> int:
        """How many commits there have been: the same as before as long as there was none in between."""
        ...

    def owner_of(self, marker: Marker) -> str | None:
        """Who is alive and does what follows from a commit; None: nobody else. Inside a `turn`."""
        ...

    def lease(self, pipeline_name: str, member: str) -> Lease:
        """Epoch and head; epoch 0 when this pipeline has never committed."""
        ...

    def take(self, pipeline_name: str, member: str) -> Lease:
        """Raise the epoch of a pipeline that has committed before.

        Raises:
            Busy: Another owner is alive.
        """
        ...

    def turn(self) -> AbstractContextManager[None]:
        """Inside the block this session alone commits; or its `append` is refused because another one was quicker.

        Raises:
            Busy: It is somebody else's turn.
        """
        ...

    def append(self, marker: Marker) -> None:
        """The moment of the commit: before, nothing has happened; afterwards everything has. Inside a `turn`.

        Raises:
            Busy: Another session was quicker; what was looked up has to be looked up again.
            CommitUnknown: No answer came.
        """
        ...

    def followed(self, marker: Marker) -> None:
        """Write down what follows for the lease. May be called again."""
        ...

    def block(self, blocked: Blocked) -> None:
        """Write down, durably, what is left to do of a commit that has been followed but for that. Inside a `turn`.

        Raises:
            Busy: As `append`.
        """
        ...

    def withdraw(self, commit: Commit) -> None:
        """Forget that the files of a commit were to come."""
        ...


class Carrier(Protocol):
    """Brings data files to their final names. On the event loop."""

    async def announce(self, commit_name: str, epoch: int, paths: Sequence[str]) -> None:
        """Say which files will come, so that whoever owns the pipeline next finds what a dead run has left."""
        ...

    async def bring(self, source: Path, path: str, tag: str) -> None:
        """Bring one file. Nothing is at its name before all of it is; doing it again is fine.

        Args:
            source: A file that nobody changes.
            path: Relative to the dataset.
            tag: Tells temporary names of several loads apart.

        Cancellation:
            Leaves nothing behind.
        """
        ...

    def forget(self) -> None:
        """Take nothing for granted that has been brought: somebody else may have removed it."""
        ...

    async def close(self) -> None:
        """End. Never raises because of the other side."""
        ...


class Place(Protocol):
    """One dataset's files, as a session uses them."""

    @property
    def store(self) -> Store:
        """Small files and names."""
        ...

    @property
    def journal(self) -> Journal:
        """Commits and leases."""
        ...

    @property
    def carrier(self) -> Carrier:
        """Data files."""
        ...

    @property
    def marks_epochs(self) -> bool:
        """Whether names of data files tell the epoch of the owner that wrote them."""
        ...
