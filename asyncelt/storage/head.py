"""The head of a pipeline's chain on this machine: state and schemas as of the last committed package.

It is a cache of what the destination has (and what ``_dlt_pipeline_state`` and ``_dlt_version`` can restore),
so a lost or torn file means only that the next run restores it. What pending packages add is read from them: see
:func:`read_tip`. Blocking: called from threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from asyncelt.errors import AsynceltError, StorageError
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_stored
from asyncelt.storage.extracted import ExtractedPackage
from asyncelt.storage.files import write_atomically
from asyncelt.storage.manifest import FORMAT_VERSION
from asyncelt.storage.package import PackageStore, Pending
from asyncelt.types import JsonValue, LoadId

__all__ = ["Head", "HeadFile", "Tip", "read_tip"]

_FILE = "head.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the destination had when this machine last looked."""

    load_id: LoadId | None = None
    """Last package of this pipeline that the destination has committed."""
    state: str | None = None
    """Encoded state document as of that package."""
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    dataset_name: str | None = None
    destination_type: str | None = None
    destination_name: str | None = None
    place: str | None = None
    """Destination, its location and dataset in one; None in folders of format version 1."""
    local: Mapping[str, JsonValue] = field(default_factory=dict)
    """Values that never leave this machine: first_run, user's local state values."""
    edited: str | None = None
    """State as `Pipeline.managed_state` has changed it since, until a package takes it along."""
    edited_on: LoadId | None = None
    """The package that ``edited`` was made on; it counts only as long as none has come after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """Where the next package starts: the head, and what pending packages and edits have added to it."""

    load_id: LoadId | None = None
    state: str | None = None
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    edited: str | None = None

    @property
    def document(self) -> str | None:
        """The state that counts."""
        return self.edited if self.edited is not None else self.state


class HeadFile:
    """The head of one working folder. Schemas that have not changed since they were read last are not read again.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._schemas: dict[str, tuple[bytes, Schema]] = {}
        """By name, as of the last `read`. What is written is not kept: it may hold what users can change."""

    def read(self) -> Head:
        """The head; an empty one when there is none or it is torn.

        Raises:
            StorageError: A newer release has written it.
        """
        try:
            document = orjson.loads((self._root / _FILE).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return Head()

        if not isinstance(document, dict):
            return Head()

        version = document.get("format_version", 1)

        if isinstance(version, int) and version > FORMAT_VERSION:
            raise StorageError(
                f"The working folder {self._root} has format version {version}; this release reads up to "
                f"{FORMAT_VERSION}. Update the library, or choose another pipelines_dir."
            )

        try:
            self._schemas = {name: self._schema(name, stored) for name, stored in document["schemas"].items()}

            return Head(
                load_id=document["load_id"],
                state=document["state"],
                schemas={name: schema for name, (_, schema) in self._schemas.items()},
                dataset_name=document["dataset_name"],
                destination_type=document["destination_type"],
                destination_name=document.get("destination_name"),
                place=document.get("place"),
                local=document["local"],
                edited=document.get("edited"),
                edited_on=document.get("edited_on"),
            )
        except (KeyError, TypeError, AttributeError, AsynceltError):
            return Head()

    def _schema(self, name: str, stored: Mapping[str, JsonValue]) -> tuple[bytes, Schema]:
        text = orjson.dumps(stored)
        known = self._schemas.get(name)

        return known if known is not None and known[0] == text else (text, from_stored(stored))

    def write(self, head: Head) -> None:
        """Replace the head."""
        document = {
            "format_version": FORMAT_VERSION,
            "load_id": head.load_id,
            "state": head.state,
            "schemas": {name: orjson.Fragment(schema.stored_json) for name, schema in head.schemas.items()},
            "dataset_name": head.dataset_name,
            "destination_type": head.destination_type,
            "destination_name": head.destination_name,
            "place": head.place,
            "local": dict(head.local),
            "edited": head.edited,
            "edited_on": head.edited_on,
        }
        write_atomically(self._root / _FILE, orjson.dumps(document), durable=False)


def read_tip(store: PackageStore, head: Head, pending: Pending) -> Tip:
    """The head with everything that waits for its commit.

    Raises:
        PackageCorrupt: A pending package cannot be read.
    """
    load_id, state, schemas = head.load_id, head.state, dict(head.schemas)

    for one in pending.all:
        found = store.find(one)
        load_id = one

        if found.state is not None:
            state = found.state

        schema = found.schema if isinstance(found, ExtractedPackage) else found.package.schema
        schemas[schema.name] = schema

    edited = head.edited if head.edited is not None and head.edited_on == load_id else None

    return Tip(load_id=load_id, state=state, schemas=schemas, edited=edited)
