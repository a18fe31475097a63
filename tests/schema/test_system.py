from __future__ import annotations

import pytest

from asyncelt.errors import ConfigError
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import (
    is_system_name,
    load_id_column,
    loads_table,
    new_schema,
    pipeline_state_table,
    row_id_column,
)
from tests.schema.test_naming import Shouting


def test_the_load_id_has_a_precision_in_system_tables_only():
    assert load_id_column().precision is None
    assert loads_table().columns["load_id"].precision == 64
    assert pipeline_state_table().columns["_dlt_load_id"].precision == 64


def test_system_names_pass_the_naming_convention():
    schema = new_schema("s", Shouting)

    assert list(schema.tables) == ["_DLT_VERSION", "_DLT_LOADS"]
    assert list(loads_table(naming_for(Shouting)).columns)[:2] == ["LOAD_ID", "SCHEMA_NAME"]
    assert row_id_column(naming_for(Shouting)).name == "_DLT_ID"
    assert schema.settings["default_hints"]["row_key"] == ["_DLT_ID"]


@pytest.mark.parametrize("name", ["", "a-b", "1a", "a" * 65])
def test_schema_names_are_identifiers(name):
    with pytest.raises(ConfigError, match="name of a schema"):
        new_schema(name)


def test_settings_of_a_source():
    schema = new_schema("s", max_table_nesting=2, root_key=False, schema_contract="freeze")

    assert schema.normalizers["json"]["config"] == {"max_nesting": 2, "root_key_propagation": False}
    assert schema.settings["schema_contract"] == "freeze"


def test_system_names():
    assert is_system_name("_dlt_id")
    assert not is_system_name("id")
