"""Into a bucket: killed runs, killed servers, and two processes that run one pipeline at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.kill import Plan, Scenario, Tally, kill_everywhere, report
from tests.robustness.targets import BucketTarget
from tests.robustness.worker import PAGES, ROWS, run_once
from tests.support.killing import Nursery
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ASYNCELT_ROUNDS", "2"))
"""How often two processes run one pipeline at once; ``ASYNCELT_ROUNDS=50`` is the long form."""


@pytest.mark.covers("probe.3.kill")
@pytest.mark.kill
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_in_a_bucket(seaweed: Seaweed, tmp_path: Path, nursery: Nursery) -> None:
    """Around the marker; `tests/destinations/test_kill.py` has the other places, ``make kill`` all of them."""
    plan = Plan(scenarios=("replace",), only=("filesystem.before_marker", "filesystem.after_marker"))
    tally = kill_everywhere(tmp_path, plan, seaweed, nursery=nursery)

    assert sum(tally.kills.values()) == 2
    print(report(tally))


@pytest.mark.timeout(600)
def test_two_processes_that_run_one_pipeline_into_a_bucket_take_turns(
    seaweed: Seaweed, tmp_path: Path, nurseries: Callable[[int], list[Nursery]]
) -> None:
    """Neither knows the files of the other: what the first has committed reaches the second by the bucket.

    In an empty dataset there is nothing to hold yet: there the first to commit wins.
    """
    homes = [tmp_path / "one", tmp_path / "two"]
    target = BucketTarget.new(seaweed, tmp_path, "plain")

    for home in homes:
        home.mkdir()

    one, two = nurseries(2)
    assert one.start(run_once, "state", homes[0], 0, target.address, environment={}).wait() == 0

    for number in range(ROUNDS):
        both = [
            nursery.start(run_once, "state", home, number, target.address, environment={})
            for nursery, home in zip((one, two), homes, strict=True)
        ]
        assert [process.wait() for process in both] == [0, 0]

    scenario = Scenario("state", homes[0], target, Tally(), one)
    scenario.check()
    assert len(scenario.query("SELECT id FROM data.numbers")[0]) == (1 + 2 * ROUNDS) * PAGES * ROWS
