"""asyncelt's own settings and the arguments of pipelines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import asyncelt
from asyncelt.configuration.settings import configured_settings, pipeline_options
from asyncelt.errors import ConfigError


def test_without_configuration_they_are_the_defaults():
    assert configured_settings() == asyncelt.Settings()


def test_they_come_from_environment_and_files(write, monkeypatch):
    write("[asyncelt.limits]\nmax_memory = 1000\nmax_disk = 5\n[asyncelt]\nloader_file_format = 'jsonl'")
    monkeypatch.setenv("ASYNCELT__LIMITS__MAX_MEMORY", "2000")
    monkeypatch.setenv("ASYNCELT__LIMITS__MAX_DISK", "none")
    monkeypatch.setenv("ASYNCELT__LIMITS__SLICE_S", "0.01")
    monkeypatch.setenv("ASYNCELT__LIMITS__PARQUET_COMPRESSION", "snappy")
    monkeypatch.setenv("ASYNCELT__RETRY__ATTEMPTS", "9")
    found = configured_settings()
    assert found.limits.max_memory == 2000
    assert found.limits.max_disk is None
    assert found.limits.slice_s == 0.01
    assert found.limits.parquet_compression == "snappy"
    assert found.retry.attempts == 9
    assert found.loader_file_format == "jsonl"


@pytest.mark.parametrize(
    "key, setting",
    [
        ("extract.max_parallel_items", "limits.max_parallel_items"),
        ("extract.workers", "limits.extract_workers"),
        ("normalize.workers", "limits.normalize_workers"),
        ("load.workers", "limits.load_workers"),
        ("normalize.data_writer.buffer_max_items", "limits.buffer_max_items"),
        ("data_writer.buffer_max_items", "limits.buffer_max_items"),
        ("data_writer.file_max_items", "limits.file_max_items"),
        ("normalize.data_writer.file_max_bytes", "limits.file_max_bytes"),
        ("load.raise_on_max_retries", "retry.attempts"),
    ],
)
def test_keys_of_the_reference_count_where_they_mean_the_same(key, setting):
    group, name = setting.split(".")

    with asyncelt.config.values({key: 77}):
        assert getattr(getattr(configured_settings(), group), name) == 77

        with asyncelt.config.values({f"asyncelt.{setting}": 88}):
            assert getattr(getattr(configured_settings(), group), name) == 88


@pytest.mark.parametrize(
    "variable, text, kind",
    [
        ("ASYNCELT__LIMITS__MAX_MEMORY", "many", "int"),
        ("ASYNCELT__RETRY__FIRST_S", "soon", "float"),
        ("ASYNCELT__LIMITS__PARQUET_COMPRESSION", "zip", "Literal"),
        ("ASYNCELT__LOADER_FILE_FORMAT", "csv", "parquet"),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused_with_its_name(monkeypatch, variable, text, kind):
    monkeypatch.setenv(variable, text)

    with pytest.raises(ConfigError, match=f"{variable} .* cannot be read as .*{kind}"):
        asyncelt.pipeline("p")


def test_settings_that_are_passed_are_used_as_they_are(monkeypatch):
    monkeypatch.setenv("ASYNCELT__LIMITS__NORMALIZE_WORKERS", "5")
    passed = asyncelt.Settings(limits=asyncelt.Limits(max_memory=1000))
    assert asyncelt.pipeline("p", settings=passed)._options.settings == passed
    assert asyncelt.pipeline("p")._options.settings.limits.normalize_workers == 5
    assert asyncelt.pipeline("p", workers=1)._options.settings.limits.normalize_workers == 1
    assert asyncelt.pipeline("p", max_memory=5)._options.settings.limits.max_memory == 5


def test_a_pipeline_may_have_settings_of_its_own(write):
    write("[asyncelt.limits]\nload_workers = 3\n[mine.asyncelt.limits]\nload_workers = 4")
    assert asyncelt.pipeline("mine")._options.settings.limits.load_workers == 4
    assert asyncelt.pipeline("other")._options.settings.limits.load_workers == 3


def test_arguments_of_a_pipeline_that_are_not_passed(write, place):
    write(
        f"[pipelines]\ndataset_name = 'all'\n[pipelines.mine]\ndestination = 'memory'\ndataset_name = 'mine'\n"
        f"pipelines_dir = '{place}/work'\nprogress = 'log'\nrestore_from_destination = false"
    )
    mine = asyncelt.pipeline("mine")
    assert mine.destination is not None
    assert mine.destination.destination_name == "memory"
    assert mine.dataset_name == "mine"
    assert mine.pipelines_dir == f"{place}/work"
    assert mine._options.restore_from_destination is False
    assert len(mine._observers) == 1
    assert asyncelt.pipeline("other").dataset_name == "all"
    passed = asyncelt.pipeline("mine", destination="duckdb", dataset_name="d", restore_from_destination=True)
    assert passed.destination is not None
    assert passed.destination.destination_name == "duckdb"
    assert passed.dataset_name == "d"
    assert passed._options.restore_from_destination is True


def test_options_by_the_names_of_the_reference(monkeypatch):
    monkeypatch.setenv("PIPELINES__MINE__DESTINATION_TYPE", "dlt.destinations.duckdb")
    monkeypatch.setenv("RESTORE_FROM_DESTINATION", "false")
    monkeypatch.setenv("DATASET_NAME", "bare")
    found = pipeline_options("mine")
    assert found.destination == "dlt.destinations.duckdb"
    assert found.restore_from_destination is False
    assert found.dataset_name is None


def test_importing_reads_no_file_and_no_parser(place, write):
    write("this is no toml")
    code = "import sys, asyncelt; print(*sorted({'tomllib', 'pydantic'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


ARGUMENTS = {
    "import_schema_path": ("import", Path("import")),
    "export_schema_path": ("export", Path("export")),
    "dev_mode": ("true", True),
    "refresh": ("drop_data", "drop_data"),
    "on_busy": ("raise", "raise"),
    "pipeline_salt": ("salt", "salt"),
}
PASSED = {
    "import_schema_path": Path("own"),
    "export_schema_path": Path("own"),
    "dev_mode": False,
    "refresh": "drop_sources",
    "on_busy": "wait",
    "pipeline_salt": "own",
}


@pytest.mark.covers(
    "pipeline.import_schema_path", "pipeline.export_schema_path", "pipeline.dev_mode", "pipeline.refresh"
)
@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("section", ["PIPELINES__MINE__", "PIPELINES__", "MINE__PIPELINES__"])
def test_each_argument_can_be_configured_and_what_is_passed_wins(monkeypatch, place, section, name):
    text, value = ARGUMENTS[name]
    monkeypatch.setenv(f"{section}{name.upper()}", text)
    folder = {"pipelines_dir": place / "work"}
    assert getattr(asyncelt.pipeline("mine", **folder)._options, name) == value
    assert getattr(asyncelt.pipeline("mine", **folder, **{name: PASSED[name]})._options, name) == PASSED[name]


def test_a_variable_of_the_machine_empties_no_working_folder(monkeypatch, place):
    monkeypatch.setenv("DEV_MODE", "true")
    monkeypatch.setenv("REFRESH", "true")
    monkeypatch.setenv("EXPORT_SCHEMA_PATH", "schemas")
    found = asyncelt.pipeline("mine", pipelines_dir=place / "work")
    assert (found.dev_mode, found.refresh) == (False, None)
    assert found._options.export_schema_path == Path("schemas")


@pytest.mark.parametrize(
    "name, text, message",
    [("REFRESH", "drop_all", "drop_sources"), ("DEV_MODE", "maybe", "bool"), ("ON_BUSY", "queue", "'wait'")],
)
def test_a_configured_argument_that_is_wrong_is_refused_with_its_place(monkeypatch, name, text, message):
    monkeypatch.setenv(f"PIPELINES__{name}", text)

    with pytest.raises(ConfigError, match=f"PIPELINES__{name}.*{message}"):
        asyncelt.pipeline("mine")


def test_the_name_of_a_pipeline_that_is_given_none(monkeypatch, place):
    monkeypatch.setenv("PIPELINES__PIPELINE_NAME", "by_configuration")
    monkeypatch.setenv("PIPELINES__STAGING", "memory")
    asyncelt.current.activated.set(None)
    assert asyncelt.pipeline(pipelines_dir=place / "work").pipeline_name == "by_configuration"
    assert asyncelt.pipeline("own", pipelines_dir=place / "work").pipeline_name == "own"

    with pytest.raises(ConfigError, match="takes no staging destination"):
        asyncelt.pipeline("own", pipelines_dir=place / "work", destination="memory")


async def test_attach_never_begins_anew(monkeypatch, place):
    memory = asyncelt.destinations.memory()
    folder = {"pipelines_dir": place / "work", "destination": memory, "dataset_name": "d"}
    await asyncelt.pipeline("mine", **folder).run([{"id": 1}], table_name="t")
    monkeypatch.setenv("PIPELINES__DEV_MODE", "true")
    found = await asyncelt.attach("mine", **folder)
    assert (found.dev_mode, found.first_run, found.schema_names) == (False, False, ["mine"])


@pytest.mark.parametrize("name", ["LOAD__AUTO_ABORT_ON_TERMINAL_ERROR", "ASYNCELT__LOAD__AUTO_ABORT_ON_TERMINAL_ERROR"])
def test_packages_that_are_refused_can_be_given_up_by_configuration(monkeypatch, name):
    monkeypatch.setenv(name, "true")
    assert configured_settings() == asyncelt.Settings(auto_abort_on_terminal_error=True)


def test_the_order_of_resources_may_be_configured():
    with asyncelt.config.values({"extract.next_item_mode": "fifo"}):
        assert configured_settings().limits.next_item_mode == "fifo"

    with (
        asyncelt.config.values({"extract.next_item_mode": "at random"}),
        pytest.raises(ConfigError, match="next_item_mode"),
    ):
        configured_settings()


@pytest.mark.parametrize("key", ["normalize.parquet_normalizer.add_dlt_{}", "asyncelt.normalize.arrow_add_dlt_{}"])
async def test_columns_of_our_own_in_arrow_tables_are_configured(key, tmp_path):
    table = pa.table({"a": [1, 2]})
    memory = asyncelt.destinations.memory()

    with asyncelt.config.values({key.format("id"): True, key.format("load_id"): "true"}):
        pipeline = asyncelt.pipeline("p", destination=memory, dataset_name="d", pipelines_dir=tmp_path)
        info = await pipeline.run(table, table_name="t")

    found = memory.tables("d")["t"]
    assert found.column("_dlt_load_id").to_pylist() == list(info.loads_ids) * 2
    assert len(set(found.column("_dlt_id").to_pylist())) == 2
