"""Kill -9 a run at every failpoint and at random moments; run again; count every row of every table.

``python -m tests.robustness.kill --times 3 --random 50`` is the long form; the suite runs a short one.
After each kill another run follows, then the destination must hold every row exactly once, children counted by
parent, and the state must agree with the data.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from tests.robustness.worker import CHILDREN, PAGES, ROWS, run_once
from tests.support.killing import KILLED, Nursery

SCENARIOS = ("state", "merge", "plain")


@dataclass
class Tally:
    """What was done and seen."""

    kills: Counter[str] = field(default_factory=Counter)
    """By the failpoint passed last."""
    missed: int = 0
    """Runs that ended before the kill came."""
    checks: int = 0


@dataclass
class Scenario:
    """One pipeline that is killed again and again, with the rounds it has done."""

    name: str
    folder: Path
    tally: Tally
    nursery: Nursery
    round: int = 0

    def run(self, failpoint: str | None = None, kill_after_s: float | None = None) -> bool:
        """Run once; True when it was killed."""
        log = self.folder / "failpoints.log"
        log.unlink(missing_ok=True)
        environment = {"ASYNCELT_FAILPOINT_LOG": str(log)}

        if failpoint is not None:
            environment["ASYNCELT_FAILPOINT"] = failpoint

        process = self.nursery.start(run_once, self.name, self.folder, self.round, environment=environment)

        if kill_after_s is not None:
            time.sleep(kill_after_s)
            process.kill()

        if process.wait() != KILLED:
            return False

        passed = log.read_text().split() if log.exists() else []
        self.tally.kills[passed[-1] if passed else "before the first failpoint"] += 1

        return True

    def survive(self, failpoint: str | None = None, kill_after_s: float | None = None) -> None:
        """One killed run, another run, and the count of everything."""
        self.round += 1

        if not self.run(failpoint, kill_after_s):
            self.tally.missed += 1

        self.run()
        self.check()

    def failpoints(self) -> list[str]:
        """Names of all failpoints that a run passes, in order of first appearance."""
        self.round += 1
        self.run()

        return list(dict.fromkeys((self.folder / "failpoints.log").read_text().split()))

    def check(self) -> None:
        """Every row of every table exactly once."""
        self.tally.checks += 1

        with duckdb.connect(str(self.folder / f"{self.name}.duckdb"), read_only=True) as connection:
            rows = connection.execute("SELECT id, version FROM data.numbers ORDER BY id").fetchall()
            children = connection.execute(
                """
                SELECT n.id, n.version, count(*), count(DISTINCT p.nr), min(p."of"), max(p."of"), min(p.version),
                       max(p.version)
                FROM data.numbers n JOIN data.numbers__parts p ON p._dlt_parent_id = n._dlt_id GROUP BY ALL ORDER BY 1
                """
            ).fetchall()
            (parts,) = connection.execute("SELECT count(*) FROM data.numbers__parts").fetchone() or (0,)

        numbers = [number for number, _ in rows]
        expected = self._expected(len(numbers))
        assert numbers == expected, f"{self.name}: {_difference(numbers, expected)}"
        assert parts == CHILDREN * len(rows), f"{self.name}: {parts} children of {len(rows)} rows"
        assert len(children) == len(rows), f"{self.name}: {len(rows) - len(children)} rows without children"

        for number, version, count, distinct, first, last, oldest, newest in children:
            assert (count, distinct, first, last) == (CHILDREN, CHILDREN, number, number), f"{self.name}: row {number}"
            assert (oldest, newest) == (version, version), f"{self.name}: row {number} has children of another version"

    def _expected(self, found: int) -> list[int]:
        if self.name == "merge":
            return list(range(PAGES * ROWS))

        if self.name == "plain":
            return [n + first for first in self._rounds() for n in range(PAGES * ROWS)]

        assert found % (PAGES * ROWS) == 0, f"state: {found} rows are no whole number of runs"

        return list(range(1, found + 1))

    def _rounds(self) -> list[int]:
        return [number * PAGES * ROWS for number in range(1, self.round + 1)]


def _difference(found: list[int], expected: list[int]) -> str:
    counts = Counter(found)
    doubled = [number for number, count in counts.items() if count > 1]
    lost = sorted(set(expected) - set(found))

    return f"lost {len(lost)} (first {lost[:3]}), doubled {len(doubled)} (first {doubled[:3]})"


def kill_everywhere(folder: Path, *, times: int, randomly: int, seed: int, scenarios: tuple[str, ...]) -> Tally:
    """Kill each scenario at each failpoint ``times`` times, then at ``randomly`` random moments in all."""
    tally = Tally()
    moments = random.Random(seed)

    with Nursery(folder) as nursery:
        for name in scenarios:
            home = folder / name
            home.mkdir()
            scenario = Scenario(name, home, tally, nursery)
            started = time.perf_counter()
            points = scenario.failpoints()
            took = time.perf_counter() - started
            scenario.check()

            for point in points:
                for hit in range(1, times + 1):
                    scenario.survive(failpoint=f"{point}:{hit if times <= 3 else 1}")

            for _ in range(-(-randomly // len(scenarios))):
                scenario.survive(kill_after_s=moments.uniform(0.1, 1.1) * took)

    return tally


def report(tally: Tally) -> str:
    """Kills by the failpoint passed last."""
    lines = [f"{count:5d}  after {point}" for point, count in tally.kills.most_common()]
    total = sum(tally.kills.values())

    return "\n".join(
        [
            *lines,
            f"{total} kills, {tally.missed} runs ended before their kill, {tally.checks} checks: 0 lost, 0 doubled",
        ]
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="kills per failpoint and scenario")
    parser.add_argument("--random", type=int, default=50, help="random kills over all scenarios")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        tally = kill_everywhere(
            Path(folder), times=arguments.times, randomly=arguments.random, seed=arguments.seed, scenarios=SCENARIOS
        )

    print(report(tally))


if __name__ == "__main__":
    main()
