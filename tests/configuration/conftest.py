from __future__ import annotations

import os

import pytest

import asyncelt
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.configuration.providers import SET_IN_CODE, SetInCode


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty project and an empty home; no variable of the machine has a section."""
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    home.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(home))

    for name in [name for name in os.environ if "__" in name]:
        monkeypatch.delenv(name)

    asyncelt.config.reload()
    code, pipeline = SET_IN_CODE.set(SetInCode({})), PIPELINE.set(None)
    yield tmp_path
    SET_IN_CODE.reset(code)
    PIPELINE.reset(pipeline)
    asyncelt.config.reload()


@pytest.fixture
def write(place):
    """Writes a file: where, in which folder, called what."""

    def write(text, name="config.toml", *, root="project", folder=".asyncelt"):
        path = place / root / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        asyncelt.config.reload()

        return path

    return write
