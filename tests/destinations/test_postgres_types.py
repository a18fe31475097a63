"""Types of Postgres columns, compared with those the reference makes."""

from __future__ import annotations

import pytest

from asyncelt import destinations
from asyncelt.destinations.postgres_impl.types import postgres_type
from asyncelt.errors import ConfigError
from asyncelt.schema.model import Column

dlt = pytest.importorskip("dlt")

COLUMNS = [
    *({"data_type": name} for name in ("text", "double", "bool", "timestamp", "bigint", "binary", "json", "decimal", "wei", "date", "time")),
    *({"data_type": "text", "precision": precision} for precision in (1, 64, 10_485_760)),
    *({"data_type": "bigint", "precision": precision} for precision in (1, 8, 16, 17, 32, 33, 64)),
    *({"data_type": "timestamp", "precision": precision} for precision in (0, 3, 6)),
    *({"data_type": "timestamp", "timezone": timezone} for timezone in (True, False)),
    {"data_type": "timestamp", "timezone": False, "precision": 3},
    {"data_type": "time", "precision": 3},
    {"data_type": "decimal", "precision": 10, "scale": 2},
    {"data_type": "decimal", "precision": 76, "scale": 0},
    {"data_type": "decimal", "precision": 12},
    {"data_type": "wei", "precision": 78, "scale": 0},
    {"data_type": "binary", "precision": 16},
    {"data_type": "json", "precision": 4},
]  # fmt: skip


def normalized(kind):
    return kind.replace(" (", "(")


@pytest.fixture(scope="module")
def theirs():
    return dlt.destinations.postgres().capabilities()


@pytest.mark.parametrize("column", COLUMNS, ids=str)
def test_a_column_has_the_type_that_the_reference_gives_it(theirs, column):
    wanted = theirs.get_type_mapper().to_destination_type({"name": "c", **column}, {"name": "t", "columns": {}})
    assert postgres_type(Column(name="c", **column)) == normalized(wanted)


@pytest.mark.parametrize(
    "column", [{"data_type": "bigint", "precision": 65}, {"data_type": "timestamp", "precision": 9}]
)
def test_what_postgres_cannot_hold_is_refused(column):
    with pytest.raises(ConfigError, match="Column 'c'"):
        postgres_type(Column(name="c", **column))


def test_capabilities_are_those_of_the_reference(theirs):
    ours = destinations.postgres("postgresql:///d").capabilities

    assert ours.max_identifier_length == theirs.max_identifier_length
    assert ours.decimal_precision == theirs.decimal_precision
    assert ours.wei_precision == theirs.wei_precision
    assert ours.timestamp_precision == theirs.timestamp_precision
    assert set(ours.merge_strategies) == set(theirs.supported_merge_strategies)
    assert ours.sqlglot_dialect == theirs.sqlglot_dialect
    assert set(theirs.supported_replace_strategies) - set(ours.replace_strategies) == {"staging-optimized"}
