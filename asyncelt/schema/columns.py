"""Columns as users declare them: mappings, lists, Arrow schemas, or the fields of a model class.

The result is always the same: property mappings, as in the stored schema, by the names as they were written.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, Union, cast, get_args, get_origin

import msgspec
import pyarrow as pa

from asyncelt.errors import ConfigError, SchemaError
from asyncelt.schema.arrow import column_from_arrow
from asyncelt.schema.stored import COLUMN_FLAGS, DATA_TYPES, column_to_stored
from asyncelt.types import ColumnName, DataType, JsonValue

__all__ = ["ColumnHints", "declared_columns", "is_pydantic_model", "pydantic_contract"]

ColumnHints: TypeAlias = (
    "Sequence[Mapping[str, JsonValue]] | Mapping[str, Mapping[str, JsonValue]] | type[object] | pa.Schema"
)
"""What ``columns=`` takes. A class may be a pydantic model, a msgspec Struct or a dataclass."""

Properties: TypeAlias = dict[str, JsonValue]

OTHER_PROPERTIES: Final = frozenset({
    "name", "data_type", "nullable", "precision", "scale", "timezone", "dedup_sort",
    "description", "partition", "cluster", "sort", "incremental",
})  # fmt: skip
KNOWN_PROPERTIES: Final = OTHER_PROPERTIES | set(COLUMN_FLAGS)
PYTHON_TYPES: Final[tuple[tuple[tuple[type, ...], DataType], ...]] = (
    ((bool,), "bool"),
    ((dict, list), "json"),
    ((Decimal,), "decimal"),
    ((datetime,), "timestamp"),
    ((date,), "date"),
    ((time,), "time"),
    ((str,), "text"),
    ((float,), "double"),
    ((int,), "bigint"),
    ((bytes, bytearray, memoryview), "binary"),
    ((Mapping, Sequence, set, frozenset), "json"),
    ((Enum,), "text"),
)
"""In the order in which subclasses must be looked at: a datetime is a date, a str is a sequence."""
CONTRACT_OF_EXTRA: Final = {"forbid": "freeze", "allow": "evolve"}


def declared_columns(columns: ColumnHints | None, where: str) -> dict[str, Properties]:
    """Property mappings by raw column name, in the order of declaration.

    Args:
        columns: The declaration in any of its forms; None: no columns.
        where: Names the table in messages.

    Raises:
        ConfigError: The form is not one of these, or a property or its value is not one there is.
    """
    if columns is None:
        return {}

    if isinstance(columns, pa.Schema):
        return _of_arrow(columns, where)

    if isinstance(columns, type):
        return _of_class(columns)

    given: object = columns

    if isinstance(given, Mapping):
        items: Iterable[tuple[object, object]] = given.items()
    elif isinstance(given, (list, tuple)):
        items = ((item.get("name") if isinstance(item, Mapping) else None, item) for item in given)
    else:
        raise ConfigError(
            f"{where}: columns= takes a mapping or list of column properties, an Arrow schema or a model class, "
            f"not {type(columns).__name__}."
        )

    return dict(_checked(name, item, where) for name, item in items)


def _checked(name: object, properties: object, where: str) -> tuple[str, Properties]:
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{where}: a column needs a name that is not blank, not {name!r}.")

    if not isinstance(properties, Mapping):
        raise ConfigError(
            f"{where}, column {name!r}: a mapping of properties is needed, such as {{'data_type': 'text'}}, "
            f"not {properties!r}."
        )

    found: Properties = {**properties, "name": name}

    if unknown := [prop for prop in found if prop not in KNOWN_PROPERTIES and not prop.startswith("x-")]:
        raise ConfigError(
            f"{where}, column {name!r}: unknown properties {', '.join(map(repr, unknown))}; "
            f"there are {', '.join(sorted(KNOWN_PROPERTIES))} and names that begin with x-."
        )

    for prop, allowed in (("data_type", DATA_TYPES), ("dedup_sort", ("asc", "desc"))):
        if found.get(prop) is not None and found[prop] not in allowed:
            raise ConfigError(
                f"{where}, column {name!r}: {prop} {found[prop]!r} is unknown; allowed: {', '.join(allowed)}."
            )

    for prop in ("precision", "scale"):
        value = found.get(prop)

        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ConfigError(f"{where}, column {name!r}: {prop} is a number of digits from 0, not {value!r}.")

    for prop in (*COLUMN_FLAGS, "nullable", "timezone", "partition", "cluster", "sort", "incremental"):
        if found.get(prop) is not None and not isinstance(found[prop], bool):
            raise ConfigError(f"{where}, column {name!r}: {prop} is True or False, not {found[prop]!r}.")

    return name, found


def _of_arrow(schema: pa.Schema, where: str) -> dict[str, Properties]:
    try:
        return {field.name: column_to_stored(column_from_arrow(ColumnName(field.name), field)) for field in schema}
    except SchemaError as error:
        raise ConfigError(f"{where}: {error}") from error


def is_pydantic_model(value: object) -> bool:
    """Whether a value is a pydantic model class. Never imports pydantic."""
    pydantic = sys.modules.get("pydantic")

    return pydantic is not None and isinstance(value, type) and issubclass(value, pydantic.BaseModel)


def pydantic_contract(model: object) -> dict[str, JsonValue]:
    """The schema contract that a model implies: its types are fixed, other fields as its ``extra`` setting says."""
    config = cast("Mapping[str, str]", getattr(model, "model_config", {}))

    return {
        "tables": "evolve",
        "columns": CONTRACT_OF_EXTRA.get(config.get("extra") or "", "discard_value"),
        "data_type": "freeze",
    }


def _of_class(model: type[object]) -> dict[str, Properties]:
    if is_pydantic_model(model):
        return _of_pydantic(model)

    if issubclass(model, msgspec.Struct):
        hints = typing.get_type_hints(model, include_extras=True)

        return _of_annotations((field.encode_name, hints[field.name]) for field in msgspec.structs.fields(model))

    if dataclasses.is_dataclass(model):
        hints = typing.get_type_hints(model, include_extras=True)

        return _of_annotations((field.name, hints[field.name]) for field in dataclasses.fields(model))

    raise ConfigError(
        f"{model.__name__} cannot declare columns: it is no pydantic model, no msgspec Struct and no dataclass."
    )


def _of_annotations(fields: Iterable[tuple[str, object]]) -> dict[str, Properties]:
    found: dict[str, Properties] = {}

    for name, annotation in fields:
        data_type, nullable, _ = _type_of(annotation)

        if data_type is not None:
            found[name] = {"name": name, "data_type": data_type, "nullable": nullable}

    return found


def _of_pydantic(model: type[object]) -> dict[str, Properties]:
    if variants := _union_variants(model):
        every = [_of_pydantic(variant) for variant in variants]

        return {name: column for name, column in every[0].items() if all(name in columns for columns in every)}

    config = cast("Mapping[str, bool]", getattr(model, "dlt_config", None) or {})
    flat = config.get("skip_nested_types", config.get("skip_complex_types", False))
    found: dict[str, Properties] = {}

    for field_name, field in cast("Mapping[str, Any]", getattr(model, "model_fields", {})).items():
        name = field.alias or field_name
        data_type, nullable, inner = _type_of(field.annotation)

        if data_type is None or (flat and data_type == "json" and not is_pydantic_model(inner)):
            continue

        if flat and is_pydantic_model(inner):
            for key, column in _of_pydantic(cast("type[object]", inner)).items():
                path = f"{name}__{key}"
                found[path] = {**column, "name": path, "nullable": bool(column["nullable"]) or nullable}
        else:
            found[name] = {"name": name, "data_type": data_type, "nullable": nullable}

    return found


def _union_variants(model: type[object]) -> tuple[type[object], ...]:
    """Classes of a root model that is a union told apart by a field; rows may have the columns common to all."""
    if not getattr(model, "__pydantic_root_model__", False):
        return ()

    field = cast("Mapping[str, Any]", getattr(model, "model_fields", {}))["root"]
    annotation = field.annotation
    metadata: tuple[Any, ...] = ()

    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        metadata = tuple(rest)

    marked = any(isinstance(getattr(item, "discriminator", None), str) for item in (field, *metadata))

    return tuple(item for item in get_args(annotation) if is_pydantic_model(item)) if marked else ()


def _type_of(annotation: object) -> tuple[DataType | None, bool, object]:
    """Data type (None for Any: the data decides), whether None is allowed, and the bare class."""
    # pydantic.Json keeps the type of the parsed value here
    annotation = getattr(annotation, "inner_type", None) or annotation
    inner, nullable = _bare(annotation)

    if inner is Any or getattr(inner, "__name__", "") == "Json":
        return None, nullable, inner

    kind = get_origin(inner) or inner

    if not isinstance(kind, type):
        return "text", nullable, inner

    if is_pydantic_model(kind) or dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct):
        return "json", nullable, inner

    for bases, data_type in PYTHON_TYPES:
        if issubclass(kind, bases):
            return data_type, nullable, inner

    return "text", nullable, inner


def _bare(annotation: object) -> tuple[Any, bool]:
    """Take off Annotated, Final, ClassVar, NewType, Literal and unions, of which the first member counts."""
    origin = get_origin(annotation)

    if origin in {Annotated, typing.Final, ClassVar}:
        return _bare(get_args(annotation)[0])

    if origin is Union or origin is types.UnionType:
        members = [item for item in get_args(annotation) if item is not types.NoneType]
        inner, nullable = _bare(members[0]) if members else (Any, True)

        return inner, nullable or len(members) < len(get_args(annotation))

    if origin is Literal:
        return type(get_args(annotation)[0]), None in get_args(annotation)

    if (supertype := getattr(annotation, "__supertype__", None)) is not None:
        return _bare(supertype)

    return annotation, False
