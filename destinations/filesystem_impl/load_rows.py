"""Rows of ``_dlt_loads``: each says of a load that nothing of it is left to do. Blocking."""

from __future__ import annotations

import orjson

from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.failpoints import failpoint
from asyncelt.schema.system import LOADS_TABLE
from asyncelt.types import LoadId

__all__ = ["load_ids_of", "write_load_rows"]


def load_ids_of(store: Store) -> frozenset[LoadId]:
    """All loads that have a row, those of the reference too."""
    names = (documents.split_name(name, 2) for name in store.names(LOADS_TABLE) if name.endswith(".jsonl"))

    return frozenset(LoadId(parts[1]) for parts in names if len(parts) == 2)


def write_load_rows(store: Store, marker: Marker) -> None:
    """Write the rows of a commit, the last one last."""
    for package in marker.packages:
        failpoint("filesystem.before_load_row")
        path = documents.load_path(package.schema_name, package.load_id)
        store.write_all({path: orjson.dumps(documents.load_document(package))})
