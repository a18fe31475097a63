"""The short form of `tests.robustness.kill`; the long form is run by ``make kill``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.kill import SCENARIOS, kill_everywhere, report


@pytest.mark.covers("probe.3.kill")
@pytest.mark.slow
@pytest.mark.kill
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_or_doubled_after_kill_9(scenario: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Killed at each failpoint once and at a few random moments, each row is there exactly once."""
    tally = kill_everywhere(tmp_path, times=1, randomly=3, seed=7, scenarios=(scenario,))

    assert sum(tally.kills.values()) > 5
    print(report(tally))
