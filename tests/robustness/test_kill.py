"""The short form of `tests.robustness.kill`; the long form is run by ``make kill``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.kill import SHORT, Plan, kill_everywhere, report
from tests.support.postgres import PostgresServer


@pytest.mark.covers("probe.3.kill")
@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SHORT)
def test_nothing_is_lost_or_doubled_after_kill_9(scenario: str, tmp_path: Path) -> None:
    """Killed at each failpoint once and at a few random moments, each row is there exactly once."""
    tally = kill_everywhere(tmp_path, Plan(scenarios=(scenario,), randomly=3, seed=7))

    assert sum(tally.kills.values()) > 5
    print(report(tally))


@pytest.mark.covers("probe.3.kill")
@pytest.mark.slow
@pytest.mark.kill
def test_nothing_is_lost_or_doubled_on_a_server(postgres_server: PostgresServer, tmp_path: Path) -> None:
    """Merging has the most steps at a server; those before the commit are the same everywhere."""
    plan = Plan(
        scenarios=("merge",),
        randomly=2,
        only=("postgres.copying", "postgres.staged", "postgres.before_commit", "postgres.after_commit"),
    )
    tally = kill_everywhere(tmp_path, plan, postgres_server)

    assert tally.kills["postgres.copying"] > 0
    assert tally.kills["postgres.before_commit"] > 0
    print(report(tally))
