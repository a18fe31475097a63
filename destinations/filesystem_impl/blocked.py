"""Writes of committed loads that a table in a table format has refused. Pure.

The load is committed, and everything else of it goes on: other tables, other loads, other pipelines. The write stays
until the table takes it, until its files are set aside (`fail_pending_job`), or until a load replaces all rows of the
table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from asyncelt.destinations.filesystem_impl.documents import Marker, parse_marker
from asyncelt.destinations.filesystem_impl.lake import LakeWrite
from asyncelt.errors import TableBlocked
from asyncelt.types import LoadId, TableName

__all__ = ["Blocked", "names_of", "refusal", "refuse_behind", "without_files", "without_replaced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """What is left to do of one commit."""

    marker: Marker
    """The commit, with the writes that are left and nothing else."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why, by table."""

    @property
    def name(self) -> LoadId:
        """Of the commit."""
        return self.marker.name

    @property
    def writes(self) -> Iterator[tuple[LoadId, LakeWrite]]:
        """What is left, in order."""
        return ((package.load_id, write) for package in self.marker.packages for write in package.lakes)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return not any(True for _ in self.writes)

    @property
    def files(self) -> frozenset[str]:
        """Staged files that are still needed."""
        return frozenset(path for _, write in self.writes for path in (*write.files, *write.root_files))

    def is_of(self, pipeline_name: str, member: str) -> bool:
        """Whether it is theirs to mend."""
        return (self.marker.pipeline_name, self.marker.member) == (pipeline_name, member)

    def with_writes(self, writes: Mapping[LoadId, Sequence[LakeWrite]]) -> Blocked:
        """The same with other writes, by load id."""
        packages = [replace(one, lakes=writes.get(one.load_id, ())) for one in self.marker.packages]
        tables = {write.table for some in writes.values() for write in some}
        reasons = {table: reason for table, reason in self.reasons.items() if table in tables}

        return Blocked(marker=replace(self.marker, packages=packages), reasons=reasons)

    def to_json(self) -> bytes:
        """The content of a record."""
        marker: object = orjson.loads(self.marker.to_json())

        return orjson.dumps({"format_version": 1, "blocked": marker, "reasons": dict(self.reasons)})

    @classmethod
    def from_json(cls, text: bytes) -> Blocked:
        """What `to_json` wrote."""
        fields = orjson.loads(text)

        return cls(marker=parse_marker(orjson.dumps(fields["blocked"])), reasons=fields["reasons"])


def names_of(write: LakeWrite) -> set[TableName]:
    """Tables that have to be as they were when the write was made: the rows of one say which rows of the other go."""
    return {write.table} if write.root is None else {write.table, write.root}


def without_files(blocked: Blocked, load_id: LoadId, paths: Collection[str]) -> Blocked:
    """What is left when a load has only these staged files any more: the others were set aside."""
    writes: dict[LoadId, list[LakeWrite]] = {}

    for one, write in blocked.writes:
        files = [path for path in write.files if path in paths]
        roots = [path for path in write.root_files if path in paths]

        if one != load_id:
            writes.setdefault(one, []).append(write)
        elif files or (not write.files and (roots or not write.root_files)):
            writes.setdefault(one, []).append(replace(write, files=files, root_files=roots))

    return blocked.with_writes(writes)


def without_replaced(blocked: Blocked, marker: Marker) -> Blocked:
    """What is left when a later commit replaces all rows of some tables."""
    replaced = {write.table for package in marker.packages for write in package.lakes if write.mode == "overwrite"}
    writes: dict[LoadId, list[LakeWrite]] = {}

    for load_id, write in blocked.writes:
        if write.table not in replaced:
            writes.setdefault(load_id, []).append(write)

    return blocked.with_writes(writes)


def refuse_behind(found: Iterable[Blocked], marker: Marker) -> None:
    """Let no rows pass those that were committed before them.

    Raises:
        TableBlocked: Nothing of the commit has happened.
    """
    for one in found:
        held = {name for _, write in without_replaced(one, marker).writes for name in names_of(write)}

        for package in marker.packages:
            for write in package.lakes:
                if not held.isdisjoint(names_of(write)):
                    raise TableBlocked(
                        f"Load {package.load_id}, table {write.table}: nothing was committed, since rows of load "
                        f"{one.name} of pipeline {one.marker.pipeline_name!r} have to come before. {_told(one)}"
                    ).at(load_id=package.load_id, table=write.table)


def refusal(blocked: Blocked, address: str, tables: Collection[str] = ()) -> TableBlocked:
    """The error for the one who has to mend it, or who reads one of these tables."""
    writes = [(load_id, write) for load_id, write in blocked.writes if not tables or write.table in tables]
    load_id, write = next((one for one in writes if one[1].files), writes[0])

    return TableBlocked(
        f"Load {load_id} is committed in {address}, but one table does not have it: {_told(blocked)}"
    ).at(load_id=load_id, table=write.table)


def _told(blocked: Blocked) -> str:
    said = " ".join(f"Table {table}: {reason.rstrip('.')}." for table, reason in blocked.reasons.items())

    return (
        f"{said} Its rows are kept, and nothing else waits for them. Mend the table, and run pipeline "
        f"{blocked.marker.pipeline_name!r} again, which brings them. Or give them up, for this table only: "
        "fail_pending_job() with the load id and the table's file, then run again; or replace all rows of the table."
    )
