"""Objects of a bucket as files of a DuckDB. Blocking, called by DuckDB's threads."""

from __future__ import annotations

import io
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

from fsspec import AbstractFileSystem

from asyncelt.errors import AsynceltError

__all__ = ["SCHEME", "Objects"]

P = ParamSpec("P")
T = TypeVar("T")

SCHEME = "asyncelt"
_BLOCK = 256 * 1024
_BLOCKS = 128
"""Blocks that are kept, 32 MiB in all: DuckDB reads the end of a Parquet file several times, and text bit by bit."""
_LARGE = 16 * _BLOCK
"""A read of this size goes past the blocks."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    fetch: Callable[[str, int, int], bytes | None]
    kept: OrderedDict[tuple[str, int], bytes]

    def read(self, path: str, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""

        if stop - start >= _LARGE:
            return self._fetched(path, start, stop)

        numbers = range(start // _BLOCK, (stop - 1) // _BLOCK + 1)
        found = {number: self.kept[path, number] for number in numbers if (path, number) in self.kept}
        missing = [number for number in numbers if number not in found]

        if missing:
            content = self._fetched(path, missing[0] * _BLOCK, (missing[-1] + 1) * _BLOCK)

            for at, number in enumerate(range(missing[0], missing[-1] + 1)):
                found[number] = content[at * _BLOCK : (at + 1) * _BLOCK]
                self.kept[path, number] = found[number]

            while len(self.kept) > _BLOCKS:
                self.kept.popitem(last=False)

        first = numbers[0] * _BLOCK

        return b"".join(found[number] for number in numbers)[start - first : stop - first]

    def _fetched(self, path: str, start: int, stop: int) -> bytes:
        content = self.fetch(path, start, stop)

        if content is None:
            raise FileNotFoundError(f"{path} is gone: it has been removed meanwhile.")

        return content


class _File(io.RawIOBase):
    """One object, read only."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read = read
        self.size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]

        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self._at + size, self.size)
        content = self._read(self._at, stop)
        self._at += len(content)

        return content


class Objects(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files under names of our own, which have no characters that DuckDB would expand.

    Args:
        fetch: Bytes of a path from a start to before a stop; None when it is gone.
        size: Bytes of a path.
        scheme: Of their addresses; one DuckDB knows each once.
    """

    cachable = False

    def __init__(
        self,
        fetch: Callable[[str, int, int], bytes | None],
        size: Callable[[str], int | None],
        *,
        scheme: str = SCHEME,
    ) -> None:
        super().__init__()
        self.protocol = scheme
        self._prefix = f"{scheme}://"
        self._blocks = _Blocks(self._noting(fetch), OrderedDict())
        self._size_of = self._noting(size)
        self._failures: list[AsynceltError] = []
        self._numbers = itertools.count()
        self._known: dict[str, str | bytes] = {}
        self._addresses: dict[str, str] = {}
        self._sizes: dict[str, int] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What went wrong as DuckDB asked for bytes is raised as it was: DuckDB knows only its text."""
        self._failures.clear()

        try:
            yield
        except Exception as error:
            # Whatever was made of it, ours is the cause.
            if not self._failures or error is self._failures[-1]:
                raise

            raise self._failures[-1] from error

    def _noting(self, ask: Callable[P, T]) -> Callable[P, T]:
        def asked(*arguments: P.args, **options: P.kwargs) -> T:
            try:
                return ask(*arguments, **options)
            except AsynceltError as error:
                self._failures.append(error)

                raise

        return asked

    def address_of(self, content: str | bytes, extension: str) -> str:
        """The address of an object, by its path, or of bytes that are there already."""
        if isinstance(content, str) and content in self._addresses:
            return self._addresses[content]

        name = f"{next(self._numbers)}{extension}"
        self._known[name] = content
        address = self._prefix + name

        if isinstance(content, str):
            self._addresses[content] = address

        return address

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """What fsspec wants to know of a file."""
        name = path.removeprefix(self._prefix)
        content = self._known.get(name)

        if content is None:
            raise FileNotFoundError(path)

        if name not in self._sizes:
            size = len(content) if isinstance(content, bytes) else self._size_of(content)

            if size is None:
                raise FileNotFoundError(f"{content!r} is gone: it has been removed meanwhile.")

            self._sizes[name] = size

        return {"name": name, "size": self._sizes[name], "type": "file"}

    def glob(self, path: str, maxdepth: int | None = None, **_options: Any) -> list[str]:
        """The file itself: no name here is a pattern."""
        del maxdepth

        return [path.removeprefix(self._prefix)]

    def modified(self, path: str) -> datetime:
        """The same always: files of a load never change."""
        del path

        return datetime.fromtimestamp(0, tz=UTC)

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Any = None,
        compression: str | None = None,
        **_options: Any,
    ) -> Any:
        """A file to be read."""
        del block_size, cache_options, compression

        if "r" not in mode:
            raise PermissionError(f"{path}: files of a dataset can only be read.")

        name = path.removeprefix(self._prefix)
        size = self.info(path)["size"]
        content = self._known[name]

        if isinstance(content, bytes):
            return _File(lambda start, stop: content[start:stop], size)

        return _File(lambda start, stop: self._blocks.read(content, start, stop), size)
