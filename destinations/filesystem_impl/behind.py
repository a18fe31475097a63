"""Tables that lack a committed load for now, because something did not answer: they hold up only what needs them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from asyncelt.destinations.filesystem_impl.blocked import names_of
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.errors import TablesBehind
from asyncelt.types import TableName

__all__ = ["Behind"]

_logger = logging.getLogger("asyncelt.destinations.filesystem")


@dataclass(frozen=True, slots=True)
class Behind:
    """What one session has found when it did what others had left undone."""

    _tables: dict[TableName, TablesBehind] = field(default_factory=dict)
    _schemas: dict[str, TablesBehind] = field(default_factory=dict)
    """Their tables are written as the newest stored version has them, so that no other one may come before."""

    def follow(self, marker: Marker, work: Callable[[Marker], None]) -> None:
        """Do ``work`` for a commit of somebody else. If it fails for now, only what the commit writes is behind."""
        try:
            self.check(marker)
            work(marker)
        except TablesBehind as error:
            _logger.warning("Left for later: %s", error)
            self._tables.update(dict.fromkeys(_tables_of(marker), error))
            self._schemas.update({package.schema_name: error for package in marker.packages if package.lakes})

    def check(self, marker: Marker) -> None:
        """Let no commit pass one that came before it.

        Raises:
            TablesBehind: One of the commit's tables is behind, or has its schema by a version that the commit replaces.
        """
        changed = [package.schema_name for package in marker.packages if package.version is not None]
        found = [self._tables.get(name) for name in _tables_of(marker)] + [self._schemas.get(name) for name in changed]

        for error in filter(None, found):
            raise error


def _tables_of(marker: Marker) -> list[TableName]:
    return sorted({name for package in marker.packages for write in package.lakes for name in names_of(write)})
