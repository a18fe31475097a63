"""What every test may use: event loop variants, the check that nothing blocks the loop, options.

Options:
    --slow       also run what is marked slow.
    --all-loops  run every async test on each loop variant (plain, debug, uvloop, eager tasks).

Without ``--all-loops`` a test runs on the plain loop only, unless it is marked ``all_loops``.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.distribution import arranged, group_for_xdist, use_files_in_memory

TESTS = Path(__file__).parent
_prefixes = itertools.count()

# Times are never judged: machines are shared. The examples are the same in every run, except for those of make fuzz.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("asyncelt", derandomize=True, database=None, **PATIENT)
hypothesis.settings.register_profile("fuzz", derandomize=False, max_examples=2000, print_blob=True, **PATIENT)
hypothesis.settings.load_profile("asyncelt")


use_files_in_memory()


def _eager_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]  # Python 3.12
    return loop


PLAIN = pytest.param(("asyncio", {}), id="asyncio")
VARIANTS = [
    PLAIN,
    pytest.param(("asyncio", {"debug": True}), id="debug"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]

if sys.version_info >= (3, 12):
    VARIANTS.append(pytest.param(("asyncio", {"loop_factory": _eager_loop}), id="eager"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests that are marked slow")
    parser.addoption("--all-loops", action="store_true", help="run async tests on every event loop variant")


def pytest_configure(config: pytest.Config) -> None:
    # Else groups come in the order of how many tests they have, not of how long they take.
    config.option.loadscopereorder = False


# Last: fixtures that are made for the whole session have an order of their own.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Only in a process of pytest-xdist.
    if config.getoption("loadgroup", False):
        group_for_xdist(items)
        items[:] = arranged(items)

    if config.getoption("--slow"):
        return

    skip = pytest.mark.skip(reason="slow; runs with --slow")

    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    # Modules and tests stay to the end; to look for garbage among them, over and over, takes long.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The event loop a test runs on."""
    return getattr(request, "param", ("asyncio", {}))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "anyio_backend" not in metafunc.fixturenames:
        return

    markers = list(metafunc.definition.iter_markers())

    if any(mark.name == "parametrize" and "anyio_backend" in str(mark.args[0]) for mark in markers):
        return

    everywhere = metafunc.config.getoption("--all-loops") or any(mark.name == "all_loops" for mark in markers)
    metafunc.parametrize("anyio_backend", VARIANTS if everywhere else [PLAIN], indirect=True, scope="session")


@pytest.fixture(scope="session")
def nurseries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], list[Any]]]:
    """So many of what starts processes that are killed: processes that have imported everything, and fork."""
    from tests.support.killing import Nursery

    with ExitStack() as stack:
        started: list[Nursery] = []

        def some(count: int) -> list[Nursery]:
            while len(started) < count:
                started.append(stack.enter_context(Nursery(tmp_path_factory.mktemp("nursery"))))

            return started[:count]

        yield some


@pytest.fixture(scope="session")
def nursery(nurseries: Callable[[int], list[Any]]) -> Any:
    """The first of them."""
    return nurseries(1)[0]


@pytest.fixture(scope="session")
def dlt_nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Starts processes of the reference: each is new, and none of them has to import it, which takes seconds."""
    from tests.support.killing import REFERENCE, Nursery

    silent = {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "ENABLE_RUNTIME_TRACE": "false"}

    with Nursery(tmp_path_factory.mktemp("dlt"), REFERENCE, silent) as started:
        yield started


@pytest.fixture
def run_dlt(dlt_nursery: Any) -> Callable[..., Awaitable[None]]:
    """Calls a function of a module in a new process that has imported the reference, and waits for its end."""

    async def run(function: Callable[..., object], *arguments: object) -> None:
        started = await asyncio.to_thread(dlt_nursery.start, function, *arguments)
        assert await asyncio.to_thread(started.wait) == 0

    return run


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A real PostgreSQL server: one per process that runs tests."""
    from tests.support.postgres import PostgresServer

    # A short path: the name of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, PostgresServer(Path(folder) / "server") as server:
        yield server


