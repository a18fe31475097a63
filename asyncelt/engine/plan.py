"""What is known about a run before its first page, whichever way it runs: fused, or step by step over stored pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from asyncelt import current
from asyncelt.configuration.settings import configured_naming
from asyncelt.engine.dispositions import disposition_of
from asyncelt.engine.intake import ResourcePlan
from asyncelt.engine.ownership import next_load_ids
from asyncelt.engine.source_settings import (
    SchemaSettings,
    settings_of_schema,
    settings_of_source,
    with_settings,
)
from asyncelt.extract.graph import lineage
from asyncelt.extract.resource import Resource
from asyncelt.extract.source import Source
from asyncelt.schema.capabilities import Capabilities
from asyncelt.schema.evolve import bump, drop_tables
from asyncelt.schema.hints import TableHints
from asyncelt.schema.joining import completed, joined, under_convention
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import Naming, naming_for
from asyncelt.schema.quarantine import QUARANTINE_TABLE
from asyncelt.schema.system import convention_of, is_system_name, new_schema
from asyncelt.storage.extracted import ExtractedPackage, ResourceRecord, plain_hints
from asyncelt.storage.head import Tip
from asyncelt.types import FileFormat, JsonValue, LoadId, Refresh, TableName

__all__ = [
    "Refreshed",
    "RunPlan",
    "RunRequest",
    "naming_of",
    "parents_of",
    "plan_of_extracted",
    "plan_of_sources",
    "record_of",
    "reset_state",
    "resource_plan",
    "starting_schema",
    "under_contract",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What one call asks for, checked."""

    sources: tuple[Source, ...]
    run_id: str | None = None
    file_format: FileFormat | None = None
    schema_contract: JsonValue = None
    """Kept as the schemas' own contract too, so that later runs go by it."""
    refresh: Refresh | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a refresh takes away from one schema."""

    dropped: tuple[TableName, ...] = ()
    """Tables that go, at the destination too."""
    truncated: tuple[TableName, ...] = ()
    """Tables whose rows go."""
    roots: tuple[TableName, ...] = ()
    """Root tables that leave the schema."""
    anew: bool = False
    """Whether the schema itself starts anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """The packages of a run and the resources that fill them."""

    load_ids: Mapping[str, LoadId]
    """By schema name, sorted by it."""
    created_at: float
    resources: tuple[ResourcePlan, ...]
    brought: Mapping[str, Schema] = field(default_factory=dict)
    """Schemas that sources came with."""
    settings: Mapping[str, SchemaSettings] = field(default_factory=dict)
    """What sources say about their schemas, by schema name."""
    conventions: Mapping[str, str] = field(default_factory=dict)
    """Naming conventions that are configured, by schema name."""
    run_id: str | None = None
    file_format: FileFormat | None = None
    schema_contract: JsonValue = None
    refresh: Refresh | None = None
    refreshed: Mapping[str, Refreshed] = field(default_factory=dict)
    """By schema name."""

    @property
    def schema_names(self) -> list[str]:
        """Names of the schemas, sorted."""
        return list(self.load_ids)

    @property
    def first_id(self) -> LoadId:
        """Load id that the run goes by."""
        return next(iter(self.load_ids.values()))


def plan_of_sources(
    request: RunRequest, tip: Tip, *, default_schema_name: str, last_load_id: LoadId | None, forced_nesting: int | None
) -> tuple[RunPlan, list[tuple[Source, Resource, ResourcePlan]]]:
    """Plan a run over sources.

    Args:
        request: The call.
        tip: Where the pipeline stands.
        default_schema_name: Name of the schema of a run without any source.
        last_load_id: Greatest id known in the dataset.
        forced_nesting: What the destination says about ``max_table_nesting``.

    Returns:
        The plan, and what to read for it.
    """
    reading = [
        (source, resource, resource_plan(source, resource, forced_nesting))
        for source in request.sources
        for resource in source.selected_resources.values()
        if disposition_of(resource) != "skip"
    ]
    names = sorted({source.schema_name for source in request.sources}) or [default_schema_name]
    created_at = time.time()
    load_ids = next_load_ids(created_at, last_load_id, len(names))
    refreshed = {}

    if request.refresh is not None:
        for name in names:
            known = tip.schemas.get(name)

            if known is not None:
                refreshed[name] = _refreshed(known, request.refresh, _with_parents(reading, name))

    return RunPlan(
        load_ids=dict(zip(names, load_ids, strict=True)),
        created_at=created_at,
        resources=tuple(plan for _, _, plan in reading),
        brought={one.schema_name: one.given_schema for one in request.sources if one.given_schema is not None},
        settings={one.schema_name: said for one in request.sources if (said := settings_of_source(one)) is not None},
        conventions=_conventions(names),
        run_id=request.run_id,
        file_format=request.file_format,
        schema_contract=request.schema_contract,
        refresh=request.refresh,
        refreshed=refreshed,
    ), reading


