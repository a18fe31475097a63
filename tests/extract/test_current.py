"""`asyncelt.current`: found wherever user code runs, never another pipeline's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextvars import Context

import anyio
import anyio.lowlevel
import pytest

import asyncelt
from asyncelt import current
from asyncelt.errors import UsageError
from tests.extract.pumping import pumped

State = dict[str, object]


def remember(row: object) -> object:
    current.resource_state().setdefault("seen", []).append(row["a"])  # type: ignore[index, attr-defined]
    return row


@asyncelt.resource
async def from_loop() -> AsyncIterator[object]:
    current.resource_state()["loop"] = current.resource_name()
    await anyio.lowlevel.checkpoint()
    current.source_state()["shared"] = current.source_name()
    yield {"a": 1}


@asyncelt.resource
def from_thread() -> Iterator[object]:
    current.resource_state()["thread"] = current.resource_name()
    current.resource_state("from_loop")["told"] = True
    yield {"a": 2}


async def run(state: State, source: str, resource: asyncelt.Resource) -> None:
    with current.activate_resource(state, source, resource.name, resource=resource):
        await pumped(resource.clone().add_map(remember))


@pytest.mark.covers("current.source_state", "current.resource_state")
async def test_state_is_found_in_generators_threads_and_steps() -> None:
    state: State = {}

    async with anyio.create_task_group() as group:
        group.start_soon(run, state, "shop", from_loop)
        group.start_soon(run, state, "shop", from_thread)

    assert state == {
        "sources": {
            "shop": {
                "shared": "shop",
                "resources": {
                    "from_loop": {"loop": "from_loop", "told": True, "seen": [1]},
                    "from_thread": {"thread": "from_thread", "seen": [2]},
                },
            }
        }
    }


async def test_two_pipelines_side_by_side_never_meet() -> None:
    states: list[State] = [{} for _ in range(4)]

    async with anyio.create_task_group() as group:
        for number, state in enumerate(states):
            group.start_soon(run, state, f"shop{number}", from_loop)
            group.start_soon(run, state, f"shop{number}", from_thread)

    for number, state in enumerate(states):
        assert list(state["sources"]) == [f"shop{number}"]  # type: ignore[call-overload]
        assert state["sources"][f"shop{number}"]["shared"] == f"shop{number}"  # type: ignore[index]


@pytest.mark.parametrize(
    "function",
    [
        current.pipeline,
        current.source,
        current.source_name,
        current.source_schema,
        current.source_state,
        current.resource,
        current.resource_name,
        current.resource_state,
        lambda: current.resource_state("r"),
        lambda: from_loop.state,
    ],
)
def test_outside_a_run_everything_says_what_to_do(function) -> None:
    with pytest.raises(UsageError, match="Call it in the body of a decorated function"):
        Context().run(function)


@pytest.mark.covers("current.source", "current.resource", "current.source_schema", "current.resource_name")
def test_objects_given_by_the_engine_are_found_and_nest() -> None:
    state: State = {}
    source = asyncelt.Source("shop", [from_loop])

    with current.activate_source(state, "shop", source=source):
        assert current.source() is source
        assert current.source_state() is state["sources"]["shop"]  # type: ignore[index]
        assert source.state is current.source_state()

        with pytest.raises(UsageError):
            current.resource_state()

        with current.activate_resource(state, "shop", "from_loop", resource=from_loop, source=source):
            assert current.resource() is from_loop
            assert from_loop.state is current.resource_state()

        with pytest.raises(UsageError):
            current.resource()

    with pytest.raises(UsageError):
        current.source()


async def test_a_misuse_inside_a_resource_is_named() -> None:
    def rows() -> Iterator[object]:
        current.resource_state()
        yield {}

    with pytest.raises(UsageError) as caught:
        await pumped(asyncelt.resource(rows(), name="r"))

    assert "In resource 'r'" in caught.value.__notes__[0]


@pytest.mark.covers("current.state")
def test_the_state_of_a_source_has_a_short_name() -> None:
    state: State = {}

    with current.activate_resource(state, "shop", "r"):
        current.state()["cursor"] = 5
        assert current.source_state() == {"cursor": 5}
