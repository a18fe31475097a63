"""Does a late commit into files cost what an early one did? What is asked of the place is counted, not only timed.

``python -m benchmarks.bench_commits --commits 2000`` in a folder; ``--s3 --commits 300`` in a bucket of a SeaweedFS of
its own. Each line is the mean of the last commits before it, all in one session, as a stream makes them; the last lines
are a new session's first commit, and a query.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

import asyncelt
from asyncelt.destinations.filesystem_impl.local import LocalStore
from asyncelt.testing.fixture import Owner
from asyncelt.testing.packages import make_commit

_LOCAL = ("names", "read", "read_all", "read_each", "write_all", "remove", "settle", "files")
_WINDOW = 64
"""Commits of one line: each has one fold in it."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--s3", action="store_true")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="commits-") as folder, _place(Path(folder), is_s3=arguments.s3) as place:
        asyncio.run(_measure(*place, Path(folder), arguments.commits))


@contextmanager
def _place(folder: Path, *, is_s3: bool) -> Iterator[tuple[Any, Counter[str]]]:
    """A destination, and what will have been asked of it."""
    counts: Counter[str] = Counter()

    if not is_s3:
        for name in _LOCAL:
            setattr(LocalStore, name, _counted(getattr(LocalStore, name), name, counts))

        yield asyncelt.destinations.filesystem(folder / "files"), counts

        return

    from asyncelt.destinations.filesystem_impl.s3.bucket import Bucket
    from tests.support.seaweed import Seaweed

    raw = Bucket._raw  # noqa: SLF001 - each request passes here

    async def noted(self: Any, operation: str, **given: object) -> object:
        counts[operation] += 1
        answer = await raw(self, operation, **given)
        counts["names listed"] += len(answer.get("Contents", ()))  # type: ignore[arg-type]  # of any operation

        return answer

    Bucket._raw = noted  # type: ignore[method-assign,assignment]  # noqa: SLF001 - see above

    with Seaweed(folder / "server") as server:
        yield (
            asyncelt.destinations.filesystem("s3://lake", endpoint_url=server.url, credentials=server.credentials),
            counts,
        )


def _counted(call: Callable[..., Any], name: str, counts: Counter[str]) -> Callable[..., Any]:
    def counted(*positional: Any, **named: Any) -> Any:
        found = call(*positional, **named)
        counts[name] += 1
        counts["names listed"] += len(found) if name == "names" else 0
        counts["files read"] += len(positional[1]) if name in {"read_all", "read_each"} else int(name == "read")

        return found

    return counted


async def _measure(destination: Any, counts: Counter[str], folder: Path, commits: int) -> None:
    owner = Owner(destination, folder / "packages", "parquet")
    rows = pa.table({"id": [1, 2, 3]})
    took = 0.0

    async def commit(session: Any) -> None:
        nonlocal took
        package = await owner.make({"events": rows})
        before = counts.copy()
        started = time.perf_counter()
        await owner.commit_in(session, make_commit(owner.target, await owner.acquire(session), package))
        took += time.perf_counter() - started
        owner.last = replace(package, jobs=())
        spent.update(counts - before)

    spent: Counter[str] = Counter()

    async with destination.connect(owner.target) as session:
        for number in range(1, commits + 1):
            await commit(session)

            if number == 1 or number % _WINDOW == 0:
                if number == 1 or number in _shown(commits):
                    _tell(f"commit {number}", spent, took, 1 if number == 1 else _WINDOW)

                spent.clear()
                took = 0.0

    owner.lease, took = None, 0.0
    spent.clear()

    async with destination.connect(owner.target) as session:
        await commit(session)
        _tell("a new session's first", spent, took, 1)
        before, started = counts.copy(), time.perf_counter()
        await session.query("SELECT count(*) FROM _dlt_loads")
        _tell("a query of _dlt_loads", counts - before, time.perf_counter() - started, 1)


def _shown(commits: int) -> set[int]:
    whole = commits // _WINDOW

    return {_WINDOW * max(part * whole // 4, 2) for part in range(5)}


def _tell(name: str, spent: Counter[str], took: float, of: int) -> None:
    told = ", ".join(f"{what} {count / of:.1f}" for what, count in sorted(spent.items()) if count)
    print(f"{name:>22}: {1000 * took / of:7.1f} ms; {told}", flush=True)


if __name__ == "__main__":
    main()
