"""Pages on the disk between extract and normalize. Blocking: called from threads.

Each raw table of a package has files of its own under ``pages/``, one per form that its pages come in: Arrow IPC
streams, JSON bodies as received, or rows in the form of `asyncelt.storage.rowpack`. Pages lie in them one after the
other; what tells them apart is the list of `StoredPage` in the package's manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

import pyarrow as pa

from asyncelt.errors import BadRecord, PackageCorrupt, StorageError
from asyncelt.failpoints import failpoint
from asyncelt.flow import DESCRIPTION_CHARS, ArrowPage, JsonBody, JsonPages, Payload, Rows, Unloadable
from asyncelt.normalize.gating import Gate
from asyncelt.normalize.walk import excerpt
from asyncelt.storage.draft import PackageDraft
from asyncelt.storage.files import fsync_file
from asyncelt.storage.rowpack import pack_row, unpack_rows
from asyncelt.storage.tablepack import pack_table, unpack_table
from asyncelt.types import OnError

__all__ = ["PageForm", "PageSpool", "StoredPage", "read_payload"]

PageForm: TypeAlias = Literal["rows", "json", "arrow"]

_EXTENSIONS: Final[dict[PageForm, str]] = {"rows": "msgpack", "json": "json", "arrow": "arrow"}
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_\-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPage:
    """Where one page lies, and what the normalizer has to know about it."""

    page: int
    """Its number in the run, over all packages of the bundle."""
    resource: str
    table: str
    """As the user wrote it."""
    form: PageForm
    rows: int
    """0 where it is not known without parsing."""
    nbytes: int
    """In memory."""
    file: str
    """Relative to the package's ``pages`` folder."""
    offset: int
    length: int
    bodies: tuple[tuple[int, str | None], ...] = ()
    """Of JSON pages: length and path of the items of each body."""


@dataclass(slots=True)
class _File:
    name: str
    size: int = 0


@dataclass(slots=True)
class PageSpool:
    """Writes the pages of one package. Used by one thread at a time.

    Args:
        draft: The package; its ``pages`` folder is made by the first page.
        file_max_bytes: A file that has grown to this size is followed by another one.
        gate: Rows become bytes in slices that pass it.
    """

    draft: PackageDraft
    file_max_bytes: int
    gate: Gate
    pages: list[StoredPage] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes per file."""
    _open: dict[tuple[str, PageForm], _File] = field(default_factory=dict)

    def write(
        self,
        page: int,
        resource: str,
        table: str,
        payload: Payload,
        *,
        rows: int,
        nbytes: int,
        on_error: OnError = "fail",
    ) -> None:
        """Append one page. A row that cannot be written down is kept as `Unloadable` if ``on_error`` is not ``fail``.

        Raises:
            BadRecord: A row holds a value that no column can hold, and ``on_error`` is ``fail``.
            DiskLimitReached: There is more on the disk now than there may be.
        """
        form, pieces, bodies = self._pieces(table, payload, on_error)
        file = self._file(table, form)
        length = sum(map(len, pieces))

        with (self.draft.pages_folder / file.name).open("ab") as stream:
            for piece in pieces:
                stream.write(piece)

        failpoint("spool.page_written")
        self.pages.append(
            StoredPage(
                page=page,
                resource=resource,
                table=table,
                form=form,
                rows=rows,
                nbytes=nbytes,
                file=file.name,
                offset=file.size,
                length=length,
                bodies=bodies,
            )
        )
        file.size += length
        self.sizes[file.name] = file.size
        self.draft.disk.wrote(length, table)

    def finish(self) -> None:
        """Make all files durable."""
        for name in self.sizes:
            fsync_file(self.draft.pages_folder / name)

    def _file(self, table: str, form: PageForm) -> _File:
        key = (table, form)
        file = self._open.get(key)

        if file is None or file.size >= self.file_max_bytes:
            if not self.sizes:
                self.draft.pages_folder.mkdir(exist_ok=True)

            # The counter in front keeps the order of files in the order of their names.
            file_id = f"{len(self.sizes):04x}{os.urandom(3).hex()}"
            file = _File(f"{_UNSAFE.sub('_', table)[:100]}.{file_id}.0.{_EXTENSIONS[form]}")
            self._open[key] = file
            self.sizes[file.name] = 0

        return file

    def _pieces(
        self, table: str, payload: Payload, on_error: OnError
    ) -> tuple[PageForm, Sequence[bytes], tuple[tuple[int, str | None], ...]]:
        if isinstance(payload, JsonPages):
            bodies = payload.bodies

            return "json", [body.data for body in bodies], tuple((len(body.data), body.items) for body in bodies)

        if isinstance(payload, ArrowPage):
            return "arrow", [pack_table(payload.table)], ()

        packed: list[bytes] = []
        self.gate.run(_packing(table, payload.items, packed, on_error))

        return "rows", packed, ()


def read_payload(folder: Path, page: StoredPage, gate: Gate) -> Payload:
    """The page as it came from its resource.

    Args:
        folder: The package's ``pages`` folder.
        page: Which one.
        gate: Rows are made in slices that pass it.

    Raises:
        PackageCorrupt: The file is missing, cut off, or does not hold what its record says.
    """
    data = _read(folder / page.file, page)

    if page.form == "json":
        return JsonPages(tuple(_bodies(data, page)))

    try:
        if page.form == "arrow":
            return ArrowPage(unpack_table(data))

        rows: list[object] = []
        gate.run(map(rows.append, unpack_rows(data)))

        return Rows(rows)
    except (pa.ArrowInvalid, StorageError) as error:
        raise PackageCorrupt(f"Page {page.page} in {folder / page.file} cannot be read: {error}") from error


def _read(path: Path, page: StoredPage) -> bytes:
    try:
        with path.open("rb") as stream:
            stream.seek(page.offset)
            data = stream.read(page.length)
    except OSError as error:
        raise PackageCorrupt(f"Page file {path} cannot be read: {error}") from error

    if len(data) != page.length:
        raise PackageCorrupt(
            f"Page file {path} ends after {page.offset + len(data)} bytes; page {page.page} reaches to "
            f"{page.offset + page.length}. Abort the package (pipeline.abort_packages()) and extract again."
        )

    return data


def _bodies(data: bytes, page: StoredPage) -> Iterator[JsonBody]:
    start = 0

    for length, items in page.bodies:
        yield JsonBody(data[start : start + length], items)
        start += length


def _packing(table: str, rows: Sequence[object], packed: list[bytes], on_error: OnError) -> Iterator[None]:
    for number, row in enumerate(rows):
        try:
            packed.append(pack_row(row))
        except TypeError as error:
            problem = BadRecord(f"{error}.", table=table, row=number, value=excerpt(row))

            if on_error == "fail":
                raise problem from error

            packed.append(pack_row(Unloadable(str(problem), excerpt(row, DESCRIPTION_CHARS))))

        yield
