"""Rows of ``_dlt_loads``: each says of a load that nothing of it is left to do. Blocking.

A row comes as a file of its own, as the reference writes it. Those of folded commits are put together, under the name
of the last one and how many there are (``<schema>__<load id>.of<rows>.jsonl``), but for loads whose states are kept,
since the reference looks for these by name. While that is done a row may be there twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

import orjson

from asyncelt.destinations.filesystem_impl import documents
from asyncelt.destinations.filesystem_impl.documents import Marker
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.failpoints import failpoint
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE
from asyncelt.types import LoadId

__all__ = ["fold_load_rows", "load_ids_of", "settled_among", "write_load_rows"]

_MANY: Final = 4096
"""Rows of a file from which on the next fold begins another one."""
_SUFFIX: Final = re.compile(r"\.of(\d+)$")


def load_ids_of(store: Store) -> frozenset[LoadId]:
    """All loads that have a file, those of the reference too; of rows that were put together the last one."""
    return frozenset(load_id for _, load_id, _ in _parsed(store.names(LOADS_TABLE)))


def settled_among(store: Store, markers: Iterable[Marker]) -> set[LoadId]:
    """Those of these commits that have a row, which is looked for behind the first of them only."""
    first: dict[str, str] = {}

    for marker in markers:
        schema_name = marker.packages[-1].schema_name
        first[schema_name] = min(first.get(schema_name, marker.name), marker.name)

    found: set[LoadId] = set()

    for schema_name, least in first.items():
        begin = f"{schema_name}__"
        names = store.names(LOADS_TABLE, begin=begin, after=begin + least)
        found.update(load_id for _, load_id, rows in _parsed(names) if not rows)
        together = [f"{LOADS_TABLE}/{name}" for name in names if _SUFFIX.search(name.removesuffix(".jsonl"))]
        found.update(orjson.loads(line)["load_id"] for line in _lines(store, together))

    return found


def write_load_rows(store: Store, marker: Marker) -> None:
    """Write the rows of a commit, the last one last."""
    for package in marker.packages:
        failpoint("filesystem.before_load_row")
        path = documents.load_path(package.schema_name, package.load_id)
        store.write_all({path: orjson.dumps(documents.load_document(package))})


def fold_load_rows(store: Store, markers: Iterable[Marker]) -> None:
    """Put the rows of commits together that a checkpoint has made superfluous to tell apart."""
    states = (documents.split_name(name, 3) for name in store.names(STATE_TABLE))
    kept = {parts[1] for parts in states if len(parts) == 3}
    loads: dict[str, list[LoadId]] = {}

    for package in (one for marker in markers for one in marker.packages):
        if package.load_id not in kept:
            loads.setdefault(package.schema_name, []).append(package.load_id)

    there = store.names(LOADS_TABLE)

    for schema_name, load_ids in loads.items():
        names = [name for name in (_name(schema_name, one) for one in load_ids) if name in there]

        if len(names) > 1:
            _fold(store, schema_name, names, max(load_ids, key=Decimal), there)


def _fold(store: Store, schema_name: str, names: Sequence[str], last: LoadId, there: Sequence[str]) -> None:
    together = [(Decimal(one), one, rows) for schema, one, rows in _parsed(there) if rows and schema == schema_name]
    _, newest, count = max(together, default=(Decimal(0), last, _MANY))

    if count < _MANY:
        last = max(last, newest, key=Decimal)
        names = [_name(schema_name, newest, count), *names]

    paths = [f"{LOADS_TABLE}/{name}" for name in names]
    # A row that an earlier try has put there already comes once.
    rows = list(dict.fromkeys(_lines(store, paths)))
    path = f"{LOADS_TABLE}/{_name(schema_name, last, len(rows))}"
    store.write_all({path: b"\n".join(rows)})
    failpoint("filesystem.before_rows_removed")
    store.remove([one for one in paths if one != path])


def _lines(store: Store, paths: Sequence[str]) -> Iterator[bytes]:
    """Of files that are still there."""
    return (line for content in store.read_each(paths) if content for line in content.splitlines())


def _name(schema_name: str, load_id: LoadId, rows: int = 0) -> str:
    return f"{schema_name}__{load_id}{f'.of{rows}' if rows else ''}.jsonl"


def _parsed(names: Iterable[str]) -> Iterator[tuple[str, LoadId, int]]:
    """Schema, load id, and how many rows were put together under it; 0: it is one row."""
    for name in names:
        parts = documents.split_name(name, 2)

        if name.endswith(".jsonl") and len(parts) == 2:
            suffix = _SUFFIX.search(parts[1])

            yield parts[0], LoadId(_SUFFIX.sub("", parts[1])), int(suffix[1]) if suffix else 0
