"""Kill -9 a stream, its broker and its destination, again and again, while numbered messages come in; count them.

``python -m tests.robustness.streams.kill`` is the long form, ``make kill-streams``; the suite runs a short one. One
producer publishes numbers throughout. The consumer is killed at every failpoint and at random moments and started
again, then the broker and the server with the tables are killed under a consumer that lives on. At the end each number
must be in the table once, with its children, each row with the record of its load; whenever a consumer has died,
nothing may be there twice. With ``--members 4`` several consumers share the messages and are killed, ended and added.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.robustness.streams.brokers import BROKERS, Broker, broker_in
from tests.robustness.streams.counting import counted, nothing_doubled
from tests.robustness.streams.producer import Producer
from tests.robustness.streams.worker import STARTED, consume
from tests.support.killing import KILLED, Doomed, Nursery
from tests.support.postgres import PostgresServer

__all__ = ["Course", "Plan", "Tally", "killed_everywhere", "report"]

_HANGS_S = 120.0
"""Something that has not come by then will not."""
_POINT_S = 60.0
"""A failpoint that is not passed by then is passed rarely."""
_COMMIT = "load.after_commit"
_SETTLED = "stream.after_ack"


@dataclass
class Tally:
    """What was killed, and after which failpoint."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    """Failpoints that a consumer did not pass for a while."""
    checks: int = 0
    numbers: int = 0


@dataclass
class Consumer:
    """A place for one process after the other."""

    member: str
    folder: Path
    nursery: Nursery
    process: Doomed | None = None
    lives: int = 0

    @property
    def log(self) -> Path:
        """Failpoints that the process at hand has passed."""
        return self.folder / f"failpoints{self.member}.log"

    def passed(self) -> list[str]:
        """Those failpoints, in order."""
        return self.log.read_text().split() if self.log.exists() else []

    def last(self) -> str:
        """The one that was passed last."""
        return (self.passed() or ["before the first failpoint"])[-1]


@dataclass
class Course:
    """One topic of one broker on its way into one destination."""

    broker: Broker
    topic: str
    folder: Path
    address: str
    tally: Tally
    consumers: Sequence[Consumer]

    @property
    def again_after_s(self) -> float:
        """When messages of the dead come again. Several consumers that are slow would take them from each other."""
        return 1.0 if len(self.consumers) == 1 else 4.0

    @property
    def first(self) -> Consumer:
        """The only consumer, where there is one."""
        return self.consumers[0]

    def start(self, one: Consumer, failpoint: str | None = None) -> None:
        """Start a process."""
        one.log.unlink(missing_ok=True)
        one.lives += 1
        environment = {"ASYNCELT_FAILPOINT_LOG": str(one.log)}

        if failpoint is not None:
            environment["ASYNCELT_FAILPOINT"] = failpoint

        where = (self.folder, self.broker.kind, self.broker.server.url, self.topic, self.address)
        arguments = (*where, one.member, self.again_after_s)
        one.process = one.nursery.start(consume, *arguments, environment=environment)

    def end(self, one: Consumer) -> None:
        """Let a process drain and end."""
        assert one.process is not None
        deadline = time.monotonic() + _HANGS_S

        while STARTED not in one.passed():
            assert time.monotonic() < deadline, "the process does not start"
            time.sleep(0.02)

        one.process.terminate()
        assert one.process.wait() == 0
        one.process = None

    def kill(self, one: Consumer) -> None:
        """Kill a process where it stands."""
        assert one.process is not None
        one.process.kill()
        assert one.process.wait() == KILLED
        one.process = None
        self.tally.kills[one.last()] += 1

    def abandon(self) -> None:
        """Leave no process behind when something has failed."""
        for one in self.consumers:
            if one.process is not None:
                one.process.kill()

    def kill_at(self, failpoint: str) -> None:
        """A process that is killed when it passes a failpoint."""
        one = self.first
        self.start(one, failpoint)
        assert one.process is not None
        patience = threading.Timer(_POINT_S, one.process.terminate)
        patience.start()
        was_killed = one.process.wait() == KILLED
        patience.cancel()
        patience.join()

        if was_killed:
            self.tally.kills[one.last()] += 1
        else:
            self.tally.missed += 1

        one.process = None

    def commits(self) -> int:
        """How often the living processes have committed."""
        return sum(one.passed().count(_COMMIT) for one in self.consumers if one.process is not None)

    def goes_on(self, packages: int = 2) -> None:
        """Wait until more packages have been committed."""
        before, deadline = self.commits(), time.monotonic() + _HANGS_S

        while self.commits() < before + packages:
            assert time.monotonic() < deadline, f"{self.broker.kind}: nothing was committed for {_HANGS_S} s"
            time.sleep(0.02)

    def failpoints(self) -> Counter[str]:
        """What a process passes while it commits a few packages, and how often."""
        self.start(self.first)
        self.goes_on(packages=8)
        self.end(self.first)

        return Counter(point for point in self.first.passed() if point != STARTED)

    def check(self) -> None:
        """Nothing is there twice."""
        self.tally.checks += 1
        nothing_doubled(self.address)

    def finish(self, published: int) -> None:
        """Everything that was published is there, once."""
        for one in self.consumers:
            if one.process is None:
                self.start(one)

        commits, deadline = self.commits(), time.monotonic() + _HANGS_S

        while not asyncio.run(self.broker.is_consumed(self.topic)):
            # What has gathered while processes were killed may take many minutes.
            if self.commits() > commits:
                commits, deadline = self.commits(), time.monotonic() + _HANGS_S

            assert time.monotonic() < deadline, f"{self.broker.kind}: messages were not acknowledged for {_HANGS_S} s"
            time.sleep(0.1)

        for one in self.consumers:
            self.end(one)

        counted(self.address, published)
        self.tally.checks += 1
        self.tally.numbers += published


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is killed, and how often."""

    times: int = 1
    """Per failpoint."""
    randomly: int = 0
    brokers: int = 0
    servers: int = 0
    members: int = 1
    changes: int = 0
    """With several members: how often one of them is killed or ended, and started again."""
    only: tuple[str, ...] = ("",)
    """What the names of the failpoints begin with."""
    seed: int = 1


