from __future__ import annotations

import pytest

from tests.reading.loaded import KINDS, loaded


@pytest.fixture(scope="session", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="session")
async def pipeline(anyio_backend, kind, tmp_path_factory):
    """Loaded once; tests that change something load their own."""
    return await loaded(kind, tmp_path_factory.mktemp(kind))


@pytest.fixture
def dataset(pipeline):
    return pipeline.dataset()


@pytest.fixture
def items(dataset):
    return dataset["items"]
