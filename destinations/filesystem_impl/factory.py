"""``asyncelt.destinations.filesystem(...)``: describes a destination, does no I/O."""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import unquote, urlsplit

from anyio.to_thread import run_sync

from asyncelt.arguments import PATH, SECONDS, SIZE, TEXT, expect, expect_if_given
from asyncelt.destinations._threads import Threads
from asyncelt.destinations.filesystem_impl.catalogs import CatalogConfig, catalog_config
from asyncelt.destinations.filesystem_impl.dataset import FileDataset
from asyncelt.destinations.filesystem_impl.layout import DEFAULT_LAYOUT, Layout, Moment, Placeholder, path_part
from asyncelt.destinations.filesystem_impl.local import LocalPlace
from asyncelt.destinations.filesystem_impl.s3.config import S3Config, s3_config
from asyncelt.destinations.filesystem_impl.session import FilesystemSession
from asyncelt.destinations.filesystem_impl.staging import FileStaging
from asyncelt.destinations.filesystem_impl.storage import Place
from asyncelt.errors import ConfigError
from asyncelt.load.protocol import Session, Target
from asyncelt.schema.capabilities import FOR_READERS, Capabilities

__all__ = ["Filesystem", "filesystem"]

_CAPABILITIES = Capabilities(
    file_formats=("jsonl", "parquet"),
    parquet=FOR_READERS,
    write_dispositions=("append", "replace", "skip"),
    merge_strategies=(),
    table_formats=("delta", "iceberg"),
    table_format_strategies=("upsert", "insert-only"),
    case_sensitive=True,
    transactional=False,
    sqlglot_dialect="duckdb",
)
_FEWEST = 2


@dataclass(frozen=True, slots=True)
class LocalSite:
    """A local folder."""

    root: Path

    @property
    def location(self) -> str:
        """The folder as a URL."""
        return f"file://{self.root}"

    @asynccontextmanager
    async def opened(self, folder: str, target: Target) -> AsyncIterator[Place]:
        """The files of one dataset, inside the block."""
        yield LocalPlace(self.root / folder, target)


@dataclass(frozen=True, slots=True)
class S3Site:
    """A prefix in a bucket."""

    config: S3Config
    _opener: list[Opener] = field(default_factory=list, repr=False, compare=False)
    """Made by the first session, off the event loop; it keeps what takes long to read."""

    @property
    def location(self) -> str:
        """The prefix as a URL."""
        return self.config.location

    @asynccontextmanager
    async def opened(self, folder: str, target: Target) -> AsyncIterator[Place]:
        """The files of one dataset, inside the block."""
        if not self._opener:
            self._opener.append(await run_sync(self._made))

        async with self._opener[0].opened(self.config, folder, target) as place:
            yield place

    @staticmethod
    def _made() -> Opener:
        module = importlib.import_module("asyncelt.destinations.filesystem_impl.s3.place")

        return cast("Opener", module.Bucketeer())


class Opener(Protocol):
    """What opens places in a bucket, once its driver is there."""

    def opened(self, config: S3Config, folder: str, target: Target) -> AbstractAsyncContextManager[Place]:
        """The files of one dataset, inside the block."""
        ...


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A folder, or a prefix in a bucket, with one folder per dataset."""

    destination_name: str
    site: LocalSite | S3Site
    layout: Layout
    capabilities: Capabilities
    max_state_files: int = 100
    busy_timeout_s: float = 30.0
    iceberg_catalog: CatalogConfig = field(default_factory=CatalogConfig)
    compact_files: int | None = None
    memory_limit: str | None = "1GB"
    threads: Threads = field(default_factory=lambda: Threads("asyncelt-filesystem"), repr=False, compare=False)
    """Those of the sessions."""

    @property
    def destination_type(self) -> str:
        """``asyncelt.destinations.filesystem``."""
        return "asyncelt.destinations.filesystem"

    @property
    def location(self) -> str:
        """The address, without secrets."""
        return self.site.location

    @property
    def place(self) -> LocalSite | S3Site:
        """The folder, or the prefix and how it is reached."""
        return self.site

    def for_pipeline(self, pipeline_name: str) -> Filesystem:
        """The same: nothing depends on the pipeline."""
        del pipeline_name

        return self

    def connect(self, target: Target) -> AbstractAsyncContextManager[Session]:
        """A session on one dataset's folder."""
        return self._connected(target)

    def check_staging(self) -> None:
        """See `StagingDestination.check_staging`."""
        if "{load_id}" not in self.layout.text:
            raise ConfigError(
                f"Destination {self.destination_name!r} cannot be used for staging: its layout {self.layout.text!r} "
                "lacks {load_id}, so files of two loads would overwrite each other."
            )

    @asynccontextmanager
    async def staging(self, target: Target, reader: str) -> AsyncIterator[FileStaging]:
        """See `StagingDestination.staging`. Files lie in the dataset's folder, as if they were loaded."""
        async with self.site.opened(path_part(target.dataset_name), target) as place:
            staging = FileStaging(place, self.layout, target, reader, self.threads)

            try:
                yield staging
            finally:
                await staging.close()

    @asynccontextmanager
    async def _connected(self, target: Target) -> AsyncIterator[FilesystemSession]:
        async with self.site.opened(path_part(target.dataset_name), target) as place:
            dataset = FileDataset(
                place=place,
                layout=self.layout,
                capabilities=self.capabilities,
                max_state_files=self.max_state_files,
                catalog=self.iceberg_catalog,
                namespace=target.dataset_name,
                compact_files=self.compact_files,
                memory_limit=self.memory_limit,
            )
            session = FilesystemSession(dataset, target, self.threads, busy_timeout_s=self.busy_timeout_s)

            try:
                yield session
            finally:
                await session.close()


