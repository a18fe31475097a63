"""The suite of asyncelt.testing over Postgres: a real server."""

from __future__ import annotations

import pytest

from asyncelt import destinations
from asyncelt.testing import DestinationConformance
from asyncelt.testing.emptying import EmptyingConformance
from asyncelt.testing.fixture import Owner
from asyncelt.testing.strategies import KeyedMergeConformance


class TestConformance(DestinationConformance):
    @pytest.fixture
    def destination(self, postgres_dsn):
        return destinations.postgres(postgres_dsn)


@pytest.mark.slow
class TestStagedConformance(EmptyingConformance, KeyedMergeConformance):
    """What is different when every package goes through staging tables."""

    @pytest.fixture
    def owner(self, postgres_dsn, tmp_path):
        return Owner(destinations.postgres(postgres_dsn, staging_threshold=0), tmp_path / "packages", "parquet")

    spared = DestinationConformance.spared
    test_a_commit_that_fails_anywhere_leaves_all_or_nothing = (
        DestinationConformance.test_a_commit_that_fails_anywhere_leaves_all_or_nothing
    )
