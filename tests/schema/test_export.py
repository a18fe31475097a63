"""Schemas as text: what can be read again says the same, diagrams show what is there."""

from __future__ import annotations

import sys
from dataclasses import replace

import orjson
import pytest
import yaml
from hypothesis import given, strategies as st

from asyncelt.errors import ConfigError, SchemaError
from asyncelt.schema.evolve import bump
from asyncelt.schema.export import _yaml, parse_schema, schema_document, schema_text
from asyncelt.schema.model import Column, Table
from asyncelt.schema.system import list_idx_column, load_id_column, new_schema, parent_id_column, row_id_column


def table(name, *columns, **properties):
    return Table(name=name, columns={column.name: column for column in columns}, **properties)


@pytest.fixture
def schema():
    orders = table(
        "orders",
        Column(name="id", data_type="bigint", nullable=False, primary_key=True),
        Column(
            name="total", data_type="decimal", precision=10, scale=2, extra={"description": 'the "net" sum\nin EUR'}
        ),
        Column(name="customer", data_type="text"),
        Column(name="unknown"),
        load_id_column(),
        row_id_column(),
        resource="orders",
        write_disposition="merge",
        hints={
            "description": "It's all orders",
            "references": [
                {"columns": ["customer"], "referenced_table": "customers", "referenced_columns": ["name"]},
                {"columns": ["customer"], "referenced_table": "nowhere", "referenced_columns": ["x"]},
            ],
            "x-normalizer": {"seen-data": True},
        },
    )
    lines = table(
        "orders__lines",
        Column(name="sku", data_type="text"),
        parent_id_column(),
        list_idx_column(),
        row_id_column(),
        parent="orders",
    )
    customers = table(
        "customers",
        Column(name="name", data_type="text", unique=True),
        resource="customers",
        write_disposition="append",
    )
    empty = table("empty", Column(name="nothing"), resource="empty", write_disposition="append")
    base = new_schema("shop")
    made = {one.name: one for one in (orders, lines, customers, empty)}

    return bump(replace(base, tables={**base.tables, **made}))


@pytest.mark.parametrize("file_format", ["json", "yaml"])
def test_what_is_written_can_be_read_again(schema, file_format):
    assert parse_schema(schema.to_text(file_format)) == schema
    assert parse_schema(schema_text(schema, file_format, remove_defaults=False)) == schema


def test_the_short_forms_are_the_same(schema):
    assert schema.to_pretty_json() == schema.to_text("json")
    assert schema.to_pretty_yaml() == schema.to_text("yaml")
    assert schema.to_dbml() == schema.to_text("dbml")
    assert schema.to_dot() == schema.to_text("dot")
    assert schema.to_mermaid() == schema.to_text("mermaid")


def test_defaults_and_notes_of_loads_can_be_left_out(schema):
    whole = schema.to_dict()
    assert whole["tables"]["orders"]["name"] == "orders"
    assert whole["tables"]["orders"]["x-normalizer"] == {"seen-data": True}
    short = schema.to_dict(remove_defaults=True, remove_processing_hints=True)
    assert "name" not in short["tables"]["orders"]
    assert "name" not in short["tables"]["orders"]["columns"]["id"]
    assert "x-normalizer" not in short["tables"]["orders"]
    assert "imported_version_hash" not in schema_document(
        replace(schema, imported_version_hash="x"), remove_defaults=True
    )
    assert "x-normalizer" not in schema.to_text("yaml", remove_processing_hints=True)
    # The schema itself is as before.
    assert schema.to_dict() == whole


def test_yaml_reads_like_yaml(schema):
    text = schema.to_pretty_yaml()
    assert "    write_disposition: merge\n" in text
    assert "      id:\n        nullable: false\n        data_type: bigint\n        primary_key: true\n" in text
    assert "    - columns:\n      - customer\n      referenced_table: customers\n" in text
    assert yaml.safe_load(text) == orjson.loads(schema.to_pretty_json())