def filesystem(  # noqa: PLR0913 - what people write down for a dataset; all but the first by name
    bucket_url: str | os.PathLike[str],
    *,
    endpoint_url: str | None = None,
    region_name: str | None = None,
    credentials: Mapping[str, str] | None = None,
    layout: str = DEFAULT_LAYOUT,
    extra_placeholders: Mapping[str, Placeholder] | None = None,
    current_datetime: Moment | None = None,
    destination_name: str | None = None,
    max_state_files: int = 100,
    naming_convention: str | None = None,
    busy_timeout_s: float = 30.0,
    iceberg_catalog: str | Mapping[str, str] | None = None,
    compact_files: int | None = None,
    memory_limit: str | None = "1GB",
) -> Filesystem:
    """Load into files, Parquet or JSON lines, in a local folder or a bucket of S3.

    The packages of a run become visible together through ``dataset()``, which lists the files of committed loads
    only; who lists the folder may see the files of a load a moment before it is committed.

    Args:
        bucket_url: A path, ``file://`` and a path, or ``s3://bucket/prefix``, which needs ``asyncelt[s3]``.
        endpoint_url: Of a service that speaks S3 and is not AWS.
        region_name: Of the bucket.
        credentials: For S3: ``aws_access_key_id``, ``aws_secret_access_key``, ``aws_session_token``, or
            ``profile_name``; also ``region_name``, ``endpoint_url`` and ``s3_url_style`` ("path" or "vhost"). Without
            them what the AWS tools use counts: variables, profiles, roles.
        layout: Where a data file goes in the dataset's folder. Placeholders: table_name, schema_name, load_id,
            file_id, ext, curr_date, timestamp(_ms), load_package_timestamp(_ms), and parts of the date: YYYY, YY, Y,
            MMMM, MMM, MM, M, DD, D, dddd, ddd, dd, d, HH, H, mm, m, ss, s, SSSS, SSS, SS, S, Q.
        extra_placeholders: Further ones: a value, or a function of (schema name, table name, load id, file id,
            extension).
        current_datetime: What the parts of the date mean, or a function that tells; the time of the load package
            unless given, which keeps a file's name the same when its load is tried again.
        destination_name: Name in messages and settings; "filesystem" unless given.
        max_state_files: Old pipeline states that are kept.
        naming_convention: How names of the data become names of tables and columns. None: as the schema has it, a new
            one "snake_case".
        busy_timeout_s: How long to wait for another session that is committing to the same dataset.
        iceberg_catalog: Of tables with ``table_format="iceberg"``: the address of a SQL database or of a REST
            catalog, a mapping of pyiceberg's properties (``type``, ``uri``, ``warehouse``, ``credential``, ...), or
            a name in pyiceberg's own configuration. In a local folder a SQLite file in the dataset unless given.
        compact_files: A Delta or Iceberg table that has this number of small files (below 16 MiB) after a load has
            them put together, in a commit of its own; never unless given.
        memory_limit: Most memory that DuckDB may use to answer one query over the files, as it writes it ("512MB");
            what does not fit goes to a temporary folder of the system. None: DuckDB's own default.

    Raises:
        ConfigError: The layout, the address or the credentials are not usable, or a package is missing.
    """
    expect("filesystem", PATH, bucket_url=bucket_url)
    expect("filesystem", TEXT, layout=layout)
    expect("filesystem", SECONDS, busy_timeout_s=busy_timeout_s)
    expect("filesystem", SIZE, max_state_files=max_state_files)
    expect_if_given("filesystem", SIZE, compact_files=compact_files)
    expect_if_given(
        "filesystem",
        TEXT,
        endpoint_url=endpoint_url,
        region_name=region_name,
        destination_name=destination_name,
        naming_convention=naming_convention,
    )

    if compact_files is not None and compact_files < _FEWEST:
        raise ConfigError(f"filesystem(compact_files={compact_files}): it takes {_FEWEST} files to put some together.")

    return Filesystem(
        destination_name=destination_name or "filesystem",
        site=_site(os.fspath(bucket_url), endpoint_url, region_name, credentials),
        layout=Layout(text=layout, extra=extra_placeholders or {}, now=current_datetime),
        capabilities=replace(_CAPABILITIES, naming_convention=naming_convention),
        max_state_files=max_state_files,
        busy_timeout_s=busy_timeout_s,
        iceberg_catalog=catalog_config(iceberg_catalog),
        compact_files=compact_files,
        memory_limit=memory_limit,
    )


def _site(url: str, endpoint_url: str | None, region_name: str | None, credentials: object) -> LocalSite | S3Site:
    if url.startswith(("s3://", "s3a://")):
        for package in ("aiobotocore", "fsspec"):
            if find_spec(package) is None:
                raise ConfigError(f"filesystem({url!r}) needs the package {package}: pip install 'asyncelt[s3]'.")

        return S3Site(config=s3_config(url, endpoint_url, region_name, credentials))

    if endpoint_url or region_name or credentials:
        raise ConfigError(f"filesystem({url!r}): a local folder has no endpoint_url, region_name or credentials.")

    return LocalSite(root=_local_path(url))


def _local_path(url: str) -> Path:
    if "://" in url:
        parts = urlsplit(url)

        if parts.scheme != "file":
            raise ConfigError(
                f"filesystem({url!r}): only local folders, as a path or file:// address, and s3:// are supported "
                f"now, not {parts.scheme}://."
            )

        url = unquote(parts.netloc + parts.path)

    if not url:
        raise ConfigError("filesystem() needs a folder: a path or a file:// address.")

    return Path(os.path.abspath(os.path.expanduser(url)))
