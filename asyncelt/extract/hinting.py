"""Hints that change: laid over others, functions of a row, and those that come with the data."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, TypeAlias, cast

from asyncelt.errors import ConfigError
from asyncelt.schema.columns import declared_columns, is_pydantic_model, pydantic_contract
from asyncelt.schema.hints import NestedPath, TableHints, validate_hints
from asyncelt.types import JsonValue

__all__ = [
    "DYNAMIC",
    "Contract",
    "HintBook",
    "Names",
    "NestedHints",
    "WriteDispositionHint",
    "changed",
    "is_dynamic",
    "resolved",
    "settled",
    "variant",
]

WriteDispositionHint: TypeAlias = str | Mapping[str, object]
Names: TypeAlias = str | Sequence[str]
Contract: TypeAlias = str | Mapping[str, JsonValue]
NestedHints: TypeAlias = Mapping[NestedPath, TableHints | Mapping[str, object]]

DYNAMIC: Final = (
    "parent",
    "write_disposition",
    "columns",
    "primary_key",
    "merge_key",
    "schema_contract",
    "table_format",
    "file_format",
    "references",
)
"""Hints that may be functions of a row, if the table's name is one."""
_REMOVED_BY_EMPTY: Final = ("parent", "write_disposition", "schema_contract", "table_format", "file_format")


def changed(hints: TableHints, changes: Mapping[str, object]) -> TableHints:
    """Hints with others laid over them, as the reference does it.

    None leaves a hint as it is, an empty value removes it. Columns and references are joined with those there are;
    every other hint is replaced.

    Raises:
        ConfigError: There is no such hint, or columns cannot be read.
    """
    known = {item.name for item in fields(TableHints)}
    given = {key: value for key, value in changes.items() if value is not None}

    if unknown := sorted(set(given) - known):
        raise ConfigError(f"There are no hints {', '.join(unknown)}; there are {', '.join(sorted(known))}.")

    for key in _REMOVED_BY_EMPTY:
        if key in given and not given[key]:
            given[key] = None

    given.update(_joined(hints, given))

    return replace(hints, **given)  # type: ignore[arg-type]


def _joined(hints: TableHints, given: Mapping[str, object]) -> dict[str, object]:
    """The hints that are not replaced but joined with what there is."""
    joined: dict[str, object] = {}
    columns = given.get("columns")
    model = next((one for one in (columns, hints.columns) if is_pydantic_model(one)), None)

    if columns and hints.columns and not is_dynamic(columns) and not is_dynamic(hints.columns):
        where = f"Table {hints.name!r}"
        merged = declared_columns(hints.columns, where)

        for name, properties in declared_columns(columns, where).items():  # type: ignore[arg-type]
            merged[name] = {**merged.get(name, {}), **properties}

        joined["columns"] = merged

        # The contract that a model implies stays, although the model is not seen any more in what it has become.
        if model is not None and "schema_contract" not in given and not hints.schema_contract:
            joined["schema_contract"] = pydantic_contract(model)

    references = given.get("references")

    if references and hints.references and not is_dynamic(references) and not is_dynamic(hints.references):
        by_table = {str(one.get("referenced_table")): one for one in hints.references}
        by_table.update({str(one.get("referenced_table")): one for one in cast("list[Any]", references)})
        joined["references"] = list(by_table.values())

    if given.get("additional") and hints.additional:
        joined["additional"] = {**hints.additional, **cast("Mapping[str, Any]", given["additional"])}

    return joined


def variant(known: TableHints | None, base: TableHints, changes: Mapping[str, object], table: str) -> TableHints:
    """Hints of one table of a resource.

    Args:
        known: Its own hints so far; None: it has none.
        base: The resource's, to begin with.
        changes: To lay over them.
        table: Its name.

    Raises:
        ConfigError: A hint is a function, or is wrong.
    """
    if wrong := sorted(key for key, value in changes.items() if is_dynamic(value)):
        raise ConfigError(f"Table {table!r}: hints of one table cannot be functions: {', '.join(wrong)}.")

    before = known or replace(settled(base), incremental=None)

    return changed(changed(before, changes), {"additional": {"variant_name": table}})


def is_dynamic(hint: object) -> bool:
    """Whether a hint is a function of a row. Classes are columns, not functions."""
    # What cannot be called is told first: most hints are nothing, and a small run asks a hundred times.
    if not callable(hint):
        return False

    return isinstance(hint, functools.partial) or inspect.isroutine(hint)


def settled(hints: TableHints) -> TableHints:
    """The hints without those that need a row."""
    dynamic: dict[str, Any] = {name: None for name in DYNAMIC if is_dynamic(getattr(hints, name))}

    return replace(hints, **dynamic) if dynamic else hints


def resolved(hints: TableHints, row: object) -> TableHints:
    """The hints of the table of one row. Raises whatever a user's function raises."""
    return replace(
        hints,
        **{name: value(row) for name in DYNAMIC if is_dynamic(value := getattr(hints, name))},
    )


@dataclass(slots=True)
class HintBook:
    """The hints of a resource's tables in one run, as they are at the row at hand.

    Args:
        resource: Name of the resource, for errors.
        base: The resource's hints.
    """

    resource: str
    base: TableHints
    variants: dict[str, TableHints] = field(default_factory=dict)
    """Hints of tables that were given hints of their own, by name."""
    told: dict[str, TableHints] = field(default_factory=dict)
    """What the engine knows of each table that had news."""

    is_live: bool = field(init=False)
    """Whether hints have to be looked at for each row: they are functions, or have changed since the run began."""

    def __post_init__(self) -> None:
        self.is_live = self._is_dynamic()

    def _is_dynamic(self) -> bool:
        return any(is_dynamic(getattr(self.base, name)) for name in DYNAMIC)

    def news_of(self, table: str, row: object) -> TableHints | None:
        """The hints of a row's table, if they are not what the engine knows.

        Raises:
            ConfigError: A function gave something that is no hint.
        """
        if table in self.variants or not self.is_live:
            return None

        return self._news(table, resolved(self.base, row))

    def change(self, changes: Mapping[str, object], table: str, *, is_variant: bool) -> TableHints | None:
        """Take hints that have come with the data.

        Args:
            changes: The hints.
            table: Table they are for.
            is_variant: Whether they are for that table alone, rather than for the resource.

        Returns:
            The table's hints, if they are news to the engine.

        Raises:
            ConfigError: A hint is wrong, or cannot be changed while a resource is read.
        """
        if changes.get("incremental") is not None:
            raise ConfigError(
                f"Resource {self.resource!r}: an incremental cannot be given while the resource is read; use "
                "apply_hints before the run."
            )

        given = {key: value for key, value in changes.items() if key not in ("table_name", "incremental")}

        if is_variant:
            self.variants[table] = variant(self.variants.get(table), self.base, given, table)

            return self._news(table, self.variants[table])

        self.base = changed(self.base, given)
        self.told.clear()
        self.is_live = True

        return None if self._is_dynamic() else self._news(table, self.base)

    def _news(self, table: str, hints: TableHints) -> TableHints | None:
        hints = replace(hints, name=table, resource=self.resource)

        if self.told.get(table) == hints:
            return None

        validate_hints(hints)
        self.told[table] = hints

        return hints
