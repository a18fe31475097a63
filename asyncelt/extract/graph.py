"""Which resources of a source are read together: each once, whatever number of transformers reads from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from asyncelt.extract.feeds import Feed, Offering
from asyncelt.extract.pump import Link
from asyncelt.extract.resource import Resource

__all__ = ["Branch", "connected", "edges", "lineage"]


def lineage(resource: Resource) -> Iterator[Resource]:
    """A resource, what it reads from, what that one reads from, and so on."""
    one: Resource | None = resource

    while one is not None:
        yield one
        one = one.parent


def edges(names: Sequence[str]) -> list[tuple[str, str]]:
    """What feeds what, as (parent, child), of names in the order of `lineage`; one that stands alone: (name, name)."""
    return [(parent, child) for child, parent in pairwise(names)] or [(names[0], names[0])]


@dataclass(slots=True)
class Branch:
    """A resource that is read, and the transformers that read from it."""

    resource: Resource
    keeps: bool = False
    """Whether its own rows are loaded: it is selected."""
    children: list[Branch] = field(default_factory=list)
    link: Link = field(default_factory=Link)

    def all(self) -> Iterator[Branch]:
        """This branch and all below it, parents first."""
        yield self

        for child in self.children:
            yield from child.all()


@contextmanager
def connected(resources: Iterable[Resource]) -> Iterator[list[Branch]]:
    """The trees that the selected resources make, each branch with its link. On the way out all links are closed.

    A parent that is not selected is in its tree too, and only feeds its transformers.
    """
    roots = _trees(resources)
    feeds: list[Feed] = []

    for root in roots:
        _link(root, None, feeds)

    try:
        yield roots
    finally:
        for feed in feeds:
            feed.close()

        for root in roots:
            for branch in root.all():
                if branch.link.offering is not None:
                    branch.link.offering.close()


def _trees(resources: Iterable[Resource]) -> list[Branch]:
    branches: dict[int, Branch] = {}
    roots: list[Branch] = []

    def branch_of(resource: Resource) -> Branch:
        known = branches.get(id(resource))

        if known is not None:
            return known

        branch = branches[id(resource)] = Branch(resource)
        parent = resource.parent

        if parent is None:
            roots.append(branch)
        else:
            branch_of(parent).children.append(branch)

        return branch

    for resource in resources:
        branch_of(resource).keeps = True

    return roots


def _link(branch: Branch, feed: Feed | None, feeds: list[Feed]) -> None:
    offering = Offering() if branch.children else None
    branch.link = Link(feed=feed, offering=offering, keeps=branch.keeps)

    if offering is None:
        return

    for child in branch.children:
        made = offering.feed()
        feeds.append(made)
        _link(child, made, feeds)
