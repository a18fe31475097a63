"""Extracted packages: what extract leaves behind for normalize, as values and as the text of their manifest.

A manifest says everything about a package but the bytes of its pages: hints of every table that pages came for, what
each resource asks for, the schema the source brought, and the state as of the end of the extraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import cast

from asyncelt.errors import PackageCorrupt
from asyncelt.schema.columns import declared_columns, is_pydantic_model, pydantic_contract
from asyncelt.schema.hints import NestedPath, TableHints
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_stored, to_stored
from asyncelt.storage.spool import StoredPage
from asyncelt.types import JsonValue, LoadId, OnError, PackageStatus

__all__ = ["ExtractedPackage", "ResourceRecord", "extracted_from_manifest", "extracted_to_manifest", "plain_hints"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRecord:
    """What one resource of an extraction asks for."""

    name: str
    schema_name: str
    table_name: str | None
    """None where a function of each row names the table."""
    write_disposition: str
    max_nesting: int | None = None
    on_error: OnError = "fail"
    hints: Mapping[str, TableHints] = field(default_factory=dict)
    """By raw table name, for every table that pages came for, and for the resource's own. Plain: no model classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedPackage:
    """One sealed package that waits for normalize."""

    load_id: LoadId
    pipeline_name: str
    dataset_name: str
    folder: Path
    schema: Schema
    """As hints alone have made it; normalize starts from the pipeline's own and lays the hints over it again."""
    brought: Schema | None
    """What the source came with, for a schema that the pipeline does not know yet."""
    resources: tuple[ResourceRecord, ...]
    pages: tuple[StoredPage, ...]
    news: tuple[tuple[int, TableHints], ...] = ()
    """Number of a page, and what its table's hints are from there on; plain."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes per page file."""
    state: str | None = None
    """Pipeline state as of the end of the extraction."""
    bundle: tuple[LoadId, ...] = ()
    run_id: str | None = None
    created_at: float = 0.0
    status: PackageStatus = "extracted"
    schema_contract: JsonValue = None
    file_format: str | None = None
    refresh: str | None = None
    refreshed_resources: tuple[str, ...] = ()
    """Resources that a refresh is about, with those that feed them. Their tables are looked up by normalize, which
    knows what the packages before this one have made of the schema."""

    @property
    def pages_folder(self) -> Path:
        """Where the page files lie."""
        return self.folder / "pages"


def plain_hints(hints: TableHints) -> TableHints:
    """The same hints without classes: models have become the columns and the contract that they stand for."""
    contract = hints.schema_contract or (pydantic_contract(hints.columns) if is_pydantic_model(hints.columns) else None)
    columns = None if hints.columns is None else declared_columns(hints.columns, f"Table {hints.name!r}")
    nested = None if hints.nested_hints is None else {k: _plain_nested(v) for k, v in hints.nested_hints.items()}

    return replace(hints, columns=columns, schema_contract=contract, nested_hints=nested)


def _plain_nested(raw: TableHints | Mapping[str, object]) -> TableHints | Mapping[str, object]:
    if isinstance(raw, TableHints):
        return plain_hints(raw)

    columns = raw.get("columns")

    if columns is None:
        return raw

    contract = {"schema_contract": pydantic_contract(columns)} if is_pydantic_model(columns) else {}

    return {**contract, **raw, "columns": declared_columns(columns, "Nested hints")}  # type: ignore[arg-type]


def extracted_to_manifest(package: ExtractedPackage) -> dict[str, object]:
    """The manifest as plain values; dates in hints stay dates (typed JSON carries them)."""
    return {
        "load_id": package.load_id,
        "pipeline_name": package.pipeline_name,
        "dataset_name": package.dataset_name,
        "status": package.status,
        "created_at": package.created_at,
        "bundle": list(package.bundle),
        "run_id": package.run_id,
        "state": package.state,
        "schema": to_stored(package.schema),
        "brought": to_stored(package.brought) if package.brought is not None else None,
        "schema_contract": package.schema_contract,
        "file_format": package.file_format,
        "refresh": package.refresh,
        "refreshed_resources": list(package.refreshed_resources),
        "sizes": dict(package.sizes),
        "resources": [_resource_to_plain(one) for one in package.resources],
        "news": [[number, _hints_to_plain(hints)] for number, hints in package.news],
        "pages": [asdict(page) for page in package.pages],
    }