def killed_everywhere(
    broker: Broker,
    folder: Path,
    plan: Plan,
    server: PostgresServer | None = None,
    *,
    nurseries: Sequence[Nursery] = (),
) -> Tally:
    """Carry out a plan.

    Args:
        broker: Has been started.
        folder: For everything that lies on the disk; its name is the topic's.
        plan: What to do.
        server: Gets a database; without it the rows go into a DuckDB file.
        nurseries: One for each member; none: they are made.
    """
    address = str(folder / "tables.duckdb") if server is None else server.new_database()
    tally = Tally()
    moments = random.Random(plan.seed)
    asyncio.run(broker.make(folder.name))

    with ExitStack() as stack:
        consumers = []

        for at in range(plan.members):
            home = folder / f"member_{at}"
            home.mkdir(parents=True)
            nursery = nurseries[at] if nurseries else stack.enter_context(Nursery(home))
            consumers.append(Consumer(f"m{at}" if plan.members > 1 else "", home, nursery))

        producer = stack.enter_context(Producer(broker, folder.name))
        course = Course(broker, folder.name, folder, address, tally, consumers)
        stack.callback(course.abandon)
        _kill_consumers(course, plan, moments)
        _change_members(course, plan, moments)
        _kill_servers(course, plan, moments, server)
        course.finish(producer.stop())

    return tally


def _kill_consumers(course: Course, plan: Plan, moments: random.Random) -> None:
    if plan.times:
        for point, hits in course.failpoints().items():
            for at in range(plan.times if point.startswith(plan.only) else 0):
                course.kill_at(f"{point}:{1 + at % hits}")
                course.check()

    for at in range(plan.randomly):
        course.start(course.first)

        # Every other one has to have begun its work, however slow the machine is.
        if at % 2:
            course.goes_on(packages=1)

        time.sleep(moments.uniform(0.02, 1.0))
        course.kill(course.first)
        course.check()


def _change_members(course: Course, plan: Plan, moments: random.Random) -> None:
    """Processes come and go in any order; at least one of them goes on."""
    if plan.members < 2:
        return

    course.start(course.first)

    for _ in range(plan.changes):
        time.sleep(moments.uniform(0.1, 0.8))
        one = moments.choice(course.consumers)
        others = sum(other.process is not None for other in course.consumers if other is not one)

        if one.process is None:
            course.start(one)
            course.tally.kills["(started)"] += 1
        elif not others or moments.random() < 0.6:
            course.kill(one)
        else:
            course.end(one)
            course.tally.kills["(ended by SIGTERM)"] += 1

    course.check()


def _kill_servers(course: Course, plan: Plan, moments: random.Random, server: PostgresServer | None) -> None:
    if course.first.process is None:
        course.start(course.first)

    course.goes_on()

    for _ in range(plan.brokers):
        time.sleep(moments.uniform(0.05, 0.5))
        course.broker.server.kill()
        course.tally.kills[f"broker, {course.first.last()}"] += 1
        time.sleep(moments.uniform(0.0, 0.3))
        course.broker.server.start()
        course.goes_on()

    for _ in range(plan.servers if server is not None else 0):
        assert server is not None
        time.sleep(moments.uniform(0.05, 0.5))
        server.kill()
        course.tally.kills[f"server, {course.first.last()}"] += 1
        time.sleep(moments.uniform(0.0, 0.3))
        server.start()
        course.goes_on()


def report(tally: Tally) -> str:
    """Kills by the failpoint passed last."""
    lines = [f"{count:5d}  after {point}" for point, count in tally.kills.most_common()]
    total = sum(count for name, count in tally.kills.items() if not name.startswith("("))
    end = f"{total} kills, {tally.missed} failpoints missed, {tally.checks} checks of {tally.numbers} numbers"

    return "\n".join([*lines, f"{end}: 0 lost, 0 doubled"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--broker", choices=BROKERS, default="nats")
    parser.add_argument("--destination", choices=["duckdb", "postgres"], default="duckdb")
    parser.add_argument("--times", type=int, default=1, help="kills per failpoint")
    parser.add_argument("--random", type=int, default=100, help="kills at random moments")
    parser.add_argument("--brokers", type=int, default=20, help="kills of the broker")
    parser.add_argument("--servers", type=int, default=20, help="kills of the server with the tables")
    parser.add_argument("--members", type=int, default=1, help="consumers that share the messages")
    parser.add_argument("--changes", type=int, default=50, help="members that are killed, ended, or added")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()

    if given.broker == "kafka" and given.brokers:
        print("The stand-in for Kafka keeps nothing when it is killed: it is not.")
        given.brokers = 0

    plan = Plan(
        times=given.times,
        randomly=given.random,
        brokers=given.brokers,
        servers=given.servers,
        members=given.members,
        changes=given.changes,
        seed=given.seed,
    )

    with tempfile.TemporaryDirectory(prefix="kill-") as folder, ExitStack() as stack:
        home = Path(folder)
        is_server = given.destination == "postgres"
        server = stack.enter_context(PostgresServer(home / "server")) if is_server else None
        broker = broker_in(home, given.broker)
        broker.server.start()
        stack.callback(broker.server.kill)
        tally = killed_everywhere(broker, home / "numbers", plan, server)

    print(report(tally))


if __name__ == "__main__":
    main()
