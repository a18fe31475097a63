"""Whether a destination can write what resources ask for. Checked before any data moves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asyncelt.errors import ConfigError
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.load.protocol import Destination

__all__ = ["check_dispositions", "disposition_of"]


def disposition_of(resource: Resource) -> str:
    """The resource's write disposition; ``append`` where it says nothing."""
    given = resource.write_disposition

    return given if isinstance(given, str) else str(given.get("disposition", "append"))


def check_dispositions(sources: Iterable[Source], destination: Destination) -> None:
    """Refuse dispositions and strategies that the destination does not have.

    Raises:
        ConfigError: Names the resource, what it asks for and what the destination can do.
    """
    capabilities = destination.capabilities

    for source in sources:
        for resource in source.selected_resources.values():
            given = resource.write_disposition
            disposition = disposition_of(resource)
            strategy = given.get("strategy") if isinstance(given, Mapping) else None

            if disposition not in capabilities.write_dispositions:
                raise ConfigError(
                    f"Resource {resource.name!r} asks for {disposition!r}, which destination "
                    f"{destination.destination_name!r} cannot do. It can: {', '.join(capabilities.write_dispositions)}."
                )

            if disposition == "merge" and strategy is not None and strategy not in capabilities.merge_strategies:
                raise ConfigError(
                    f"Resource {resource.name!r} asks for merge strategy {strategy!r}, which destination "
                    f"{destination.destination_name!r} does not have. It has: "
                    f"{', '.join(capabilities.merge_strategies)}."
                )
