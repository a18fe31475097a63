"""Which pipeline is active, and what its name decides: configuration and state in the code of sources."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextvars import copy_context
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncelt
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.errors import ConfigError, UsageError

Make = Callable[..., asyncelt.Pipeline]


@pytest.fixture(autouse=True)
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of each of two pipelines."""
    monkeypatch.setenv("A__SOURCES__TOKEN", "of a")
    monkeypatch.setenv("B__SOURCES__TOKEN", "of b")


@asyncelt.resource
async def tokens_seen(token: str = asyncelt.secrets.value) -> AsyncIterator[dict[str, object]]:
    yield {"token": token, "pipeline": asyncelt.current.pipeline().pipeline_name}


@asyncelt.source
async def late(token: str = asyncelt.secrets.value) -> asyncelt.Resource:
    found = {"token": token, "pipeline": asyncelt.current.pipeline().pipeline_name}

    return asyncelt.resource([found], name="tokens_seen")


def seen(memory: Any, dataset: str) -> list[dict[str, object]]:
    return memory.tables(dataset)["tokens_seen"].select(["token", "pipeline"]).to_pylist()  # type: ignore[no-any-return]


def two(make: Make) -> tuple[asyncelt.Pipeline, asyncelt.Pipeline]:
    return make("a", dataset_name="of_a"), make("b", dataset_name="of_b")


@pytest.mark.parametrize("data", [tokens_seen, late], ids=["resource", "source"])
async def test_a_run_uses_the_secrets_of_its_own_pipeline(make: Make, memory: Any, data: Any) -> None:
    a, b = two(make)
    await a.run(data())
    await b.run(data())
    assert seen(memory, "of_a") == [{"token": "of a", "pipeline": "a"}]
    assert seen(memory, "of_b") == [{"token": "of b", "pipeline": "b"}]
    assert asyncelt.pipeline() is b


async def test_runs_side_by_side_use_the_secrets_of_their_own_pipelines(make: Make, memory: Any) -> None:
    a, b = two(make)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(a.run, late())
        tasks.start_soon(b.run, late())

    assert seen(memory, "of_a") == [{"token": "of a", "pipeline": "a"}]
    assert seen(memory, "of_b") == [{"token": "of b", "pipeline": "b"}]


async def test_every_call_that_reads_is_one_of_its_pipeline(make: Make, memory: Any) -> None:
    a, _ = two(make)
    await a.extract(tokens_seen())
    await a.normalize()
    await a.load()
    await a.stream(tokens_seen(), safe_points=True)
    assert seen(memory, "of_a") == [{"token": "of a", "pipeline": "a"}] * 2


async def test_inside_a_run_its_pipeline_is_the_active_one(make: Make) -> None:
    a, b = two(make)
    found: list[object] = []

    @asyncelt.resource
    async def rows() -> AsyncIterator[dict[str, object]]:
        found.append(asyncelt.pipeline())
        yield {"id": 1}

    await a.run(rows())
    assert found == [a]
    assert asyncelt.pipeline() is b


async def test_a_run_inside_a_run_does_not_see_the_outer_resource(make: Make, memory: Any) -> None:
    a, b = two(make)

    @asyncelt.resource
    async def outer() -> AsyncIterator[dict[str, object]]:
        asyncelt.current.resource_state()["mine"] = True
        await b.run(late())
        yield {"name": asyncelt.current.resource_name(), "pipeline": asyncelt.current.pipeline().pipeline_name}

    await a.run(outer())
    assert seen(memory, "of_b") == [{"token": "of b", "pipeline": "b"}]
    assert memory.tables("of_a")["outer"].select(["name", "pipeline"]).to_pylist() == [
        {"name": "outer", "pipeline": "a"}
    ]
    assert "sources" not in b.state


# -------------------------------------------------------------------------------------------- the factory


@pytest.mark.parametrize(
    "arguments", [{"dev_mode": True}, {"refresh": "drop_data"}, {"member": "two"}, {"max_memory": 1 << 24}]
)
def test_only_without_any_argument_the_active_one_is_found(tmp_path: Path, arguments: dict[str, Any]) -> None:
    def check() -> None:
        first = asyncelt.pipeline("first", pipelines_dir=tmp_path)
        assert asyncelt.pipeline() is first
        made = asyncelt.pipeline(**arguments)
        assert made is not first
        assert made.pipeline_name != "first"

        for name, value in arguments.items():
            if name != "max_memory":
                assert getattr(made, name) == value

    copy_context().run(check)


def test_a_pipeline_that_cannot_be_made_leaves_the_active_one_as_it_was(tmp_path: Path) -> None:
    def check() -> None:
        first = asyncelt.pipeline("first", pipelines_dir=tmp_path)

        with pytest.raises(ConfigError, match="No destination is registered as 'nope'"):
            asyncelt.pipeline("c", destination="nope", pipelines_dir=tmp_path)

        assert asyncelt.pipeline() is first
        assert PIPELINE.get() == "first"

    copy_context().run(check)


