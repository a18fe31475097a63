"""Files of a package that wait for another destination.

They lie where the layout says, under names that depend on package and job alone. Before the first of them comes, a
list of them is written to ``_asyncelt_staging/<pipeline>__<member>__<reader>/<load id>.json``: whoever tries the
package again finds what is there by it, and whoever has committed a later package removes what has been left.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import anyio
import orjson

from asyncelt.destinations._threads import Threads
from asyncelt.destinations._worker import Worker
from asyncelt.destinations.filesystem_impl.layout import Layout, path_part
from asyncelt.destinations.filesystem_impl.storage import Place
from asyncelt.errors import AsynceltError, DestinationRejected, DestinationUnavailable
from asyncelt.failpoints import failpoint
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Target
from asyncelt.types import LoadId

__all__ = ["FOLDER", "FileStaging"]

T = TypeVar("T")

FOLDER = "_asyncelt_staging"

_logger = logging.getLogger("asyncelt.destinations.filesystem")


class FileStaging:
    """See `Staging`.

    Args:
        place: Where the files wait.
        layout: Of the files.
        target: Whose they are.
        reader: Who loads them.
        threads: For what blocks.
    """

    def __init__(self, place: Place, layout: Layout, target: Target, reader: str, threads: Threads) -> None:
        digest = hashlib.sha256(reader.encode()).hexdigest()[:12]
        self._place = place
        self._layout = layout
        self._folder = f"{FOLDER}/{path_part(target.pipeline_name)}__{path_part(target.member)}__{digest}"
        self._worker = Worker(threads)
        self._announcing = anyio.Lock()
        self._announced: set[LoadId] = set()
        self._there: set[str] = set()
        self._paths: dict[tuple[LoadId, str], str] = {}

    async def put(self, package: Package, job: JobFile) -> None:
        """See `Staging.put`."""
        async with self._announcing:
            if package.load_id not in self._announced:
                self._there.update(await self._run(lambda: self._announce(package)))
                self._announced.add(package.load_id)

        path = self.path_of(package, job)

        if path not in self._there:
            await self._place.carrier.bring(package.path_of(job), path, package.load_id)
            self._there.add(path)
            failpoint("staging.put")

    async def forget(self) -> None:
        """See `Staging.forget`."""
        self._there.clear()
        self._announced.clear()
        self._place.carrier.forget()

    async def clear(self, load_id: LoadId, *, keep: bool) -> None:
        """See `Staging.clear`."""
        failpoint("staging.before_clear")

        try:
            await self._run(lambda: self._clear(load_id, keep=keep))
        except AsynceltError as error:
            _logger.warning("Staged files of load %s are removed with a later one: %s", load_id, error)

        failpoint("staging.after_clear")

    def path_of(self, package: Package, job: JobFile) -> str:
        """See `Staging.path_of`. Remembered, since a layout may have the time of day in it."""
        key = (package.load_id, job.job_id)

        if key not in self._paths:
            self._paths[key] = self._layout.path_of(package, job)

        return self._paths[key]

    def local_path(self, path: str) -> Path | None:
        """See `Staging.local_path`."""
        return self._place.store.local_path(path)

    def size(self, path: str) -> int | None:
        """See `Staging.size`."""
        return self._place.store.sizes([path])[0]

    def span(self, path: str, start: int, stop: int) -> bytes | None:
        """See `Staging.span`."""
        return self._place.store.span(path, start, stop)

    async def close(self) -> None:
        """Give the threads back, also while the task is being cancelled."""
        with anyio.CancelScope(shield=True):
            await self._worker.ended()
            await self._place.carrier.close()

    def _announce(self, package: Package) -> Sequence[str]:
        """Write down which files will come; those that an earlier try has brought are there."""
        store, name = self._place.store, f"{self._folder}/{package.load_id}.json"
        paths = {self.path_of(package, job): job.nbytes for job in package.jobs}
        content = store.read(name)
        before: list[str] = [] if content is None else orjson.loads(content)

        if content is None or not paths.keys() <= set(before):
            store.write_all({name: orjson.dumps(sorted({*before, *paths}))})

        if content is None:
            return []

        store.abort_uploads(paths)
        wanted = list(paths)

        return [path for path, size in zip(wanted, store.sizes(wanted), strict=True) if size == paths[path]]

    def _clear(self, load_id: LoadId, *, keep: bool) -> None:
        store = self._place.store
        done = {name: LoadId(name.removesuffix(".json")) for name in store.names(self._folder)}
        done = {name: one for name, one in done.items() if Decimal(one) <= Decimal(load_id)}
        lists = [f"{self._folder}/{name}" for name in done]

        if not keep:
            paths = {path for content in store.read_all(lists) for path in orjson.loads(content)}

            # An upload that is open has been left by somebody else.
            if not self._announced.issuperset(done.values()):
                store.abort_uploads(paths)

            store.remove(sorted(paths))

        store.remove(lists)
        self._announced.difference_update(done.values())

    async def _run(self, work: Callable[[], T]) -> T:
        address = self._place.store.address

        try:
            return await self._worker.call(work)
        except PermissionError as error:
            raise DestinationRejected(f"Staging at {address}: {error}") from error
        except OSError as error:
            raise DestinationUnavailable(f"Staging at {address}: {error}") from error
