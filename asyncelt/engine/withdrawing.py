"""What a run does without: resources that have failed, with all that reads from them, and the state they have moved."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import cast

from asyncelt.engine.plan import RunPlan
from asyncelt.extract.graph import Branch
from asyncelt.extract.resource import Resource
from asyncelt.flow import ResourceFailure
from asyncelt.observe import Warned
from asyncelt.storage.state import StateDoc

__all__ = ["failures_of", "may_fail", "put_back", "shared_state", "sources_of", "withdrawn", "without"]


def may_fail(resource: Resource) -> bool:
    """Whether a run survives the failure of a resource, or of one that feeds it."""
    one: Resource | None = resource

    while one is not None:
        if one.on_error != "fail":
            return True

        one = one.parent

    return False


def failures_of(tree: Branch, failed: Mapping[int, Exception], schema_name: str) -> Iterator[ResourceFailure]:
    """The resources of a tree that have failed, and those that have only been given a part of their items.

    Args:
        tree: A resource and its transformers.
        failed: Errors by the identity of their branch.
        schema_name: Of the tree.
    """
    if error := failed.get(id(tree)):
        yield ResourceFailure(resource=tree.resource.name, schema_name=schema_name, message=str(error))

        for branch in tree.all():
            if branch is not tree:
                own = failed.get(id(branch))
                yield ResourceFailure(
                    resource=branch.resource.name,
                    schema_name=schema_name,
                    message=str(own)
                    if own
                    else f"Resource {tree.resource.name!r}, which it reads from, failed: {error}",
                )

        return

    for child in tree.children:
        yield from failures_of(child, failed, schema_name)


def without(plan: RunPlan, failures: Iterable[ResourceFailure]) -> RunPlan:
    """The plan as if these resources had not been asked for."""
    gone = {(one.schema_name, one.resource) for one in failures}

    return replace(plan, resources=tuple(one for one in plan.resources if (one.schema_name, one.name) not in gone))


def withdrawn(pipeline_name: str, failure: ResourceFailure) -> Warned:
    """The event of a resource that a run does without."""
    return Warned(
        pipeline_name=pipeline_name,
        message=f"Resource {failure.resource!r} has failed and nothing of it is part of this run; the next run reads "
        f"it again from where it stood. {failure.message}",
    )


def sources_of(state: StateDoc) -> dict[str, object]:
    """A copy of what all sources and resources have remembered."""
    return copy.deepcopy(cast("dict[str, object]", state.get("sources", {})))


def shared_state(sources: Mapping[str, object], schema_name: str) -> dict[str, object]:
    """What a source remembers beside its resources: nobody can tell which of them has written it."""
    source = cast("Mapping[str, object]", sources.get(schema_name, {}))

    return {key: value for key, value in source.items() if key != "resources"}


def put_back(state: StateDoc, before: Mapping[str, object], failure: ResourceFailure) -> None:
    """Let a resource remember what it did before the run; changes the document in place."""
    sources = cast("dict[str, dict[str, object]]", state.setdefault("sources", {}))
    source = sources.setdefault(failure.schema_name, {})
    resources = cast("dict[str, object]", source.setdefault("resources", {}))
    known = cast("Mapping[str, Mapping[str, object]]", before.get(failure.schema_name, {}))
    remembered = known.get("resources", {})
    resources.pop(failure.resource, None)

    if failure.resource in remembered:
        resources[failure.resource] = copy.deepcopy(remembered[failure.resource])

    # Nothing is left behind that was not there: the state is to be the same, by its hash.
    if not resources and "resources" not in known:
        del source["resources"]

    if not source and failure.schema_name not in before:
        del sources[failure.schema_name]
