from __future__ import annotations

import pytest

from tests.destinations.postgres.copying import Copying


@pytest.fixture(scope="module")
def copying(postgres_server):
    copying = Copying(postgres_server.dsn())
    yield copying
    copying.close()
