"""Which columns a setting of a schema is about: names as they are, or expressions after ``re:``.

Every new column is asked for several times, and nearly all settings are plain names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

__all__ = ["NOTHING", "NameSet"]

_EXPRESSION: Final = "re:"


class NameSet:
    """Names as a schema gives them.

    Args:
        names: A name, or ``re:`` and an expression that is searched for.
    """

    __slots__ = ("_expressions", "_names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = tuple(names)
        self._names = frozenset(name for name in given if not name.startswith(_EXPRESSION))
        self._expressions = tuple(_compiled(name) for name in given if name.startswith(_EXPRESSION))

    def __contains__(self, name: str) -> bool:
        if name in self._names:
            return True

        return bool(self._expressions) and any(expression.search(name) for expression in self._expressions)


NOTHING: Final = NameSet()


@lru_cache(maxsize=4096)
def _compiled(name: str) -> re.Pattern[str]:
    return re.compile(name.removeprefix(_EXPRESSION))
