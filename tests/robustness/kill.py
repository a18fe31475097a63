"""Kill -9 a run at every failpoint and at random moments; run again; count every row of every table.

``python -m tests.robustness.kill --times 3 --random 50`` is the long form, into DuckDB or with ``--destination``
into a server of its own: postgres (with ``--staged`` by way of staging tables), s3, delta or iceberg (tables in a
bucket); ``--total 200`` goes on at random moments until that many kills have hit a run. The suite runs a short form.
After each kill another run follows, then the destination must hold every row exactly once, children counted by parent,
each row with its load record, and the state must agree with the data. On a server no staging table and no transaction
may be left, in a bucket no open upload and no file that does not count.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncelt.storage.state import decode_state
from tests.robustness.targets import BucketTarget, DuckDbTarget, PostgresTarget, Server, Target
from tests.robustness.worker import CHILDREN, FOLDED, PAGES, ROWS, run_once
from tests.support.killing import KILLED, Doomed, Nursery
from tests.support.postgres import PostgresServer
from tests.support.seaweed import Seaweed

SCENARIOS = ("state", "merge", "plain", "steps", "replace")
SHORT = ("state", "merge", "plain", "steps")
"""What the suite runs on DuckDB."""
_STAGED = {"DESTINATION__POSTGRES__STAGING_THRESHOLD": "0"}
_PHASES = {
    "start": ("before the first failpoint",),
    "tables are made": ("postgres.before_migrate_commit", "postgres.after_migrate", "duckdb.after_migrate"),
    "staging": ("postgres.before_stage_commit", "postgres.after_stage"),
    "rows written early": ("duckdb.after_early_load",),
    "before the commit": ("load.before_commit", "postgres.before_begin", "duckdb.before_begin"),
    "after COMMIT": ("postgres.after_commit", "duckdb.after_commit", "load.after_commit", "package.before_done"),
    "the commit's transaction": ("postgres.", "duckdb.", "filesystem."),
    "seal": ("package.",),
    "extract, normalize, files": ("",),
}
"""What a failpoint belongs to: the first phase that has a beginning of its name."""


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
    target: Target
    tally: Tally
    nursery: Nursery
    round: int = 0
    took: float = 0.0
    """Seconds that the last whole run has taken; the machine may be busy with other things."""
    is_staged: bool = False
    folded: int = 0

    def run(self, failpoint: str | None = None, kill_after_s: float | None = None) -> bool:
        """Run once; True when it was killed."""
        log = self.folder / "failpoints.log"
        log.unlink(missing_ok=True)
        environment = {"ASYNCELT_FAILPOINT_LOG": str(log)}

        if failpoint is not None:
            environment["ASYNCELT_FAILPOINT"] = failpoint

        process = self._start(environment)
        started = time.perf_counter()

        if kill_after_s is not None:
            time.sleep(kill_after_s)
            process.kill()

        if process.wait() != KILLED:
            self.took = time.perf_counter() - started
            return False

        passed = log.read_text().split() if log.exists() else []
        self.tally.kills[passed[-1] if passed else "before the first failpoint"] += 1

        return True

    def _start(self, environment: Mapping[str, str]) -> Doomed:
        arguments = (self.name, self.folder, self.round, self.target.address)
        more = (_STAGED if self.is_staged else {}) | ({FOLDED: str(self.folded)} if self.folded else {})

        return self.nursery.start(run_once, *arguments, environment={**environment, **more})

    def survive(self, failpoint: str | None = None, kill_after_s: float | None = None) -> None:
        """One killed run, another run, and the count of everything."""
        self.round += 1

        if not self.run(failpoint, kill_after_s):
            self.tally.missed += 1

        self.run()
        self.check()

    def survive_server(self, server: Server, kill_after_s: float) -> None:
        """A run whose server is killed and comes back, another run, and the count of everything."""
        self.round += 1
        log = self.folder / "failpoints.log"
        log.unlink(missing_ok=True)
        process = self._start({"ASYNCELT_FAILPOINT_LOG": str(log)})
        time.sleep(kill_after_s)
        server.kill()
        passed = log.read_text().split() if log.exists() else []
        server.start()

        # It may have given up before the server was there again.
        with suppress(AssertionError):
            process.wait()

        self.tally.kills["server, " + (passed[-1] if passed else "before the first failpoint")] += 1
        self.run()
        self.check()

    def failpoints(self) -> Counter[str]:
        """All failpoints that a run passes, in order of first appearance, and how often it does."""
        self.round += 1
        self.run()

        return Counter((self.folder / "failpoints.log").read_text().split())

    def query(self, *statements: str) -> list[list[tuple[Any, ...]]]:
        """The rows of each statement."""
        return self.target.query(statements)

    def check(self) -> None:
        """Every row of every table exactly once, and nothing else is there."""
        self.tally.checks += 1
        rows, children, [(parts,)], [(unknown,)], [(state,)] = self.query(*_QUESTIONS)

        numbers = [number for number, _ in rows]
        expected = self._expected(len(numbers))
        assert numbers == expected, f"{self.name}: {_difference(numbers, expected)}"
        assert parts == CHILDREN * len(rows), f"{self.name}: {parts} children of {len(rows)} rows"
        assert len(children) == len(rows), f"{self.name}: {len(rows) - len(children)} rows without children"
        assert unknown == 0, f"{self.name}: {unknown} rows of loads without a record"

        for number, version, count, distinct, first, last, oldest, newest in children:
            assert (count, distinct, first, last) == (CHILDREN, CHILDREN, number, number), f"{self.name}: row {number}"
            assert (oldest, newest) == (version, version), f"{self.name}: row {number} has children of another version"

        if self.name in {"state", "steps"}:
            remembered = decode_state(state)["sources"][self.name]["resources"]["numbers"]["last"]
            assert remembered == len(rows), f"{self.name}: the state says {remembered}, {len(rows)} rows are there"

        self.target.check_nothing_is_left()

    def _expected(self, found: int) -> list[int]:
        if self.name == "merge":
            return list(range(PAGES * ROWS))

        if self.name == "replace":
            return [n + self.round * PAGES * ROWS for n in range(PAGES * ROWS)]

        if self.name == "plain":
            return [n + first for first in self._rounds() for n in range(PAGES * ROWS)]

        assert found % (PAGES * ROWS) == 0, f"{self.name}: {found} rows are no whole number of runs"

        return list(range(1, found + 1))

    def _rounds(self) -> list[int]:
        return [number * PAGES * ROWS for number in range(1, self.round + 1)]


_QUESTIONS = (
    "SELECT id, version FROM data.numbers ORDER BY id",
    """
    SELECT n.id, n.version, count(*), count(DISTINCT p.nr), min(p."of"), max(p."of"), min(p.version), max(p.version)
    FROM data.numbers n JOIN data.numbers__parts p ON p._dlt_parent_id = n._dlt_id GROUP BY n.id, n.version ORDER BY 1
    """,
    "SELECT count(*) FROM data.numbers__parts",
    "SELECT count(*) FROM data.numbers WHERE _dlt_load_id NOT IN (SELECT load_id FROM data._dlt_loads WHERE status = 0)",
    "SELECT state FROM data._dlt_pipeline_state ORDER BY version DESC LIMIT 1",
)


def _difference(found: list[int], expected: list[int]) -> str:
    counts = Counter(found)
    doubled = [number for number, count in counts.items() if count > 1]
    lost = sorted(set(expected) - set(found))

    return f"lost {len(lost)} (first {lost[:3]}), doubled {len(doubled)} (first {doubled[:3]})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is killed, and how often."""

    scenarios: Sequence[str] = SCENARIOS
    times: int = 1
    """Per failpoint and scenario, at different hits where a run passes it more than once."""
    randomly: int = 0
    """Over all scenarios."""
    servers: int = 0
    """How often the server is killed while a run is under way, over all scenarios."""
    total: int = 0
    """Kills that hit a run, at least; what is missing in the end comes at random moments."""
    staged: bool = False
    folded: int = 0
    """After how many commits a dataset of files folds them; 0: as always."""
    seed: int = 1
    only: tuple[str, ...] = ("",)
    """What the names of the failpoints begin with."""