@pytest.mark.covers("Pipeline.activate", "Pipeline.__init__")
def test_the_class_takes_what_the_factory_takes(tmp_path: Path) -> None:
    def check() -> None:
        made = asyncelt.Pipeline("x", tmp_path, destination="memory", dataset_name="Data", member="one")
        assert (made.pipeline_name, made.pipelines_dir) == ("x", str(tmp_path))
        assert (made.dataset_name, made.member, made.is_active) == ("data", "one", True)
        assert made.destination is not None
        assert made.destination.destination_name == "memory"

        with pytest.raises(ConfigError, match="workers is a whole number from 1"):
            asyncelt.Pipeline("y", pipelines_dir=tmp_path, workers=0)

        with pytest.raises(TypeError, match="nonsense"):
            asyncelt.Pipeline("y", nonsense=1)  # type: ignore[call-arg]

        assert asyncelt.pipeline() is made

    copy_context().run(check)


# -------------------------------------------------------------------------------------------- state outside runs


@asyncelt.resource
async def counter() -> AsyncIterator[dict[str, object]]:
    state = asyncelt.current.resource_state()
    state["n"] = int(str(state.get("n", 0))) + 1
    asyncelt.current.source_state()["last"] = "counter"
    yield {"n": state["n"]}


@pytest.mark.covers("current.source_state", "current.source_schema")
@pytest.mark.parametrize("kind", ["plain", "generator", "coroutine", "async generator"])
async def test_the_body_of_a_source_knows_its_schema_and_a_copy_of_its_state(make: Make, kind: str) -> None:
    found: list[object] = []

    def look() -> asyncelt.Resource:
        state = asyncelt.current.source_state()
        found.append(dict(state))
        state["last"] = "changed without effect"
        assert asyncelt.current.source_name() == asyncelt.current.source_schema().name == "shop"

        return counter

    @asyncelt.source(name="shop")
    def plain() -> object:
        return look()

    @asyncelt.source(name="shop")
    def generator() -> Any:
        yield look()

    @asyncelt.source(name="shop")
    async def coroutine() -> object:
        return look()

    @asyncelt.source(name="shop")
    async def asynchronous() -> AsyncIterator[object]:
        yield look()

    function: Any = {"plain": plain, "generator": generator, "coroutine": coroutine}.get(kind, asynchronous)
    pipeline = make()
    await pipeline.run(function())
    await pipeline.run(function())
    known = {"last": "counter", "resources": {"counter": {"n": 1}}}
    assert found == [{}, known]
    assert pipeline.state["sources"] == {"shop": {**known, "resources": {"counter": {"n": 2}}}}

    with pytest.raises(UsageError):
        asyncelt.current.source_state()


async def test_iterating_a_resource_begins_with_a_copy_of_its_state(make: Make) -> None:
    pipeline = make()
    rows = [row async for row in counter()]
    assert rows == [{"n": 1}]
    await pipeline.run(counter())
    await pipeline.run(counter())
    assert [row async for row in counter()] == [{"n": 3}]
    assert [row async for row in counter()] == [{"n": 3}]
    assert pipeline.state["sources"]["p"]["resources"]["counter"] == {"n": 2}  # type: ignore[index]


async def test_between_two_rows_the_state_is_not_the_resources(make: Make) -> None:
    make()

    @asyncelt.resource
    def two_rows() -> Any:
        asyncelt.current.resource_state()["seen"] = 1
        yield {"id": 1}
        yield {"id": asyncelt.current.resource_state()["seen"], "name": asyncelt.current.resource_name()}

    async for row in two_rows():
        assert row in ({"id": 1}, {"id": 1, "name": "two_rows"})

        with pytest.raises(UsageError):
            asyncelt.current.resource_name()


async def test_iterating_shows_rows_and_no_checkpoints() -> None:
    @asyncelt.resource
    async def rows() -> AsyncIterator[object]:
        yield {"id": 1}
        yield asyncelt.checkpoint()
        yield [{"id": 2}]
        yield asyncelt.checkpoint()

    assert [row async for row in rows()] == [{"id": 1}, {"id": 2}]


@pytest.mark.covers("Resource.state", "Source.state")
async def test_state_can_be_looked_at_after_a_run(make: Make) -> None:
    pipeline = make()
    source = asyncelt.Source("shop", [counter])
    await pipeline.run(source)
    assert pipeline.default_schema_name == "shop"
    assert source.state == {"last": "counter", "resources": {"counter": {"n": 1}}}
    assert source.counter.state == {"n": 1}
    assert counter.state == {"n": 1}
    source.counter.state["n"] = 9
    assert source.counter.state == {"n": 1}


@pytest.mark.covers("Source.run")
async def test_a_source_runs_the_active_pipeline(make: Make, memory: Any) -> None:
    make()
    source = asyncelt.Source("shop", [asyncelt.resource([{"id": 1}], name="t")])
    info = await source.run(table_name="orders", write_disposition="replace")
    assert info.dataset_name == "data"
    assert memory.tables("data")["orders"].column("id").to_pylist() == [1]
    asyncelt.current.activated.set(None)

    with pytest.raises(UsageError, match=r"no pipeline is active.*asyncelt.pipeline\(...\)"):
        await source.run()
