"""Checks of what users pass: the wrong type is named where it was passed, not where it first hurts."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Final, get_args

from asyncelt.errors import ConfigError

__all__ = [
    "COUNT",
    "FLAG",
    "FUNCTION",
    "MAPPING",
    "PATH",
    "SECONDS",
    "SECRET",
    "SIZE",
    "TEXT",
    "Kind",
    "choice",
    "expect",
    "expect_if_given",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of values that an argument takes."""

    words: str
    """What it is, as in "timeout is ..."."""
    accepts: Callable[[object], bool]
    is_secret: bool = False
    """Whether a value must not be shown, not even a wrong one."""

    def error(self, where: str, name: str, value: object) -> ConfigError:
        """The error of a value that is not of this kind."""
        shown = type(value).__name__ if self.is_secret else reprlib.repr(value)

        return ConfigError(f"{where}: {name} is {self.words}, not {shown}.")


def expect(where: str, kind: Kind, /, **given: object) -> None:
    """Check arguments of one kind, by their names.

    Raises:
        ConfigError: Names the argument, what it takes and what it was given.
    """
    for name, value in given.items():
        if not kind.accepts(value):
            raise kind.error(where, name, value)


def expect_if_given(where: str, kind: Kind, /, **given: object) -> None:
    """As `expect`, of arguments that may be None: nothing was said.

    Raises:
        ConfigError: As `expect`.
    """
    expect(where, kind, **{name: value for name, value in given.items() if value is not None})


def choice(literal: object) -> Kind:
    """One of the values of a ``Literal``."""
    values = get_args(literal)

    return Kind(f"one of {', '.join(values)}", lambda value: value in values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


TEXT: Final = Kind("text", _is_text)
SECRET: Final = Kind("text", _is_text, is_secret=True)
PATH: Final = Kind("a path", lambda value: isinstance(value, str | os.PathLike))
FLAG: Final = Kind("True or False", lambda value: isinstance(value, bool))
NUMBER: Final = Kind("a number", _is_number)
COUNT: Final = Kind("a whole number from 1", lambda value: _is_whole(value) and value >= 1)  # type: ignore[operator]
SIZE: Final = Kind("a whole number from 0", lambda value: _is_whole(value) and value >= 0)  # type: ignore[operator]
SECONDS: Final = Kind("a number of seconds from 0", lambda value: _is_number(value) and value >= 0)  # type: ignore[operator]
FUNCTION: Final = Kind("a function", callable)
MAPPING: Final = Kind("a mapping", lambda value: isinstance(value, Mapping))
SEQUENCE: Final = Kind("a list", lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes))
NESTING: Final = Kind("a number of levels from 0", SIZE.accepts)
NAMES: Final = Kind(
    "a name or a list of names",
    lambda value: _is_text(value) or (SEQUENCE.accepts(value) and all(map(_is_text, value))),  # type: ignore[call-overload]
)
