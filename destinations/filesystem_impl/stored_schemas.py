"""Schemas that are stored in a dataset. Blocking, used by one thread."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.errors import SchemaError
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_json
from asyncelt.schema.system import VERSION_TABLE

__all__ = ["StoredSchemas"]

_logger = logging.getLogger("asyncelt.destinations.filesystem")


@dataclass(frozen=True, slots=True)
class StoredSchemas:
    """The versions in ``_dlt_version``. A file of that folder never changes, so each is read once.

    Args:
        store: Of the dataset.
    """

    store: Store
    _texts: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    """Of the newest versions, by name of the file."""
    names: list[str] = field(default_factory=list, compare=False)
    """Of all files, as of the last `newest`."""

    def newest(self, ahead: Iterable[Marker] = ()) -> dict[str, str]:
        """Newest stored schema JSON per schema name.

        Args:
            ahead: Commits whose schemas may not be stored yet.
        """
        found: dict[str, tuple[str, str]] = {}
        self.names[:] = self.store.names(VERSION_TABLE)

        for name in self.names:
            parts = documents.split_name(name, 3)

            if len(parts) == 3:
                found[parts[0]] = max(found.get(parts[0], ("", "")), (parts[1], name))

        texts = {schema: self._text(name) for schema, (_, name) in found.items()}

        for package in (one for marker in ahead for one in marker.packages):
            if package.version is not None and package.load_id > found.get(package.schema_name, ("", ""))[0]:
                texts[package.schema_name] = str(package.version["schema"])

        return texts

    def readable(self, ahead: Iterable[Marker] = ()) -> list[Schema]:
        """The newest stored schemas but those of writers too old or too new, whose tables are left out."""
        found = []

        for name, text in self.newest(ahead).items():
            try:
                found.append(from_json(text))
            except SchemaError as error:
                _logger.warning("%s: tables of schema %s are left out: %s", self.store.address, name, error)

        return found

    def _text(self, name: str) -> str:
        if name not in self._texts:
            schema_name = documents.split_name(name, 3)[0]
            [content] = self.store.read_all([f"{VERSION_TABLE}/{name}"])
            # One per schema: older versions are asked for no more.
            old = [one for one in self._texts if documents.split_name(one, 3)[0] == schema_name]

            for one in old:
                del self._texts[one]

            self._texts[name] = str(orjson.loads(content)["schema"])

        return self._texts[name]
