"""Which types of values go into columns of which types."""

from __future__ import annotations

from asyncelt.normalize.coerce import _KERNELS
from asyncelt.types import DataType


def can_coerce(source: DataType, target: DataType) -> bool:
    """Whether any value of type ``source`` can go into a column of type ``target``."""
    return source == target or (target, source) in _KERNELS
