"""One dataset of files: what is committed in it, and how a commit gets there. Blocking, used by one thread.

A commit goes: data files at their final names (before, by the session), the marker (the moment at which it all
becomes true), then what follows from the marker and can be done again: versions, states, removal of superseded
files, lease and run, and last the rows of ``_dlt_loads``. A marker whose last load has no row in ``_dlt_loads`` is
unfinished; whoever comes next finishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import orjson

from asyncelt.destinations.busy import Busy, OwnerAlive
from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.behind import Behind
from asyncelt.destinations.filesystem_impl.catalogs import CatalogConfig
from asyncelt.destinations.filesystem_impl.changes import schema_updates
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.lake import (
    LakeFormat,
    check_lakes,
    format_of,
    lake_tables,
)
from asyncelt.destinations.filesystem_impl.lake_steps import LakeSteps
from asyncelt.destinations.filesystem_impl.lakes import Lake, lake_of
from asyncelt.destinations.filesystem_impl.layout import Layout
from asyncelt.destinations.filesystem_impl.load_rows import (
    fold_load_rows,
    load_ids_of,
    settled_among,
    write_load_rows,
)
from asyncelt.destinations.filesystem_impl.marking import Marking
from asyncelt.destinations.filesystem_impl.storage import Place, Store
from asyncelt.destinations.filesystem_impl.stored_schemas import StoredSchemas
from asyncelt.errors import AsynceltError, DestinationRejected, LeaseLost, TablesBehind
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit, CommitResult, Lease, Restored, Target
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE
from asyncelt.types import JsonValue, LoadId, TableName

__all__ = ["FileDataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDataset:
    """The files of one dataset.

    Args:
        place: Where they are; there need not be any.
        layout: Of data files.
        capabilities: Decide the types in which state rows are read from job files.
        max_state_files: States that stay, per pipeline.
        catalog: Of Iceberg tables.
        namespace: Of Iceberg tables, in the catalog.
        compact_files: See `filesystem`.
        memory_limit: See `filesystem`.
    """

    place: Place
    layout: Layout
    capabilities: Capabilities
    max_state_files: int
    catalog: CatalogConfig
    namespace: str
    compact_files: int | None = None
    memory_limit: str | None = None

    schemas: StoredSchemas = field(init=False)
    """What is stored of them in the dataset."""
    lakes: LakeSteps = field(init=False)
    """What commits do to tables in a table format."""
    _settled: set[LoadId] = field(default_factory=set, init=False)
    """Recent commits of which nothing is left to do."""
    _seen: list[str] = field(default_factory=list, init=False)
    """What need not be looked for again."""
    _drivers: dict[LakeFormat, Lake] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schemas", StoredSchemas(self.store))
        object.__setattr__(self, "lakes", LakeSteps(self.place, self.schemas, self.lake))

    @property
    def store(self) -> Store:
        """Small files and names."""
        return self.place.store

    def check(self, package: Package) -> None:
        """Refuse what cannot be done, before any data moves.

        Raises:
            ConfigError: A package is missing, or a catalog cannot be used.
            DestinationRejected: A catalog does not let us in.
            Unsupported: A table is to be written in a way that is not there.
        """
        for kind, names in check_lakes(package).items():
            self.lake(kind).check(names)

    def lake(self, kind: LakeFormat) -> Lake:
        """Tables in a table format."""
        if kind not in self._drivers:
            self._drivers[kind] = lake_of(kind, self.store, self.catalog, self.namespace)

        return self._drivers[kind]

    def path_of(self, commit: Commit, package: Package, job: JobFile) -> str:
        """Where a job's file goes."""
        epoch = commit.lease.epoch if self.place.marks_epochs else None

        if format_of(package.schema, job.table) is not None:
            return documents.staged_path(package.load_id, job, epoch)

        return self.layout.path_of(package, job, epoch=epoch)

    def restore(self, pipeline_name: str, member: str) -> Restored:
        """What the dataset knows about a pipeline. Creates nothing in a dataset that is not there."""
        if not self.store.exists():
            return Restored()

        recent = self.finish(_of_pipeline(pipeline_name))
        loads = load_ids_of(self.store) | self._ids_of(recent)
        states = [
            (parts[1], name)
            for name in self.store.names(STATE_TABLE)
            if len(parts := documents.split_name(name, 3)) == 3 and parts[0] == pipeline_name and parts[1] in loads
        ]
        state_id, state_file = max(states, default=(None, ""))
        state = None if state_id is None else str(self._row(f"{STATE_TABLE}/{state_file}")["state"])

        return Restored(
            exists=bool(loads) or bool(self.store.names(VERSION_TABLE)),
            state=state,
            state_load_id=None if state_id is None else LoadId(state_id),
            schemas=self.schemas.newest(),
            last_load_id=max(loads, default=None),
            head_load_id=self.place.journal.lease(pipeline_name, member).head_load_id,
        )

    def acquire(self, pipeline_name: str, member: str) -> Lease:
        """Raise the epoch. An owner that has never committed leaves no trace: its first commit decides."""
        self.store.check()

        if not self.store.exists():
            return Lease(epoch=1)

        self.finish(_of_pipeline(pipeline_name))
        journal = self.place.journal

        if not journal.lease(pipeline_name, member).epoch:
            return Lease(epoch=1)

        lease = journal.take(pipeline_name, member)
        lakes = lake_tables(self.schemas.readable())

        if lakes:
            self.store.abort_stale_uploads(lakes)

        return lease

    def committed(self, load_ids: Sequence[LoadId], target: Target) -> frozenset[LoadId]:
        """Which of the load ids are committed.

        Args:
            load_ids: To look for.
            target: Whose they are.
        """
        wanted = frozenset(load_ids)
        recent = self.finish(lambda marker: any(one.load_id in wanted for one in marker.packages))

        return self._committed_of(load_ids, target, recent)

    def run_of(self, pipeline_name: str, run_id: str) -> tuple[LoadId, ...]:
        """Load ids that this run has committed."""
        self.finish(_of_pipeline(pipeline_name))
        content = self.store.read(documents.run_path(pipeline_name, run_id))

        return () if content is None else tuple(LoadId(load_id) for load_id in orjson.loads(content))

    def commit(self, commit: Commit) -> CommitResult:
        """Write the marker of data files that are all in place, then finish."""
        failpoint("filesystem.before_commit")
        load_ids = tuple(package.load_id for package in commit.packages)

        with self.place.journal.turn():
            recent, behind = self._finish_unlocked(commit.target)
            done = self._committed_of(load_ids, commit.target, recent)

            self.lakes.try_again(commit)

            if len(done) == len(load_ids):
                self._withdraw(commit)
                self.lakes.check_load(load_ids)

                return CommitResult(load_ids=load_ids, already_committed=True)

            before = [load_id for load_id in load_ids if load_id in done]
            self._check_lease(commit, before[-1] if before else commit.parent_load_id)
            updates = schema_updates(self.schemas.newest(), commit.packages)
            marker = self._marking(commit).marker([one for one in commit.packages if one.load_id not in done])

            if not commit.is_load:
                self.store.write_all(self._versions(marker))

                return CommitResult(load_ids=load_ids, schema_updates=updates)

            behind.check(marker)
            self._settle_data(marker)
            self.lakes.check_rows(commit, marker)
            failpoint("filesystem.before_marker")
            self.place.journal.append(marker)
            failpoint("filesystem.after_marker")
            self._follow_committed(marker)
            self.lakes.check_load(load_ids)

        return CommitResult(load_ids=load_ids, schema_updates=updates)

    def finish(self, is_needed: Callable[[Marker], bool] = lambda _: True) -> Sequence[Marker]:
        """Do what an owner that died after its marker has left undone.

        Args:
            is_needed: Whether what follows from a commit matters now. The commit itself is true without it.

        Returns:
            Commits behind the last checkpoint.

        Raises:
            OwnerAlive: The owner of a needed one is alive, and about to finish it.
        """
        journal = self.place.journal
        recent = journal.recent()

        if not any(map(is_needed, self._unsettled_of(recent))):
            return recent

        with journal.turn():
            recent = journal.recent()

            for marker in filter(is_needed, self._unsettled_of(recent)):
                owner = journal.owner_of(marker)

                if owner is not None:
                    raise OwnerAlive(f"Load {marker.name} of {self.store.address} is being finished by {owner}.")

                self._follow_committed(marker)

        return recent

    def unsettled(self) -> Sequence[Marker]:
        """Commits from which rows of lakes or system tables have yet to follow, oldest first."""
        return self._unsettled_of(self.place.journal.recent())

    def _unsettled_of(self, recent: Sequence[Marker]) -> list[Marker]:
        blocked = {one.name for one in self.place.journal.blocked()}
        unknown = [one for one in recent if one.name not in self._settled and one.name not in blocked]
        self._settled.update(settled_among(self.store, unknown))

        return [one for one in unknown if one.name not in self._settled]

    def table_files(self) -> dict[TableName, list[str]]:
        """Files of every table that ever had some, as of the last commit, in the order of their commits.

        Files that the reference wrote count by their load id; where the layout has none, all count that no commit of
        ours names or has replaced.
        """
        content = self.place.journal.content()
        files = {table: list(paths) for table, paths in content.files.items()}
        foreign = load_ids_of(self.store) - content.load_ids

        if foreign:
            own = content.superseded.union(path for paths in files.values() for path in paths)

            for table, paths in self._foreign_files(foreign).items():
                files[table] = [*(path for path in paths if path not in own), *files.get(table, [])]

        return files

    def _foreign_files(self, load_ids: frozenset[LoadId]) -> dict[TableName, list[str]]:
        """Files of loads that have no marker, because the reference wrote them."""
        names = {
            name
            for schema in self.schemas.readable()
            for name in schema.tables
            if name not in {LOADS_TABLE, VERSION_TABLE, STATE_TABLE} and format_of(schema, name) is None
        }
        found: dict[TableName, list[str]] = {}
        paths = self.store.files()

        for name in names:
            pattern = self.layout.pattern_of(name)
            matches = [match for path in paths if (match := pattern.fullmatch(path))]
            own = [match[0] for match in matches if match.groupdict().get("load_id", next(iter(load_ids))) in load_ids]

            if own:
                found[name] = own

        return found

    def _marking(self, commit: Commit) -> Marking:
        return Marking(
            commit=commit,
            capabilities=self.capabilities,
            path_of=lambda package, job: self.path_of(commit, package, job),
            stored_versions=self.schemas.names,
            current_files=self.table_files,
            known_lakes=lambda: lake_tables(self.schemas.readable()),
        )

    def _withdraw(self, commit: Commit) -> None:
        """Remove what has been brought again by a session that did not know that all of it was committed."""
        live = {path for paths in self.place.journal.content().files.values() for path in paths}
        paths = {
            self.path_of(commit, package, job)
            for package in commit.packages
            for job in package.jobs
            if job.table != STATE_TABLE
        }
        waiting = {path for one in self.place.journal.blocked() for path in one.files}
        self.store.remove(sorted(paths - live - waiting))
        self.place.journal.withdraw(commit)

    def _settle_data(self, marker: Marker) -> None:
        """Make sure that every data file is there and that its name survives a crash of the machine."""
        for package in marker.packages:
            paths = list(package.paths)

            if len(set(paths)) < len(paths):
                raise DestinationRejected(
                    f"Load {package.load_id}: layout {self.layout.text!r} gives several files the same name."
                )

        everything = [path for one in marker.packages for path in one.paths]
        missing = self.store.settle(everything)

        if missing is not None:
            raise DestinationRejected(
                f"Load {marker.name}: the data file {missing} is not in {self.store.address}. Load its job again."
            )

    def _follow_committed(self, marker: Marker) -> None:
        """Do what follows from a marker; an error says that the load is committed all the same.

        Raises:
            TablesBehind: Never `DestinationRejected`, upon which a load would be given up, and come twice.
        """
        try:
            self._follow(marker)
        except Busy:
            raise
        except (AsynceltError, OSError) as error:
            raise TablesBehind(
                f"Load {marker.name} is committed in {self.store.address}, but not all of its tables have it yet: "
                f"{error} When the cause is mended, the next call brings them. Do not give the load up: its rows would "
                "come twice."
            ) from error

        if self.compact_files is not None:
            self.lakes.compact(marker, self.compact_files)

    def _follow(self, marker: Marker) -> None:
        """Everything that follows from a marker. May be done any number of times."""
        contents = self._versions(marker)

        for package in marker.packages:
            for state in package.states:
                path = documents.state_path(marker.pipeline_name, package.load_id, str(state["version_hash"]))
                contents[path] = orjson.dumps(state)

        if marker.run_id is not None:
            load_ids = [package.load_id for package in marker.packages]
            contents[documents.run_path(marker.pipeline_name, marker.run_id)] = orjson.dumps(load_ids)

        self.store.write_all(contents)
        blocked = self.lakes.write(marker)

        if marker.superseded:
            failpoint("filesystem.before_remove")
            self.store.remove(marker.superseded)

        if any(package.states for package in marker.packages):
            self._prune_states(marker)

        self.place.journal.followed(marker)

        if blocked.is_over:
            write_load_rows(self.store, marker)
            self._settled.add(marker.name)
        else:
            # Last, as the rows would be: until then all of it is done again.
            failpoint("filesystem.before_block")
            self.place.journal.block(blocked)

        failpoint("filesystem.finished")

    def _versions(self, marker: Marker) -> dict[str, bytes]:
        """New versions of schemas, by path; and what says that this is a dataset."""
        contents: dict[str, bytes] = {}

        if not self._seen and self.store.read("init") is None:
            contents["init"] = documents.INIT
        else:
            self._seen[:] = ["init"]

        for package in marker.packages:
            if package.version is not None:
                path = documents.version_path(package.schema_name, package.load_id, package.version_hash)
                contents[path] = orjson.dumps(package.version)

        return contents

    def _prune_states(self, marker: Marker) -> None:
        own = [
            (parts[1], name)
            for name in self.store.names(STATE_TABLE)
            if len(parts := documents.split_name(name, 3)) == 3 and parts[0] == marker.pipeline_name
        ]

        old = sorted(own, reverse=True)[self.max_state_files :]
        self.store.remove([f"{STATE_TABLE}/{name}" for _, name in old])

    def _finish_unlocked(self, target: Target) -> tuple[Sequence[Marker], Behind]:
        """Finish what others have left, and make a checkpoint if it is time.

        Returns:
            Commits behind the last checkpoint but one; what others have left that cannot be finished now.

        Raises:
            TablesBehind: What this owner has left cannot be finished now.
        """
        journal, behind = self.place.journal, Behind()
        recent = journal.recent()
        unsettled = self._unsettled_of(recent)

        for marker in unsettled:
            is_own = (marker.pipeline_name, marker.member) == (target.pipeline_name, target.member)

            if is_own:
                behind.check(marker)
                self._follow_committed(marker)
            elif journal.owner_of(marker) is None:
                # What another owner is doing at this moment would only be done twice.
                behind.follow(marker, self._follow_committed)

        if not unsettled and journal.is_long:
            blocked = {one.name for one in journal.blocked()}
            journal.fold()
            self._settled.clear()
            fold_load_rows(self.store, [marker for marker in recent if marker.name not in blocked])

        return recent, behind

    def _committed_of(self, load_ids: Sequence[LoadId], target: Target, recent: Sequence[Marker]) -> frozenset[LoadId]:
        """What is newer than the head of a pipeline's chain, and not recent, cannot be."""
        wanted = frozenset(load_ids)
        found = wanted & self._ids_of(recent)
        head = self.place.journal.lease(target.pipeline_name, target.member).head_load_id
        older = {one for one in wanted - found if head is None or Decimal(one) <= Decimal(head)}

        # Whoever asks for those has been away: everything is looked through.
        return found | (older and older & (self.place.journal.content().load_ids | load_ids_of(self.store)))

    def _ids_of(self, recent: Sequence[Marker]) -> frozenset[LoadId]:
        """Loads of these commits, and of older ones that tables have refused."""
        markers = (*recent, *(one.marker for one in self.place.journal.blocked()))

        return frozenset(package.load_id for marker in markers for package in marker.packages)

    def _check_lease(self, commit: Commit, expected_head: LoadId | None) -> None:
        target = commit.target
        lease = self.place.journal.lease(target.pipeline_name, target.member)
        epoch = lease.epoch or commit.lease.epoch

        if epoch != commit.lease.epoch:
            raise LeaseLost(
                f"{self.store.address}: pipeline {target.pipeline_name!r} was taken over by another owner "
                f"(epoch {epoch}, ours is {commit.lease.epoch}). Nothing was committed. Start the pipeline again."
            )

        if lease.head_load_id != expected_head:
            raise LeaseLost(
                f"{self.store.address}: the last package of pipeline {target.pipeline_name!r} is {lease.head_load_id}, "
                f"but this one was made on {expected_head}. Nothing was committed. Drop the pending packages "
                "and sync the pipeline with the destination."
            )

    def _row(self, path: str) -> dict[str, JsonValue]:
        row: dict[str, JsonValue] = orjson.loads(self.store.read_all([path])[0])

        return row


def _of_pipeline(pipeline_name: str) -> Callable[[Marker], bool]:
    return lambda marker: marker.pipeline_name == pipeline_name
