"""Two datasets compared: tables, columns with types and nullability, rows with their links, load rows, versions, state.

Random ids cannot be equal on both sides, so a row stands for itself by *what it holds and where it hangs*: its values
without the id columns, the place of its load in the order of loads, its index in the parent's list, and its children,
each the same way. Two datasets with equal bags of such root trees hold the same data with the same links.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.differential.reading import Dataset, TableData

__all__ = ["Difference", "compare", "documents", "state_documents", "tree_of", "without_empty_tables"]

LINKS = frozenset({"_dlt_id", "_dlt_parent_id", "_dlt_root_id", "_dlt_load_id"})
SYSTEM = frozenset({"_dlt_loads", "_dlt_version", "_dlt_pipeline_state"})
OWN = "_asyncelt_"
SHOWN = 6


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs; ``kind`` is tables, columns, rows, links, loads, versions, state, schema or unique."""

    kind: str
    message: str

    def __str__(self) -> str:
        return f"[{self.kind}] {self.message}"


@dataclass(slots=True)
class _Node:
    table: str
    content: tuple[object, ...]
    list_index: object
    root_matches: bool
    children: list[_Node] = field(default_factory=list)

    def frozen(self) -> tuple[object, ...]:
        below = Counter((child.list_index, child.frozen()) for child in self.children)

        return (self.table, self.content, self.root_matches, frozenset(below.items()))


def compare(reference: Dataset, ours: Dataset, *, exact_ids: bool = False) -> list[Difference]:
    """Every difference between the two, the most basic kinds first; empty when they hold the same."""
    return [
        *_tables(reference, ours),
        *_columns(reference, ours),
        *_unique(reference, ours),
        *_contents(reference, ours, exact_ids=exact_ids),
        *_loads(reference, ours),
        *_versions(reference, ours),
        *_states(reference, ours),
    ]


def _double(value: float) -> str:
    """The reference loses the sign of zero, and the last bit of some values: departures of their own."""
    return f"{value + 0.0:.12e}"


def without_empty_tables(dataset: Dataset) -> Dataset:
    """The data tables that have rows: what a run that failed half-way must have left as it was.

    The reference's schema changes are not part of a transaction, so columns that are null in all rows count as absent.
    """
    tables = {name: _without_null_columns(data) for name, data in _data_tables(dataset).items() if data.rows}

    loads = dataset.tables.get("_dlt_loads")

    return Dataset({**tables, "_dlt_loads": loads} if loads is not None and loads.rows else tables)


def _without_null_columns(data: TableData) -> TableData:
    held = [at for at in range(len(data.columns)) if any(row[at] is not None for row in data.rows)]
    rows = [tuple(row[at] for at in held) for row in data.rows]

    return TableData(tuple(data.columns[at] for at in held), rows)


def _data_tables(dataset: Dataset) -> dict[str, TableData]:
    return {name: data for name, data in dataset.tables.items() if name not in SYSTEM and not name.startswith(OWN)}


def _tables(reference: Dataset, ours: Dataset) -> Iterator[Difference]:
    left = {name for name in reference.tables if not name.startswith(OWN)}
    right = {name for name in ours.tables if not name.startswith(OWN)}

    if missing := sorted(left - right):
        yield Difference("tables", f"only in the reference: {missing}")

    if added := sorted(right - left):
        yield Difference("tables", f"only in asyncelt: {added}")


def _columns(reference: Dataset, ours: Dataset) -> Iterator[Difference]:
    for name in sorted(reference.tables.keys() & ours.tables.keys()):
        left, right = reference.tables[name], ours.tables[name]

        if left.columns == right.columns:
            continue

        expected = {column.name: column for column in left.columns}
        actual = {column.name: column for column in right.columns}

        for column in sorted(expected.keys() ^ actual.keys()):
            side = "reference" if column in expected else "asyncelt"
            yield Difference("columns", f"{name}.{column} only in {side}: {expected.get(column) or actual.get(column)}")

        for column in sorted(expected.keys() & actual.keys()):
            if expected[column] != actual[column]:
                yield Difference("columns", f"{name}: reference {expected[column]}, asyncelt {actual[column]}")

        if expected.keys() == actual.keys() and left.names != right.names:
            yield Difference("columns", f"{name}: order {left.names} in the reference, {right.names} in asyncelt")


def _unique(reference: Dataset, ours: Dataset) -> Iterator[Difference]:
    right = {item for item in ours.unique if not item[0].startswith(OWN)}

    if reference.unique != right:
        yield Difference(
            "unique",
            f"reference only {sorted(reference.unique - right)}, asyncelt only {sorted(right - reference.unique)}",
        )


