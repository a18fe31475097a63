"""Schemas as text: JSON and YAML that can be read again (`parse_schema`), diagrams that cannot."""

from __future__ import annotations

import html
import importlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import orjson

from asyncelt.errors import ConfigError, SchemaError
from asyncelt.schema.model import Column, Schema, Table
from asyncelt.schema.references import Cardinality, TableReference, references_of
from asyncelt.schema.stored import from_stored, to_stored
from asyncelt.schema.system import is_system_name
from asyncelt.types import JsonValue

__all__ = ["SchemaFormat", "parse_schema", "schema_document", "schema_text"]

SchemaFormat: TypeAlias = Literal["json", "yaml", "dbml", "dot", "mermaid"]

_PROCESSING = ("x-normalizer", "x-loader", "x-extractor")
_ARROWS: Mapping[Cardinality, str] = {
    "one_to_many": "||--|{",
    "many_to_one": "}|--||",
    "zero_to_many": "|o--|{",
    "many_to_zero": "}|--o|",
    "one_to_one": "||--||",
    "many_to_many": "}|--|{",
    "zero_to_one": "|o--o|",
    "one_to_zero": "|o--o|",
}
_DBML: Mapping[Cardinality, str] = {
    "one_to_many": "<",
    "many_to_one": ">",
    "zero_to_many": "<",
    "many_to_zero": ">",
    "one_to_one": "-",
    "many_to_many": "<>",
    "zero_to_one": "-",
    "one_to_zero": "-",
}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_TEXT = re.compile(r"[A-Za-z_][A-Za-z0-9_ ./()-]*(?<! )")
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ""})


def schema_document(
    schema: Schema, *, remove_defaults: bool = False, remove_processing_hints: bool = False
) -> dict[str, JsonValue]:
    """The stored form of a schema.

    Args:
        schema: To be written.
        remove_defaults: Leave out names that are the keys already, and the hash of the imported schema.
        remove_processing_hints: Leave out what loads have noted about tables and columns.
    """
    document = to_stored(schema)

    if remove_defaults:
        document.pop("imported_version_hash", None)

    dropped = {*(_PROCESSING if remove_processing_hints else ()), *(("name",) if remove_defaults else ())}

    if dropped:
        document["tables"] = {name: _without(table, dropped) for name, table in _mapping(document["tables"]).items()}

    return document


def schema_text(
    schema: Schema,
    file_format: SchemaFormat,
    *,
    include_dlt_tables: bool = True,
    remove_defaults: bool = True,
    remove_processing_hints: bool = False,
) -> str:
    """A schema as text.

    Args:
        schema: To be written.
        file_format: ``json`` and ``yaml`` hold everything; ``dbml``, ``dot`` and ``mermaid`` are diagrams.
        include_dlt_tables: Whether diagrams have the tables of the engine.
        remove_defaults: See `schema_document`; of JSON and YAML.
        remove_processing_hints: The same.

    Raises:
        ConfigError: There is no such format.
    """
    if file_format in ("json", "yaml"):
        document = schema_document(
            schema, remove_defaults=remove_defaults, remove_processing_hints=remove_processing_hints
        )

        if file_format == "json":
            return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()

        return "\n".join(_yaml(document)) + "\n"

    drawing = _drawing(schema, include_dlt_tables=include_dlt_tables)

    if file_format == "mermaid":
        return "\n".join(_mermaid(drawing)) + "\n"

    if file_format == "dot":
        return "\n".join(_dot(drawing)) + "\n"

    if file_format == "dbml":
        return "\n".join(_dbml(drawing)) + "\n"

    raise ConfigError(f"A schema is written as json, yaml, dbml, dot or mermaid, not {file_format!r}.")


def parse_schema(text: str) -> Schema:
    """A schema from JSON or YAML, as `schema_text` or the reference has written it.

    Raises:
        SchemaError: It is neither, or no stored schema.
        ConfigError: It is YAML, and PyYAML is not installed.
    """
    try:
        document: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        document = _from_yaml(text)

    if not isinstance(document, Mapping):
        raise SchemaError(f"A stored schema is a mapping, not {type(document).__name__}.")

    return from_stored(document)


def _from_yaml(text: str) -> object:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "Reading a schema from YAML needs PyYAML, which is not installed: pip install 'asyncelt[yaml]'. JSON needs "
            "nothing."
        ) from error

    try:
        document: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SchemaError(f"The text is neither JSON nor YAML: {error}") from error

    return document


def _without(value: JsonValue, dropped: set[str]) -> JsonValue:
    """A table, and its columns, without these properties."""
    table = {key: one for key, one in _mapping(value).items() if key not in dropped}
    columns = _mapping(table.get("columns") or {})
    table["columns"] = {
        name: {key: one for key, one in _mapping(column).items() if key not in dropped}
        for name, column in columns.items()
    }

    return table


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, Mapping) else {}


# ------------------------------------------------------------------------------------------------------- YAML


