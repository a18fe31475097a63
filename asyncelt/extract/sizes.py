"""How many bytes Python rows take, by looking at a few of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sys import getsizeof

__all__ = ["sampled_row_bytes", "size_of"]

_DEPTH = 12
_ELEMENTS = 64
_CONTAINERS = 50_000
"""How many containers are looked into: objects that point back at each other would be walked for ever."""
_FLAT = frozenset({int, float, bool, type(None), str, bytes})
_ROWS_PER_SAMPLE = 64
"""Looking into a wide row takes as long as making columns of five: of a small page two stand for all."""
_FEWEST, _MOST = 2, 8


def sampled_row_bytes(rows: Sequence[object]) -> float:
    """Average bytes of a row, from a few rows spread evenly over all of them, the first and the last one included."""
    count = len(rows)
    samples = max(_FEWEST, min(count // _ROWS_PER_SAMPLE, _MOST))

    if count <= samples:
        return sum(map(size_of, rows)) / max(count, 1)

    step = (count - 1) / (samples - 1)

    return sum(size_of(rows[round(index * step)]) for index in range(samples)) / samples


def size_of(value: object) -> int:
    """Bytes of an object with everything in it.

    Keys are not counted: rows share them. Of a long list some elements stand for all.
    """
    return _Walk().size_of(value, _DEPTH)


class _Walk:
    """One look into an object."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = _CONTAINERS

    def size_of(self, value: object, depth: int) -> int:
        kind = type(value)

        if kind in _FLAT:
            return getsizeof(value)

        if depth == 0 or self._left <= 0:
            return 64

        self._left -= 1

        if kind is dict or isinstance(value, Mapping):
            return getsizeof(value, 64) + self._sum(value.values(), depth)  # type: ignore[attr-defined]

        if kind is list or kind is tuple or kind is set:
            return getsizeof(value) + self._elements(list(value), depth)  # type: ignore[call-overload]

        fields = getattr(value, "__dict__", None)

        if fields is None:
            names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__slots__", None)
            fields = {name: getattr(value, name, None) for name in names} if isinstance(names, tuple) else {}

        return getsizeof(value, 64) + self._sum(fields.values(), depth)

    def _sum(self, values: Iterable[object], depth: int) -> int:
        total = 0

        for value in values:
            total += getsizeof(value) if type(value) in _FLAT else self.size_of(value, depth - 1)

        return total

    def _elements(self, values: list[object], depth: int) -> int:
        if len(values) <= _ELEMENTS:
            return self._sum(values, depth)

        step = len(values) / _ELEMENTS

        return int(step * sum([self.size_of(values[int(index * step)], depth - 1) for index in range(_ELEMENTS)]))
