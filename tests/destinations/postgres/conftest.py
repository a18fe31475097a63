from __future__ import annotations

import pytest

from tests.destinations.postgres.server import running_server


@pytest.fixture(scope="session")
def postgres_server():
    with running_server() as server:
        yield server
