"""What the commits of a dataset do to its tables in a table format. Blocking."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.blocked import (
    Blocked,
    names_of,
    refusal,
    refuse_behind,
    without_files,
    without_replaced,
)
from asyncelt.destinations.filesystem_impl.documents import MarkedPackage, Marker
from asyncelt.destinations.filesystem_impl.lake import LakeFormat, LakeWrite
from asyncelt.destinations.filesystem_impl.lakes import Lake
from asyncelt.destinations.filesystem_impl.load_rows import write_load_rows
from asyncelt.destinations.filesystem_impl.storage import Place
from asyncelt.destinations.filesystem_impl.stored_schemas import StoredSchemas
from asyncelt.errors import AsynceltError, DestinationRejected, Unsupported
from asyncelt.load.protocol import Commit
from asyncelt.schema.model import Table
from asyncelt.schema.stored import from_json
from asyncelt.types import LoadId, TableName

__all__ = ["LakeSteps"]

LakeOf: TypeAlias = Callable[[LakeFormat], Lake]

_logger = logging.getLogger("asyncelt.destinations.filesystem")


@dataclass(frozen=True, slots=True)
class LakeSteps:
    """The tables of one dataset.

    Args:
        place: Where its files are.
        schemas: Stored in it.
        lake_of: Drivers.
    """

    place: Place
    schemas: StoredSchemas
    lake_of: LakeOf

    def check_rows(self, commit: Commit, marker: Marker) -> None:
        """Refuse rows that a table cannot take, while nothing is committed.

        Raises:
            DestinationRejected: A value does not fit.
            TableBlocked: Others have to come before.
        """
        tables = {package.load_id: package.schema.tables for package in commit.packages}
        writes = [(package.load_id, write) for package in marker.packages for write in package.lakes]

        if writes:
            refuse_behind(self.place.journal.blocked(), marker)

        for load_id, write in writes:
            if write.files:
                self.lake_of(write.format).check_rows(write, tables[load_id][write.table], load_id)

    def write(self, marker: Marker) -> Blocked:
        """Commit each table of a marker, unless that has been done; then staged files may go.

        Returns:
            What tables have refused.

        Raises:
            AsynceltError: It may pass; whoever comes next goes on.
        """
        writes = [write for package in marker.packages for write in package.lakes]

        if any(write.mode == "overwrite" for write in writes):
            self._make_superfluous(marker)

        schemas = self.schemas.newest() if writes else {}
        blocked = _written(self.lake_of, marker, {name: from_json(text).tables for name, text in schemas.items()})
        staged = {path for write in writes for path in write.files}
        self.place.store.remove(sorted(staged - blocked.files))

        return blocked

    def try_again(self, commit: Commit) -> None:
        """Bring what tables have refused of this pipeline's loads, but for files that were set aside since."""
        target = commit.target

        for one in self.place.journal.blocked():
            if not one.is_of(target.pipeline_name, target.member):
                continue

            left = one
            epoch = one.marker.epoch if self.place.marks_epochs else None

            for package in commit.packages:
                paths = {documents.staged_path(package.load_id, job, epoch) for job in package.jobs}
                left = without_files(left, package.load_id, paths)

            self._leave(one, self.write(left.marker))

    def check_load(self, load_ids: Collection[LoadId]) -> None:
        """Say what is missing of committed loads.

        Raises:
            TableBlocked: A table has refused rows of one of them.
        """
        for one in self.place.journal.blocked():
            if any(package.load_id in load_ids for package in one.marker.packages):
                raise refusal(one, self.place.store.address)

    def check_readable(self, tables: Collection[TableName]) -> None:
        """Show no table of which a committed load is missing.

        Raises:
            TableBlocked: One of the tables has refused it.
        """
        for one in self.place.journal.blocked() if tables else ():
            if any(write.table in tables for _, write in one.writes):
                raise refusal(one, self.place.store.address, tables)

    def compact(self, marker: Marker, at_least: int) -> None:
        """Put small files together. The load is there without it: what goes wrong waits for the next one."""
        for package in marker.packages:
            for write in package.lakes:
                try:
                    self.lake_of(write.format).compact(write.table, package.load_id, at_least)
                except (AsynceltError, OSError) as error:
                    _logger.warning("Table %s: small files stay for now: %s", write.table, error)

    def _make_superfluous(self, marker: Marker) -> None:
        """Rows that tables have refused are not wanted any more where a later commit replaces all rows."""
        for one in self.place.journal.blocked():
            if one.name != marker.name:
                self._leave(one, without_replaced(one, marker))

    def _leave(self, before: Blocked, left: Blocked) -> None:
        """Write down what is left to do of a commit, if that has changed."""
        if left.to_json() == before.to_json():
            return

        if left.is_over:
            write_load_rows(self.place.store, left.marker)

        self.place.journal.block(left)
        self.place.store.remove(sorted(before.files - left.files))


def _written(lake_of: LakeOf, marker: Marker, schemas: Mapping[str, Mapping[TableName, Table]]) -> Blocked:
    """Make the commit of each table that has not been made; what a table refuses holds up no other one.

    Returns:
        What is left to do: what tables have refused, and what needs those tables as they were to be.
    """
    left: dict[LoadId, list[LakeWrite]] = {}
    reasons: dict[str, str] = {}
    held: dict[TableName, TableName] = {}

    for package in marker.packages:
        for write in package.lakes:
            names = names_of(write)
            waits_for = next((held[name] for name in names if name in held), None)

            if waits_for is None:
                try:
                    _write(lake_of(write.format), write, package, schemas, marker)
                    continue
                except (DestinationRejected, Unsupported) as error:
                    reasons[write.table] = str(error)
            elif write.table not in reasons:
                reasons[write.table] = f"It waits for table {waits_for}"

            left.setdefault(package.load_id, []).append(write)
            held |= dict.fromkeys(names, waits_for or write.table)

    bare = [replace(one, files={}, version=None, states=(), lakes=()) for one in marker.packages]

    return Blocked(marker=replace(marker, packages=bare, superseded=()), reasons=reasons).with_writes(left)


def _write(
    lake: Lake,
    write: LakeWrite,
    package: MarkedPackage,
    schemas: Mapping[str, Mapping[TableName, Table]],
    marker: Marker,
) -> None:
    tables = schemas.get(package.schema_name, {})

    if write.files and write.table not in tables:
        raise DestinationRejected(f"The newest stored version of schema {package.schema_name} does not have this table")

    lake.write(write, tables, marker, package.load_id)
