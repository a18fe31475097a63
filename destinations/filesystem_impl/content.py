"""What the commits of a dataset come to: the files that count. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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

    def to_json(self) -> bytes:
        """The content of a checkpoint, whose superseded files are gone."""
        return orjson.dumps({"format_version": 1, "files": dict(self.files), "load_ids": sorted(self.load_ids)})

    @classmethod
    def from_json(cls, text: bytes) -> Content:
        """What `to_json` wrote."""
        fields = orjson.loads(text)

        return cls(files=fields["files"], load_ids=frozenset(fields["load_ids"]))
