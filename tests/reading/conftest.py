from __future__ import annotations

import pytest

from tests.reading.loaded import KINDS, loaded


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
async def pipeline(kind, tmp_path):
    return await loaded(kind, tmp_path)


@pytest.fixture
def dataset(pipeline):
    return pipeline.dataset()


@pytest.fixture
def items(dataset):
    return dataset["items"]
