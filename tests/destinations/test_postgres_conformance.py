"""The suite of asyncelt.testing over Postgres: a real server."""

from __future__ import annotations

import pytest

from asyncelt import destinations
from asyncelt.testing import DestinationConformance


class TestConformance(DestinationConformance):
    @pytest.fixture
    def destination(self, postgres_dsn):
        return destinations.postgres(postgres_dsn)


class TestStagedConformance(TestConformance):
    """Every package goes through staging tables."""

    @pytest.fixture
    def destination(self, postgres_dsn):
        return destinations.postgres(postgres_dsn, staging_threshold=0)
