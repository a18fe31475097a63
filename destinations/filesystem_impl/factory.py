"""``asyncelt.destinations.filesystem(...)``: describes a destination, does no I/O."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from asyncelt.destinations.filesystem_impl.dataset import FileDataset
from asyncelt.destinations.filesystem_impl.layout import DEFAULT_LAYOUT, Layout, Moment, Placeholder, path_part
from asyncelt.destinations.filesystem_impl.local import LocalPlace
from asyncelt.destinations.filesystem_impl.session import FilesystemSession
from asyncelt.errors import ConfigError
from asyncelt.load.protocol import Session, Target
from asyncelt.schema.capabilities import Capabilities

__all__ = ["Filesystem", "filesystem"]

_CAPABILITIES = Capabilities(
    file_formats=("jsonl", "parquet"),
    write_dispositions=("append", "replace", "skip"),
    merge_strategies=(),
    case_sensitive=True,
    transactional=False,
    sqlglot_dialect="duckdb",
)


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A folder with one folder per dataset."""

    destination_name: str
    root: Path
    layout: Layout
    capabilities: Capabilities
    max_state_files: int = 100
    busy_timeout_s: float = 30.0

    @property
    def destination_type(self) -> str:
        """``asyncelt.destinations.filesystem``."""
        return "asyncelt.destinations.filesystem"

    @property
    def location(self) -> str:
        """The folder as a URL."""
        return f"file://{self.root}"

    def for_pipeline(self, pipeline_name: str) -> Filesystem:
        """The same: nothing depends on the pipeline."""
        del pipeline_name

        return self

    def connect(self, target: Target) -> AbstractAsyncContextManager[Session]:
        """A session on one dataset's folder."""
        dataset = FileDataset(
            place=LocalPlace(self.root / path_part(target.dataset_name)),
            layout=self.layout,
            capabilities=self.capabilities,
            max_state_files=self.max_state_files,
        )

        return _connected(FilesystemSession(dataset, target, busy_timeout_s=self.busy_timeout_s))


def filesystem(
    bucket_url: str | os.PathLike[str],
    *,
    layout: str = DEFAULT_LAYOUT,
    extra_placeholders: Mapping[str, Placeholder] | None = None,
    current_datetime: Moment | None = None,
    destination_name: str | None = None,
    max_state_files: int = 100,
    naming_convention: str = "snake_case",
    busy_timeout_s: float = 30.0,
) -> Filesystem:
    """Load into files, Parquet or JSON lines, in a local folder.

    The packages of a run become visible together through ``dataset()``, which lists the files of committed loads
    only; who lists the folder may see the files of a load a moment before it is committed.

    Args:
        bucket_url: A path, or ``file://`` and a path.
        layout: Where a data file goes in the dataset's folder. Placeholders: table_name, schema_name, load_id,
            file_id, ext, curr_date, timestamp(_ms), load_package_timestamp(_ms), and parts of the date: YYYY, YY, Y,
            MMMM, MMM, MM, M, DD, D, dddd, ddd, dd, d, HH, H, mm, m, ss, s, SSSS, SSS, SS, S, Q.
        extra_placeholders: Further ones: a value, or a function of (schema name, table name, load id, file id,
            extension).
        current_datetime: What the parts of the date mean, or a function that tells; the time of the load package
            unless given, which keeps a file's name the same when its load is tried again.
        destination_name: Name in messages and settings; "filesystem" unless given.
        max_state_files: Old pipeline states that are kept.
        naming_convention: How names of the data become names of tables and columns.
        busy_timeout_s: How long to wait for another session that is committing to the same dataset.

    Raises:
        ConfigError: The layout is not usable, or the address is not that of a local folder.
    """
    return Filesystem(
        destination_name=destination_name or "filesystem",
        root=_local_path(os.fspath(bucket_url)),
        layout=Layout(text=layout, extra=extra_placeholders or {}, now=current_datetime),
        capabilities=replace(_CAPABILITIES, naming_convention=naming_convention),
        max_state_files=max_state_files,
        busy_timeout_s=busy_timeout_s,
    )


def _local_path(url: str) -> Path:
    if "://" in url:
        parts = urlsplit(url)

        if parts.scheme != "file":
            raise ConfigError(
                f"filesystem({url!r}): only local folders are supported now, as a path or file:// address, not "
                f"{parts.scheme}://."
            )

        url = unquote(parts.netloc + parts.path)

    if not url:
        raise ConfigError("filesystem() needs a folder: a path or a file:// address.")

    return Path(os.path.abspath(os.path.expanduser(url)))


@asynccontextmanager
async def _connected(session: FilesystemSession) -> AsyncIterator[FilesystemSession]:
    try:
        yield session
    finally:
        await session.close()
