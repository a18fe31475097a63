"""The calls about state, schemas and the destination."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace

import orjson

from asyncelt import current
from asyncelt.arguments import TEXT, Kind, expect
from asyncelt.engine.ownership import Folder
from asyncelt.engine.run import RunRequest, run_extract
from asyncelt.engine.schema_sync import sync_schema
from asyncelt.engine.steps import step
from asyncelt.errors import ConfigError, PipelineStepFailed, UsageError
from asyncelt.pipeline.base import PipelineBase
from asyncelt.pipeline.options import DestinationReference
from asyncelt.storage.state import LOCAL_KEY, StateDoc, bump_state, decode_state, default_state, encode_state
from asyncelt.types import JsonValue

__all__ = ["StateCalls"]

_managed: ContextVar[tuple[object, StateDoc] | None] = ContextVar("asyncelt_managed_state", default=None)
"""The pipeline whose state this task is changing, and that state."""


def _is_storable(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False

    return True


_STORABLE = Kind("a value of JSON", _is_storable)


class StateCalls(PipelineBase):
    """State, schemas, destination."""

    @asynccontextmanager
    async def managed_state(self, *, extract_state: bool = False) -> AsyncIterator[StateDoc]:
        """The state document, to be changed in place; kept when the block ends well, forgotten when it raises.

        The next package takes the change along. The pipeline is owned meanwhile, so no other call of it can run.

        Args:
            extract_state: Make a package of the changed state alone, which `normalize` and `load` bring to the
                destination. Without a change there is none.

        Raises:
            ConfigError: A value cannot be stored.
            UsageError: This task is inside `managed_state` of the same pipeline already.
        """
        self._refuse_nesting()

        async with self._folder() as folder:
            encoded = folder.tip.document
            state = default_state(self._name) if encoded is None else decode_state(encoded)
            state[LOCAL_KEY] = self._local()
            token = _managed.set((self, state))

            try:
                with current.activate_pipeline(self, state):  # type: ignore[arg-type]  # the only subclass is Pipeline
                    yield state
            finally:
                _managed.reset(token)

            await self._keep_state(folder, state, extract_state=extract_state)

    async def set_local_state_val(self, key: str, value: JsonValue) -> None:
        """Keep a value on this machine; it never goes to the destination.

        Inside `managed_state` it is kept when the block ends well.

        Raises:
            ConfigError: The key is no text, or the value has no form in JSON.
        """
        expect("set_local_state_val", TEXT, key=key)
        expect("set_local_state_val", _STORABLE, **{key: value})
        managed = _managed.get()

        if managed is not None and managed[0] is self:
            managed[1][LOCAL_KEY][key] = value
            return

        async with self._folder() as folder:
            await folder.save_head(replace(folder.head, local={**folder.head.local, key: value}))

    def get_local_state_val(self, key: str) -> object:
        """A value that was kept on this machine.

        Raises:
            KeyError: There is none.
        """
        managed = _managed.get()
        known = managed[1][LOCAL_KEY] if managed is not None and managed[0] is self else self._local()

        if key not in known:
            raise KeyError(f"Pipeline {self._name!r} has no local state value {key!r}.")

        return known[key]

    async def sync_destination(
        self,
        destination: DestinationReference | None = None,
        staging: DestinationReference | None = None,
        dataset_name: str | None = None,
    ) -> None:
        """Take over what the destination knows about this pipeline where it is ahead of the working folder.

        Args:
            destination: Replaces the pipeline's destination from this call on.
            staging: Replaces the staging destination.
            dataset_name: Replaces the pipeline's dataset from this call on.

        Raises:
            PipelineStepFailed: Step ``sync``: there is no destination, or it could not be reached or read.
        """
        with self._entered():
            try:
                self._take(await self._aimed(destination, staging, dataset_name, None))
            except ConfigError as error:
                raise PipelineStepFailed(
                    f"Pipeline {self._name!r} failed at step 'sync'. {error}", pipeline_name=self._name, step="sync"
                ) from error

            async with self._owned():
                pass

    async def sync_schema(self, schema_name: str | None = None) -> Mapping[str, tuple[str, ...]]:
        """Bring the dataset to a schema without loading rows: tables and columns that are not there are made.

        It is no load: ``_dlt_version`` gets the schema, ``_dlt_loads`` gets no row.

        Args:
            schema_name: Which; None: the default one.

        Returns:
            New columns by table; empty when there was nothing to do.

        Raises:
            PipelineConfigMissing: There is no destination, or no schema yet.
            SchemaNotFound: No schema has this name.
            UsageError: Packages are pending.
            PipelineStepFailed: Step ``sync`` or ``load``.
        """
        self._require_destination()
        schema = self._require_schema(schema_name)

        async with self._owned() as owned:
            if owned.pending:
                raise UsageError(
                    f"Pipeline {self._name!r} has pending packages {', '.join(owned.pending.all)}, which will bring "
                    "the dataset to their schemas. Load them first, or give them up with abort_packages()."
                )

            with step("load", pipeline_name=self._name):
                return await sync_schema(owned, owned.tip.schemas.get(schema.name, schema))

    # ------------------------------------------------------------------ inside

    def _refuse_nesting(self) -> None:
        managed = _managed.get()

        if managed is not None and managed[0] is self:
            raise UsageError(f"Pipeline {self._name!r}: managed_state() is entered already in this task.")

    async def _keep_state(self, folder: Folder, state: StateDoc, *, extract_state: bool) -> None:
        local = {key: value for key, value in state.pop(LOCAL_KEY).items() if key != "_dev_mode" or value}
        tip = folder.tip
        before = bump_state(default_state(self._name)) if tip.document is None else decode_state(tip.document)
        after = bump_state(state, before)
        is_changed = after["_version_hash"] != before.get("_version_hash")

        if is_changed and extract_state:
            with step("extract", pipeline_name=self._name):
                await run_extract(folder, RunRequest(sources=()), state=state)
        elif is_changed:
            encoded = encode_state(after)
            folder.tip = replace(tip, edited=encoded)
            await folder.save_head(replace(folder.head, edited=encoded, edited_on=tip.load_id))

        if local != self._local():
            await folder.save_head(replace(folder.head, local=local))
