"""Destinations by name, object, factory and module."""

from __future__ import annotations

import re
import subprocess
import sys
import types

import pytest

from asyncelt import destinations
from asyncelt.errors import ConfigError, UnknownDestination
from asyncelt.load import registry
from asyncelt.load.protocol import Destination


@pytest.mark.parametrize("name", ["duckdb", "asyncelt.destinations.duckdb", "dlt.destinations.duckdb"])
def test_a_name_gives_a_destination_of_this_type(name):
    assert registry.resolve(name).destination_type == "asyncelt.destinations.duckdb"


def test_our_own_destinations_are_known():
    assert {"duckdb", "filesystem", "memory"} <= set(registry.known_destinations())


def test_a_destination_stays_what_it_is():
    destination = destinations.memory()
    assert registry.resolve(destination) is destination


def test_a_factory_is_called():
    assert registry.resolve(destinations.memory).destination_type == "asyncelt.destinations.memory"


def test_a_module_gives_the_factory_of_its_own_name():
    module = types.ModuleType("mine")
    module.mine = destinations.memory
    assert isinstance(registry.resolve(module), Destination)


def test_a_factory_that_is_not_registered_is_found_by_its_path():
    for path in (
        "asyncelt.destinations.memory_impl.factory.memory",
        "asyncelt.destinations.memory_impl.factory:memory",
    ):
        assert registry.resolve(path).destination_type == "asyncelt.destinations.memory"


def test_an_unknown_name_lists_the_known_ones_and_guesses():
    with pytest.raises(UnknownDestination, match=r"Did you mean 'duckdb'\?.*filesystem, memory"):
        registry.resolve("duckbd")


@pytest.mark.parametrize("path", ["no_such_package.factory", "asyncelt.errors.NoSuch"])
def test_a_path_that_leads_nowhere_is_unknown(path):
    with pytest.raises(UnknownDestination, match=r"there is no module|has no"):
        registry.resolve(path)


def test_a_missing_package_names_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigError, match="pip install package_that_is_not_there"):
        registry.resolve("needs_more.factory")


@pytest.mark.parametrize(
    ("package", "remedy"), [("duckdb", "duckdb"), ("sqlglot", "sqlglot"), ("pgpq", "'asyncelt[postgres]'")]
)
def test_a_missing_driver_names_the_extra_that_has_it(tmp_path, monkeypatch, package, remedy):
    (tmp_path / "needs_driver.py").write_text(f"raise ModuleNotFoundError('it is not here', name={package!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("needs_driver", None)

    with pytest.raises(ConfigError, match=re.escape(f"not installed: pip install {remedy}") + "$"):
        registry.resolve("needs_driver.factory")


def test_what_needs_arguments_says_so():
    with pytest.raises(ConfigError, match="'bucket_url' of destination 'filesystem' is missing"):
        registry.resolve("filesystem")

    with pytest.raises(ConfigError, match="cannot be made without arguments"):
        registry.resolve(lambda folder: folder)


@pytest.mark.parametrize("wrong", [5, object(), int])
def test_anything_else_is_refused(wrong):
    with pytest.raises(ConfigError, match="no destination"):
        registry.resolve(wrong)


def test_asking_for_one_imports_no_other():
    code = "import sys; from asyncelt.load.registry import resolve; resolve('memory'); print('duckdb' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "False"