def kill_everywhere(
    folder: Path,
    plan: Plan,
    server: PostgresServer | Seaweed | None = None,
    *,
    kind: str = "plain",
    nursery: Nursery | None = None,
) -> Tally:
    """Carry out a plan.

    Args:
        folder: For everything that lies on the disk.
        plan: What to do.
        server: Gets a database or a prefix for each scenario; without it the rows go into DuckDB files.
        kind: Of tables in a bucket: plain, delta or iceberg.
        nursery: Starts the processes; None: one of its own.
    """
    tally = Tally()
    moments = random.Random(plan.seed)
    alive: list[Scenario] = []

    with Nursery(folder) if nursery is None else nullcontext(nursery) as starter:
        for name in plan.scenarios:
            home = folder / name
            home.mkdir()
            target = _target(home, server, kind)
            scenario = Scenario(name, home, target, tally, starter, is_staged=plan.staged, folded=plan.folded)
            # Of a table that is there, and of commits that are folded, only a later run passes some.
            points = scenario.failpoints() | scenario.failpoints()
            scenario.check()
            alive.append(scenario)

            for point, hits in points.items():
                for at in range(plan.times if point.startswith(plan.only) else 0):
                    scenario.survive(failpoint=f"{point}:{1 + at % hits}")

            for _ in range(-(-plan.randomly // len(plan.scenarios))):
                scenario.survive(kill_after_s=moments.uniform(0.05, 0.9) * scenario.took)

            if server is None:
                continue

            for _ in range(-(-plan.servers // len(plan.scenarios))):
                scenario.survive_server(server, moments.uniform(0.05, 0.9) * scenario.took)

        for scenario in itertools.cycle(alive):
            if sum(tally.kills.values()) >= plan.total:
                break

            scenario.survive(kill_after_s=moments.uniform(0.05, 0.9) * scenario.took)

    return tally


def _target(home: Path, server: PostgresServer | Seaweed | None, kind: str) -> Target:
    if server is None:
        return DuckDbTarget(home / f"{home.name}.duckdb")

    return BucketTarget.new(server, home, kind) if isinstance(server, Seaweed) else PostgresTarget.new(server)


def report(tally: Tally) -> str:
    """Kills by the failpoint passed last, and by phase."""
    lines = [f"{count:5d}  after {point}" for point, count in tally.kills.most_common()]
    phases: Counter[str] = Counter()

    for point, count in tally.kills.items():
        name = point.removeprefix("server, ")
        phases[next(phase for phase, names in _PHASES.items() if name.startswith(names))] += count

    total = sum(tally.kills.values())

    return "\n".join(
        [
            *lines,
            "",
            *(f"{phases[phase]:5d}  in the phase: {phase}" for phase in _PHASES if phases[phase]),
            "",
            f"{total} kills, {tally.missed} runs ended before their kill, {tally.checks} checks: 0 lost, 0 doubled",
        ]
    )


_SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[Any]]] = {
    "duckdb": lambda _folder: nullcontext(),
    "postgres": PostgresServer,
    "s3": Seaweed,
    "delta": Seaweed,
    "iceberg": Seaweed,
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="kills per failpoint and scenario")
    parser.add_argument("--random", type=int, default=50, help="random kills over all scenarios")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--destination", choices=list(_SERVERS), default="duckdb")
    parser.add_argument("--servers", type=int, default=0, help="kills of the server over all scenarios")
    parser.add_argument("--scenario", nargs="*", choices=SCENARIOS, help="these only")
    parser.add_argument("--only", nargs="*", default=[""], help="failpoints whose names begin so")
    parser.add_argument(
        "--total", type=int, default=0, help="go on at random moments until so many kills have hit a run"
    )
    parser.add_argument("--staged", action="store_true", help="by way of staging tables, with --destination postgres")
    parser.add_argument("--folded", type=int, default=0, help="datasets of files fold so many commits, not 64")
    arguments = parser.parse_args()
    has_merge = arguments.destination != "s3"
    plan = Plan(
        scenarios=arguments.scenario or [name for name in SCENARIOS if name != "merge" or has_merge],
        times=arguments.times,
        randomly=arguments.random,
        servers=arguments.servers,
        total=arguments.total,
        staged=arguments.staged,
        folded=arguments.folded,
        seed=arguments.seed,
        only=tuple(arguments.only),
    )

    with tempfile.TemporaryDirectory(prefix="kill-") as folder:
        home = Path(folder)

        with _SERVERS[arguments.destination](home / "server") as server:
            kind = arguments.destination if arguments.destination in {"delta", "iceberg"} else "plain"
            tally = kill_everywhere(home, plan, server, kind=kind)

    print(report(tally))


if __name__ == "__main__":
    main()
