"""A source: resources that share a schema, a name in the state, and settings."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, Self

from asyncelt import current
from asyncelt.errors import ConfigError, InvalidResourceData, UsageError
from asyncelt.extract.functions import check_name
from asyncelt.extract.graph import edges, lineage
from asyncelt.extract.resource import Contract, Resource
from asyncelt.schema.hints import merge_table_hints
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import naming_for
from asyncelt.schema.system import convention_of, new_schema

if TYPE_CHECKING:
    from asyncelt.info.steps import LoadInfo

__all__ = ["ResourceDict", "Source"]


class ResourceDict(Mapping[str, Resource]):
    """Resources of a source by name, in the order in which they were added."""

    def __init__(self, source_name: str) -> None:
        self._source_name = source_name
        self._resources: dict[str, Resource] = {}

    def __getitem__(self, name: str) -> Resource:
        try:
            return self._resources[name]
        except KeyError:
            raise KeyError(f"source {self._source_name!r} has no resource {name!r}; it has {self._names()}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._resources)

    def __len__(self) -> int:
        return len(self._resources)

    @property
    def selected(self) -> dict[str, Resource]:
        """The resources that are loaded."""
        return {name: resource for name, resource in self._resources.items() if resource.selected}

    @property
    def extracted(self) -> list[Resource]:
        """The resources that are read: those that are loaded, each followed by what it is fed by."""
        return [one for resource in self.selected.values() for one in lineage(resource)]

    @property
    def selected_dag(self) -> list[tuple[str, str]]:
        """What feeds what, as (parent, child), of resources that are loaded; one that stands alone is (name, name)."""
        return [edge for resource in self.selected.values() for edge in edges([one.name for one in lineage(resource)])]

    def __setitem__(self, name: str, resource: Resource) -> None:
        """Add a resource, or put it in the place of the one of its name; the source keeps a copy of its own.

        A transformer goes on reading from the resource that was there.

        Raises:
            ConfigError: This is not the resource's name.
        """
        if name != resource.name:
            raise ConfigError(
                f"Source {self._source_name!r}: resource {resource.name!r} cannot be kept as {name!r}: give it this "
                "name with with_name()."
            )

        self._keep(resource)
        self._relink()

    def detach(self, resource_name: str | None = None) -> Resource:
        """An independent copy of a resource, with what feeds it; of the first one where no name is given.

        Raises:
            KeyError: There is no such resource.
        """
        return _detached(self[next(iter(self), "") if resource_name is None else resource_name])

    def add(self, *resources: Resource) -> None:
        """Add resources; the source keeps copies of its own.

        Raises:
            InvalidResourceData: A resource of this name is here already.
        """
        for resource in resources:
            if resource.name in self._resources:
                raise InvalidResourceData(
                    f"Source {self._source_name!r} has a resource {resource.name!r} already. Give one of the two "
                    "another name with with_name(); both may keep the same table_name."
                )

            self._keep(resource)

        self._relink()

    def _keep(self, resource: Resource) -> None:
        kept = resource.clone_of_same()
        kept.source_name = self._source_name
        self._resources[kept.name] = kept

    def _relink(self) -> None:
        """Let transformers read from the resources of this source, rather than from those they were copied from."""
        own = {resource.origin: resource for resource in self._resources.values()}
        copies: dict[object, Resource] = {}

        def relinked(parent: Resource) -> Resource:
            if parent.origin in own:
                return own[parent.origin]

            if parent.origin not in copies:
                made = copies[parent.origin] = parent.clone_of_same()

                if made.parent is not None:
                    made.pipe_data_from(relinked(made.parent))

            return copies[parent.origin]

        for resource in self._resources.values():
            if resource.parent is not None:
                resource.pipe_data_from(relinked(resource.parent))

    def select(self, *names: str) -> dict[str, Resource]:
        """Select these resources and no others.

        Raises:
            ConfigError: There is no such resource; nothing has been changed then.
        """
        unknown = [name for name in names if name not in self._resources]

        if unknown:
            raise ConfigError(
                f"Source {self._source_name!r} has no resource {', '.join(map(repr, unknown))}; it has {self._names()}."
            )

        for name, resource in self._resources.items():
            resource.selected = name in names

        return self.selected

    def _names(self) -> str:
        return ", ".join(map(repr, self._resources)) or "none"


def _detached(resource: Resource) -> Resource:
    """A copy that reads from copies."""
    copied = resource.clone()

    if copied.parent is not None:
        copied.pipe_data_from(_detached(copied.parent))

    return copied


class Source:
    """Resources with one schema. Made by functions decorated with `asyncelt.source`.

    Args:
        name: Name of the source and of its schema.
        resources: At least none; each is copied.
        section: Accepted for the reference's sake.
        max_table_nesting: Levels of nested tables, for resources that do not say otherwise.
        root_key: Whether nested tables get the key of their root row even where no disposition needs it.
        schema_contract: For tables that do not have their own.
        schema: To start from; None: an empty one, or the pipeline's of this name.
    """

    def __init__(
        self,
        name: str,
        resources: Iterable[Resource] = (),
        *,
        section: str | None = None,
        max_table_nesting: int | None = None,
        root_key: bool | None = None,
        schema_contract: Contract | None = None,
        schema: Schema | None = None,
    ) -> None:
        check_name(name, "source")
        self.name = name
        self.section = section
        self.max_table_nesting = max_table_nesting
        self.root_key = root_key
        self.schema_contract = schema_contract
        self.given_schema = schema
        """The one to start from; None: nobody has given one."""
        self.is_gathered = False
        """Whether it was made for resources that came without a source; it leaves its schema's settings alone."""
        self.resources = ResourceDict(name)
        self.resources.add(*resources)

    @property
    def schema(self) -> Schema:
        """The schema to start from; an empty one of the source's name where none was given. Can be set."""
        return self.given_schema or new_schema(self.name)

    @schema.setter
    def schema(self, schema: Schema | None) -> None:
        self.given_schema = schema

    @property
    def schema_name(self) -> str:
        """Name of its schema, which is its key in the state."""
        return self.name if self.given_schema is None else self.given_schema.name

    @property
    def selected_resources(self) -> dict[str, Resource]:
        """The resources that are loaded."""
        return self.resources.selected

    @property
    def state(self) -> dict[str, object]:
        """The source's state, within a run of its pipeline; elsewhere a copy, as the active pipeline knows it.

        Raises:
            UsageError: There is no run, and no pipeline is active.
        """
        return current.known_state(self.schema_name)

    @property
    def exhausted(self) -> bool:
        """Whether data of a selected resource can be read only once, and has been: it cannot be run again."""
        return any(resource.is_exhausted for resource in self.selected_resources.values())

    def discover_schema(self, item: object = None, meta: object = None) -> Schema:  # noqa: ARG002
        """The source's schema with the tables that the hints of its selected resources make, before anything is read.

        Args:
            item: A row, for hints that are functions of one; None: tables of such resources are left out.
            meta: Accepted for the reference's sake.

        Raises:
            ConfigError: A hint is wrong.
            SchemaConflict: Hints and the schema do not join.
        """
        schema = self.schema
        naming = naming_for(convention_of(schema))

        for resource in self.selected_resources.values():
            if item is not None or not resource.needs_item:
                schema = merge_table_hints(schema, resource.hints_of_item(item), naming)

        return schema

    def with_resources(self, *resource_names: str) -> Self:
        """A copy in which only these resources are selected.

        Raises:
            ConfigError: There is no such resource; the message names those there are.
        """
        clone = self.clone()
        clone.resources.select(*resource_names)

        return clone

    def add_limit(
        self, max_items: int | None = None, max_time: float | None = None, *, count_rows: bool = False
    ) -> Self:
        """Limit each resource, as `Resource.add_limit` does. Transformers are limited by what feeds them."""
        for resource in self.resources.values():
            if not resource.is_transformer:
                resource.add_limit(max_items, max_time, count_rows=count_rows)

        return self

    def decompose(self, strategy: Literal["none", "scc"]) -> list[Self]:
        """Sources that can be run on their own and together load what this one loads.

        Args:
            strategy: ``scc``: one for each resource together with its transformers; ``none``: this one.

        Raises:
            ConfigError: There is no such strategy.
        """
        if strategy == "none":
            return [self]

        if strategy != "scc":
            raise ConfigError(f"decompose takes 'none' or 'scc', not {strategy!r}.")

        groups: dict[object, list[str]] = {}

        for name, resource in self.selected_resources.items():
            root = resource

            while root.parent is not None:
                root = root.parent

            groups.setdefault(root.origin, []).append(name)

        return [self.with_resources(*names) for names in groups.values()]

    async def run(self, **arguments: object) -> LoadInfo:
        """Run the active pipeline over this source.

        Args:
            arguments: Of `Pipeline.run`.

        Raises:
            UsageError: No pipeline is active.
        """
        active = current.activated.get()

        if active is None:
            raise UsageError(
                f"Source {self.name!r} cannot be run: no pipeline is active in this task. Make one with "
                "asyncelt.pipeline(...), or pass the source to its run()."
            )

        return await active.run(self, **arguments)  # type: ignore[arg-type]  # checked by what is called

    def parallelize(self) -> Self:
        """Accepted for the reference's sake: resources always run side by side."""
        return self

    def clone(self, with_name: str | None = None) -> Self:
        """An independent copy, its resources included, under another name if one is given."""
        clone = copy.copy(self)
        clone.name = with_name or self.name
        clone.resources = ResourceDict(clone.name)
        clone.resources.add(*self.resources.values())

        return clone

    def __getattr__(self, name: str) -> Resource:
        resources = self.__dict__.get("resources")

        if isinstance(resources, ResourceDict) and name in resources:
            return resources[name]

        raise AttributeError(f"Source {self.__dict__.get('name')!r} has no attribute and no resource {name!r}")

    async def __aiter__(self) -> AsyncIterator[object]:
        """The rows of all selected resources, one resource after the other. For looking at data."""
        for resource in self.selected_resources.values():
            async for row in resource:
                yield row

    def __repr__(self) -> str:
        return f"<asyncelt.source(name={self.name!r}, resources=[{', '.join(map(repr, self.resources))}])>"
