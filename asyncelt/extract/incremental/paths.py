"""Cursor paths: a field's name, or a JSON path to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from operator import itemgetter
from typing import Final, TypeAlias

from asyncelt.errors import ConfigError

__all__ = ["MISSING", "CursorPath", "parse_path"]


class _Missing(Enum):
    MISSING = auto()


MISSING: Final = _Missing.MISSING
"""What a path gives where it leads nowhere."""


@dataclass(frozen=True, slots=True)
class _Fields:
    """Children by name; more than one for ``a,b``."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Every:
    """All children of an object or a list."""


@dataclass(frozen=True, slots=True)
class _Slice:
    """Elements of a list."""

    part: slice


@dataclass(frozen=True, slots=True)
class _Deep:
    """The object itself and everything below it."""


_Part: TypeAlias = _Fields | _Every | _Slice | _Deep

_TOKEN = re.compile(
    r"""
    (?P<deep>\.\.) | (?P<dot>\.) | (?P<every>\*) | (?P<comma>,)
    | \[ \s* (?: (?P<index>-?\d+) | (?P<slice>-?\d*:-?\d*(?::-?\d*)?) | (?P<all>\*)
             | '(?P<single>[^']*)' | "(?P<double>[^"]*)" ) \s* \]
    | '(?P<quoted>[^']*)' | "(?P<quoted2>[^"]*)"
    | (?P<name>[^\s.,*\[\]()'"?@`|&]+)
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class CursorPath:
    """A compiled cursor path."""

    text: str
    """As it was given; the key in the state."""
    parts: tuple[_Part, ...]
    is_rooted: bool
    """Whether it began with ``$``: then it is no column, whatever it leads to."""

    @property
    def column(self) -> str | None:
        """The column it names, where it is no more than a field's name."""
        names = self.keys

        return names[0] if names is not None and len(names) == 1 and not self.is_rooted else None

    @property
    def keys(self) -> tuple[str, ...] | None:
        """The keys from object to object, where it is only that."""
        if not all(isinstance(part, _Fields) and len(part.names) == 1 for part in self.parts):
            return None

        return tuple(part.names[0] for part in self.parts if isinstance(part, _Fields))

    def find(self, row: object) -> object:
        """The first value that the path leads to; `MISSING` where there is none."""
        if self.column is not None:
            return _field(row, self.column)

        return next(iter(_walk((row,), self.parts)), MISSING)

    def find_all(self, rows: Sequence[object]) -> list[object]:
        """The value of each row; None also where the path leads nowhere."""
        keys = self.keys

        if keys:
            try:
                values: list[object] = list(rows)

                for key in keys:
                    values = list(map(itemgetter(key), values))  # type: ignore[arg-type]
            except (KeyError, TypeError, IndexError, AttributeError):
                pass  # not in every row, or rows are no dicts: one by one
            else:
                return values

        found = (self.find(row) for row in rows)

        return [None if value is MISSING else value for value in found]


@lru_cache(maxsize=256)
def parse_path(text: str) -> CursorPath:
    """Compile a path: names, quoted names, ``$``, ``.``, ``[0]``, ``[1:2]``, ``[*]``, ``*``, ``..`` and ``a,b``.

    Raises:
        ConfigError: It is not such a path.
    """
    parts: list[_Part] = []
    rest = text.strip()
    is_rooted = rest.startswith("$")
    position = 1 if is_rooted else 0
    expects = not is_rooted

    while position < len(rest):
        token = _TOKEN.match(rest, position)

        if token is None:
            raise _wrong(text, rest[position:])

        position = token.end()
        kind = token.lastgroup or ""

        if kind in ("dot", "deep"):
            if expects and kind == "dot":
                raise _wrong(text, rest[token.start() :])

            parts += [_Deep()] if kind == "deep" else []
            expects = True
        elif kind == "comma":
            position = _more_names(text, rest, position, parts)
        else:
            parts.append(_part_of(kind, token.group(kind)))
            expects = False

    if expects or not parts:
        raise _wrong(text, rest)

    return CursorPath(text, tuple(parts), is_rooted)


def _more_names(text: str, rest: str, position: int, parts: list[_Part]) -> int:
    """What follows a comma joins the names before it."""
    token = _TOKEN.match(rest, position)
    last = parts[-1] if parts else None

    if token is None or token.lastgroup not in ("name", "quoted", "quoted2") or not isinstance(last, _Fields):
        raise _wrong(text, rest[position - 1 :])

    parts[-1] = _Fields((*last.names, token.group(token.lastgroup)))

    return token.end()


def _part_of(kind: str, value: str) -> _Part:
    if kind in ("every", "all"):
        return _Every()

    if kind == "index":
        index = int(value)

        return _Slice(slice(index, index + 1 or None))

    if kind == "slice":
        return _Slice(slice(*(int(bound) if bound else None for bound in value.split(":"))))

    return _Fields((value,))


def _wrong(text: str, rest: str) -> ConfigError:
    return ConfigError(
        f"Cursor path {text!r} cannot be read at {rest!r}. A path is a field's name, or a JSON path of names, quoted "
        "names, [0], [1:2], [*], * and .. ; filters and functions are not supported. Put a name that has other "
        "characters into quotes."
    )


def _field(row: object, name: str) -> object:
    if isinstance(row, Mapping):
        return row.get(name, MISSING)

    try:
        return row[name]  # type: ignore[index]
    except (TypeError, KeyError, IndexError):
        return getattr(row, name, MISSING)


def _walk(values: Sequence[object], parts: Sequence[_Part]) -> Iterator[object]:
    if not parts:
        yield from values
        return

    for value in values:
        yield from _walk(list(_children(value, parts[0])), parts[1:])


def _children(value: object, part: _Part) -> Iterator[object]:
    if isinstance(part, _Fields):
        found = (_field(value, name) for name in part.names)
        yield from (child for child in found if child is not MISSING)
    elif isinstance(part, _Deep):
        yield value

        for child in _children(value, _Every()):
            yield from _children(child, part)
    elif isinstance(part, _Every):
        yield from value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    elif isinstance(value, list):
        yield from value[part.part]
