"""What is running right now: pipeline, source, resource and their state, for code inside sources and resources.

Everything here is found through context variables, so two pipelines in one event loop never see each other's, and
it works in async generators, in the threads of synchronous ones and in the functions of ``add_map`` and friends.
Outside a run every function raises `UsageError`, but for the body of a source, which may be called before: there, state
is a copy of the active pipeline's, and changing it has no effect.

State layout, as in the reference: ``state["sources"][<schema name>]`` is the source's,
``state["sources"][<schema name>]["resources"][<resource name>]`` the resource's.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar, cast

from asyncelt.configuration.interval import interval
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.errors import UsageError

if TYPE_CHECKING:
    from asyncelt.extract.resource import Resource
    from asyncelt.extract.source import Source
    from asyncelt.pipeline import Pipeline
    from asyncelt.schema.model import Schema

__all__ = [
    "activate_pipeline",
    "activate_resource",
    "activate_source",
    "activated",
    "copy_of_state",
    "interval",
    "known_state",
    "pipeline",
    "resource",
    "resource_metrics",
    "resource_name",
    "resource_state",
    "resource_state_of",
    "source",
    "source_name",
    "source_schema",
    "source_state",
    "source_state_of",
    "state",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Active:
    """What the innermost ``activate_*`` has set; None where nothing has."""

    pipeline: Pipeline | None = None
    state: MutableMapping[str, object] | None = None
    source_name: str | None = None
    source: Source | None = None
    schema: Schema | None = None
    resource_name: str | None = None
    resource: Resource | None = None
    metrics: dict[str, object] | None = None


T = TypeVar("T")
_active: ContextVar[_Active] = ContextVar("asyncelt_current", default=_Active())  # noqa: B039 - frozen

activated: ContextVar[Pipeline | None] = ContextVar("asyncelt_active_pipeline", default=None)
"""What ``asyncelt.pipeline()`` returns; per task, since tasks copy their context."""


# ------------------------------------------------------------------------------------ for code inside a run


def pipeline() -> Pipeline:
    """The pipeline this code runs for.

    Raises:
        UsageError: No run is under way in this context.
    """
    return _inside(_active.get().pipeline, "pipeline()", "a pipeline's run")


def source() -> Source:
    """The source whose resources are being read.

    Raises:
        UsageError: Called outside a source that is being extracted.
    """
    return _inside(_active.get().source, "source()", "a source that is being extracted")


def source_name() -> str:
    """Name of the source, which is the name of its schema and its key in the state.

    Raises:
        UsageError: Called outside a source that is being extracted.
    """
    return _inside(_active.get().source_name, "source_name()", "a source that is being extracted")


def source_schema() -> Schema:
    """The schema of the source as it was when extraction began.

    Raises:
        UsageError: Called outside a source that is being extracted.
    """
    return _inside(_active.get().schema, "source_schema()", "a source that is being extracted")


def resource() -> Resource:
    """The resource whose data is being read.

    Raises:
        UsageError: Called outside a resource that is being extracted.
    """
    return _inside(_active.get().resource, "resource()", "a resource that is being extracted")


def resource_name() -> str:
    """Name of the resource whose data is being read.

    Raises:
        UsageError: Called outside a resource that is being extracted.
    """
    return _inside(_active.get().resource_name, "resource_name()", "a resource that is being extracted")


def source_state() -> dict[str, object]:
    """State shared by all resources of the source: a plain dict, kept between runs when this one commits.

    Values must be what typed JSON can say: text, numbers, booleans, None, lists, dicts, dates and times, Decimal,
    bytes. Two resources that change the same key at the same time overwrite each other; prefer `resource_state`.

    Raises:
        UsageError: Called outside a source that is being extracted.
    """
    active = _active.get()
    document = None if active.source_name is None else _document(active)

    if document is None or active.source_name is None:
        raise _outside("source_state()", "a source that is being extracted")

    return source_state_of(document, active.source_name)


state = source_state


def resource_state(resource_name: str | None = None) -> dict[str, object]:
    """State of one resource: a plain dict, kept between runs when this one commits.

    Args:
        resource_name: Another resource of the same source; None: the one this code belongs to.

    Raises:
        UsageError: Called outside a run, or outside a resource without saying which one is meant.
    """
    active = _active.get()
    name = resource_name or active.resource_name
    document = None if active.source_name is None or name is None else _document(active)

    if document is None or active.source_name is None or name is None:
        raise _outside("resource_state()", "a resource that is being extracted")

    return resource_state_of(document, active.source_name, name)


def resource_metrics() -> dict[str, object]:
    """Figures of the resource's own in this run: a plain dict that ends up in the run's info.

    Raises:
        UsageError: Called outside a resource that is being extracted.
    """
    return _inside(_active.get().metrics, "resource_metrics()", "a resource that is being extracted")


# ------------------------------------------------------------------------------------ for the engine


@contextmanager
def activate_pipeline(active: Pipeline, state: MutableMapping[str, object] | None = None) -> Iterator[None]:
    """Enter a call of a pipeline: configuration is looked up under its name, and `pipeline` returns it.

    Args:
        active: The pipeline, which is the active one meanwhile.
        state: The document that states live in; None: a copy of the pipeline's.
    """
    name, one = PIPELINE.set(active.pipeline_name), activated.set(active)

    try:
        with _set(_Active(pipeline=active, state=state)):
            yield
    finally:
        activated.reset(one)
        PIPELINE.reset(name)


@contextmanager
def activate_source(
    state: MutableMapping[str, object] | None,
    source_name: str,
    *,
    source: Source | None = None,
    schema: Schema | None = None,
) -> Iterator[None]:
    """Enter a source: `source_state` works, and `resource_state` with a name.

    Args:
        state: The pipeline's whole state document; changed in place. None: a copy of the active pipeline's.
        source_name: Name of the source's schema.
        source: What `source` returns.
        schema: What `source_schema` returns.
    """
    entered = replace(
        _active.get(),
        state=state,
        source_name=source_name,
        source=source,
        schema=schema,
        resource=None,
        resource_name=None,
        metrics=None,
    )

    with _set(entered):
        yield


@contextmanager
def activate_resource(
    state: MutableMapping[str, object],
    source_name: str,
    resource_name: str,
    *,
    resource: Resource | None = None,
    source: Source | None = None,
    schema: Schema | None = None,
    metrics: dict[str, object] | None = None,
) -> Iterator[None]:
    """Enter a resource; the engine holds this around its pump, threads of the pump inherit it.

    Args:
        state: The pipeline's whole state document; changed in place.
        source_name: Name of the source's schema.
        resource_name: Key of the resource's state.
        resource: What `resource` returns.
        source: What `source` returns.
        schema: What `source_schema` returns.
        metrics: What `resource_metrics` returns; None: a dict of its own.
    """
    entered = replace(
        _active.get(),
        state=state,
        source_name=source_name,
        source=source,
        schema=schema,
        resource=resource,
        resource_name=resource_name,
        metrics={} if metrics is None else metrics,
    )

    with _set(entered):
        yield


def known_state(source_name: str | None, resource_name: str | None = None) -> dict[str, object]:
    """What is known of the state of a source, or of one of its resources, wherever this is asked.

    Args:
        source_name: Name of the source's schema; None: the active pipeline's default one. Inside a source it is that
            one's state.
        resource_name: Key of the resource's state; None: the source's.

    Returns:
        The state of the run at hand; outside one a copy of the active pipeline's, without effect when it is changed.

    Raises:
        UsageError: There is no run, and no pipeline is active.
    """
    active = _active.get()
    document, found = _document(active), active.pipeline or activated.get()
    name = active.source_name or source_name or (found.default_schema_name if found is not None else None)

    if document is None or name is None:
        raise _outside(
            "source_state()" if resource_name is None else "resource_state()", "a run, or where a pipeline is active"
        )

    return (
        source_state_of(document, name) if resource_name is None else resource_state_of(document, name, resource_name)
    )


def copy_of_state(source_name: str | None, default: str) -> tuple[dict[str, object], str]:
    """A document to be thrown away, with what is known of one source, and the name that the source has in it.

    Args:
        source_name: As in `known_state`.
        default: The name where there is no run, and no pipeline is active.
    """
    active = _active.get()
    document, found = _document(active), active.pipeline or activated.get()
    name = active.source_name or source_name or (found.default_schema_name if found is not None else default)

    if document is None:
        return {}, name

    return {"sources": {name: copy.deepcopy(source_state_of(document, name))}}, name


def _document(active: _Active) -> MutableMapping[str, object] | None:
    """The state document at hand: that of the run, else a copy of the active pipeline's."""
    if active.state is not None:
        return active.state

    found = active.pipeline or activated.get()

    return None if found is None else found.state


def source_state_of(state: MutableMapping[str, object], source_name: str) -> dict[str, object]:
    """The part of a state document that belongs to one source; made where it does not exist yet."""
    return _child(_child(state, "sources"), source_name)


def resource_state_of(state: MutableMapping[str, object], source_name: str, resource_name: str) -> dict[str, object]:
    """The part of a state document that belongs to one resource; made where it does not exist yet."""
    return _child(_child(source_state_of(state, source_name), "resources"), resource_name)


def _child(parent: MutableMapping[str, object], key: str) -> dict[str, object]:
    return cast("dict[str, object]", parent.setdefault(key, {}))


@contextmanager
def _set(entered: _Active) -> Iterator[None]:
    token = _active.set(entered)

    try:
        yield
    finally:
        _active.reset(token)


def _inside(found: T | None, function: str, where: str) -> T:
    if found is None:
        raise _outside(function, where)

    return found


def _outside(function: str, where: str) -> UsageError:
    return UsageError(
        f"asyncelt.current.{function} works only inside {where}. Call it in the body of a decorated function (not at "
        "import time), and pass what you need to threads or tasks that were started before the run."
    )