def plan_of_extracted(bundle: Sequence[ExtractedPackage], tip: Tip, *, forced_nesting: int | None) -> RunPlan:
    """The plan that a bundle of stored pages was made under.

    Args:
        bundle: Packages of one extract call.
        tip: Where the pipeline stands, without this bundle.
        forced_nesting: What the destination says about ``max_table_nesting``.
    """
    first = bundle[0]
    refresh = cast("Refresh | None", first.refresh)
    refreshed = {}

    for package in bundle:
        known = tip.schemas.get(package.schema.name)

        if refresh is not None and known is not None:
            refreshed[known.name] = _refreshed(known, refresh, set(package.refreshed_resources))

    return RunPlan(
        load_ids={package.schema.name: package.load_id for package in bundle},
        created_at=first.created_at,
        resources=tuple(_plan_of_record(one, forced_nesting) for package in bundle for one in package.resources),
        brought={package.schema.name: package.brought for package in bundle if package.brought is not None},
        settings={package.schema.name: settings_of_schema(package.schema) for package in bundle},
        conventions=_conventions(package.schema.name for package in bundle),
        run_id=first.run_id,
        file_format=cast("FileFormat | None", first.file_format),
        schema_contract=first.schema_contract,
        refresh=refresh,
        refreshed=refreshed,
    )


def record_of(plan: ResourcePlan, tables: Iterable[str]) -> ResourceRecord:
    """A resource as its extracted package remembers it, with the hints of these raw tables."""
    return ResourceRecord(
        name=plan.name,
        schema_name=plan.schema_name,
        table_name=plan.table_name,
        write_disposition=plan.write_disposition,
        max_nesting=plan.max_nesting,
        on_error=plan.on_error,
        hints={table: plain_hints(plan.hints(table)) for table in tables},
    )


def starting_schema(plan: RunPlan, tip: Tip, name: str, capabilities: Capabilities) -> Schema:
    """The schema that a run begins with: the pipeline's with what a source brings laid over it, else an empty one.

    The table of rows in quarantine outlives a schema that starts anew: those rows are nowhere else.

    Raises:
        TableIdentifiersFrozen: Configuration or the destination asks for another naming convention than that of the
            tables that have data.
        SchemaConflict: What a source brings does not join what is known.
    """
    known = tip.schemas.get(name)
    refreshed = plan.refreshed.get(name, Refreshed())
    settings = plan.settings.get(name)
    convention = plan.conventions.get(name) or capabilities.naming_convention

    if known is not None and not refreshed.anew:
        kept = drop_tables(known, refreshed.roots) if refreshed.roots else known
        brought = plan.brought.get(name)

        if brought is not None and brought is not known:
            kept = joined(kept, completed(brought, convention_of(known)), capabilities)

        return under_convention(with_settings(kept, settings), convention, capabilities)

    fresh = _fresh_schema(plan, name, convention, capabilities)
    quarantine = known.tables.get(QUARANTINE_TABLE) if known is not None else None

    return fresh if quarantine is None else replace(fresh, tables={**fresh.tables, quarantine.name: quarantine})


def _fresh_schema(plan: RunPlan, name: str, convention: str | None, capabilities: Capabilities) -> Schema:
    settings = plan.settings.get(name)
    default = convention or "snake_case"
    brought = plan.brought.get(name)
    blank = new_schema(name, naming=default) if brought is None else completed(brought, default)

    if not blank.version_hash:
        # An empty schema is version 1, so the first one with tables is version 2.
        blank = bump(with_settings(blank, settings))

    return under_convention(with_settings(blank, settings), convention, capabilities)


