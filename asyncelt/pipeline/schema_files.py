"""Schemas in files that people read and edit: exported after each call, imported before. Blocking.

A file is ``<schema name>.schema.yaml``; an import file may be ``.schema.json`` instead, and is where PyYAML is not
installed. It is made when a schema appears for the first time; once somebody edits it, the edited schema takes the
place of the pipeline's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, cast

import orjson

from asyncelt.errors import ConfigError, SchemaError
from asyncelt.schema.evolve import bump
from asyncelt.schema.export import parse_schema, schema_text
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import content_hash
from asyncelt.storage.files import write_atomically

__all__ = ["Imports", "changed_imports", "check_folders", "write"]

_FORMS: Final = (".schema.yaml", ".schema.json")
_RECORD: Final = "imports.json"
"""In the working folder: hashes of the import files as this pipeline has made them."""


@dataclass(frozen=True, slots=True)
class Imports:
    """Schemas that import files have changed."""

    schemas: Mapping[str, Schema] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


def check_folders(export: Path | None, imports: Path | None) -> None:
    """Refuse folders that cannot be: files are written to them when all is committed.

    Raises:
        ConfigError: Names the one that is a file, or that would be below one.
    """
    for argument, folder in (("export_schema_path", export), ("import_schema_path", imports)):
        if folder is None:
            continue

        try:
            there = next((one for one in (folder, *folder.parents) if one.exists()), None)
            is_possible = there is None or there.is_dir()
        except OSError as error:
            raise ConfigError(f"{argument}={str(folder)!r} cannot be a folder: {error}.") from error

        if not is_possible:
            raise ConfigError(f"{argument}={str(folder)!r} has to be a folder, but {str(there)!r} is a file.")


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
            _write(export / f"{schema.name}.schema.yaml", schema, for_editing=False)

        if imports is not None and not any((imports / (schema.name + ending)).exists() for ending in _FORMS):
            imports.mkdir(parents=True, exist_ok=True)
            # What is to be read again must be readable: YAML needs a package for that.
            path = imports / (schema.name + _FORMS[importlib.util.find_spec("yaml") is None])
            _write(path, schema, for_editing=True)
            made[schema.name] = content_hash(_read(path))
            write_atomically(root / _RECORD, orjson.dumps(made), durable=False)


def _record(root: Path) -> dict[str, str]:
    try:
        return cast("dict[str, str]", orjson.loads((root / _RECORD).read_bytes()))
    except (OSError, orjson.JSONDecodeError):
        return {}


def _write(path: Path, schema: Schema, *, for_editing: bool) -> None:
    """Leave out what goes without saying; in a file that people edit also what loads have noted."""
    text = schema_text(schema, "json" if path.suffix == ".json" else "yaml", remove_processing_hints=for_editing)
    write_atomically(path, text.encode(), durable=False)


def _read(path: Path) -> Schema:
    try:
        return parse_schema(path.read_text())
    except (SchemaError, ValueError) as error:  # ConfigError and undecodable text are ValueErrors
        raise ConfigError(f"The schema file {path} cannot be read: {error}") from error
