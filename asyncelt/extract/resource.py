"""A resource: a stream of items, the steps they go through and the hints of the tables they end up in."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from asyncelt.arguments import FUNCTION, NAMES, expect
from asyncelt.errors import ConfigError, UsageError
from asyncelt.extract.binding import Call
from asyncelt.extract.checks import checked_policy, without_arguments, without_parent
from asyncelt.extract.definition import Definition
from asyncelt.extract.functions import is_function, row_function
from asyncelt.extract.hinting import Contract, Names, NestedHints, WriteDispositionHint, changed, variant
from asyncelt.extract.incremental import Incremental, IncrementalStep
from asyncelt.extract.incremental.definition import KeyHint
from asyncelt.extract.requests import TableName
from asyncelt.extract.steps import (
    FilterStep,
    ItemStep,
    LimitStep,
    MapStep,
    MetricsStep,
    SelectStep,
    Step,
    ValidatorStep,
    YieldMapStep,
    insert_step,
    limit_step,
)
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.hints import TableHints, validate_hints
from asyncelt.types import JsonValue, OnError

__all__ = ["Contract", "Names", "NestedHints", "Reading", "Resource", "WriteDispositionHint"]


@dataclass(frozen=True, slots=True)
class Reading:
    """What one run of a resource reads, and what its items go through."""

    data: object
    steps: tuple[Step, ...]


class Resource(Definition):
    """Data with a name. Building one reads nothing; the data is read when a run, or ``async for``, asks for it.

    Made by `asyncelt.resource`; the methods change the resource and return it, so that they can be chained.

    Args:
        data: A function, generator, iterable, coroutine, frame, table, JSON body, list of rows, or one row.
        name: Name of the resource: key of its state, and of its table unless ``table_name`` says otherwise.
        hints: Of the resource's tables; ``hints.name`` is not used.
        table_name: Name of the table, or a function of a row that gives it.
        selected: Whether a source that holds this resource loads it.
        section: Accepted for the reference's sake.
        parallelized: Accepted for the reference's sake: resources always run side by side.
        parent: The resource a transformer takes its items from.
        steps: What items go through.
        on_error: What its failure, or a row of it that cannot be loaded, costs.

    Raises:
        ConfigError: Name or hints are wrong.
        InvalidResourceData: The data cannot be read.
    """

    # ------------------------------------------------------------------ reading

    def reading(self, state_of: Callable[[str], dict[str, object]], *, feed: object = None) -> Reading:
        """What one run reads, with a cursor that is bound to the state.

        Args:
            state_of: Gives the state of a resource by its name.
            feed: Items for a transformer; None: they are read from its parent, whose steps come first.

        Raises:
            ConfigError: Arguments, a parent or a cursor path are missing.
        """
        if self.requires_args:
            raise without_arguments(self.name, self._function(), is_transformer=self._is_transformer)

        cursor = _bound_cursor(self.cursor, self.hints, self.name, state_of)
        data = self._call().ready(cursor) if is_function(self._data) else self._data
        steps = self._steps

        if self._validator is not None:
            steps = insert_step(steps, ValidatorStep(self._validator, self._on_error))

        if cursor is not None:
            steps = insert_step(steps, IncrementalStep(cursor, closes=not self._is_transformer))

        if not self._is_transformer:
            return Reading(data, steps)

        step = ItemStep(cast("Callable[[object], object]", data), self.name, self.parallelized)

        if feed is not None:
            return Reading(feed, (step, *steps))

        if self._parent is None:
            raise without_parent(self.name)

        parent = self._parent.reading(state_of)

        return Reading(parent.data, (*parent.steps, step, *steps))

    # ------------------------------------------------------------------ arguments and copies

    def __call__(self, *args: object, **kwargs: object) -> Resource:
        """A copy with the function's arguments bound. The function is not called yet.

        Raises:
            UsageError: The arguments are bound already, or there is no function.
            TypeError: The function does not take these arguments.
        """
        return self.clone().bind(*args, **kwargs)

    def bind(self, *args: object, **kwargs: object) -> Self:
        """Bind the function's arguments in place.

        Raises:
            UsageError: The arguments are bound already, or there is no function.
            TypeError: The function does not take these arguments.
        """
        if self.args_bound:
            why = "it has its arguments already" if self._arguments else "it was made from data, not from a function"
            raise UsageError(f"Resource {self.name!r} cannot be called: {why}.")

        call = Call(self._function(), args, kwargs, takes_item=self._is_transformer)

        try:
            call.arguments  # noqa: B018 - whether the function takes them
        except TypeError as error:
            raise TypeError(
                f"Resource {self.name!r}: {error} in a call of {inspect.signature(self._function())}"
            ) from None

        self._arguments = call

        return self

    def clone(self, name: str | None = None) -> Self:
        """An independent copy, under another name if one is given. Data that can be read once stays shared."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.name = self.name if name is None else name
        copy.source_name = None
        copy.origin = object()

        if name is not None:
            copy._check()

        return copy

    def clone_of_same(self) -> Self:
        """A copy that stands for this very resource: transformers of this one may read from the copy instead."""
        copy = self.clone()
        copy.origin = self.origin

        return copy

    def with_name(self, new_name: str, new_section: str | None = None) -> Self:
        """A copy with a name, and so a state and by default a table, of its own; with a section too if it is given."""
        copy = self.clone(new_name)
        copy.section = new_section or copy.section
        return copy

    # ------------------------------------------------------------------ steps

    def add_map(self, item_map: Callable[..., object], insert_at: int | None = None) -> Self:
        """Replace each row by what ``item_map`` returns for it.

        Args:
            item_map: Plain or asynchronous function of one row. Rows of pages and JSON bodies come one by one, Arrow
                tables and frames as they are. None for a row that was yielded alone drops it.
            insert_at: Position among the steps; None: behind the others.
        """
        return self.add_step(MapStep(row_function(item_map, "add_map")), insert_at)

    def add_filter(self, item_filter: Callable[..., object], insert_at: int | None = None) -> Self:
        """Keep the rows for which ``item_filter`` (plain or asynchronous) is true."""
        return self.add_step(FilterStep(row_function(item_filter, "add_filter")), insert_at)

    def add_yield_map(self, item_map: Callable[..., object], insert_at: int | None = None) -> Self:
        """Replace each row by the items that ``item_map`` (a plain or asynchronous generator) yields for it."""
        return self.add_step(YieldMapStep(row_function(item_map, "add_yield_map")), insert_at)

    def add_metrics(self, metrics_f: Callable[..., object], insert_at: int | None = None) -> Self:
        """Call ``metrics_f(items, meta, metrics)`` for each item: it counts in ``metrics``, a dict; meta is None.

        The dict is `asyncelt.current.resource_metrics()` of the run, and part of the run's info.
        """
        expect(f"Resource {self.name!r}: add_metrics", FUNCTION, metrics_f=metrics_f)

        return self.add_step(MetricsStep(metrics_f), insert_at)

    def add_limit(
        self, max_items: int | None = None, max_time: float | None = None, *, count_rows: bool = False
    ) -> Self:
        """End the resource early, as if it had nothing more to give. Replaces an earlier limit.

        Args:
            max_items: This many items that the other steps have left over; 0: nothing is read at all.
            max_time: Seconds; the item at hand then is the last one.
            count_rows: Count rows instead, and cut the last page so that the number is exact.

        Raises:
            ConfigError: A number is negative.
        """
        step = limit_step(f"Resource {self.name!r}", max_items, max_time, count_rows=count_rows)
        self._steps = tuple(step for step in self._steps if not isinstance(step, LimitStep))

        return self.add_step(step)

    def add_step(self, item_transform: Step | Incremental[Any], insert_at: int | None = None) -> Self:
        """Add any step; its affinity decides where, unless ``insert_at`` does. An incremental is a step too."""
        if isinstance(item_transform, Incremental):
            self._incremental, self._cursor_is_hint = item_transform, True
            return self

        self._steps = insert_step(self._steps, item_transform, insert_at)
        return self

    def select_tables(self, *table_names: str) -> Self:
        """Of what a ``table_name`` function or `with_table_name` sends to tables, keep what goes to these."""
        expect(f"Resource {self.name!r}: select_tables", NAMES, table_names=table_names)

        return self.add_step(SelectStep(table_names, self._table_name if callable(self._table_name) else None))

    def parallelize(self) -> Self:
        """Accepted for the reference's sake: resources always run side by side."""
        self.parallelized = True
        return self

    # ------------------------------------------------------------------ hints

    def apply_hints(  # noqa: PLR0913 - the reference's arguments
        self,
        table_name: TableName | None = None,
        *,
        parent_table_name: str | None = None,
        write_disposition: WriteDispositionHint | None = None,
        columns: ColumnHints | None = None,
        primary_key: Names | None = None,
        merge_key: Names | None = None,
        incremental: object = None,
        schema_contract: Contract | None = None,
        additional_table_hints: Mapping[str, JsonValue] | None = None,
        table_format: str | None = None,
        file_format: str | None = None,
        references: Sequence[Mapping[str, JsonValue]] | None = None,
        nested_hints: NestedHints | None = None,
        on_error: OnError | None = None,
        create_table_variant: bool = False,
    ) -> Self:
        """Change hints. None leaves a hint as it is, an empty value removes it.

        Columns and references are joined with those there are. If ``table_name`` is a function of a row, other hints
        may be functions of a row, too.

        With ``create_table_variant`` the hints are those of the table ``table_name`` alone, for rows that are sent
        there by `asyncelt.mark` or by the resource's ``table_name`` function; what is not said is as the resource has
        it. ``incremental`` and ``on_error`` are always the resource's own.

        Raises:
            ConfigError: A hint is wrong; nothing has been changed then.
        """
        given: dict[str, object] = {
            "parent": parent_table_name,
            "write_disposition": write_disposition,
            "columns": columns,
            "primary_key": primary_key,
            "merge_key": merge_key,
            "schema_contract": schema_contract,
            "additional": additional_table_hints,
            "table_format": table_format,
            "file_format": file_format,
            "references": references,
            "nested_hints": nested_hints,
        }
        if create_table_variant:
            return self._apply_variant(table_name, given, rest=(incremental, on_error))

        policy = checked_policy(on_error or self._on_error, f"Resource {self.name!r}")
        before = self._hints, self._table_name, self._model, self._validator
        self._hints = changed(self._hints, given)

        if table_name is not None:
            self._table_name = table_name or None

        if incremental is not None:
            self._incremental, self._cursor_is_hint = Incremental.of(incremental), True

        try:
            self._look_at_model(columns, anew=schema_contract is not None)
            self._check()
        except ConfigError:
            self._hints, self._table_name, self._model, self._validator = before
            raise

        self._on_error = policy

        return self

    def _apply_variant(self, table_name: object, given: dict[str, object], *, rest: tuple[object, ...]) -> Self:
        where = f"Resource {self.name!r}: create_table_variant=True"

        if not isinstance(table_name, str) or not table_name:
            raise ConfigError(f"{where} needs the name of a table, not {table_name!r}.")

        if any(one is not None for one in rest):
            raise ConfigError(f"{where}: incremental and on_error are of the whole resource, not of one table.")

        found = variant(self._variants.get(table_name), self._hints, given, table_name)
        validate_hints(replace(found, name=table_name))
        self._variants = {**self._variants, table_name: found}

        return self

    # ------------------------------------------------------------------ composition and reading

    def pipe_data_from(self, data_from: Resource) -> Self:
        """Let this transformer take its items from ``data_from``.

        Raises:
            UsageError: This is no transformer.
        """
        if not self._is_transformer:
            raise UsageError(
                f"Resource {self.name!r} is not a transformer; decorate its function with asyncelt.transformer."
            )

        self._parent = data_from

        return self

    def __or__(self, other: Resource | Callable[..., object]) -> Resource:
        """``resource | transformer``, or ``resource | function`` for `add_map` and `add_yield_map`."""
        if isinstance(other, Resource):
            return other.clone().pipe_data_from(self)

        if inspect.isgeneratorfunction(other) or inspect.isasyncgenfunction(other):
            return self.clone().add_yield_map(other)

        return self.clone().add_map(other)

    def __aiter__(self) -> AsyncIterator[object]:
        """The rows after all steps, one by one; JSON bodies are parsed. For looking at data, not for loading it.

        Leave the loop early only inside ``contextlib.aclosing``, so that the source is closed at once.
        """
        from asyncelt.extract.iterate import iterate_rows

        return iterate_rows(self)

    def __repr__(self) -> str:
        given = {"table_name": self._table_name, "write_disposition": self._hints.write_disposition}
        said = {"name": self.name} | {key: value for key, value in given.items() if value is not None}
        parts = [f"{key}={value!r}" for key, value in said.items()] + ([] if self.selected else ["selected=False"])

        return f"<asyncelt.{'transformer' if self.is_transformer else 'resource'}({', '.join(parts)})>"


def _bound_cursor(
    definition: Incremental[object] | None, hints: TableHints, name: str, state_of: Callable[[str], dict[str, object]]
) -> Incremental[object] | None:
    """A resource's cursor, bound to one run.

    Args:
        definition: The cursor; None: there is none.
        hints: Of the resource, for the key that tells rows apart.
        name: Of the resource.
        state_of: Gives the state of a resource by its name.
    """
    if definition is None:
        return None

    given = hints.write_disposition
    disposition = given.get("disposition") if isinstance(given, Mapping) else given
    key = cast("KeyHint | None", hints.primary_key)

    return definition.bind(name, state_of, primary_key=key, merges=disposition == "merge" and bool(key))
