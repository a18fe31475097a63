"""Whether a destination can write what resources ask for. Checked before any data moves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from asyncelt.errors import ConfigError
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.load.protocol import Destination
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.hint_checks import SCD2_OPTIONS, STRATEGIES_OF_OPTION

__all__ = ["check_dispositions", "disposition_of"]

_logger = logging.getLogger("asyncelt")


def disposition_of(resource: Resource) -> str:
    """The resource's write disposition; ``append`` where it says nothing."""
    given = resource.write_disposition

    return given if isinstance(given, str) else str(given.get("disposition", "append"))


def check_dispositions(sources: Iterable[Source], destination: Destination) -> None:
    """Refuse dispositions and strategies that the destination does not have; warn of options that have no effect.

    Raises:
        ConfigError: Names the resource, what it asks for and what the destination can do.
    """
    for source in sources:
        for resource in source.selected_resources.values():
            _check_disposition(resource, destination)

            if disposition_of(resource) == "merge":
                _check_options(resource, destination.capabilities)


def _check_disposition(resource: Resource, destination: Destination) -> None:
    capabilities = destination.capabilities
    disposition = disposition_of(resource)
    strategy = _options_of(resource).get("strategy")
    merging = capabilities.strategies_for(resource.table_hints(resource.name).table_format)
    strategies = {"merge": merging, "replace": capabilities.replace_strategies}.get(disposition)
    possible = (*capabilities.write_dispositions, *(("merge",) if merging else ()))

    if disposition not in possible:
        raise ConfigError(
            f"Resource {resource.name!r} asks for {disposition!r}, which destination "
            f"{destination.destination_name!r} cannot do. It can: {', '.join(capabilities.write_dispositions)}."
        )

    if strategies is not None and strategy is not None and strategy not in strategies:
        raise ConfigError(
            f"Resource {resource.name!r} asks for {disposition} strategy {strategy!r}, which destination "
            f"{destination.destination_name!r} does not have. It has: {', '.join(strategies)}."
        )


def _check_options(resource: Resource, capabilities: Capabilities) -> None:
    """Options of a merge that its strategy, which the destination may have chosen, does not know."""
    options = _options_of(resource)
    merging = capabilities.strategies_for(resource.table_hints(resource.name).table_format)
    strategy = str(options.get("strategy") or next(iter(merging), ""))

    strategies_of_option = {**STRATEGIES_OF_OPTION, **dict.fromkeys(SCD2_OPTIONS, ("scd2",))}

    for option, knowing in strategies_of_option.items():
        if options.get(option) and strategy not in knowing:
            _logger.warning(
                "Resource %r: %s has no effect with the merge strategy %s, only with %s.",
                resource.name,
                option,
                strategy,
                ", ".join(knowing),
            )

    if resource.table_hints(resource.name).merge_key and strategy in {"upsert", "insert-only"}:
        _logger.warning(
            "Resource %r: merge_key has no effect with the merge strategy %s, which goes by the primary key.",
            resource.name,
            strategy,
        )


def _options_of(resource: Resource) -> Mapping[str, object]:
    given = resource.write_disposition

    return given if isinstance(given, Mapping) else {}