WORDS = st.sampled_from(
    [
        "yes",
        "No",
        "null",
        "1e5",
        "1_000",
        "12:30",
        "2024-01-01",
        "0x1f",
        "a: b",
        "a #b",
        "- a",
        "",
        " a",
        "a ",
        "\x85",
        "\u2028",
        "😀",
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | WORDS
)
DOCUMENTS = st.dictionaries(
    st.text(min_size=1, max_size=20) | WORDS,
    st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10) | WORDS, inner, max_size=3),
        max_leaves=10,
    ),
    min_size=1,
    max_size=4,
)


@given(DOCUMENTS)
def test_any_document_survives_yaml(document):
    assert yaml.safe_load("\n".join(_yaml(document))) == document


def test_a_diagram_for_mermaid(schema):
    text = schema.to_text("mermaid", include_dlt_tables=False)
    assert text == (
        "erDiagram\n"
        "    orders{\n"
        "    bigint id PK\n"
        "    decimal total \"the 'net' sum in EUR\"\n"
        "    text customer\n"
        "    text _dlt_load_id\n"
        "    text _dlt_id UK\n"
        "}\n"
        "    orders__lines{\n"
        "    text sku\n"
        "    text _dlt_parent_id\n"
        "    bigint _dlt_list_idx\n"
        "    text _dlt_id UK\n"
        "}\n"
        "    customers{\n"
        "    text name UK\n"
        "}\n"
        '    orders ||--|{ customers : ""\n'
        '    orders__lines }|--|| orders : "_dlt_parent"\n'
    )
    assert '    orders }|--|| _dlt_loads : "_dlt_load"\n' in schema.to_mermaid()


def test_a_diagram_for_graphviz(schema):
    text = schema.to_text("dot", include_dlt_tables=False)
    assert text.startswith('digraph "shop" {\n')
    assert text.endswith("}\n")
    assert '<td port="f0" align="left"><u>id</u> <i>bigint NN</i></td>' in text
    assert '    "orders__lines":f1 -> "orders":f4 [label="_dlt_parent"];\n' in text
    assert "unknown" not in text
    assert text.count("{") == text.count("}")


def test_a_diagram_in_dbml(schema):
    text = schema.to_text("dbml", include_dlt_tables=False)
    assert 'Table "orders" {\n    "id" "bigint" [pk, not null]\n' in text
    assert '    "total" "decimal" [note: \'the "net" sum in EUR\']\n' in text
    assert "    Note: 'It\\'s all orders'\n" in text
    assert 'Ref {\n    "orders__lines"."_dlt_parent_id" > "orders"."_dlt_id"\n}\n' in text
    assert "nowhere" not in text


def test_odd_names_are_quoted(schema):
    odd = table('a "b" <c>', Column(name="x y", data_type="text"), resource="odd", write_disposition="append")
    changed = replace(schema, tables={**schema.tables, odd.name: odd})
    assert "    \"a 'b' <c>\"{\n    text x_y\n" in changed.to_mermaid()
    assert "<b>a &quot;b&quot; &lt;c&gt;</b>" in changed.to_dot()
    assert 'Table "a \\"b\\" <c>" {\n    "x y" "text"\n' in changed.to_dbml()
    assert parse_schema(changed.to_pretty_yaml()).tables[odd.name] == odd


@pytest.mark.parametrize(
    "text, message", [("[1]", "mapping, not list"), ("5", "mapping"), ("a: [", "neither JSON nor YAML")]
)
def test_what_is_no_schema_is_refused(text, message):
    with pytest.raises(SchemaError, match=message):
        parse_schema(text)


def test_an_older_engine_is_refused(schema):
    with pytest.raises(SchemaError, match="engine version 9"):
        parse_schema(schema.to_pretty_yaml().replace("engine_version: 11", "engine_version: 9"))


def test_an_unknown_format_is_refused(schema):
    with pytest.raises(ConfigError, match="not 'xml'"):
        schema.to_text("xml")


def test_yaml_needs_a_package_only_to_be_read(schema, monkeypatch):
    text = schema.to_pretty_yaml()
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert schema.to_pretty_yaml() == text
    assert parse_schema(schema.to_pretty_json()) == schema

    with pytest.raises(ConfigError, match="asyncelt\\[yaml\\]"):
        parse_schema(text)
