"""Tracebacks that show a user's code and the place where an error arose, not the machinery between the two."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import anyio

from asyncelt.errors import AsynceltError

__all__ = ["shortened"]

E = TypeVar("E", bound=BaseException)

_OURS = str(Path(__file__).parents[1])
_MACHINERY = (
    _OURS + os.sep,
    str(Path(anyio.__file__).parent) + os.sep,
    str(Path(asyncio.__file__).parent) + os.sep,
    contextlib.__file__,
)


def shortened(error: E) -> E:
    """``error``, whose traceback and those of its causes begin where the code of a user or a driver does.

    Of our own errors only the place that raised them stays: their message says the rest. What has no frame outside of
    the machinery keeps its traceback, since it may be a defect of ours. ``ASYNCELT_FULL_TRACEBACKS=1`` keeps all.
    """
    if os.environ.get("ASYNCELT_FULL_TRACEBACKS"):
        return error

    seen: set[int] = set()
    one: BaseException | None = error

    while one is not None and id(one) not in seen:
        seen.add(id(one))
        one.__traceback__ = _last(one.__traceback__) if isinstance(one, AsynceltError) else _begun(one.__traceback__)
        one = one.__cause__

    return error


def _last(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next

    return traceback


def _begun(traceback: TracebackType | None) -> TracebackType | None:
    first = traceback

    while first is not None and first.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        first = first.tb_next

    return traceback if first is None else first