def _contents(reference: Dataset, ours: Dataset, *, exact_ids: bool) -> Iterator[Difference]:
    left, right = _data_tables(reference), _data_tables(ours)
    loads = {"reference": _load_order(reference), "asyncelt": _load_order(ours)}
    same = True

    for name in sorted(left.keys() & right.keys()):
        expected = _bag(left[name], loads["reference"], exact_ids=exact_ids)
        actual = _bag(right[name], loads["asyncelt"], exact_ids=exact_ids)

        if expected != actual:
            same = False
            yield Difference("rows", _bag_message(name, expected, actual))

    if same and left.keys() == right.keys():
        roots = tree_of(reference), tree_of(ours)

        if roots[0] != roots[1]:
            yield Difference("links", _bag_message("rows with their nested rows", *roots))


def _bag_message(name: str, expected: Counter[object], actual: Counter[object]) -> str:
    lines = [f"{name}: {expected.total()} rows in the reference, {actual.total()} in asyncelt"]

    for label, bag in (("reference only", expected - actual), ("asyncelt only", actual - expected)):
        lines += [f"    {label} x{count}: {row}" for row, count in list(bag.items())[:SHOWN]]

    return "\n".join(lines)


def _bag(data: TableData, loads: Mapping[object, int], *, exact_ids: bool) -> Counter[object]:
    return Counter(_content(data, row, loads, exact_ids=exact_ids) for row in data.rows)


def _content(
    data: TableData, row: Sequence[object], loads: Mapping[object, int], *, exact_ids: bool
) -> tuple[object, ...]:
    held: list[object] = []

    for column, value in sorted(zip(data.columns, row, strict=True), key=lambda pair: pair[0].name):
        if column.name == "_dlt_load_id":
            held.append((column.name, f"load {loads.get(value, value)}"))
        elif column.name not in LINKS or exact_ids:
            held.append((column.name, _comparable(value, column.kind)))

    return tuple(item for item in held if not (isinstance(item, tuple) and item[1] is None))


def _comparable(value: object, kind: str) -> object:
    if value is None:
        return None

    if isinstance(value, float):
        return _double(value)

    if kind == "JSON" and isinstance(value, str):
        return "json " + json.dumps(json.loads(value))

    return (type(value).__name__, value) if isinstance(value, bool) else value


def tree_of(dataset: Dataset) -> Counter[object]:
    """The bag of root rows, each with everything that hangs below it. Rows whose parent is missing count as roots."""
    nodes: dict[tuple[str, object], list[_Node]] = defaultdict(list)
    parents: list[tuple[_Node, str, object]] = []
    loads = _load_order(dataset)
    root_of = _root_ids(dataset)

    for name, data in _data_tables(dataset).items():
        at = {column: position for position, column in enumerate(data.names)}

        for row in data.rows:
            row_id = row[at["_dlt_id"]] if "_dlt_id" in at else None
            index = row[at["_dlt_list_idx"]] if "_dlt_list_idx" in at else None
            linked = "_dlt_root_id" not in at or row[at["_dlt_root_id"]] == root_of.get(row_id)
            node = _Node(name, _content(data, row, loads, exact_ids=False), index, linked)
            nodes[name, row_id].append(node)
            parents.append((node, name, row[at["_dlt_parent_id"]] if "_dlt_parent_id" in at else None))

    roots: list[_Node] = []

    for node, name, parent_id in parents:
        above = next((nodes[table, parent_id] for table in _prefixes(name) if (table, parent_id) in nodes), None)

        if parent_id is not None and above:
            above[0].children.append(node)
        else:
            roots.append(node)

    return Counter(node.frozen() for node in roots)


def _root_ids(dataset: Dataset) -> dict[object, object]:
    parent: dict[object, object] = {}

    for data in _data_tables(dataset).values():
        if "_dlt_parent_id" in data.names and "_dlt_id" in data.names:
            own, above = data.names.index("_dlt_id"), data.names.index("_dlt_parent_id")
            parent.update((row[own], row[above]) for row in data.rows)

    def root(row_id: object) -> object:
        while row_id in parent:
            row_id = parent[row_id]

        return row_id

    return {row_id: root(row_id) for row_id in parent}


def _prefixes(table: str) -> Iterator[str]:
    parts = table.split("__")

    for count in range(len(parts) - 1, 0, -1):
        yield "__".join(parts[:count])


