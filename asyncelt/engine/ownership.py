"""Owning a pipeline for one call: lock, working folder, session, lease, and a head that agrees with the destination."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio

from asyncelt._async import in_thread, retrying
from asyncelt.engine.environment import Environment
from asyncelt.engine.reconcile import known_of, reconcile
from asyncelt.engine.steps import step
from asyncelt.errors import PackageCorrupt, PipelineBusy
from asyncelt.load.protocol import Lease, Restored, Session, SupportsTakeOver
from asyncelt.observe import Warned
from asyncelt.storage.files import remove_tree
from asyncelt.storage.head import Head, Tip, read_tip
from asyncelt.storage.lock import hold_lock
from asyncelt.storage.manifest import SealedPackage
from asyncelt.storage.package import PackageStore, Pending
from asyncelt.types import LoadId

__all__ = ["Folder", "Owned", "next_load_ids", "own_everywhere", "own_folder", "wipe"]

T = TypeVar("T")
_FIRST_WAIT_S = 0.05
_MAX_WAIT_S = 1.0


@dataclass(slots=True)
class Folder:
    """A working folder that this call owns."""

    environment: Environment
    store: PackageStore
    head: Head
    pending: Pending
    tip: Tip
    """Where the next package starts."""
    threads: anyio.CapacityLimiter
    """For blocking calls."""
    damage: PackageCorrupt | None
    """A pending package that cannot be read: nothing but giving it up is possible."""

    def check(self) -> None:
        """Go no further when a pending package is damaged.

        Raises:
            PackageCorrupt: Names it.
        """
        if self.damage is not None:
            raise self.damage

    async def save_head(self, head: Head) -> None:
        """Replace the head, here and on the disk."""
        self.head = head
        await in_thread(partial(self.environment.head_file.write, head), self.threads)

    def advance(self, sealed: Sequence[SealedPackage], *, used_up: Sequence[LoadId] = ()) -> None:
        """Take note of packages that this call has sealed.

        Args:
            sealed: Job files that now wait for their commit.
            used_up: Extracted packages that are no longer there.
        """
        remaining = self.pending.without(used_up)

        if not sealed:
            self.pending = remaining
            return

        ids = tuple(one.package.load_id for one in sealed)
        self.pending = replace(remaining, sealed=(*remaining.sealed, *ids))

        # Extracted packages that come later have been laid over the tip already.
        if not remaining.extracted:
            last = sealed[-1]
            schemas = {one.package.schema.name: one.package.schema for one in sealed}
            state = last.state if last.state is not None else self.tip.state
            self.tip = Tip(load_id=last.package.load_id, state=state, schemas={**self.tip.schemas, **schemas})

    async def look(self) -> None:
        """Look again what is pending."""
        self.pending, self.tip, self.damage = await in_thread(partial(_look, self.store, self.head), self.threads)


@dataclass(slots=True)
class Owned(Folder):
    """A pipeline that this call owns here and at the destination, with an open session."""

    session: Session
    lease: Lease
    restored: Restored


@asynccontextmanager
async def own_folder(environment: Environment) -> AsyncIterator[Folder]:
    """Own a working folder; what a dead run left unfinished is gone afterwards.

    Raises:
        PipelineBusy: Another task or process owns it and the pipeline was told not to wait.
        StorageError: It cannot be written, or a newer release has written it.
    """
    threads = anyio.CapacityLimiter(2)
    root = environment.root
    name, member = environment.pipeline_name, environment.member
    what = f"Pipeline {name!r}" + (f" (member {member!r})" if member else "")

    make_folder = partial(in_thread, partial(root.mkdir, parents=True, exist_ok=True), threads)

    async with hold_lock(root / ".lock", on_busy=environment.on_busy, what=what, make_folder=make_folder):
        store = PackageStore(root, max_disk=environment.settings.limits.max_disk)
        folder, message = await in_thread(partial(_open, environment, store, threads), threads)

        if message is not None:
            environment.emit(Warned(pipeline_name=name, message=message))

        yield folder


def _open(environment: Environment, store: PackageStore, threads: anyio.CapacityLimiter) -> tuple[Folder, str | None]:
    head = environment.head_file.read()
    message = None
    was_dev = bool(head.local.get("_dev_mode"))

    if environment.start_anew or (was_dev and not environment.dev_mode):
        wipe(store)
        head = Head()

        if not environment.dev_mode:
            message = "The working folder was one of dev_mode. Its state, schemas and pending packages were removed."

    store.prepare()
    pending, tip, damage = _look(store, head)

    return Folder(
        environment=environment, store=store, head=head, pending=pending, tip=tip, threads=threads, damage=damage
    ), message


def _look(store: PackageStore, head: Head) -> tuple[Pending, Tip, PackageCorrupt | None]:
    pending = store.pending()

    try:
        return pending, read_tip(store, head, pending), None
    except PackageCorrupt as error:
        return pending, Tip(load_id=head.load_id, state=head.state, schemas=head.schemas), error


def wipe(store: PackageStore) -> None:
    """Remove everything that a working folder holds, except its lock. Blocking."""
    remove_tree(store.root / "packages")

    for name in ("head.json", "trace.json"):
        (store.root / name).unlink(missing_ok=True)


@asynccontextmanager
async def own_everywhere(folder: Folder) -> AsyncIterator[Owned]:
    """Own at the destination too what is owned here, with a head that agrees with what is committed there.

    Raises:
        PipelineBusy: Another owner is at work and the pipeline was told not to wait.
        PipelineStepFailed: Step ``sync``: the destination could not be reached or read.
    """
    environment = folder.environment
    folder.check()

    async with AsyncExitStack() as stack:
        with step("sync", pipeline_name=environment.pipeline_name):
            session = await stack.enter_async_context(environment.connect())
            lease, restored = await _taken_over(environment, session, folder.head)

        owned = Owned(
            environment=environment,
            store=folder.store,
            head=folder.head,
            pending=folder.pending,
            tip=folder.tip,
            threads=folder.threads,
            damage=folder.damage,
            session=session,
            lease=lease,
            restored=restored,
        )

        with step("sync", pipeline_name=environment.pipeline_name):
            agreed = reconcile(environment, owned.head, restored, owned.pending)

            if agreed is not owned.head:
                await owned.save_head(agreed)
                await owned.look()

        yield owned


async def _taken_over(environment: Environment, session: Session, head: Head) -> tuple[Lease, Restored]:
    """Own the pipeline at the destination, and learn what is committed there.

    An owner there gives no notice when it lets go, so waiting is asking again.

    Raises:
        PipelineBusy: Another owner is alive and the pipeline was told not to wait.
    """
    name, member, retry = environment.pipeline_name, environment.member, environment.settings.retry

    if isinstance(session, SupportsTakeOver):
        known = known_of(environment, head)

        return await _when_free(environment, partial(session.take_over, name, member, known))

    lease = await _when_free(environment, partial(session.acquire, name, member))

    return lease, await retrying(partial(session.restore, name), retry)


async def _when_free(environment: Environment, take: Callable[[], Awaitable[T]]) -> T:
    wait_s = _FIRST_WAIT_S

    async def attempt() -> T | PipelineBusy:
        try:
            return await take()
        except PipelineBusy as busy:
            return busy

    while isinstance(found := await retrying(attempt, environment.settings.retry), PipelineBusy):
        if environment.on_busy == "raise":
            raise found

        await anyio.sleep(wait_s)
        wait_s = min(wait_s * 2, _MAX_WAIT_S)

    return found


def next_load_ids(now: float, last: LoadId | None, count: int) -> list[LoadId]:
    """``count`` ids, each greater than every id in the dataset: unix time with microseconds.

    Args:
        now: Unix seconds.
        last: Greatest id in the dataset.
        count: How many.
    """
    first = round(now * 1_000_000)

    if last is not None:
        first = max(first, round(float(last) * 1_000_000) + 1)

    return [LoadId(f"{(first + i) // 1_000_000}.{(first + i) % 1_000_000:06d}") for i in range(count)]
