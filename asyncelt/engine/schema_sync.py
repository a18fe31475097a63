"""A load without rows, which brings a dataset to a schema."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

from asyncelt._async import in_thread, shielded
from asyncelt.engine.loading import Loaded, load_bundles
from asyncelt.engine.ownership import Owned, next_load_ids
from asyncelt.flow import JobFile, Package
from asyncelt.schema.evolve import bump
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_json
from asyncelt.storage.package import PackageDraft, SealedPackage
from asyncelt.storage.writer import Chunk, TableFiles

__all__ = ["sync_schema"]

_CLEANUP_S = 10.0


async def sync_schema(owned: Owned, schema: Schema) -> Mapping[str, tuple[str, ...]]:
    """Make every table of ``schema`` that has columns, in one commit.

    Returns:
        New columns by table; empty when the dataset has this very schema.

    Raises:
        PipelineStepFailed: Step ``load``. Nothing is pending afterwards.
    """
    wanted = bump(schema)
    stored = owned.restored.schemas.get(schema.name)

    if stored is not None and from_json(stored).version_hash == wanted.version_hash:
        return {}

    known = [one for one in (owned.restored.last_load_id, owned.tip.load_id) if one is not None]
    (load_id,) = next_load_ids(time.time(), max(known, key=float, default=None), 1)
    draft = await in_thread(partial(owned.store.draft, load_id), owned.threads)
    loaded = Loaded()

    try:
        (sealed,) = await in_thread(partial(_seal, owned, draft, wanted), owned.threads)
        await load_bundles(owned, [[sealed]], loaded, raise_on_failed_jobs=True, is_fresh=True)
    except BaseException:
        with shielded(_CLEANUP_S):
            await in_thread(partial(owned.store.discard, [draft]), owned.threads)
            # There are no rows in it that could be lost.
            await in_thread(partial(owned.store.abort, [load_id], keep=0), owned.threads)

        raise

    report = loaded.bundles[0].report

    return report.result.schema_updates.get(load_id, {}) if report.result is not None else {}


def _seal(owned: Owned, draft: PackageDraft, schema: Schema) -> list[SealedPackage]:
    environment = owned.environment
    limits, capabilities = environment.settings.limits, environment.capabilities
    jobs: list[JobFile] = []

    for table in schema.tables.values():
        if any(column.data_type is not None for column in table.columns.values()):
            files = TableFiles(draft.jobs_folder, table.name, capabilities.file_formats[0], limits, capabilities)
            files.append(Chunk(table=table, batches=(), rows=0, nbytes=0))
            files.finish()
            jobs += files.jobs

    package = Package(
        load_id=draft.load_id,
        pipeline_name=environment.pipeline_name,
        dataset_name=environment.dataset_name,
        folder=draft.folder,
        schema=schema,
        jobs=tuple(jobs),
        parent_load_id=owned.tip.load_id,
        bundle=(draft.load_id,),
        created_at=time.time(),
    )

    return owned.store.seal([SealedPackage(package=package, state=owned.tip.state, place=environment.place)])
