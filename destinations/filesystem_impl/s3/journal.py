"""Commits in a bucket: numbered objects, each written only where none is. Blocking.

Whoever wants to commit has read all entries up to number n, checks what is to be checked, and puts entry n + 1 on
the condition that there is none. If another session was quicker, the condition fails and everything is looked up and
checked again. An owner that takes over puts an entry too: one that was only paused meanwhile finds its number taken,
and then in that entry that its epoch is over.

Entries stay for ever, but a session reads only those behind the last checkpoint. Whoever commits and finds that there
are many makes a new one: first an object that says which files have come and gone since the last one, then the one that
says up to which entry, and who owns what. Nothing depends on them: where one is missing, all entries are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

import orjson

from asyncelt.destinations.busy import Busy
from asyncelt.destinations.filesystem_impl import pieces
from asyncelt.destinations.filesystem_impl.blocked import Blocked
from asyncelt.destinations.filesystem_impl.content import Content
from asyncelt.destinations.filesystem_impl.documents import (
    CHECKPOINTS,
    COMMITS,
    Marker,
    parse_marker,
    upload_path,
    uploads_folder,
)
from asyncelt.destinations.filesystem_impl.pieces import Piece, extended, read_pieces, remove_pieces
from asyncelt.destinations.filesystem_impl.s3.holding import Holding
from asyncelt.destinations.filesystem_impl.s3.store import S3Store
from asyncelt.errors import CommitUnknown, DestinationUnavailable
from asyncelt.failpoints import failpoint
from asyncelt.load.protocol import Commit, Lease

__all__ = ["S3Journal"]

Entry: TypeAlias = "Marker | Takeover | Blocked"

_LATEST = f"{CHECKPOINTS}/latest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Takeover:
    """An entry that raises an epoch and commits nothing."""

    pipeline_name: str
    member: str
    epoch: int

    def to_json(self) -> bytes:
        """The entry's content."""
        return orjson.dumps({"format_version": 1, "takeover": asdict(self)})


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    number: int = 0
    """Of the last entry that is in it."""
    leases: Mapping[tuple[str, str], Lease] = field(default_factory=dict)
    blocked: Sequence[Blocked] = ()
    pieces: Sequence[Piece] = ()

    def to_json(self) -> bytes:
        leases = [[*owner, lease.epoch, lease.head_load_id] for owner, lease in self.leases.items()]
        blocked = [orjson.loads(one.to_json()) for one in self.blocked]

        sizes = [[one.number, one.size] for one in self.pieces]
        fields = {"number": self.number, "leases": leases, "blocked": blocked, "pieces": sizes}

        return orjson.dumps({"format_version": 2, **fields})

    @classmethod
    def from_json(cls, text: bytes) -> _Checkpoint:
        fields = orjson.loads(text)
        leases = {
            (name, member): Lease(epoch=epoch, head_load_id=head) for name, member, epoch, head in fields["leases"]
        }

        blocked = [Blocked.from_json(orjson.dumps(one)) for one in fields["blocked"]]

        return cls(fields["number"], leases, blocked, [Piece(*one) for one in fields["pieces"]])