def _conventions(names: Iterable[str]) -> dict[str, str]:
    return {name: found for name in names if (found := configured_naming(name)) is not None}


def under_contract(plan: RunPlan, schema: Schema) -> Schema:
    """The schema with the contract of the call as its own."""
    contract = plan.schema_contract

    return replace(schema, settings={**schema.settings, "schema_contract": contract}) if contract else schema


def naming_of(schema: Schema, capabilities: Capabilities) -> Naming:
    """The convention of a schema, within the destination's limits."""
    return naming_for(convention_of(schema), capabilities.max_identifier_length)


def reset_state(state: dict[str, object], plan: RunPlan, parents: Mapping[str, Iterable[str]]) -> None:
    """Forget what resources that start over have remembered: those that replace, and those of a refresh.

    Args:
        state: The pipeline's document; changed in place.
        plan: The run.
        parents: By schema name, resources that feed those of the plan.
    """
    for name in plan.refreshed:
        # As in the reference, a source without state gets no place of its own here, unlike below.
        sources = cast("dict[str, object]", state.setdefault("sources", {}))

        if name not in sources:
            continue

        if plan.refresh == "drop_sources":
            del sources[name]
        else:
            for resource in {*parents.get(name, ()), *(one.name for one in plan.resources if one.schema_name == name)}:
                _reset_resource(state, name, resource)

    for one in plan.resources:
        if one.write_disposition == "replace":
            _reset_resource(state, one.schema_name, one.name)


def _reset_resource(state: dict[str, object], schema_name: str, resource_name: str) -> None:
    resources = current.source_state_of(state, schema_name).get("resources")

    if isinstance(resources, dict):
        resources.pop(resource_name, None)


def resource_plan(source: Source, resource: Resource, forced: int | None) -> ResourcePlan:
    """What the engine knows about one resource. ``forced``: what the destination says about ``max_table_nesting``."""
    nesting = resource.max_table_nesting
    nesting = source.max_table_nesting if nesting is None else nesting
    table = resource.table_name

    return ResourcePlan(
        name=resource.name,
        schema_name=source.schema_name,
        hints=resource.table_hints,
        max_nesting=nesting if forced is None else forced,
        table_name=table if isinstance(table, str) else None,
        write_disposition=disposition_of(resource),
        on_error=resource.on_error,
        parents=tuple(one.name for one in lineage(resource))[1:],
    )


def _plan_of_record(record: ResourceRecord, forced: int | None) -> ResourcePlan:
    return ResourcePlan(
        name=record.name,
        schema_name=record.schema_name,
        hints=_lookup(record),
        max_nesting=record.max_nesting if forced is None else forced,
        table_name=record.table_name,
        write_disposition=record.write_disposition,
        on_error=record.on_error,
    )


def _lookup(record: ResourceRecord) -> Callable[[str], TableHints]:
    def hints(table: str) -> TableHints:
        return record.hints[table]

    return hints


def _with_parents(reading: Iterable[tuple[Source, Resource, ResourcePlan]], schema_name: str) -> set[str]:
    names: set[str] = set()

    for _, resource, plan in reading:
        if plan.schema_name == schema_name:
            names.update(one.name for one in lineage(resource))

    return names


def parents_of(reading: Iterable[tuple[Source, Resource, ResourcePlan]]) -> dict[str, set[str]]:
    """By schema name: the resources that are read, and those that feed them."""
    pairs = list(reading)

    return {name: _with_parents(pairs, name) for name in {plan.schema_name for _, _, plan in pairs}}


def _refreshed(schema: Schema, mode: Refresh, resources: set[str]) -> Refreshed:
    roots = [
        table.name
        for table in schema.tables.values()
        if table.parent is None
        and not is_system_name(table.name)
        and table.name != QUARANTINE_TABLE
        and (mode == "drop_sources" or table.resource in resources)
    ]
    # What has never had a row does not exist at the destination.
    loaded = tuple(table.name for root in roots for table in schema.chain_of(root) if table.seen_data)

    if mode == "drop_data":
        return Refreshed(truncated=loaded)

    return Refreshed(dropped=loaded, roots=tuple(roots), anew=mode == "drop_sources")
