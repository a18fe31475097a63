"""What the commits of a dataset come to: the files that count. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson

from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.types import LoadId, TableName

__all__ = ["Content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Files of every table that ever had some, in the order of their commits."""

    files: Mapping[TableName, Sequence[str]] = field(default_factory=dict)
    load_ids: frozenset[LoadId] = frozenset()
    """Of packages that asyncelt has committed; other loads are the reference's."""
    superseded: frozenset[str] = frozenset()
    """Files that count no more but may still be there. A checkpoint is only made when they have been removed."""
    staged: frozenset[str] = frozenset()
    """Files from which tables have been made, or will be."""

    def after(self, markers: Sequence[Marker]) -> Content:
        """The content after further commits, oldest first."""
        superseded = self.superseded.union(path for marker in markers for path in marker.superseded)
        files = {table: list(paths) for table, paths in self.files.items()}

        for marker in markers:
            for package in marker.packages:
                for table, paths in package.files.items():
                    files.setdefault(TableName(table), []).extend(paths)

        return Content(
            files={table: [path for path in paths if path not in superseded] for table, paths in files.items()},
            load_ids=self.load_ids.union(package.load_id for marker in markers for package in marker.packages),
            superseded=superseded,
            staged=self.staged.union(path for marker in markers for one in marker.packages for path in one.staged),
        )

    def and_then(self, later: Content) -> Content:
        """What both come to, where ``later`` is of the commits that followed."""
        own = {path for paths in self.files.values() for path in paths}
        files = {table: [path for path in paths if path not in later.superseded] for table, paths in self.files.items()}

        for table, paths in later.files.items():
            files.setdefault(table, []).extend(paths)

        return Content(
            files=files,
            load_ids=self.load_ids | later.load_ids,
            superseded=self.superseded | (later.superseded - own),
            staged=self.staged | later.staged,
        )

    @classmethod
    def of(cls, markers: Sequence[Marker]) -> Content:
        """Of a part of the history: ``superseded`` are files of earlier parts only."""
        content = cls().after(markers)
        own = {path for marker in markers for one in marker.packages for paths in one.files.values() for path in paths}

        return replace(content, superseded=content.superseded - own)

    @property
    def size(self) -> int:
        """How much there is to write."""
        return sum(map(len, self.files.values())) + len(self.load_ids) + len(self.superseded)

    def to_json(self) -> bytes:
        """The content of a piece of history; what waited in staged files has been brought, or is noted elsewhere."""
        return orjson.dumps(
            {
                "format_version": 1,
                "files": {table: paths for table, paths in self.files.items() if paths},
                "load_ids": sorted(self.load_ids),
                "superseded": sorted(self.superseded),
            }
        )

    @classmethod
    def from_json(cls, text: bytes) -> Content:
        """What `to_json` wrote."""
        fields = orjson.loads(text)

        return cls(
            files=fields["files"],
            load_ids=frozenset(fields["load_ids"]),
            superseded=frozenset(fields.get("superseded", ())),
        )