class S3Journal:
    """See `Journal`. Entries never change, so each is read once.

    Args:
        store: Of the dataset.
        holding: Sign of life of this session.
    """

    def __init__(self, store: S3Store, holding: Holding) -> None:
        self._store = store
        self._holding = holding
        self._checkpoint: _Checkpoint | None = None
        self._before: Content | None = None
        self._entries: dict[int, Entry] = {}
        self._in_turn = False
        self._has_looked = False

    def content(self) -> Content:
        """See `Journal.content`."""
        return self._content_before().after(_markers(self._known()))

    def recent(self) -> list[Marker]:
        """See `Journal.recent`."""
        return _markers(self._read())

    @property
    def is_long(self) -> bool:
        """See `Journal.is_long`."""
        return len(self._entries) >= pieces.FOLDED

    def fold(self) -> None:
        """See `Journal.fold`."""
        newest = self._latest()

        if newest.number > self._beginning().number:
            # Another session has made one since: only what is behind it is left to fold.
            self._entries = {number: entry for number, entry in self._entries.items() if number > newest.number}
            self._checkpoint, self._before = newest, None

        if not self.is_long:
            return

        old, number = self._beginning(), self._last
        later = Content.of(_markers(self._read()))
        written = extended(self._store, old.pieces, later, number)

        if written is None:
            written = extended(self._store, (), self._content_before().and_then(later), number) or []

        last = _Checkpoint(number, self._leases(), self.blocked(), written)
        failpoint("filesystem.before_checkpoint")
        self._store.write_all({_LATEST: last.to_json()})
        failpoint("filesystem.after_checkpoint")
        # Those of the last checkpoint stay for those who are about to read it.
        remove_pieces(self._store, [*written, *old.pieces])
        self._checkpoint, self._before, self._entries = last, None, {}

    def blocked(self) -> list[Blocked]:
        """See `Journal.blocked`."""
        return self._blocked(self._known())

    def _blocked(self, entries: Iterable[Entry]) -> list[Blocked]:
        """The last entry about a commit counts."""
        found = {one.name: one for one in self._beginning().blocked}
        found |= {one.name: one for one in entries if isinstance(one, Blocked)}

        return [found[name] for name in sorted(found) if not found[name].is_over]

    def position(self) -> int:
        """See `Journal.position`."""
        self._read()

        return self._last

    def owner_of(self, marker: Marker) -> str | None:
        """See `Journal.owner_of`: who gives signs of life under the epoch of the commit."""
        return self._store.wait(self._holding.other(marker.pipeline_name, marker.member, marker.epoch))

    def lease(self, pipeline_name: str, member: str) -> Lease:
        """See `Journal.lease`."""
        return self._leases().get((pipeline_name, member), Lease(epoch=0))

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

    def block(self, blocked: Blocked) -> None:
        """See `Journal.block`."""
        self._put(blocked)

    def withdraw(self, commit: Commit) -> None:
        """See `Journal.withdraw`."""
        target, name = commit.target, commit.packages[-1].load_id
        self._store.remove([upload_path(target.pipeline_name, target.member, commit.lease.epoch, name)])

    def _leases(self) -> dict[tuple[str, str], Lease]:
        entries = self._known()
        leases = dict(self._beginning().leases)

        for entry in entries:
            if isinstance(entry, Blocked):
                continue

            owner = (entry.pipeline_name, entry.member)
            before = leases.get(owner, Lease(epoch=0))
            head = entry.name if isinstance(entry, Marker) else before.head_load_id
            leases[owner] = Lease(epoch=entry.epoch, head_load_id=head)

        return leases

    def _beginning(self) -> _Checkpoint:
        if self._checkpoint is None:
            self._checkpoint = self._latest()

        return self._checkpoint

    def _latest(self) -> _Checkpoint:
        text = self._store.read(_LATEST)

        return _Checkpoint() if text is None else _Checkpoint.from_json(text)

    def _content_before(self) -> Content:
        """What is in the checkpoint, which only those need who read or replace."""
        if self._before is None:
            self._before = read_pieces(self._store, self._beginning().pieces)

        if self._before is None:
            # Other sessions have made further checkpoints since.
            before = self._all(after=0, to=self._beginning().number)
            self._before = Content().after(_markers(before[at] for at in sorted(before)))

        return self._before

    @property
    def _last(self) -> int:
        return max(self._entries, default=self._beginning().number)

    def _known(self) -> list[Entry]:
        """The entries as of the last look, if there was one."""
        return [self._entries[number] for number in sorted(self._entries)] if self._has_looked else self._read()

    def _read(self) -> list[Entry]:
        if not self._in_turn:
            self._entries |= self._all(after=self._last)
            self._has_looked = True

        return [self._entries[number] for number in sorted(self._entries)]

    def _all(self, *, after: int, to: int | None = None) -> dict[int, Entry]:
        names = self._store.names(COMMITS, after=f"{after:010d}.json")
        names = [name for name in names if name.removesuffix(".json").isdecimal()]
        names = [name for name in names if to is None or int(name.removesuffix(".json")) <= to]
        contents = self._store.read_all([f"{COMMITS}/{name}" for name in names])
        found = zip(names, contents, strict=True)

        return {int(name.removesuffix(".json")): _parsed(content) for name, content in found}

    def _put(self, entry: Entry) -> None:
        number = self._last + 1
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
        content = self.content()
        live = content.staged.union(path for paths in content.files.values() for path in paths)
        self._store.abort_uploads(announced)
        self._store.remove(sorted(announced - live))
        self._store.remove(announcements)


def _markers(entries: Iterable[Entry]) -> list[Marker]:
    return [entry for entry in entries if isinstance(entry, Marker)]


def _parsed(content: bytes) -> Entry:
    fields = orjson.loads(content)

    if "blocked" in fields:
        return Blocked.from_json(content)

    return Takeover(**fields["takeover"]) if "takeover" in fields else parse_marker(content)
