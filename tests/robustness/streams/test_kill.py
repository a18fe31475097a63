"""The short forms of `kill` and `outage`; the long ones are run by ``make kill-streams`` and ``make outage``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.streams.brokers import Broker, wrapped
from tests.robustness.streams.kill import Plan, killed_everywhere, report
from tests.robustness.streams.outage import through_outages
from tests.sources.brokers import Valkey
from tests.sources.server import NatsServer
from tests.support.killing import Nursery
from tests.support.postgres import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.timeout(600)]
Nurseries = Callable[[int], list[Nursery]]
HARD = ("stream.sealed", "stream.before_ack", "stream.after_ack", "postgres.after_commit", "duckdb.after_commit")


@pytest.fixture
def nats(nats_server: NatsServer) -> Broker:
    return wrapped("nats", nats_server)


@pytest.fixture
def valkey(valkey_server: Valkey) -> Broker:
    return wrapped("redis", valkey_server)


@pytest.mark.xdist_group("nats")
def test_nats_into_postgres(
    nats: Broker, postgres_server: PostgresServer, tmp_path: Path, nurseries: Nurseries
) -> None:
    """Consumer, broker and server are killed, and each message is there once."""
    plan = Plan(only=HARD, randomly=1, brokers=1, servers=1, seed=7)
    tally = killed_everywhere(nats, tmp_path / "kill_nats", plan, postgres_server, nurseries=nurseries(1))

    assert sum(tally.kills.values()) > 5
    print(report(tally))


@pytest.mark.xdist_group("valkey")
def test_valkey_into_duckdb(valkey: Broker, tmp_path: Path, nurseries: Nurseries) -> None:
    plan = Plan(only=HARD, randomly=1, brokers=1, seed=7)
    tally = killed_everywhere(valkey, tmp_path / "kill_valkey", plan, nurseries=nurseries(1))

    assert sum(tally.kills.values()) > 4
    print(report(tally))


@pytest.mark.xdist_group("nats")
def test_four_processes_share_the_messages(
    nats: Broker, postgres_server: PostgresServer, tmp_path: Path, nurseries: Nurseries
) -> None:
    """They are started, killed and ended in any order."""
    plan = Plan(times=0, members=4, changes=8, seed=5)
    tally = killed_everywhere(nats, tmp_path / "members_nats", plan, postgres_server, nurseries=nurseries(4))

    assert tally.kills["(started)"] > 2
    assert sum(count for name, count in tally.kills.items() if not name.startswith("(")) > 0


@pytest.mark.filterwarnings("ignore:.*Trying again")
@pytest.mark.xdist_group("nats")
async def test_a_server_that_stands_still_and_one_that_is_gone(
    nats: Broker, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    figures = await through_outages(nats, postgres_server, tmp_path / "outage_nats", seconds=1.0)

    assert figures.numbers > 100
    assert (figures.warnings, figures.backs) == (1, 1)
    assert figures.retries >= 1
