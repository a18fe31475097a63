"""The short form of `tests.robustness.kill`; the long form is run by ``make kill``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.kill import SHORT, Plan, kill_everywhere, report
from tests.support.killing import Nursery
from tests.support.marks import LONG
from tests.support.postgres import PostgresServer

OWN = {"merge": ("duckdb.", "load."), "plain": ("package.", "load.")}
"""Where these are not like the scenario ``state``, which is killed everywhere: in the commit, and around the package."""
SOME = [
    *(pytest.param(name, OWN.get(name, ("",)), id=name) for name in SHORT),
    *(pytest.param(name, ("",), id=f"{name}-everywhere", marks=LONG) for name in OWN),
]


@pytest.mark.covers("probe.3.kill")
@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("scenario", "only"), SOME)
def test_nothing_is_lost_or_doubled_after_kill_9(
    scenario: str, only: tuple[str, ...], tmp_path: Path, nursery: Nursery
) -> None:
    """Killed at each failpoint once and at a few random moments, each row is there exactly once."""
    plan = Plan(scenarios=(scenario,), randomly=3, seed=7, only=only)
    tally = kill_everywhere(tmp_path, plan, nursery=nursery)

    assert sum(tally.kills.values()) > 5
    print(report(tally))


@pytest.mark.covers("probe.3.kill")
@pytest.mark.slow
@pytest.mark.kill
def test_nothing_is_lost_or_doubled_on_a_server(
    postgres_server: PostgresServer, tmp_path: Path, nursery: Nursery
) -> None:
    """Merging has the most steps at a server; those before the commit are the same everywhere."""
    plan = Plan(
        scenarios=("merge",),
        randomly=2,
        only=("postgres.copying", "postgres.staged", "postgres.before_commit", "postgres.after_commit"),
    )
    tally = kill_everywhere(tmp_path, plan, postgres_server, nursery=nursery)

    assert tally.kills["postgres.copying"] > 0
    assert tally.kills["postgres.before_commit"] > 0
    print(report(tally))
