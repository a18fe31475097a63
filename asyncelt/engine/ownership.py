"""Owning a pipeline for one call: lock, working folder, session, lease, and a head that agrees with the destination."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import anyio

from asyncelt._async import in_thread, retrying
from asyncelt.engine.environment import Environment
from asyncelt.engine.steps import step
from asyncelt.load.protocol import Lease, Restored, Session
from asyncelt.observe import Warned
from asyncelt.schema.stored import from_json
from asyncelt.storage.head import Head, read_head, write_head
from asyncelt.storage.lock import hold_lock
from asyncelt.storage.package import PackageStore
from asyncelt.storage.state import decode_state
from asyncelt.types import LoadId, OnBusy

__all__ = ["Owned", "own", "own_folder"]


@dataclass(slots=True)
class Owned:
    """A pipeline that this call owns, with its files and an open session."""

    environment: Environment
    store: PackageStore
    session: Session
    lease: Lease
    restored: Restored
    head: Head
    pending: list[LoadId]
    """Packages that are sealed and wait for their commit."""
    threads: anyio.CapacityLimiter

    async def save_head(self, head: Head) -> None:
        """Move the head forward, here and on the disk."""
        self.head = head
        await in_thread(partial(write_head, self.store.root, head), self.threads)


@asynccontextmanager
async def own_folder(
    root: Path, *, pipeline_name: str, member: str, on_busy: OnBusy
) -> AsyncIterator[tuple[PackageStore, list[LoadId], anyio.CapacityLimiter]]:
    """Own a working folder; what a dead run left unfinished is gone afterwards.

    Yields:
        The folder's packages, the ids of those that wait for their commit, and a limiter for blocking calls.

    Raises:
        PipelineBusy: Another task or process owns it and the pipeline was told not to wait.
    """
    threads = anyio.CapacityLimiter(2)
    await in_thread(partial(root.mkdir, parents=True, exist_ok=True), threads)
    what = f"Pipeline {pipeline_name!r}" + (f" (member {member!r})" if member else "")

    async with hold_lock(root / ".lock", on_busy=on_busy, what=what):
        store = PackageStore(root)

        yield store, await in_thread(store.prepare, threads), threads


@asynccontextmanager
async def own(environment: Environment) -> AsyncIterator[Owned]:
    """Own the pipeline here and at the destination, with a head that agrees with what is committed there.

    Raises:
        PipelineBusy: Another owner is at work and the pipeline was told not to wait.
        PipelineStepFailed: Step ``sync``: the destination could not be reached or read.
    """
    retry = environment.settings.retry

    async with AsyncExitStack() as stack:
        store, pending, threads = await stack.enter_async_context(
            own_folder(
                environment.root,
                pipeline_name=environment.pipeline_name,
                member=environment.member,
                on_busy=environment.on_busy,
            )
        )
        head = await in_thread(partial(read_head, environment.root), threads)

        with step("sync", pipeline_name=environment.pipeline_name):
            session = await stack.enter_async_context(environment.destination.connect(environment.target))
            lease = await retrying(partial(session.acquire, environment.pipeline_name, environment.member), retry)
            restored = await retrying(partial(session.restore, environment.pipeline_name), retry)

        owned = Owned(
            environment=environment,
            store=store,
            session=session,
            lease=lease,
            restored=restored,
            head=head,
            pending=pending,
            threads=threads,
        )

        with step("sync", pipeline_name=environment.pipeline_name):
            agreed = reconcile(environment, head, restored)

            if agreed is not head:
                await owned.save_head(agreed)

        yield owned


def reconcile(environment: Environment, head: Head, restored: Restored) -> Head:
    """The head to go on from: the local one where it is current, else what the destination has.

    The destination wins when its state is of the same or a higher version and differs (behaviour.md 2.3), and
    when it has been emptied; both are reported.
    """
    if not environment.restore_from_destination:
        return head

    if not restored.exists:
        return _after_loss(environment, head)

    if head.load_id is not None and head.load_id == restored.head_load_id and _same_state(head, restored):
        return head

    newer = _is_newer(restored.state, head.state)
    schemas = dict(head.schemas)

    if newer:
        schemas = {name: from_json(text) for name, text in restored.schemas.items()}
    else:
        schemas.update({name: from_json(text) for name, text in restored.schemas.items() if name not in schemas})

    return replace(
        head,
        load_id=restored.head_load_id,
        state=restored.state if newer else head.state,
        schemas=schemas,
        dataset_name=environment.dataset_name,
        destination_type=environment.destination.destination_type,
        local={**head.local, "first_run": False} if restored.state is not None else head.local,
    )


def _same_state(head: Head, restored: Restored) -> bool:
    return restored.state is None or restored.state == head.state


def _after_loss(environment: Environment, head: Head) -> Head:
    if head.load_id is None:
        return head

    environment.emit(
        Warned(
            pipeline_name=environment.pipeline_name,
            message=(
                f"Dataset {environment.dataset_name!r} does not exist at {environment.destination.location}, although "
                f"this pipeline had loaded package {head.load_id} into dataset {head.dataset_name!r}. State and "
                "schemas start anew, so that everything is loaded again."
            ),
        )
    )

    return Head(local=head.local)


def _is_newer(remote: str | None, local: str | None) -> bool:
    if remote is None or remote == local:
        return False

    if local is None:
        return True

    ours, theirs = decode_state(local), decode_state(remote)

    return _version(theirs) >= _version(ours) and theirs.get("_version_hash") != ours.get("_version_hash")


def _version(document: Mapping[str, object]) -> int:
    version = document.get("_state_version", 0)

    return version if isinstance(version, int) else 0


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
