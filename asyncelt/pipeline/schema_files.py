"""Schemas in files that people read and edit: exported after each call, imported before. Blocking.

A file is ``<schema name>.schema.yaml``, or ``.schema.json`` where PyYAML is not installed. An import file is made when
a schema appears for the first time; once somebody edits it, the edited schema takes the place of the pipeline's.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import orjson

from asyncelt.errors import ConfigError
from asyncelt.schema.evolve import bump
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import content_hash, from_stored, to_stored
from asyncelt.storage.files import write_atomically
from asyncelt.types import JsonValue

__all__ = ["Imports", "changed_imports", "write"]

_FORMS: Final = (".schema.yaml", ".schema.json")
_RECORD: Final = "imports.json"
"""In the working folder: hashes of the import files as this pipeline has made them."""


@dataclass(frozen=True, slots=True)
class Imports:
    """Schemas that import files have changed."""

    schemas: Mapping[str, Schema] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


def changed_imports(folder: Path, known: Mapping[str, Schema], root: Path) -> Imports:
    """The schemas whose files differ from what was imported last, and from what this pipeline has put there.

    Raises:
        ConfigError: A file is no schema.
    """
    found: dict[str, Schema] = {}
    messages = []
    made = _record(root)

    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        form = next((ending for ending in _FORMS if path.name.endswith(ending)), None)

        if form is None:
            continue

        schema = _read(path)
        before = known.get(schema.name)
        imported = content_hash(schema)

        if made.get(schema.name) == imported or (before is not None and before.imported_version_hash == imported):
            continue

        if before is not None and any(table.seen_data for table in before.tables.values()):
            messages.append(
                f"Schema {schema.name!r} is taken from {path}, which was edited, in place of the one that tables "
                "with data were made by. Columns that it no longer has stay at the destination."
            )

        found[schema.name] = _in_place_of(before, replace(schema, imported_version_hash=imported))

    return Imports(found, tuple(messages))


def _in_place_of(before: Schema | None, schema: Schema) -> Schema:
    if before is None:
        return bump(replace(schema, version=1, version_hash="", previous_hashes=()))

    # What is known of the data stays known: an edited file says how tables look, not what they have received.
    tables = {
        name: replace(table, hints={**table.hints, "x-normalizer": before.tables[name].hints["x-normalizer"]})
        if name in before.tables and "x-normalizer" in before.tables[name].hints
        else table
        for name, table in schema.tables.items()
    }
    system = {name: table for name, table in before.tables.items() if name.startswith("_dlt") and name not in tables}

    return bump(
        replace(
            schema,
            tables={**system, **tables},
            version=before.version,
            version_hash=before.version_hash,
            previous_hashes=before.previous_hashes,
        )
    )


def write(schemas: Mapping[str, Schema], export: Path | None, imports: Path | None, root: Path) -> None:
    """Write changed schemas to the export folder, and new ones to the import folder as a start for editing."""
    made = _record(root)

    for schema in schemas.values():
        if export is not None:
            export.mkdir(parents=True, exist_ok=True)
            _write(export, schema)

        if imports is not None and not any((imports / (schema.name + ending)).exists() for ending in _FORMS):
            imports.mkdir(parents=True, exist_ok=True)
            made[schema.name] = content_hash(_read(_write(imports, schema)))
            write_atomically(root / _RECORD, orjson.dumps(made), durable=False)


def _record(root: Path) -> dict[str, str]:
    try:
        return cast("dict[str, str]", orjson.loads((root / _RECORD).read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        return {}


def _write(folder: Path, schema: Schema) -> Path:
    stored = orjson.loads(orjson.dumps(to_stored(schema)))

    if importlib.util.find_spec("yaml") is None:
        path = folder / f"{schema.name}.schema.json"
        write_atomically(path, orjson.dumps(stored, option=orjson.OPT_INDENT_2), durable=False)

        return path

    yaml = importlib.import_module("yaml")
    text = yaml.safe_dump(stored, allow_unicode=True, default_flow_style=False, sort_keys=False)
    path = folder / f"{schema.name}.schema.yaml"
    write_atomically(path, text.encode(), durable=False)

    return path


def _read(path: Path) -> Schema:
    is_json = path.name.endswith(".json")

    if not is_json and importlib.util.find_spec("yaml") is None:
        raise ConfigError(f"{path} needs PyYAML: pip install 'asyncelt[yaml]', or keep the schema as .schema.json.")

    load = orjson.loads if is_json else importlib.import_module("yaml").safe_load

    try:
        return from_stored(cast("dict[str, JsonValue]", load(path.read_bytes())))
    except Exception as error:  # whatever two parsers and the model may say
        raise ConfigError(f"The schema file {path} cannot be read: {error}") from error
