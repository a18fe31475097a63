"""A commit without rows, which brings a dataset to a schema."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from asyncelt._async import in_thread, shielded
from asyncelt.engine.loading import commit_bundle
from asyncelt.engine.ownership import Owned, next_load_ids
from asyncelt.flow import JobFile, Package
from asyncelt.load.protocol import Commit
from asyncelt.schema.evolve import bump
from asyncelt.schema.model import Schema
from asyncelt.schema.stored import from_json
from asyncelt.storage.package import PackageDraft
from asyncelt.storage.writer import Chunk, TableFiles

__all__ = ["sync_schema"]


async def sync_schema(owned: Owned, schema: Schema) -> Mapping[str, tuple[str, ...]]:
    """Make every table of ``schema`` that has columns, and store the schema, in one commit that is no load.

    Returns:
        New columns by table; empty when the dataset has this very schema.

    Raises:
        LoadError: The destination refuses it. Nothing has changed there, and nothing is pending.
    """
    wanted = bump(schema)
    restored = owned.restored

    if restored.is_known:
        restored = await owned.session.restore(owned.environment.pipeline_name)

    stored = restored.schemas.get(schema.name)

    if stored is not None and from_json(stored).version_hash == wanted.version_hash:
        return {}

    environment = owned.environment
    # Of a draft only: it is never sealed, so no later call could take it for a load.
    known = [one for one in (owned.restored.last_load_id, owned.tip.load_id) if one is not None]
    (load_id,) = next_load_ids(time.time(), max(known, key=float, default=None), 1)
    draft = await in_thread(partial(owned.store.draft, load_id), owned.threads)

    try:
        package = await in_thread(partial(_package, owned, draft, wanted), owned.threads)
        commit = Commit(
            target=environment.target,
            lease=owned.lease,
            packages=(package,),
            parent_load_id=package.parent_load_id,
            is_load=False,
        )
        report = await commit_bundle(owned, commit)
        await owned.save_head(replace(owned.head, schemas={**owned.head.schemas, wanted.name: wanted}))
        await owned.look()
    finally:
        with shielded():
            await in_thread(partial(owned.store.discard, [draft]), owned.threads)

    return report.result.schema_updates.get(load_id, {}) if report.result is not None else {}


def _package(owned: Owned, draft: PackageDraft, schema: Schema) -> Package:
    """A package whose job files are empty: destinations make the tables of jobs. Blocking."""
    environment = owned.environment
    limits, capabilities = environment.settings.limits, environment.capabilities
    jobs: list[JobFile] = []

    for table in schema.tables.values():
        if any(column.data_type is not None for column in table.columns.values()):
            files = TableFiles(draft, table.name, capabilities.file_formats[0], limits, capabilities)
            files.append(Chunk(table=table, batches=(), rows=0, nbytes=0))
            files.finish()
            jobs += files.jobs

    return Package(
        load_id=draft.load_id,
        pipeline_name=environment.pipeline_name,
        dataset_name=environment.dataset_name,
        folder=draft.folder,
        schema=schema,
        jobs=tuple(jobs),
        parent_load_id=owned.lease.head_load_id,
        bundle=(draft.load_id,),
        created_at=time.time(),
    )
