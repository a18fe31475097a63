"""What is passed wrongly is refused where it is passed, in one line that names the argument and what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import asyncelt
from asyncelt import destinations, sources
from asyncelt.errors import AsynceltError, ConfigError

ROWS = [{"id": 1}]


def pipeline(**wrong: Any) -> Callable[[], object]:
    return lambda: asyncelt.pipeline("wrong", **wrong)


def resource(**wrong: Any) -> Callable[[], object]:
    return lambda: asyncelt.resource(ROWS, name="r", **wrong)


def changed(method: str, *wrong: Any, **named: Any) -> Callable[[], object]:
    return lambda: getattr(asyncelt.resource(ROWS, name="r"), method)(*wrong, **named)


def source(**wrong: Any) -> Callable[[], object]:
    return lambda: asyncelt.source(list, name="s", **wrong)


def incremental(**wrong: Any) -> Callable[[], object]:
    return lambda: sources.incremental("id", **wrong)


WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: asyncelt.pipeline(5), "pipeline_name is text, not 5"),
    (lambda: asyncelt.pipeline({}), "pipeline_name is text, not {}"),
    (pipeline(pipelines_dir=5), "pipelines_dir is a path, not 5"),
    (pipeline(pipeline_salt=12345), "pipeline_salt is text, not int"),
    (pipeline(dataset_name=["raw"]), r"dataset_name is text, not \['raw'\]"),
    (pipeline(import_schema_path=5), "import_schema_path is a path"),
    (pipeline(export_schema_path=5), "export_schema_path is a path"),
    (pipeline(dev_mode="no"), "dev_mode is True or False, not 'no'"),
    (pipeline(restore_from_destination="no"), "restore_from_destination is True or False"),
    (pipeline(settings={"limits": 1}), r"settings is asyncelt\.Settings"),
    (pipeline(settings={}), r"settings is asyncelt\.Settings"),
    (pipeline(settings=asyncelt.Limits()), r"settings is asyncelt\.Settings"),
    (pipeline(max_memory="1GB"), "max_memory is a number of bytes from 1, .* not '1GB'"),
    (pipeline(max_memory=1.5), "max_memory is a number of bytes"),
    (pipeline(max_memory=True), "max_memory is a number of bytes"),
    (pipeline(workers="2"), "workers is a whole number from 1, not '2'"),
    (pipeline(workers=1.5), "workers is a whole number from 1"),
    (pipeline(member=5), "member is text"),
    (lambda: asyncelt.ByteBudget("1"), "limit is a whole number from 1"),
    (lambda: asyncelt.Limits(max_memory="x"), "Limits: max_memory is a whole number from 1"),
    (lambda: asyncelt.Limits(max_parallel_items=0), "max_parallel_items is a whole number from 1, not 0"),
    (lambda: asyncelt.Limits(max_disk=-1), "max_disk is a whole number from 0"),
    (lambda: asyncelt.Limits(normalize_workers=None), "normalize_workers is .* not None"),
    (lambda: asyncelt.Limits(parquet_compression="zip"), "parquet_compression is one of"),
    (lambda: asyncelt.Retry(attempts=0), "Retry: attempts is a whole number from 1"),
    (lambda: asyncelt.Roll(seconds=None), "Roll: seconds is a number of seconds"),
    (lambda: asyncelt.Roll(rows="x"), "Roll: rows is a whole number"),
    (lambda: asyncelt.Settings(limits=5), r"limits is asyncelt\.Limits"),
    (lambda: asyncelt.Settings(loader_file_format="csv"), "loader_file_format is one of"),
    (lambda: asyncelt.resource("users"), r"text 'users', which is no data.*name=\.\.\."),
    (resource(references=5), "references is a list, not 5"),
    (resource(nested_hints=5), "nested_hints is a mapping, not 5"),
    (resource(nested_hints={"lines": 5}), "nested_hints: lines is a mapping, not 5"),
    (resource(selected="no"), "selected is True or False"),
    (resource(max_table_nesting="1"), "max_table_nesting is a number of levels from 0, not '1'"),
    (changed("add_limit", "5"), "Resource 'r': add_limit: max_items is a whole number from 0, not '5'"),
    (changed("add_limit", 1.5), "max_items is a whole number"),
    (changed("add_limit", max_time="x"), "max_time is a number of seconds"),
    (changed("add_map", lambda row: row, insert_at="first"), "insert_at is a position"),
    (changed("add_metrics", 5), "metrics_f is a function, not 5"),
    (changed("select_tables", 5), "table_names is a name or a list of names"),
    (source(schema="shop"), r"schema is an asyncelt\.Schema, not 'shop'"),
    (source(max_table_nesting="x"), "max_table_nesting is a number of levels"),
    (source(root_key="yes"), "root_key is True or False"),
    (lambda: asyncelt.defer(5), r"asyncelt\.defer: function is a function"),
    (lambda: asyncelt.JsonPage(b"[]", items=5), "items is text"),
    (lambda: asyncelt.mark.with_hints({}, 5), "hints is a mapping"),
    (lambda: asyncelt.mark.with_file_import(5, "csv"), "file_path is a path"),
    (incremental(primary_key=5), "primary_key is the name of a field"),
    (incremental(lag="x"), "lag is a number .of seconds for times, of days for dates."),
    (incremental(allow_external_schedulers="yes"), "allow_external_schedulers is True or False"),
    (lambda: destinations.duckdb("x.duckdb", memory_limit=5), "duckdb: memory_limit is text with a size"),
    (lambda: destinations.duckdb("x.duckdb", memory_limit="lots"), "memory_limit is .*'512MB', not 'lots'"),
    (lambda: destinations.duckdb("x.duckdb", storage_version="newest"), "storage_version is a version"),
    (lambda: destinations.duckdb("a\0b"), "cannot be a path"),
    (lambda: destinations.postgres(host="h", port=99_999), "port is not a number from 1 to 65535: 99999"),
    (lambda: destinations.postgres("postgresql://h:99999/d"), "port is not a number from 1 to 65535"),
    (lambda: destinations.duckdb("x.duckdb", threads=0), "duckdb: threads is a whole number from 1"),
    (lambda: destinations.duckdb("x.duckdb", busy_timeout_s=None), "busy_timeout_s is"),
    (lambda: destinations.duckdb("s3://bucket/x.duckdb"), "path of a local file"),
    (lambda: destinations.duckdb("md:warehouse"), "path of a local file"),
    (lambda: destinations.filesystem(5), "bucket_url is a path"),
    (lambda: destinations.filesystem("x", layout=5), "layout is text"),
    (lambda: destinations.filesystem("x", compact_files="x"), "compact_files is"),
    (lambda: destinations.filesystem("s3://b", endpoint_url="minio:9000"), "begins with https://"),
    (lambda: destinations.postgres("postgresql://h/d", pool_size="x"), "pool_size is"),
    (lambda: destinations.postgres("postgresql://h/d", pooled="no"), "pooled is True"),
    (lambda: destinations.postgres("postgresql://h/d", staging_threshold="1"), "staging_threshold is"),
    (lambda: destinations.postgres("postgresql://h/d?connect_timeout=soon"), "connect_timeout is a number of seconds"),
    (lambda: destinations.memory(destination_name=5), "destination_name is text"),
    (lambda: sources.channel(5), "channel: name is text"),
    (lambda: sources.channel("c", capacity="x"), "capacity is a whole number from 1"),
    (lambda: sources.webhook("w", dedup_key=5), "dedup_key is the name of a header"),
    (lambda: sources.webhook("w", authenticate="s3cret"), "authenticate is a function of the request, not str"),
    (lambda: sources.webhook("w", spool=5), "spool is a path"),
    (lambda: sources.webhook("w", capacity=0), "capacity is a whole number from 1, not 0"),
    (lambda: sources.events(5), "source is an event source"),
    (lambda: sources.kafka(5, group="g"), "kafka: topics is a name or a list of names"),
    (lambda: sources.kafka("t", group="g", start="begin"), "start is one of earliest"),
    (lambda: sources.redis_stream(5, group="g"), "streams is a name or a list"),
    (lambda: sources.nats(5, durable="d"), "nats: stream is text"),
    (lambda: asyncelt.Schema.from_dict(5), "document is a mapping"),
    (lambda: asyncelt.Schema.from_text(5), "text is text"),
    (lambda: asyncelt.config[5], "key is text"),
]


@pytest.mark.parametrize("call, said", WRONG, ids=[said[:40] for _, said in WRONG])
def test_a_wrong_argument_is_named_where_it_is_passed(call, said):
    with pytest.raises(AsynceltError, match=said) as caught:
        call()

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"schema": "shop"}, r"schema is an asyncelt\.Schema, not 'shop'"),
        ({"dataset_name": 5}, "dataset_name is text"),
        ({"run_id": 5}, "run_id is text"),
        ({"raise_on_failed_jobs": "no"}, "raise_on_failed_jobs is True or False"),
        ({"on_pending": None}, "on_pending is"),
        ({"credentials": 5}, "'memory' cannot be made with such credentials"),
    ],
)
async def test_a_run_names_its_wrong_argument(tmp_path, wrong, said):
    made = asyncelt.pipeline("p", tmp_path, destination="memory", dataset_name="d")

    with pytest.raises(ConfigError, match=said):
        await made.run(ROWS, table_name="t", **wrong)

    assert not made.has_data


def test_a_stream_names_its_wrong_argument(tmp_path):
    made = asyncelt.pipeline("p", tmp_path, destination="memory", dataset_name="d")

    with pytest.raises(ConfigError, match=r"roll is an asyncelt\.Roll"):
        made.stream(ROWS, roll=5)


def test_numbers_of_numpy_are_numbers(tmp_path):
    made = asyncelt.pipeline("p", tmp_path, max_memory=np.int64(5_000_000), workers=np.int64(1))
    assert made._options.budget.limit == 5_000_000


@pytest.mark.parametrize(
    "text, said",
    [
        ("postgresql://user:s3cret@host/db", r"postgres\(.postgresql://"),
        ("postgres+psycopg2://user:s3cret@host/db", r"postgres\(.postgresql://"),
        ("s3://s3cret/prefix", r"filesystem\("),
        ("mysql://user:s3cret@host/db", r"a factory of asyncelt\.destinations"),
    ],
)
def test_an_address_as_destination_is_refused_and_not_shown(text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        asyncelt.pipeline("p", destination=text)

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "path, said", [("shop.duckdb", r"duckdb\('shop.duckdb'\)"), ("out/lake", r"filesystem\('out/lake'\)")]
)
def test_a_path_as_destination_says_what_to_call(path, said):
    with pytest.raises(ConfigError, match=said):
        asyncelt.pipeline("p", destination=path)


@pytest.mark.parametrize("dsn", ["postgresql://user:s3/cret@host/db", "postgresql://user@host:s3cret/db"])
def test_a_port_that_is_no_number_is_refused_and_the_address_not_shown(dsn):
    with pytest.raises(ConfigError, match="the port is not a number") as caught:
        destinations.postgres(dsn)

    assert "cret" not in str(caught.value)


def test_several_hosts_and_ipv6_are_addresses():
    for dsn in ("postgresql://u:p%40@a:5432,b:5433/db", "postgresql://[::1]:5432/db", "postgresql:///db?host=/run"):
        assert destinations.postgres(dsn)


def test_an_argument_that_a_destination_does_not_have_is_answered_with_those_it_has():
    with pytest.raises(TypeError, match=r"duckdb\(\): .*'path'.*credentials"):
        destinations.duckdb(path="x.duckdb")


async def test_calls_that_read_name_their_wrong_argument(tmp_path):
    made = asyncelt.pipeline("p", tmp_path, destination="memory", dataset_name="d")
    await made.run(ROWS, table_name="t")
    table = made.dataset()["t"]

    with pytest.raises(AsynceltError, match="whole number that is not negative, not '5'"):
        table.limit("5")

    with pytest.raises(AsynceltError, match="no column 5"):
        table.select(5)

    with pytest.raises(ConfigError, match="rows is a whole number from 1, not '5'"):
        await table.fetchmany("5")

    with pytest.raises(ConfigError, match="dataset_name is text"):
        await asyncelt.dataset("memory", 5)

    with pytest.raises(ConfigError, match=r"pipeline is an asyncelt\.Pipeline, not 'p'"):
        await asyncelt.replay("p")


async def test_local_state_takes_values_of_json_alone(tmp_path):
    made = asyncelt.pipeline("p", tmp_path)

    with pytest.raises(ConfigError, match="a is a value of JSON, not <object"):
        await made.set_local_state_val("a", object())

    with pytest.raises(ConfigError, match="key is text"):
        await made.set_local_state_val(5, 1)


def test_a_schema_that_is_missing_is_named_without_quotes_around_the_message(tmp_path):
    made = asyncelt.pipeline("p", tmp_path, destination="memory")

    with pytest.raises(asyncelt.errors.SchemaNotFound) as caught:
        made.dataset("nope")

    assert not str(caught.value).startswith('"')
