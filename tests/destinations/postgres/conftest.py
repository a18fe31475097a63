from __future__ import annotations

import pytest

from tests.destinations.postgres.copying import Copying
from tests.destinations.postgres.server import running_server


@pytest.fixture(scope="session")
def postgres_server():
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def copying(postgres_server):
    copying = Copying(postgres_server.dsn)
    yield copying
    copying.close()
