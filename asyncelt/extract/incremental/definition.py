"""The incremental cursor as users define it, and what they see of it while a resource is read."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar, cast, get_args

from asyncelt import current
from asyncelt.arguments import FLAG, NAMES, NUMBER, Kind, expect_if_given
from asyncelt.configuration.interval import joins_schedulers
from asyncelt.errors import ConfigError, IncrementalCursorPathMissing, IncrementalPrimaryKeyMissing, UsageError
from asyncelt.extract.incremental.boundary import CEILING, WARN_ABOVE, Boundary, CursorState
from asyncelt.extract.incremental.lag import lagged
from asyncelt.extract.incremental.paths import CursorPath, parse_path
from asyncelt.extract.incremental.schedule import scheduled_range
from asyncelt.extract.incremental.window import LastValueFunc, OnMissing, Range, RowOrder, Window, WindowRules

__all__ = ["Incremental", "KeyHint"]

T = TypeVar("T")
KeyHint: TypeAlias = str | Sequence[str] | Callable[[Any], str | Sequence[str]]

_LAG = Kind("a number (of seconds for times, of days for dates)", NUMBER.accepts)
_KEY = Kind(
    "the name of a field, a list of names, or a function of a row",
    lambda value: callable(value) or NAMES.accepts(value),
)
_DEFAULTS: Mapping[str, object] = {
    "cursor_path": None,
    "initial_value": None,
    "last_value_func": max,
    "primary_key": None,
    "end_value": None,
    "row_order": None,
    "allow_external_schedulers": None,
    "on_cursor_value_missing": "raise",
    "lag": None,
    "range_start": "closed",
    "range_end": "open",
}
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "row_order": (None, "asc", "desc"),
    "on_cursor_value_missing": ("raise", "include", "exclude"),
    "range_start": ("closed", "open"),
    "range_end": ("open", "closed"),
}


class Incremental(Generic[T]):
    """Reads of a resource only what is new: rows whose cursor lies beyond the last value of the runs before.

    The last value is part of the resource's state, so it moves in the same commit as the rows. Rows at exactly the
    last value are told apart by their primary key, or by all they hold, and none is loaded twice.

    Use it as the default of a function's argument (the function then sees `last_value`), or as ``incremental=`` of a
    resource or of ``apply_hints``; rows are filtered in any case::

        @asyncelt.resource(primary_key="id")
        async def issues(updated_at=asyncelt.sources.incremental("updated_at", initial_value="2024-01-01T00:00:00Z")):
            async for page in pages(since=updated_at.last_value):
                yield page

    Args:
        cursor_path: Field with the cursor, as it is named in the data, or a JSON path to it. Columns of Arrow tables
            and frames by name only.
        initial_value: Where the first run begins; None: at the beginning.
        last_value_func: ``max`` (also ``"max"``), ``min``, or a function of a tuple of values that gives the last one.
        primary_key: What tells rows with the same cursor value apart; None: the resource's primary key, or the whole
            row; ``()``: rows at the last value are loaded again.
        end_value: Where to stop. Then the state is neither read nor written: for loading a range once more.
        row_order: ``"asc"`` or ``"desc"`` if the source is ordered by the cursor: it is closed as soon as nothing of
            what is still to come can be in the range. Looked after: if rows come in another order, a warning says so
            and the source is read to its end.
        allow_external_schedulers: Whether a scheduler says where to begin and to stop, see
            `asyncelt.current.interval`; None: as ``DLT_ALLOW_EXTERNAL_SCHEDULERS`` says.
        on_cursor_value_missing: What to do with rows without a value: ``"raise"``, ``"include"`` or ``"exclude"``.
        lag: Begin this much before the last value: seconds for times, days for dates, else the plain number. Rows in
            between are loaded again: merge them.
        range_start: ``"open"``: rows at the start value are left out, and no digests are kept.
        range_end: ``"closed"``: rows at ``end_value`` are taken too.

    Raises:
        ConfigError: An argument is wrong.
    """

    duplicate_cursor_warning_threshold: ClassVar[int] = WARN_ABOVE
    """A warning is given when more rows than this share the last value."""
    boundary_ceiling: ClassVar[int] = CEILING
    """The state holds digests of at most this many rows at the last value."""

    def __init__(  # noqa: PLR0913, PLR0917 - the reference's arguments
        self,
        cursor_path: str | None = None,
        initial_value: T | None = None,
        last_value_func: LastValueFunc | Literal["min", "max"] | None = max,
        primary_key: KeyHint | None = None,
        end_value: T | None = None,
        row_order: RowOrder | None = None,
        allow_external_schedulers: bool | None = None,  # noqa: FBT001 - the reference's argument
        on_cursor_value_missing: OnMissing = "raise",
        lag: float | None = None,
        range_start: Range = "closed",
        range_end: Range = "open",
    ) -> None:
        self.cursor_path = cursor_path
        self.initial_value = initial_value
        self.last_value_func = _function(last_value_func)
        self.primary_key = primary_key
        self.end_value = end_value
        self.row_order: RowOrder | None = row_order
        self.allow_external_schedulers = allow_external_schedulers
        self.on_cursor_value_missing: OnMissing = on_cursor_value_missing
        self.lag = lag
        self.range_start: Range = range_start
        self.range_end: Range = range_end
        self.resource_name: str | None = None
        """Name of the resource it is bound to; None outside a run."""
        self.window: Window | None = None
        self._state: CursorState = {}
        self._check()

    # ------------------------------------------------------------------ while a resource is read

    @property
    def last_value(self) -> T | None:
        """How far the cursor has come: while rows are read, up to the last page; before, where this run begins."""
        if self.window is None:
            return cast("T | None", self._state.get("last_value", self.initial_value))

        return cast("T | None", self.window.last)

    @property
    def start_value(self) -> T | None:
        """Where this run began: the last value of the runs before, moved back by ``lag``."""
        return self.initial_value if self.window is None else cast("T | None", self.window.start)

    @property
    def start_out_of_range(self) -> bool:
        """Whether the last row that was read lay before the start: time to stop, if rows come in falling order."""
        return self.window is not None and self.window.start_out_of_range

    @property
    def end_out_of_range(self) -> bool:
        """Whether the last row that was read lay beyond ``end_value``."""
        return self.window is not None and self.window.end_out_of_range

    def get_current_range(self, *, apply_lag: bool = True) -> tuple[T | None, T | None]:
        """Start and end of this run's range, for a source that can apply it itself, in SQL for instance.

        The end is ``end_value``; without one it is open (None), until rows or `advance` have moved the cursor.

        Args:
            apply_lag: Whether the start is moved back by ``lag``.
        """
        window = self.window

        if window is None:
            return self.initial_value, self.end_value

        start = window.start if apply_lag else window.start_of_run
        has_moved = window.has_seen_rows or window.is_advanced
        end = self.end_value if self.end_value is not None or not has_moved else window.last

        return cast("T | None", start), cast("T | None", end)

    def advance(self, last_value: T | None) -> Self:
        """Say that the source applies the range itself: rows pass unfiltered from here on.

        Args:
            last_value: How far this run comes, which is where the next one begins; None: as far as the cursor is.

        Raises:
            UsageError: No resource is being read with it.
        """
        if self.window is None:
            raise UsageError(
                f"incremental({self.cursor_path!r}).advance() works only while its resource is read: call it in the "
                "resource's function, on the argument that holds the cursor."
            )

        is_one_row = self.is_unique_cursor() and self.end_value is None
        self.window.advance(last_value, self._key_row(last_value) if is_one_row else None)

        return self

    def unique_boundary_consumed(self) -> bool:
        """Whether the row at the last value was loaded by the run before, and no other can have this value."""
        window = self.window

        if window is None or window.boundary is None or not self.is_unique_cursor():
            return False

        return window.boundary.has(self._key_row(window.start_of_run))

    # ------------------------------------------------------------------ definition

    @classmethod
    def from_existing_state(cls, resource_name: str, cursor_path: str) -> Incremental[Any]:
        """The cursor of another resource of the source, as far as it has come. For looking at it.

        Raises:
            UsageError: Called outside a source that is being extracted.
            ConfigError: That resource has no such cursor in its state.
        """
        cursors = current.resource_state(resource_name).get("incremental")
        known = cursors.get(cursor_path) if isinstance(cursors, Mapping) else None

        if known is None:
            raise ConfigError(
                f"The state of resource {resource_name!r} has no cursor {cursor_path!r}. There is one after the first "
                "run that has read it."
            )

        found: Incremental[Any] = cls(cursor_path, known["initial_value"])
        found.resource_name, found._state = resource_name, dict(known)

        return found

    def is_partial(self) -> bool:
        """Whether there is no cursor path yet: it has to be merged with one that has."""
        return not self.cursor_path

    @property
    def path(self) -> CursorPath:
        """The compiled cursor path."""
        if self.cursor_path is None:
            raise ConfigError("This incremental has no cursor_path: pass one, or merge it with one that has.")

        return parse_path(self.cursor_path)

    def is_unique_cursor(self) -> bool:
        """Whether the cursor is the primary key, so that no two rows have the same value."""
        column = self.get_cursor_column_name()

        return column is not None and self.primary_key in (column, [column], (column,))

    def get_cursor_column_name(self) -> str | None:
        """Name of the cursor's column; None where the path is more than a field's name."""
        return None if self.cursor_path is None else self.path.column

    def merge(self, other: Incremental[Any]) -> Self:
        """A copy in which what ``other`` sets, to something else than its default, wins."""
        own, others = self._arguments(), other._arguments()
        given = {name: value for name, value in others.items() if value is not None and value != _DEFAULTS[name]}

        return self._like({**own, **given})

    def copy(self) -> Self:
        """The same definition, bound to nothing."""
        return self._like(self._arguments())

    @classmethod
    def of(cls, value: object) -> Incremental[Any]:
        """An incremental as it is, or one made from a mapping of its arguments.

        Raises:
            ConfigError: It is neither, or an argument is wrong.
        """
        if isinstance(value, Incremental):
            return value

        if not isinstance(value, Mapping):
            raise ConfigError(f"incremental= takes asyncelt.sources.incremental(...) or its arguments, not {value!r}.")

        try:
            return cls(**value)
        except TypeError as error:
            raise ConfigError(f"incremental={dict(value)!r}: {error}") from None

    def bind(
        self,
        resource_name: str,
        state_of: Callable[[str], dict[str, object]],
        *,
        primary_key: KeyHint | None = None,
        merges: bool = False,
    ) -> Self:
        """A copy for one run of a resource.

        Args:
            resource_name: Name of the resource.
            state_of: Gives the state of a resource by its name; the cursor's part is made where it is missing. Not
                asked with an ``end_value``.
            primary_key: The resource's, for an incremental without its own.
            merges: Whether rows that come again replace those there are.

        Raises:
            ConfigError: The range has no beginning, or is empty.
            IncrementalCursorPathMissing: There is no cursor path.
        """
        if self.cursor_path is None:
            raise IncrementalCursorPathMissing(
                f"Resource {resource_name!r}: its incremental has no cursor_path. Give it one, or annotate the "
                "argument it is passed in as Optional."
            )

        bound = self.copy()
        bound.resource_name = resource_name
        bound.primary_key = primary_key if self.primary_key is None and primary_key else self.primary_key
        bound.attach(resource_name, state_of, merges=merges)

        return bound

    def _state_in(self, state_of: Callable[[], dict[str, object]]) -> CursorState:
        fresh: CursorState = {
            "initial_value": self.initial_value,
            "last_value": self.initial_value,
            "unique_hashes": [],
            "start_value": self.initial_value,
        }

        if self.end_value is not None:
            return fresh

        cursors = cast("dict[str, dict[str, object]]", state_of().setdefault("incremental", {}))
        known = cursors.setdefault(cast("str", self.cursor_path), {})

        if not known:
            known.update(fresh)

        return known

    def attach(self, resource_name: str, state_of: Callable[[str], dict[str, object]], *, merges: bool) -> None:
        """Begin a run; see `bind`, which does it on a copy."""
        allowed = self.allow_external_schedulers

        if joins_schedulers() if allowed is None else allowed:
            self.initial_value, self.end_value = scheduled_range(
                f"Resource {resource_name!r}, cursor {self.cursor_path!r}",
                self._value_type(),
                initial=self.initial_value,
                end=self.end_value,
                func=self.last_value_func,
            )

        self._state = self._state_in(functools.partial(state_of, resource_name))
        rules = WindowRules(
            resource=resource_name,
            path=self.path,
            func=self.last_value_func,
            start=self._start(),
            end=self.end_value,
            on_missing=self.on_cursor_value_missing,
            row_order=self.row_order,
            range_start=self.range_start,
            range_end=self.range_end,
            has_lag=bool(self.lag),
        )
        boundary = (
            Boundary(rules.where, self._state, self.key_of, skips=not merges) if self._remembers_boundary() else None
        )
        self.window = Window(rules, self._state, boundary)

    def _start(self) -> Any:
        last = self._state.get("last_value")

        if not self.lag or last is None or self.end_value is not None or self.last_value_func not in (max, min):
            return last

        return lagged(
            last, self.lag, initial=self.initial_value, func=self.last_value_func, declared=self._declared_type()
        )

    def _remembers_boundary(self) -> bool:
        if self.range_start == "open" or self.end_value is not None:
            return False

        if self.lag and self.last_value_func in (max, min):
            return False

        return callable(self.primary_key) or self.primary_key is None or len(self.primary_key) > 0

    def key_of(self, row: object) -> object:
        """What tells a row from others: the value or values of its primary key, or the row.

        Raises:
            IncrementalPrimaryKeyMissing: The row does not have the field.
        """
        names = self.primary_key(row) if callable(self.primary_key) else self.primary_key

        if names is None:
            return row

        try:
            return _part(row, names) if isinstance(names, str) else [_part(row, name) for name in names]
        except (KeyError, IndexError, AttributeError) as error:
            raise self.key_missing(names, row) from error

    def _key_row(self, value: object) -> dict[str | None, object]:
        """A row of which no more is known than its cursor."""
        return {self.get_cursor_column_name(): value}

    def key_missing(self, names: object, row: object) -> IncrementalPrimaryKeyMissing:
        """What to raise for a row without its key."""
        return IncrementalPrimaryKeyMissing(
            f"Resource {self.resource_name!r}, cursor {self.cursor_path!r}: a row does not have its primary key "
            f"{names!r}: {repr(row)[:200]}. Name fields as in the data, not as in the table."
        )

    def _declared_type(self) -> type[object] | None:
        """The type argument, ``incremental[datetime]``, or the type of the initial value."""
        declared = next(iter(get_args(getattr(self, "__orig_class__", None))), None)

        if isinstance(declared, type):
            return declared

        return type(self.initial_value) if isinstance(self.initial_value, date) else None

    def _value_type(self) -> type[object] | None:
        """The type argument, or the type of whatever the initial value is."""
        return self._declared_type() or (None if self.initial_value is None else type(self.initial_value))

    def _arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _DEFAULTS}

    def _like(self, arguments: Mapping[str, Any]) -> Self:
        made = type(self)(**arguments)
        declared = getattr(self, "__orig_class__", None)

        if declared is not None:
            object.__setattr__(made, "__orig_class__", declared)

        return made

    # ------------------------------------------------------------------ checks

    def _check(self) -> None:
        if self.cursor_path is not None:
            if not isinstance(self.cursor_path, str):
                raise ConfigError(f"cursor_path is a field's name or a JSON path, not {self.cursor_path!r}.")

            parse_path(self.cursor_path)

        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"incremental: {name} is one of {choices}, not {getattr(self, name)!r}.")

        expect_if_given("incremental", _LAG, lag=self.lag)
        expect_if_given("incremental", _KEY, primary_key=self.primary_key)
        expect_if_given("incremental", FLAG, allow_external_schedulers=self.allow_external_schedulers)

        if self.cursor_path is not None and self.end_value is not None:
            self._check_range()

    def _check_range(self) -> None:
        where = f"incremental({self.cursor_path!r})"

        if self.initial_value is None:
            raise ConfigError(f"{where}: end_value needs an initial_value: the range has to begin somewhere.")

        try:
            highest = self.last_value_func((self.end_value, self.initial_value))
        except Exception as error:  # the values' or the user's own
            raise ConfigError(
                f"{where}: initial_value={self.initial_value!r} and end_value={self.end_value!r} cannot be compared: "
                f"{error}"
            ) from error

        if highest != self.end_value:
            raise ConfigError(
                f"{where}: end_value={self.end_value!r} does not come after initial_value={self.initial_value!r} in "
                f"the order of {getattr(self.last_value_func, '__name__', 'last_value_func')}."
            )

    def __repr__(self) -> str:
        shown = [f"{name}={value!r}" for name, value in self._arguments().items() if value != _DEFAULTS[name]]

        return f"asyncelt.sources.incremental({', '.join(shown)})"


def _part(row: object, name: str) -> object:
    if isinstance(row, Mapping):
        return row[name]

    try:
        return row[name]  # type: ignore[index]
    except TypeError:
        return getattr(row, name)


def _function(given: object) -> LastValueFunc:
    found = {"max": max, "min": min, None: max}.get(given, given) if isinstance(given, str | None) else given

    if not callable(found):
        raise ConfigError(f"last_value_func is max, min or a function of a tuple of values, not {given!r}.")

    return cast("LastValueFunc", found)
