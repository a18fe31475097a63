"""The head of a pipeline's chain on this machine: state and schemas as of the last committed package.

It is a cache of what the destination has (and what ``_dlt_pipeline_state`` and ``_dlt_version`` can restore),
so a lost or torn file means only that the next run restores it. Blocking: called from threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import orjson

from asyncelt.errors import AsynceltError
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_stored, to_stored
from asyncelt.storage.files import write_atomically
from asyncelt.types import JsonValue, LoadId

__all__ = ["Head", "read_head", "write_head"]

_FILE = "head.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where the next package starts."""

    load_id: LoadId | None = None
    """Last package of this pipeline that the destination has committed."""
    state: str | None = None
    """Encoded state document as of that package."""
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    dataset_name: str | None = None
    destination_type: str | None = None
    local: Mapping[str, JsonValue] = field(default_factory=dict)
    """Values that never leave this machine: first_run, user's local state values."""


def read_head(root: Path) -> Head:
    """The head of a working folder; an empty one when there is none or it cannot be read."""
    try:
        document = orjson.loads((root / _FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return Head()

    try:
        return Head(
            load_id=document["load_id"],
            state=document["state"],
            schemas={name: from_stored(stored) for name, stored in document["schemas"].items()},
            dataset_name=document["dataset_name"],
            destination_type=document["destination_type"],
            local=document["local"],
        )
    except (KeyError, TypeError, AttributeError, AsynceltError):
        return Head()


def write_head(root: Path, head: Head) -> None:
    """Replace the head of a working folder."""
    document = {
        "load_id": head.load_id,
        "state": head.state,
        "schemas": {name: to_stored(schema) for name, schema in head.schemas.items()},
        "dataset_name": head.dataset_name,
        "destination_type": head.destination_type,
        "local": cast("dict[str, JsonValue]", dict(head.local)),
    }
    write_atomically(root / _FILE, orjson.dumps(document), durable=False)