@pytest.fixture
def postgres_dsn(postgres_server: Any) -> Iterator[str]:
    """Connection string of an empty database; afterwards nothing may be under way in it."""
    from tests.support.postgres import empty, left_behind

    dsn = postgres_server.dsn()
    empty(dsn)
    yield dsn
    assert left_behind(dsn) == []


@pytest.fixture
async def raw(postgres_dsn: str) -> AsyncIterator[Any]:
    """A connection of asyncpg to that database, beside what is tested."""
    import asyncpg

    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real S3 server, SeaweedFS: one per process that runs tests."""
    from tests.support.seaweed import Seaweed

    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def _lake(seaweed: Any) -> Any:
    """Keeps what a driver reads before its first request: a quarter of a second."""
    import asyncelt

    return asyncelt.destinations.filesystem("s3://lake", endpoint_url=seaweed.url, credentials=seaweed.credentials)


@pytest.fixture
def bucket_url() -> str:
    """A prefix that no other test uses."""
    return f"s3://lake/t{next(_prefixes)}"


@pytest.fixture
def s3(_lake: Any, bucket_url: str) -> Any:
    """A destination in a bucket, with nothing in it."""
    config = replace(_lake.site.config, prefix=bucket_url.removeprefix("s3://lake/"))

    return replace(_lake, site=replace(_lake.site, config=config))


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Tansu, a stand-in for a Kafka broker: one per process that runs tests."""
    from tests.sources.brokers import Tansu

    started = Tansu(tmp_path_factory.mktemp("tansu"))
    started.start()
    yield started
    started.kill()


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real NATS server with JetStream: one per process that runs tests."""
    from tests.sources.server import NatsServer

    started = NatsServer(tmp_path_factory.mktemp("nats"))
    started.start()
    yield started
    started.kill()


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Valkey server: one per process that runs tests."""
    from tests.sources.brokers import Valkey

    started = Valkey(tmp_path_factory.mktemp("valkey"))
    started.start()
    yield started
    started.kill()


GUARDED = ("engine", "extract", "pipeline", "reading", "sources", "test_demo.py")
"""Where code of asyncelt is only reached through its coroutines. Elsewhere tests call the synchronous parts directly."""


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail an async test of the engine in which code of asyncelt makes a blocking call on the event loop.

    Only calls with a function of asyncelt on the stack count: tests and user code may do as they like.
    """
    is_async = iscoroutinefunction(getattr(request.node, "obj", None))
    room = request.node.path.relative_to(TESTS).parts[0]

    if not is_async or room not in GUARDED or request.node.get_closest_marker("blocking_allowed"):
        yield
        return

    from blockbuster import blockbuster_ctx

    with blockbuster_ctx("asyncelt") as guard:
        # What runs while an import is under way reads files; drivers are imported off the loop elsewhere.
        for function in guard.functions.values():
            function.can_block_in("<frozen importlib._bootstrap>", {"_find_and_load"})
            # The factory is allowed a few small reads of local files, by design.
            function.can_block_in("asyncelt/pipeline/factory.py", {"pipeline"})
            function.can_block_in("asyncelt/pipeline/facade.py", {"__init__"})
            # Configuration files are small, and read once, when the first value is asked for.
            function.can_block_in("asyncelt/configuration/providers.py", {"_read", "_folders"})
            # Names of destinations: read once in the life of a process, when the first one is asked for.
            function.can_block_in("asyncelt/load/registry.py", {"_registered"})
            # It looks for passwords and certificates in a few small files when it connects.
            function.can_block_in("asyncpg/connect_utils.py", {"_parse_connect_arguments"})

            # In a thread, where it has a loop of its own that nobody else waits for.
            function.can_block_in("asyncelt/destinations/filesystem_impl/s3/client.py", {"_built"})

        guard.functions["os.path.abspath"].deactivate()  # joins two texts, and asks for the current folder

        yield
