"""The call that never has to end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from asyncelt._async import beating, in_thread, shielded
from asyncelt.arguments import FLAG, Kind, expect_if_given
from asyncelt.config import Roll
from asyncelt.engine.dispositions import disposition_of
from asyncelt.engine.loading import Loaded, load_pending
from asyncelt.engine.ownership import Owned
from asyncelt.engine.run import RunRequest, run_normalize
from asyncelt.engine.stream.handle import Running, Stream
from asyncelt.engine.stream.streaming import Counts, Streaming
from asyncelt.errors import ConfigError, PipelineStepFailed, PositionsTaken
from asyncelt.extract.messages import EventSource
from asyncelt.extract.safety import require_safe_points
from asyncelt.extract.source import Source
from asyncelt.info.streams import StreamStats
from asyncelt.observe import Warned
from asyncelt.pipeline.base import PipelineBase
from asyncelt.pipeline.tracing import Recording, StreamRecorder
from asyncelt.schema.columns import ColumnHints
from asyncelt.schema.model import Schema
from asyncelt.sources.events import events
from asyncelt.types import FileFormat, JsonValue

__all__ = ["StreamCalls"]

_ROLL = Kind("an asyncelt.Roll(...)", lambda value: isinstance(value, Roll))
_BEAT_S = 10.0
"""Between two traces of a stream that runs. Each takes the place of the one before."""


class StreamCalls(PipelineBase):
    """Stream."""

    def stream(
        self,
        data: object,
        *,
        roll: Roll | None = None,
        table_name: str | None = None,
        write_disposition: str | Mapping[str, object] | None = None,
        columns: ColumnHints | None = None,
        primary_key: str | Sequence[str] | None = None,
        merge_key: str | Sequence[str] | None = None,
        schema: Schema | None = None,
        schema_contract: str | Mapping[str, JsonValue] | None = None,
        loader_file_format: FileFormat | None = None,
        safe_points: bool = False,
    ) -> Stream:
        """Extract, normalize and load ``data`` without end, one package after the other, each in one commit.

        A package ends at the first safe point after one of the limits of ``roll``; while it is committed the next ones
        are read and normalized. A destination that is slow holds the sources back; one that is away is waited for.

        Args:
            data: An event source (`asyncelt.sources.channel`, `asyncelt.sources.nats`), resources or sources with safe
                points, or a list of them.
            roll: When packages end; None: after 100,000 rows, 64 MiB or 5 seconds.
            table_name: As for `run`, like all hints.
            write_disposition: ``append`` or ``merge``.
            columns: Hint.
            primary_key: Hint.
            merge_key: Hint.
            schema: Schema for all sources.
            schema_contract: What may change in the schema.
            loader_file_format: Format of job files.
            safe_points: The resources yield messages or checkpoints, although their code does not show it.

        Returns:
            The stream, which starts when it is awaited or entered; see `Stream.run` for what it raises.
        """
        expect_if_given("stream", _ROLL, roll=roll)
        expect_if_given("stream", FLAG, safe_points=safe_points)
        given = list(data) if isinstance(data, list | tuple) else [data]
        meant = [events(one) if isinstance(one, EventSource) else one for one in given]
        hints: dict[str, object] = {
            "table_name": table_name,
            "write_disposition": write_disposition,
            "columns": columns,
            "primary_key": primary_key,
            "merge_key": merge_key,
            "schema_contract": schema_contract,
        }

        async def work(begin: Callable[[Running], None]) -> None:
            file_format = self._checked_format(loader_file_format)

            with self._entered():
                sources = await self._sources(meant if len(meant) != 1 else meant[0], schema, **hints)
                _check(sources, are_promised=safe_points)
                request = RunRequest(sources=tuple(sources), file_format=file_format, schema_contract=schema_contract)
                make = partial(Streaming, request=request, roll=roll or Roll(), file_format=file_format)
                await self._stream(make, begin, lambda: made.stats)

        made = Stream(work, StreamStats(pipeline_name=self._name, started_at=time.time()))

        return made

    async def _stream(
        self, make: Callable[..., Streaming], begin: Callable[[Running], None], stats: Callable[[], StreamStats]
    ) -> None:
        self._require_destination()

        recorder = StreamRecorder(self._name)

        async def keep(*, is_running: bool = False) -> None:
            with shielded():
                await self._keep_trace(partial(recorder.trace, stats(), is_running=is_running))

        recording = Recording(keep, stats, recorder.done)

        async with (
            self._owned(recording=recording) as owned,
            recording,
            beating(partial(keep, is_running=True), every_s=_BEAT_S),
        ):
            # What an earlier stream has sealed belongs before everything that is read now.
            if owned.pending.extracted:
                await run_normalize(owned, [], file_format=self._format_given)

            if owned.pending:
                with contextlib.suppress(_Yielded):
                    async with self._yielding(owned):
                        await load_pending(owned, Loaded(), raise_on_failed_jobs=True)

            make = partial(make, owned, on_commit=partial(self._follow, owned), counts=Counts(), started_at=time.time())

            while (yielded := await self._until_overtaken(owned, make(), begin)) is not None:
                streaming, failure = yielded

                if not streaming.hand_over():
                    raise failure from failure.__cause__

    async def _until_overtaken(
        self, owned: Owned, streaming: Streaming, begin: Callable[[Running], None]
    ) -> tuple[Streaming, PipelineStepFailed] | None:
        """Stream to the end, or until somebody else has committed messages of ours, and our packages are given up."""
        begin(streaming)

        try:
            async with self._yielding(owned):
                await streaming.run()
        except _Yielded as yielded:
            return streaming, yielded.failure

        return None

    @asynccontextmanager
    async def _yielding(self, owned: Owned) -> AsyncIterator[None]:
        """Give packages up when somebody else has committed messages of theirs; the others are delivered again.

        Raises:
            _Yielded: That was done.
        """
        try:
            yield
        except PipelineStepFailed as failure:
            if not isinstance(failure.__cause__, PositionsTaken):
                raise

            doomed = list(owned.pending.all)
            keep = self._options.settings.limits.keep_completed

            with shielded():
                await in_thread(partial(owned.store.abort, doomed, keep=keep), owned.threads)
                await owned.look()

            self._emit(
                Warned(
                    pipeline_name=self._name,
                    message=f"Packages {', '.join(doomed)} were given up, since {failure.__cause__}",
                )
            )

            raise _Yielded(failure) from failure


class _Yielded(Exception):
    def __init__(self, failure: PipelineStepFailed) -> None:
        super().__init__(str(failure))
        self.failure = failure


def _check(sources: Sequence[Source], *, are_promised: bool) -> None:
    """Refuse what cannot be streamed.

    Raises:
        ConfigError: Names the resource.
    """
    for source in sources:
        for resource in source.selected_resources.values():
            require_safe_points(resource, are_promised=are_promised)

            if disposition_of(resource) == "replace":
                raise ConfigError(
                    f"Resource {resource.name!r} has the write disposition 'replace': each package of a stream would "
                    "replace the one before. Use append or merge."
                )