def _load_order(dataset: Dataset) -> dict[object, int]:
    data = dataset.tables.get("_dlt_loads")

    if data is None:
        return {}

    position = data.names.index("load_id")

    return {load_id: order for order, load_id in enumerate(sorted({str(row[position]) for row in data.rows}))}


def _system_rows(dataset: Dataset, table: str) -> list[dict[str, object]]:
    data = dataset.tables.get(table)

    return [dict(zip(data.names, row, strict=True)) for row in data.rows] if data else []


def _loads(reference: Dataset, ours: Dataset) -> Iterator[Difference]:
    left = [(row["schema_name"], row["status"]) for row in _system_rows(reference, "_dlt_loads")]
    right = [(row["schema_name"], row["status"]) for row in _system_rows(ours, "_dlt_loads")]

    if left != right:
        yield Difference("loads", f"reference {left}, asyncelt {right}")


def _versions(reference: Dataset, ours: Dataset) -> Iterator[Difference]:
    left, right = _system_rows(reference, "_dlt_version"), _system_rows(ours, "_dlt_version")
    counts = [[(row["schema_name"], row["version"], row["engine_version"]) for row in rows] for rows in (left, right)]

    if sorted(counts[0]) != sorted(counts[1]):
        yield Difference("versions", f"reference {counts[0]}, asyncelt {counts[1]}")

    expected, actual = documents(reference), documents(ours)

    for name in sorted(expected.keys() & actual.keys()):
        for number, pair in enumerate(zip(expected[name], actual[name], strict=False), start=1):
            yield from _walk("schema", f"{name}, stored version {number}", *pair)

    hashes = [_hashes(left), _hashes(right)]

    for name in sorted(hashes[0].keys() & hashes[1].keys()):
        if hashes[0][name] != hashes[1][name]:
            yield Difference("schema", f"{name}: version_hash {hashes[0][name]}, in asyncelt {hashes[1][name]}")


def _hashes(rows: list[dict[str, object]]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}

    for row in sorted(rows, key=lambda row: int(str(row["version"]))):
        found.setdefault(str(row["schema_name"]), []).append(row["version_hash"])

    return found


def documents(dataset: Dataset) -> dict[str, list[object]]:
    """The stored schema documents by name, oldest first, without hashes (they are compared on their own)."""
    found: dict[str, list[object]] = {}

    for row in sorted(_system_rows(dataset, "_dlt_version"), key=lambda row: int(str(row["version"]))):
        document = _decoded(str(row["schema"]))

        if isinstance(document, dict):
            document = {key: value for key, value in document.items() if "hash" not in key}

        found.setdefault(str(row["schema_name"]), []).append(document)

    return found


def state_documents(dataset: Dataset) -> list[object]:
    """The stored pipeline states in the order of their loads."""
    rows = sorted(_system_rows(dataset, "_dlt_pipeline_state"), key=lambda row: str(row["_dlt_load_id"]))

    return [_decoded(str(row["state"])) for row in rows]


STATE_NAMES_OF_THEIR_OWN = frozenset({"_version_hash", "destination_type", "_local"})


def _states(reference: Dataset, ours: Dataset) -> Iterator[Difference]:
    left, right = state_documents(reference), state_documents(ours)

    if len(left) != len(right):
        yield Difference("state", f"{len(left)} states in the reference, {len(right)} in asyncelt")

    for number, (expected, actual) in enumerate(zip(left, right, strict=False)):
        yield from _walk("state", f"state {number}", _without_own(expected), _without_own(actual))


def _without_own(document: object) -> object:
    if not isinstance(document, dict):
        return document

    return {key: _in_order(value) for key, value in document.items() if key not in STATE_NAMES_OF_THEIR_OWN}


def _in_order(value: object) -> object:
    """The reference keeps the digests of a cursor in the order of a set, which is another one each time."""
    if not isinstance(value, dict):
        return value

    return {key: sorted(item) if key == "unique_hashes" else _in_order(item) for key, item in value.items()}


def _walk(kind: str, path: str, expected: object, actual: object) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in sorted(expected.keys() | actual.keys(), key=str):
            if key not in actual:
                yield Difference(kind, f"{path}.{key} missing in asyncelt: {expected[key]!r:.200}")
            elif key not in expected:
                yield Difference(kind, f"{path}.{key} only in asyncelt: {actual[key]!r:.200}")
            else:
                yield from _walk(kind, f"{path}.{key}", expected[key], actual[key])
    elif expected != actual:
        yield Difference(kind, f"{path}: reference {expected!r:.200}, asyncelt {actual!r:.200}")


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return json.loads(zlib.decompress(base64.b64decode(text)))
