"""Commits in a bucket: numbered objects, each written only where none is. Blocking.

Whoever wants to commit has read all entries up to number n, checks what is to be checked, and puts entry n + 1 on
the condition that there is none. If another session was quicker, the condition fails and everything is looked up and
checked again. An owner that takes over puts an entry too: one that was only paused meanwhile finds its number taken,
and then in that entry that its epoch is over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import orjson

from asyncelt.destinations.busy import Busy
from asyncelt.destinations.filesystem_impl.documents import (
    COMMITS,
    Marker,
    parse_marker,
    upload_path,
    uploads_folder,
)
from asyncelt.destinations.filesystem_impl.s3.holding import Holding
from asyncelt.destinations.filesystem_impl.s3.store import S3Store
from asyncelt.errors import CommitUnknown, DestinationUnavailable
from asyncelt.failpoints import failpoint
from asyncelt.load.protocol import Lease
from asyncelt.types import LoadId

__all__ = ["S3Journal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """An entry that raises an epoch and commits nothing."""

    pipeline_name: str
    member: str
    epoch: int

    def to_json(self) -> bytes:
        """The entry's content."""
        return orjson.dumps({"format_version": 1, "takeover": asdict(self)})


class S3Journal:
    """See `Journal`. Entries never change, so each is read once.

    Args:
        store: Of the dataset.
        holding: Sign of life of this session.
    """

    def __init__(self, store: S3Store, holding: Holding) -> None:
        self._store = store
        self._holding = holding
        self._entries: dict[int, Marker | Takeover] = {}
        self._in_turn = False

    def markers(self) -> list[Marker]:
        """See `Journal.markers`."""
        return [entry for entry in self._read() if isinstance(entry, Marker)]

    def unsettled(self, settled: frozenset[LoadId]) -> Sequence[Marker]:
        """See `Journal.unsettled`."""
        return [marker for marker in self.markers() if marker.name not in settled]

    def lease(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.lease`."""
        lease = Lease(epoch=0)

        for entry in self._read():
            if (entry.pipeline_name, entry.member) == (pipeline_name, member):
                head = entry.name if isinstance(entry, Marker) else lease.head_load_id
                lease = Lease(epoch=entry.epoch, head_load_id=head)

        return lease

    def take(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.take`. What dead owners have left half-done is gone afterwards."""
        current = self.lease(pipeline_name, member)
        lease = Lease(epoch=current.epoch + 1, head_load_id=current.head_load_id)
        self._store.wait(self._holding.take(pipeline_name, member, lease.epoch))

        with self.turn():
            if self.lease(pipeline_name, member) != current:
                raise Busy(f"Pipeline {pipeline_name!r} has moved on at this moment.")

            self._put(Takeover(pipeline_name=pipeline_name, member=member, epoch=lease.epoch))

        failpoint("filesystem.taken")
        self._clean(pipeline_name, member, lease.epoch)

        return lease

    @contextmanager
    def turn(self) -> Iterator[None]:
        """See `Journal.turn`. Nobody is kept out; what is looked up in the block is one state of the journal."""
        self._read()
        self._in_turn = True

        try:
            yield
        finally:
            self._in_turn = False

    def append(self, marker: Marker) -> None:
        """See `Journal.append`."""
        try:
            self._put(marker)
        except DestinationUnavailable as error:
            if isinstance(error, Busy):
                raise

            raise CommitUnknown(f"No answer to the commit of load package {marker.name}: {error}") from error

        self._store.wait(self._holding.begin(marker.pipeline_name, marker.member, marker.epoch))

    def followed(self, marker: Marker) -> None:
        """See `Journal.followed`. Epoch and head are in the entries; the announcement has become superfluous."""
        self._store.remove([upload_path(marker.pipeline_name, marker.member, marker.epoch, marker.name)])

    def _read(self) -> list[Marker | Takeover]:
        if not self._in_turn:
            after = f"{max(self._entries):010d}.json" if self._entries else ""
            names = [name for name in self._store.names(COMMITS, after=after) if name.removesuffix(".json").isdecimal()]

            for name, content in zip(names, self._store.read_all([f"{COMMITS}/{name}" for name in names]), strict=True):
                self._entries[int(name.removesuffix(".json"))] = _parsed(content)

        return [self._entries[number] for number in sorted(self._entries)]

    def _put(self, entry: Marker | Takeover) -> None:
        number = max(self._entries, default=0) + 1
        path = f"{COMMITS}/{number:010d}.json"
        content = entry.to_json()

        # A request that was sent twice because its first answer was lost finds its own entry there.
        if not self._store.create(path, content) and self._store.read(path) != content:
            raise Busy(f"Another session has committed to {self._store.address} at this moment.")

        self._entries[number] = entry

    def _clean(self, pipeline_name: str, member: str, epoch: int) -> None:
        """Remove data files and open uploads of owners that can no longer commit."""
        folder = uploads_folder(pipeline_name, member)
        old = [name for name in self._store.names(folder) if int(name.partition("-")[0]) < epoch]

        if not old:
            return

        announcements = [f"{folder}/{name}" for name in old]
        announced = {path for content in self._store.read_all(announcements) for path in orjson.loads(content)}
        live = {
            path
            for marker in self.markers()
            for package in marker.packages
            for paths in package.files.values()
            for path in paths
        }
        self._store.abort_uploads(announced)
        self._store.remove(sorted(announced - live))
        self._store.remove(announcements)


def _parsed(content: bytes) -> Marker | Takeover:
    fields = orjson.loads(content)

    return Takeover(**fields["takeover"]) if "takeover" in fields else parse_marker(content)
