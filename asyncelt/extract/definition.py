"""What a resource knows about itself: its name, its hints, its cursor and the arguments it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from asyncelt import current
from asyncelt.errors import ConfigError, UsageError
from asyncelt.extract.binding import Call
from asyncelt.extract.checks import check_definition, checked_policy
from asyncelt.extract.functions import RowFunction, is_function, row_function
from asyncelt.extract.hinting import Contract, HintBook, NestedHints, WriteDispositionHint, is_dynamic, settled
from asyncelt.extract.incremental import Incremental
from asyncelt.extract.items import is_exhausted
from asyncelt.extract.models import validator_of
from asyncelt.extract.requests import TableName
from asyncelt.extract.steps import Step
from asyncelt.extract.table_schema import functions_in, hints_of, table_of
from asyncelt.schema.columns import Properties, declared_columns, is_pydantic_model
from asyncelt.schema.hints import TableHints, validate_hints
from asyncelt.schema.model import Table
from asyncelt.types import OnError

if TYPE_CHECKING:
    from asyncelt.extract.resource import Resource

__all__ = ["Definition"]


class Definition:
    """What can be asked of a resource. `Resource` has what changes it and what reads it."""

    def __init__(  # noqa: PLR0913 - the reference's arguments
        self,
        data: object,
        name: str,
        *,
        hints: TableHints | None = None,
        table_name: TableName | None = None,
        selected: bool = True,
        section: str | None = None,
        parallelized: bool = False,
        parent: Resource | None = None,
        steps: tuple[Step, ...] = (),
        incremental: object = None,
        on_error: OnError = "fail",
    ) -> None:
        self.name = name
        self.selected = selected
        self.section = section
        self.parallelized = parallelized
        self.source_name: str | None = None
        """Name of the source this resource belongs to; None while it belongs to none."""
        self.origin = object()
        """Shared with the copies that a source makes of it."""
        self._data = data
        self._arguments: Call | None = None
        self._parent = parent
        self._is_transformer = parent is not None
        self._steps = steps
        self._table_name = table_name
        self._hints = hints or TableHints(name=name)
        self._incremental = None if incremental is None else Incremental.of(incremental)
        self._cursor_is_hint = False
        self._on_error: OnError = checked_policy(on_error, f"Resource {name!r}")
        self._variants: dict[str, TableHints] = {}
        """Hints of tables that have hints of their own; never changed in place, as clones share it."""
        self._model: type[object] | None = None
        self._validator: RowFunction | None = None
        self._look_at_model(self._hints.columns)
        self._check()

    # ------------------------------------------------------------------ what it is

    @property
    def table_name(self) -> TableName:
        """Name of the table, or the function that gives it. Can be set."""
        return self._table_name or self.name

    @table_name.setter
    def table_name(self, table_name: TableName) -> None:
        self._set(self._hints, table_name or None)

    @property
    def has_dynamic_table_name(self) -> bool:
        """Whether the name of the table is a function of a row."""
        return callable(self._table_name)

    @property
    def hints(self) -> TableHints:
        """Hints of the resource's tables; of a table named by a function, see `table_hints`."""
        return self.table_hints(self._table_name if isinstance(self._table_name, str) else self.name)

    def hint_book(self) -> HintBook:
        """The hints of one run, which may change with the data."""
        return HintBook(
            self.name, replace(self._hints, incremental=self.hints.incremental), variants=dict(self._variants)
        )

    def table_hints(self, table_name: str) -> TableHints:
        """Hints of one of the resource's tables."""
        if (variant := self._variants.get(table_name)) is not None:
            return replace(variant, name=table_name, resource=self.name)

        cursor = self.cursor

        return replace(
            settled(self._hints),
            name=table_name,
            resource=self.name,
            incremental=None if cursor is None else cursor.get_cursor_column_name(),
        )

    def compute_table_schema(self, item: object = None, meta: object = None) -> Table:  # noqa: ARG002
        """The table that the hints make, before anything is read.

        Args:
            item: A row, for hints that are functions of one; may be wrapped by `asyncelt.mark`, which names its table.
            meta: Accepted for the reference's sake.

        Raises:
            ConfigError: A hint needs a row, or is wrong.
        """
        return table_of(self.hints_of_item(item))

    @property
    def needs_item(self) -> bool:
        """Whether a hint, or the name of the table, is a function of a row."""
        return bool(functions_in(self._hints, self.table_name))

    def hints_of_item(self, item: object) -> TableHints:
        """The hints of the table of one row; see `compute_table_schema`."""
        return hints_of(self.hint_book(), self.table_name, item)

    @property
    def write_disposition(self) -> WriteDispositionHint:
        """How rows are written; ``append`` unless said otherwise. Can be set."""
        given = self._hints.write_disposition

        return "append" if not given or is_dynamic(given) else given

    @write_disposition.setter
    def write_disposition(self, disposition: WriteDispositionHint) -> None:
        self._set(replace(self._hints, write_disposition=disposition or None), self._table_name)

    @property
    def columns(self) -> RowFunction | dict[str, Properties] | None:
        """What is said of columns, by name, whatever form it was given in; or the function of a row that says it.

        None: nothing is said.
        """
        given = self._hints.columns

        if given is None or is_dynamic(given):
            return cast("RowFunction | None", given)

        return declared_columns(given, f"Resource {self.name!r}")

    @property
    def schema_contract(self) -> Contract | None:
        """What may change in its tables; None: what the source or the schema says."""
        return self._hints.schema_contract

    @property
    def table_format(self) -> str | None:
        """Format of its tables, ``delta`` or ``iceberg``; None: the destination's own."""
        return self._hints.table_format

    @property
    def parent_table_name(self) -> str | None:
        """The table that its table is nested in; None: it is a root."""
        return self._hints.parent

    @property
    def nested_hints(self) -> NestedHints | None:
        """Hints of nested tables, by their path from the root; None: there are none."""
        return self._hints.nested_hints

    @property
    def max_table_nesting(self) -> int | None:
        """Levels of nested tables; deeper data is kept as ``json``. None: what the source says."""
        return self._hints.max_table_nesting

    @max_table_nesting.setter
    def max_table_nesting(self, levels: int | None) -> None:
        self._set(replace(self._hints, max_table_nesting=levels), self._table_name)

    @property
    def on_error(self) -> OnError:
        """What its failure, or a row of it that cannot be loaded, costs; `apply_hints` changes it."""
        return self._on_error

    @property
    def validator(self) -> RowFunction | None:
        """What each row of a page, and each row of a JSON body, goes through before the cursor looks at it.

        Made of the pydantic model that was given as ``columns``; it follows the schema contract. Can be set to another
        function: it gets a row and gives back the row to load, or None to leave it out, and raises
        `DataValidationError` for one that may not be loaded. None: rows are loaded as they come. Tables and frames do
        not go through it.
        """
        return self._validator

    @validator.setter
    def validator(self, validator: RowFunction | None) -> None:
        self._validator = None if validator is None else row_function(validator, "validator")

    @property
    def incremental(self) -> Incremental[object] | None:
        """The incremental of the hints; see `cursor` for the one it goes by."""
        return self._incremental

    @property
    def is_transformer(self) -> bool:
        """Whether it takes its items from another resource."""
        return self._is_transformer

    @property
    def parent(self) -> Resource | None:
        """The resource a transformer takes its items from."""
        return self._parent

    @property
    def args_bound(self) -> bool:
        """Whether it is ready to be read as it is: called, or no function at all."""
        return self._arguments is not None or not is_function(self._data)

    @property
    def is_exhausted(self) -> bool:
        """Whether its data can be read only once, and has been; of a transformer, that of the resource before it."""
        return is_exhausted(self._data) or (self._parent is not None and self._parent.is_exhausted)

    @property
    def requires_args(self) -> bool:
        """Whether it must be called with arguments before it can be read."""
        if self.args_bound:
            return False

        try:
            self._call().arguments  # noqa: B018 - whether they are all there
        except TypeError:
            return True
        except ValueError:  # built-in functions without a signature
            return False

        return False

    @property
    def explicit_args(self) -> Mapping[str, object]:
        """Arguments it was called with, defaults not included."""
        if self._arguments is None:
            raise UsageError(f"Resource {self.name!r} has not been called.")

        return self._arguments.arguments

    @property
    def state(self) -> dict[str, object]:
        """The resource's state, within a run of its pipeline; elsewhere a copy, as the active pipeline knows it.

        Raises:
            UsageError: There is no run, and no pipeline is active.
        """
        return current.known_state(self.source_name, self.name)

    @property
    def cursor(self) -> Incremental[object] | None:
        """The incremental cursor it goes by: of its hints, or of an argument of its function."""
        if self._cursor_is_hint or not is_function(self._data):
            return self._incremental

        return self._call().definition(self._incremental)

    # ------------------------------------------------------------------ inside

    def _function(self) -> Callable[..., object]:
        return cast("Callable[..., object]", self._data)

    def _call(self) -> Call:
        return self._arguments or Call(self._function(), takes_item=self._is_transformer)

    def _look_at_model(self, columns: object, *, anew: bool = True) -> None:
        """Make the validator of a model, when one has come as columns or the contract has changed."""
        if is_pydantic_model(columns):
            self._model = cast("type[object]", columns)
        elif not anew:
            return

        if self._model is not None:
            self._validator = validator_of(self._model, self._hints.schema_contract, f"Resource {self.name!r}")

    def _set(self, hints: TableHints, table_name: TableName | None) -> None:
        """Take them, or raise `ConfigError` and stay as it was."""
        before = self._hints, self._table_name
        self._hints, self._table_name = hints, table_name

        try:
            self._check()
        except ConfigError:
            self._hints, self._table_name = before
            raise

    def _check(self) -> None:
        check_definition(self.name, self._data, self._table_name, self._hints)
        validate_hints(self.hints)
