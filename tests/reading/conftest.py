from __future__ import annotations

import asyncio

import pytest

from tests.reading.loaded import KINDS, dsn_of, loaded


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    return request.param


def _for(kind, folder, request):
    """The folder; on Postgres with a database of its own, whose address stands beside it."""
    if kind == "postgres":
        dsn_of(folder).write_text(request.getfixturevalue("postgres_server").new_database())

    return folder


@pytest.fixture(scope="session")
def new_folder(kind, tmp_path_factory, request):
    """Makes folders for fixtures that live longer than a test."""
    return lambda: _for(kind, tmp_path_factory.mktemp(kind), request)


@pytest.fixture(scope="session")
async def pipeline(anyio_backend, kind, new_folder):
    """Loaded once; tests that change something load their own."""
    return await loaded(kind, await asyncio.to_thread(new_folder))


@pytest.fixture
def tmp_path(tmp_path, request):
    """With a database of its own, where a test is about Postgres."""
    kind = request.getfixturevalue("kind") if "kind" in request.fixturenames else None

    return _for(kind, tmp_path, request)


@pytest.fixture
def dataset(pipeline):
    return pipeline.dataset()


@pytest.fixture
def items(dataset):
    return dataset["items"]
