"""A dataset in a local folder. Ownership by file lock: the kernel lets go of it when the owner dies."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from asyncelt.destinations.busy import lock_file
from asyncelt.destinations.filesystem_impl import documents, pieces
from asyncelt.destinations.filesystem_impl.blocked import Blocked
from asyncelt.destinations.filesystem_impl.content import Content
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.layout import path_part
from asyncelt.destinations.filesystem_impl.leftovers import remove_leftovers
from asyncelt.destinations.filesystem_impl.local_carrier import LocalCarrier
from asyncelt.destinations.filesystem_impl.pieces import Piece, extended, read_pieces, remove_pieces
from asyncelt.errors import DestinationRejected
from asyncelt.failpoints import failpoint
from asyncelt.load.protocol import Commit, Lease, Target
from asyncelt.storage.files import fsync_directory, write_atomically

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = ["LocalPlace"]

_LATEST = f"{documents.CHECKPOINTS}/latest.json"


class LocalPlace:
    """A dataset's folder.

    Args:
        path: Need not exist.
        target: For whom.
    """

    marks_epochs = False
    """A dead owner cannot come back: what it has begun is written again under the same name."""

    def __init__(self, path: Path, target: Target) -> None:
        self.store = LocalStore(path)
        self.journal = LocalJournal(path, self.store)
        self.carrier = LocalCarrier(path, target)


class LocalStore:
    """See `Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._path)

    def exists(self) -> bool:
        """See `Store.exists`."""
        return self._path.is_dir()

    def names(self, folder: str, *, begin: str = "", after: str = "") -> list[str]:
        """See `Store.names`."""
        try:
            found = os.listdir(self._path / folder)
        except FileNotFoundError:
            return []

        return [name for name in found if name.startswith(begin) and name > after]

    def files(self) -> list[str]:
        """See `Store.files`."""
        return sorted(
            path.relative_to(self._path).as_posix()
            for path in self._path.rglob("*")
            if path.suffix in {".parquet", ".jsonl", ".gz"}
        )

    def read(self, path: str) -> bytes | None:
        """See `Store.read`."""
        try:
            return (self._path / path).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, paths: Sequence[str]) -> list[bytes]:
        """See `Store.read_all`."""
        return [(self._path / path).read_bytes() for path in paths]

    def read_each(self, paths: Sequence[str]) -> list[bytes | None]:
        """See `Store.read_each`."""
        return [self.read(path) for path in paths]

    def write_all(self, contents: Mapping[str, bytes]) -> None:
        """See `Store.write_all`."""
        for path, content in contents.items():
            target = self._path / path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content, durable=True)

    def writing(self, path: str) -> AbstractContextManager[Path]:
        """See `Store.writing`."""
        return nullcontext(self._path / path)

    def remove(self, paths: Sequence[str]) -> None:
        """See `Store.remove`."""
        for path in paths:
            (self._path / path).unlink(missing_ok=True)

    def settle(self, paths: Sequence[str]) -> str | None:
        """See `Store.settle`. Names survive a crash of the machine once their folders are written out."""
        folders: set[Path] = set()

        for path in paths:
            if not (self._path / path).exists():
                return path

            parent = (self._path / path).parent

            while parent not in folders and parent != self._path.parent:
                folders.add(parent)
                parent = parent.parent

        for folder in folders:
            fsync_directory(folder)

        return None

    def sizes(self, paths: Sequence[str]) -> list[int | None]:
        """See `Store.sizes`."""

        def size(path: Path) -> int | None:
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return None

        return [size(self._path / path) for path in paths]

    def span(self, path: str, start: int, stop: int) -> bytes | None:
        """See `Store.span`."""
        try:
            with (self._path / path).open("rb") as file:
                file.seek(start)

                return file.read(stop - start)
        except FileNotFoundError:
            return None

    def local_path(self, path: str) -> Path:
        """See `Store.local_path`."""
        return self._path / path

    def abort_uploads(self, paths: Collection[str]) -> None:
        """See `Store.abort_uploads`."""
        for target in (self._path / path for path in paths):
            for temporary in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
                temporary.unlink(missing_ok=True)

    def abort_stale_uploads(self, tables: Collection[str]) -> None:
        """See `Store.abort_stale_uploads`: there are none."""

    def table_address(self, name: str) -> tuple[str, dict[str, str]]:
        """See `Store.table_address`."""
        return str(self._path / path_part(name)), {}

    def attach(self, connection: DuckDBPyConnection, paths: Sequence[str]) -> list[str]:
        """See `Store.attach`: DuckDB reads local files itself."""
        del connection

        return [str(self._path / path) for path in paths]

    def reading(self) -> AbstractContextManager[None]:
        """See `Store.reading`: its errors are DuckDB's own."""
        return nullcontext()

    def check(self) -> None:
        """See `Store.check`. Leaves no trace: looks at the folder in which the first one would be made."""
        folder = self._path

        while not folder.exists() and folder != folder.parent:
            folder = folder.parent

        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is no folder, so nothing can be made in it.")

        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"files cannot be made in {folder}.")


@dataclass(frozen=True, slots=True)
class _Folded:
    """The checkpoint: commits that are files of their own no more."""

    number: int = 0
    """How many."""
    pieces: Sequence[Piece] = ()
    last: frozenset[str] = frozenset()
    """Those whose files may still be there."""

    def to_json(self) -> bytes:
        pieces = [[one.number, one.size] for one in self.pieces]

        return orjson.dumps({"format_version": 1, "number": self.number, "pieces": pieces, "last": sorted(self.last)})

    @classmethod
    def from_json(cls, text: bytes) -> _Folded:
        fields = orjson.loads(text)

        return cls(fields["number"], [Piece(*one) for one in fields["pieces"]], frozenset(fields["last"]))


class LocalJournal:
    """See `Journal`. Markers are named after their last load; epoch and head of a pipeline are in a file of its own.

    A fold takes the markers that there are into the checkpoint, which is durable before they go.
    """

    def __init__(self, path: Path, store: LocalStore) -> None:
        self._path = path
        self._store = store
        self._markers: dict[str, Marker] = {}
        """Of the last look. They never change, so each is read once."""

    def content(self) -> Content:
        """See `Journal.content`."""
        while True:
            folded, markers = self._look()
            before = read_pieces(self._store, folded.pieces)

            if before is not None:
                return before.after(markers)

            if self._folded() == folded:
                raise DestinationRejected(
                    f"{self._path}: a file in {documents.CHECKPOINTS} is gone that says which files count. Restore it."
                )

    def recent(self) -> list[Marker]:
        """See `Journal.recent`."""
        return self._look()[1]

    @property
    def is_long(self) -> bool:
        """See `Journal.is_long`."""
        return len(self._markers) >= pieces.FOLDED

    def fold(self) -> None:
        """See `Journal.fold`."""
        folded, markers = self._look()
        number = folded.number + len(markers)
        later = extended(self._store, folded.pieces, Content.of(markers), number)

        if later is None:
            raise DestinationRejected(
                f"{self._path}: a file in {documents.CHECKPOINTS} is gone that says which files count. Restore it."
            )

        failpoint("filesystem.before_checkpoint")
        now = _Folded(number, later, frozenset(self._markers))
        self._store.write_all({_LATEST: now.to_json()})
        fsync_directory(self._path / documents.CHECKPOINTS)
        fsync_directory(self._path)
        failpoint("filesystem.after_checkpoint")
        gone = [f"{documents.COMMITS}/{name}.json" for name in {*folded.last, *now.last}]
        self._store.remove(gone)
        remove_pieces(self._store, [*later, *folded.pieces])

    def blocked(self) -> list[Blocked]:
        """See `Journal.blocked`."""
        names = sorted(self._store.names(documents.BLOCKED))
        found = [self._store.read(f"{documents.BLOCKED}/{name}") for name in names if name.endswith(".json")]

        # One that is gone meanwhile is over.
        return [Blocked.from_json(content) for content in found if content is not None]

    def position(self) -> int:
        """See `Journal.position`."""
        folded, markers = self._look()

        return folded.number + len(markers)

    def owner_of(self, marker: Marker) -> str | None:
        """See `Journal.owner_of`: an owner that is alive would have the turn."""
        del marker

        return None

    def lease(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.lease`."""
        content = self._store.read(documents.lease_path(pipeline_name, member))

        return Lease(epoch=0) if content is None else Lease(**orjson.loads(content))

    def take(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.take`. A live owner holds the lock of its working folder; here nothing is waited for.

        What dead owners have brought is gone afterwards: a load that is tried again brings it again.
        """
        with self.turn():
            current = self.lease(pipeline_name, member)
            lease = Lease(epoch=current.epoch + 1, head_load_id=current.head_load_id)
            path = self._path / documents.lease_path(pipeline_name, member)
            write_atomically(path, documents.lease_document(lease), durable=False)
            remove_leftovers(self._store, self.content, pipeline_name, member, lease.epoch)

        return lease

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Journal.turn`."""
        self._path.mkdir(parents=True, exist_ok=True)

        with lock_file(self._path / documents.LOCK, f"Another session is committing to {self._path}."):
            yield

    def append(self, marker: Marker) -> None:
        """See `Journal.append`."""
        folder = self._path / documents.COMMITS
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{marker.name}.json", marker.to_json(), durable=True)
        fsync_directory(folder)
        fsync_directory(self._path)

    def followed(self, marker: Marker) -> None:
        """See `Journal.followed`."""
        lease = Lease(epoch=marker.epoch, head_load_id=marker.name)
        path = documents.lease_path(marker.pipeline_name, marker.member)
        self._store.write_all({path: documents.lease_document(lease)})
        upload = documents.upload_path(marker.pipeline_name, marker.member, marker.epoch, marker.name)
        self._store.remove([upload])

    def block(self, blocked: Blocked) -> None:
        """See `Journal.block`."""
        path = f"{documents.BLOCKED}/{blocked.name}.json"

        if blocked.is_over:
            self._store.remove([path])

            return

        self._store.write_all({path: blocked.to_json()})
        fsync_directory(self._path / documents.BLOCKED)
        fsync_directory(self._path)

    def withdraw(self, commit: Commit) -> None:
        """See `Journal.withdraw`."""
        target, name = commit.target, commit.packages[-1].load_id
        upload = documents.upload_path(target.pipeline_name, target.member, commit.lease.epoch, name)
        self._store.remove([upload])

    def _look(self) -> tuple[_Folded, list[Marker]]:
        """The checkpoint and the commits behind it, as of one moment."""
        while True:
            folded = self._folded()
            names = [name for name in self._names() if name not in folded.last]
            new = [name for name in names if name not in self._markers]
            contents = self._store.read_each([f"{documents.COMMITS}/{name}.json" for name in new])

            # A fold that has come in between has taken some away.
            if None not in contents and self._folded() == folded:
                break

        read = {name: documents.parse_marker(one) for name, one in zip(new, contents, strict=True) if one is not None}
        self._markers = {name: read[name] if name in read else self._markers[name] for name in names}

        return folded, sorted(self._markers.values(), key=lambda marker: marker.committed_at)

    def _folded(self) -> _Folded:
        text = self._store.read(_LATEST)

        return _Folded() if text is None else _Folded.from_json(text)

    def _names(self) -> list[str]:
        names = self._store.names(documents.COMMITS)

        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))