def _yaml(value: JsonValue, indent: str = "") -> Iterator[str]:
    """Lines of a mapping or list that is not empty."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _yaml_entry(f"{indent}{_yaml_scalar(key)}:", one, f"{indent}  ", indent)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for one in value:
            lines = list(_yaml(one, f"{indent}  ")) if _nested(one) else [_yaml_scalar(one)]
            yield f"{indent}- {lines[0].lstrip()}"
            yield from lines[1:]


def _yaml_entry(head: str, value: JsonValue, deeper: str, indent: str) -> Iterator[str]:
    if not _nested(value):
        yield f"{head} {_yaml_scalar(value)}"
    else:
        yield head
        yield from _yaml(value, deeper if isinstance(value, Mapping) else indent)


def _nested(value: JsonValue) -> bool:
    return isinstance(value, Mapping | list | tuple) and bool(value)


def _yaml_scalar(value: JsonValue) -> str:
    if isinstance(value, str) and _PLAIN_TEXT.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value

    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)

        # Without a point YAML takes 1e+30 for text.
        return text if "." in text else text.replace("e", ".0e")

    # Otherwise JSON is YAML, but for a few characters.
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


# --------------------------------------------------------------------------------------------------- diagrams


@dataclass(frozen=True, slots=True)
class _Drawing:
    name: str
    tables: tuple[tuple[Table, tuple[Column, ...]], ...]
    references: tuple[TableReference, ...]


def _drawing(schema: Schema, *, include_dlt_tables: bool) -> _Drawing:
    """Tables that have columns, and the references between them."""
    tables = []

    for table in schema.tables.values():
        columns = tuple(column for column in table.columns.values() if column.data_type is not None)

        if columns and (include_dlt_tables or not is_system_name(table.name)):
            tables.append((table, columns))

    drawn = {(str(table.name), str(column.name)) for table, columns in tables for column in columns}
    references = tuple(
        one
        for one in references_of(schema)
        if one.columns
        and len(one.columns) == len(one.referenced_columns)
        and all((one.table, column) in drawn for column in one.columns)
        and all((one.referenced_table, column) in drawn for column in one.referenced_columns)
    )

    return _Drawing(schema.name, tuple(tables), references)


def _mermaid(drawing: _Drawing) -> Iterator[str]:
    yield "erDiagram"

    for table, columns in drawing.tables:
        yield f"    {_mermaid_name(table.name)}{{"
        yield from (f"    {_mermaid_column(column)}" for column in columns)
        yield "}"

    for one in drawing.references:
        ends = _mermaid_name(one.table), _mermaid_name(one.referenced_table)
        yield f'    {ends[0]} {_ARROWS[one.cardinality]} {ends[1]} : "{_single_quoted(one.label)}"'


def _mermaid_name(name: str) -> str:
    return name if _PLAIN_NAME.fullmatch(name) else f'"{_single_quoted(name)}"'


def _mermaid_column(column: Column) -> str:
    keys = ",".join(key for key, is_set in (("PK", column.primary_key), ("UK", column.unique)) if is_set)
    description = column.extra.get("description")
    parts = [str(column.data_type), re.sub(r"[^\w-]", "_", column.name), keys]

    if description:
        parts.append(f'"{_single_quoted(str(description))}"')

    return " ".join(part for part in parts if part)


def _single_quoted(text: str) -> str:
    """Text that can stand between double quotes in a diagram that knows no escapes."""
    return text.replace('"', "'").replace("\n", " ")


def _dot(drawing: _Drawing) -> Iterator[str]:
    yield f"digraph {_quoted(drawing.name)} {{"
    yield '    graph [rankdir="RL", ranksep=2];'
    yield '    node [shape="plain", fontname="helvetica"];'
    ports = {}

    for table, columns in drawing.tables:
        ports.update({(str(table.name), str(one.name)): f"f{number}" for number, one in enumerate(columns)})
        rows = "".join(_dot_row(column, f"f{number}") for number, column in enumerate(columns))
        head = f'<tr><td bgcolor="lightgrey"><b>{html.escape(table.name)}</b></td></tr>'
        label = f'<table border="0" cellborder="1" cellspacing="0">{head}{rows}</table>'
        yield f"    {_quoted(table.name)} [label=<{label}>];"

    for one in drawing.references:
        for column, referenced in zip(one.columns, one.referenced_columns, strict=True):
            start = f"{_quoted(one.table)}:{ports[one.table, column]}"
            end = f"{_quoted(one.referenced_table)}:{ports[one.referenced_table, referenced]}"
            yield f"    {start} -> {end} [label={_quoted(one.label)}];"

    yield "}"


def _dot_row(column: Column, port: str) -> str:
    name = html.escape(column.name)
    name = f"<u>{name}</u>" if column.primary_key else name
    required = "" if column.nullable else " NN"

    return f'<tr><td port="{port}" align="left">{name} <i>{column.data_type}{required}</i></td></tr>'


def _dbml(drawing: _Drawing) -> Iterator[str]:
    for table, columns in drawing.tables:
        yield f"Table {_quoted(table.name)} {{"
        yield from (
            f"    {_quoted(column.name)} {_quoted(str(column.data_type))}{_dbml_notes(column)}" for column in columns
        )
        note = table.hints.get("description")

        if note:
            yield f"    Note: {_dbml_text(str(note))}"

        yield "}"
        yield ""

    for one in drawing.references:
        ends = (_dbml_end(one.table, one.columns), _dbml_end(one.referenced_table, one.referenced_columns))
        yield f"Ref {{\n    {ends[0]} {_DBML[one.cardinality]} {ends[1]}\n}}"


def _dbml_notes(column: Column) -> str:
    notes = [
        note
        for note, is_set in (("pk", column.primary_key), ("unique", column.unique), ("not null", not column.nullable))
        if is_set
    ]
    description = column.extra.get("description")

    if description:
        notes.append(f"note: {_dbml_text(str(description))}")

    return f" [{', '.join(notes)}]" if notes else ""


def _dbml_end(table: str, columns: Sequence[str]) -> str:
    names = ", ".join(map(_quoted, columns))

    return f"{_quoted(table)}.{names if len(columns) == 1 else f'({names})'}"


def _dbml_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", " ") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