def extracted_from_manifest(folder: Path, manifest: Mapping[str, object]) -> ExtractedPackage:
    """The package that a manifest describes.

    Raises:
        PackageCorrupt: It is incomplete.
    """
    known = cast("dict[str, object]", dict(manifest))

    try:
        brought = known["brought"]

        return ExtractedPackage(
            load_id=LoadId(cast(str, known["load_id"])),
            pipeline_name=cast(str, known["pipeline_name"]),
            dataset_name=cast(str, known["dataset_name"]),
            folder=folder,
            schema=from_stored(cast("dict[str, JsonValue]", known["schema"])),
            brought=None if brought is None else from_stored(cast("dict[str, JsonValue]", brought)),
            resources=tuple(_resource_from_plain(one) for one in cast("list[dict[str, object]]", known["resources"])),
            pages=tuple(_page_from_plain(one) for one in cast("list[dict[str, object]]", known["pages"])),
            news=tuple(
                (number, _hints_from_plain(hints))
                for number, hints in cast("list[tuple[int, dict[str, object]]]", known["news"])
            ),
            sizes=cast("dict[str, int]", known["sizes"]),
            state=cast("str | None", known["state"]),
            bundle=tuple(LoadId(one) for one in cast("list[str]", known["bundle"])),
            run_id=cast("str | None", known["run_id"]),
            created_at=cast(float, known["created_at"]),
            status=cast(PackageStatus, known["status"]),
            schema_contract=cast(JsonValue, known["schema_contract"]),
            file_format=cast("str | None", known["file_format"]),
            refresh=cast("str | None", known["refresh"]),
            refreshed_resources=tuple(cast("list[str]", known["refreshed_resources"])),
        )
    except (KeyError, TypeError) as error:
        raise PackageCorrupt(f"The manifest of load package {folder.name} is incomplete: {error}") from error


def _page_from_plain(raw: Mapping[str, object]) -> StoredPage:
    bodies = tuple((length, items) for length, items in cast("list[tuple[int, str | None]]", raw["bodies"]))

    return StoredPage(**{**raw, "bodies": bodies})  # type: ignore[arg-type]


def _resource_to_plain(record: ResourceRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "schema_name": record.schema_name,
        "table_name": record.table_name,
        "write_disposition": record.write_disposition,
        "max_nesting": record.max_nesting,
        "on_error": record.on_error,
        "hints": [[table, _hints_to_plain(hints)] for table, hints in record.hints.items()],
    }


def _resource_from_plain(raw: Mapping[str, object]) -> ResourceRecord:
    hints = {table: _hints_from_plain(one) for table, one in cast("list[tuple[str, dict[str, object]]]", raw["hints"])}

    return ResourceRecord(**{**raw, "hints": hints})  # type: ignore[arg-type]


def _hints_to_plain(hints: TableHints) -> dict[str, object]:
    """Only what was said; nested hints as pairs, since their paths are no text."""
    said = {one.name: getattr(hints, one.name) for one in fields(hints)}
    found = {name: value for name, value in said.items() if value is not None and value != {}}

    # An empty list of keys removes what was there before: it is something that was said.
    if hints.nested_hints is not None:
        found["nested_hints"] = [
            [
                [path] if isinstance(path, str) else list(path),
                isinstance(path, str),
                _hints_to_plain(raw) if isinstance(raw, TableHints) else dict(raw),
                isinstance(raw, TableHints),
            ]
            for path, raw in hints.nested_hints.items()
        ]

    if hints.columns is not None:
        found["columns"] = hints.columns

    return found


def _hints_from_plain(raw: Mapping[str, object]) -> TableHints:
    known = dict(raw)
    nested = cast("Sequence[tuple[list[str], bool, dict[str, object], bool]] | None", known.get("nested_hints"))

    if nested is not None:
        known["nested_hints"] = {
            cast("NestedPath", path[0] if is_text else tuple(path)): _hints_from_plain(one) if is_hints else one
            for path, is_text, one, is_hints in nested
        }

    return TableHints(**known)  # type: ignore[arg-type]
