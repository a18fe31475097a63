"""Hypothesis strategies for names, columns, schemas and states."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from hypothesis import strategies as st

from asyncelt.schema.model import Column, Schema, SchemaDelta, Table, TableDelta
from asyncelt.schema.system import new_schema
from asyncelt.types import ColumnName, DataType, TableName

DATA_TYPES: tuple[DataType, ...] = (
    "text", "double", "bool", "timestamp", "bigint", "binary", "json", "decimal", "wei", "date", "time",
)  # fmt: skip

awkward_words = st.sampled_from([
    "a__b", "a____b", "__a", "a__", "_", "__", "%", "%_", "CamelCase", "HTTPServer", "userID", "2024Sales", "name_",
    "café", "日本", "a▶b", "a b", " a ", "a\nb", "x'y", 'x"y', "٣abc", "a+b*c-d@e|f", "İx", "ǅungla", "A1B2",
])  # fmt: skip
raw_names = st.one_of(
    awkward_words,
    st.text(max_size=40).filter(lambda text: text.isprintable() or text.isspace()),
    st.text(alphabet="aAbB1_ -+*@|%.$é▶", max_size=60),
    st.lists(awkward_words, min_size=1, max_size=3).map("__".join),
)
"""Names as they come in data: camel case, separators, signs, blanks, other scripts."""

final_names = st.sampled_from(["a", "b", "c", "id", "at", "abc", "a__b", "b__c", "x1", "value", "long_name"])
"""Names that every convention leaves as they are."""


@st.composite
def columns(draw: st.DrawFn, *, typed: bool | None = None) -> Column:
    """A column with arbitrary hints; ``typed`` says whether it has a data type."""
    with_type = draw(st.booleans()) if typed is None else typed
    flag = st.booleans()

    return Column(
        name=ColumnName(draw(final_names)),
        data_type=draw(st.sampled_from(DATA_TYPES)) if with_type else None,
        nullable=draw(flag),
        precision=draw(st.none() | st.integers(1, 38)),
        scale=draw(st.none() | st.integers(0, 9)),
        timezone=draw(st.sampled_from([None, True, False])),
        variant=draw(flag),
        primary_key=draw(flag),
        merge_key=draw(flag),
        unique=draw(flag),
        hard_delete=draw(flag),
        dedup_sort=draw(st.sampled_from([None, "asc", "desc"])),
        extra=draw(st.sampled_from([{}, {"description": "text"}, {"x-own": [1], "sort": True}, {"partition": True}])),
    )


@st.composite
def deltas(draw: st.DrawFn, *, max_tables: int = 3) -> SchemaDelta:
    """New root tables with typed columns; names may repeat those of other deltas, types are given by the name."""
    names = draw(st.lists(final_names, max_size=max_tables, unique=True))

    return SchemaDelta(
        tables=tuple(
            TableDelta(
                name=TableName(name),
                columns=tuple(
                    Column(name=ColumnName(column), data_type=DATA_TYPES[len(column) % len(DATA_TYPES)])
                    for column in draw(st.lists(final_names, max_size=5, unique=True))
                ),
                is_new=True,
            )
            for name in names
        )
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    """A schema with arbitrary root and nested tables."""
    schema = new_schema(draw(st.sampled_from(["s", "github", "my_schema"])))
    tables = dict(schema.tables)

    for name in draw(st.lists(final_names, max_size=3, unique=True)):
        found = draw(st.lists(columns(), max_size=4, unique_by=lambda column: column.name))
        tables[TableName(name)] = Table(
            name=TableName(name),
            columns={column.name: column for column in found},
            resource=name,
            write_disposition=draw(st.sampled_from(["append", "replace", "merge"])),
            hints=draw(st.sampled_from([{}, {"x-normalizer": {"seen-data": True}}, {"schema_contract": "freeze"}])),
        )
        child = TableName(f"{name}__items")
        tables[child] = Table(name=child, parent=TableName(name), columns={})

    return Schema(
        name=schema.name,
        tables=tables,
        settings=schema.settings,
        normalizers=schema.normalizers,
        version=draw(st.integers(1, 9)),
        version_hash=draw(st.sampled_from(["", "abc="])),
        previous_hashes=tuple(draw(st.lists(st.sampled_from(["p", "q", "r"]), max_size=3, unique=True))),
        description=draw(st.sampled_from([None, "text"])),
    )


plain_text = st.text(max_size=12).filter(lambda text: text.isascii() or text.isprintable())
state_scalars: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    plain_text,
    st.decimals(allow_nan=False, allow_infinity=False),
    st.datetimes(
        min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.sampled_from([None, UTC])
    ),
    st.dates(min_value=date(1900, 1, 1)),
    st.times(timezones=st.none()).map(lambda value: time(value.hour, value.minute, value.second, value.microsecond)),
    st.binary(max_size=12),
)
state_values = st.recursive(
    state_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_text, inner, max_size=3),
    max_leaves=8,
)
"""What users may keep in a pipeline's state."""
