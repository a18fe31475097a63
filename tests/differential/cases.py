"""What a differential case is: runs over one dataset, told to both sides in the same words."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

__all__ = ["Case", "Run", "case", "is_json"]

Page = Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One call of ``run`` with the pages one resource yields."""

    pages: tuple[Page, ...]
    table_name: str = "items"
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of ``run``: write_disposition, primary_key, columns, schema_contract, ..."""
    hints: Mapping[str, object] = field(default_factory=dict)
    """Keyword arguments of ``resource``: max_table_nesting, merge_key, ..."""
    nested_hints: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Path of a nested table, ``a/b``, to its hints."""
    schema: Mapping[str, Any] | None = None
    """Stored form of the schema that is passed, without what every schema has."""
    naming: str | None = None
    """Naming convention that is configured while it runs."""
    counts: bool = False
    """The resource counts its runs in its state, and each row has the number as ``run``."""

    def counted(self, state: MutableMapping[str, Any]) -> Sequence[Page]:
        """The pages with the number of this run, which goes into the resource's state."""
        number = state["runs"] = state.get("runs", 0) + 1

        return [[{**cast("dict[str, object]", row), "run": number} for row in page] for page in self.pages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Runs in order over one fresh pipeline. ``id`` starts with the number of its group of rules."""

    id: str
    runs: tuple[Run, ...]
    exact_ids: bool = False
    """Whether ``_dlt_id`` values are deterministic, so that they are compared as they are."""
    naming: str | None = None
    raises: str | None = None
    """Both sides refuse the last run; asyncelt's message has this word. What the earlier runs loaded stays."""
    forms: tuple[str, ...] | None = None
    """Forms in which asyncelt gets the pages; None: all that can carry the values."""


def case(
    id: str,  # noqa: A002
    *rows: object,
    then: Sequence[Sequence[object]] = (),
    table_name: str = "items",
    hints: Mapping[str, object] | None = None,
    exact_ids: bool = False,
    naming: str | None = None,
    raises: str | None = None,
    forms: tuple[str, ...] | None = None,
    nested_hints: Mapping[str, Mapping[str, object]] | None = None,
    **arguments: object,
) -> Case:
    """A case over one table: ``rows`` in the first run as one page, each of ``then`` in a run of its own."""
    runs = tuple(
        Run(
            pages=(tuple(page),),
            table_name=table_name,
            arguments=arguments,
            hints=hints or {},
            nested_hints=nested_hints or {},
        )
        for page in (rows, *then)
    )

    return Case(id=id, runs=runs, exact_ids=exact_ids, naming=naming, raises=raises, forms=forms)


def is_json(value: object) -> bool:
    """Whether JSON carries the value without loss, so that it may be sent as bytes."""
    if value is None or isinstance(value, (str, bool)):
        return True

    if isinstance(value, int):
        return True

    if isinstance(value, float):
        return value == value and abs(value) != float("inf")

    if type(value) is dict:
        return all(type(key) is str and is_json(item) for key, item in value.items())

    if type(value) is list or type(value) is tuple:
        return all(is_json(item) for item in value)

    return False
