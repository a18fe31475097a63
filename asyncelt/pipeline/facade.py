"""The one class that users hold.

Its methods take the reference's many arguments and say what each is for, which is too long for one file. So each group
of calls is a class in a file of its own, beside the others and unaware of them:

===============  =================================================================================
file             calls
===============  =================================================================================
``facts``        properties: what can be asked without doing anything
``base``         none: the doors to folder and destination, and what the others share
``stages``       ``extract``, ``normalize``, ``load``
``running``      ``run``
``replaying``    ``quarantined``, ``replay``
``streaming``    ``stream``
``packages``     packages that wait: ``list_...``, ``get_...``, ``abort_packages``, ``fail_pending_job``
``statecalls``   ``managed_state``, ``sync_destination``, ``sync_schema``, local values
``clients``      ``sql_client``, ``destination_client``, ``dataset``
===============  =================================================================================

None of them overrides anything. What they do beyond checking arguments is in functions: of this room (``whole``,
``results``, ``tracing``), and of the engine.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self, Unpack

import anyio

from asyncelt._async import in_thread
from asyncelt.engine.ownership import wipe
from asyncelt.load.protocol import Destination
from asyncelt.pipeline.clients import ClientCalls
from asyncelt.pipeline.facts import PipelineFacts
from asyncelt.pipeline.making import Arguments, Given, Made, made_of
from asyncelt.pipeline.options import check_pipeline_name
from asyncelt.pipeline.packages import PackageCalls
from asyncelt.pipeline.replaying import ReplayCalls
from asyncelt.pipeline.running import RunningCalls
from asyncelt.pipeline.stages import StageCalls
from asyncelt.pipeline.statecalls import StateCalls
from asyncelt.pipeline.streaming import StreamCalls
from asyncelt.storage.head import Head

__all__ = ["Pipeline"]


class Pipeline(StageCalls, RunningCalls, ReplayCalls, StreamCalls, PackageCalls, StateCalls, ClientCalls):
    """Loads data into one dataset of one destination, and remembers how far it got.

    Made by `asyncelt.pipeline`, or by itself with the same arguments. Several pipelines may run side by side in one
    event loop; two calls of the same pipeline (and member) take turns, or the second raises, as ``on_busy`` says.
    Properties answer from memory, as of the last call of this object.

    Args:
        pipeline_name: As for `asyncelt.pipeline`, like all arguments.
        pipelines_dir: Folder for working folders.
        arguments: The others.

    Raises:
        ConfigError: An argument is wrong.
    """

    def __init__(
        self,
        pipeline_name: str | None = None,
        pipelines_dir: str | Path | None = None,
        **arguments: Unpack[Arguments],
    ) -> None:
        super().__init__(made_of(Given(pipeline_name=pipeline_name, pipelines_dir=pipelines_dir, **arguments)))
        self.activate()

    @classmethod
    def of(cls, made: Made) -> Self:
        """A pipeline of what has been checked. It is not active yet."""
        pipeline = cls.__new__(cls)
        PipelineFacts.__init__(pipeline, made)

        return pipeline

    def in_dev_mode(self, destination: Destination | None, dataset_name: str | None) -> Pipeline:
        """The pipeline that goes on with the folder and the dataset of an instance in dev_mode. Blocking."""
        options = replace(self._options, dev_mode=True, starts_anew=False, dataset_suffix="")

        return Pipeline.of(
            Made(
                pipeline_name=self._name,
                options=options,
                destination=destination,
                staging=self._staging,
                dataset_name=dataset_name,
            )
        )

    async def drop(self, pipeline_name: str | None = None) -> Pipeline:
        """Remove the working folder: state, schemas, traces and pending packages. The destination is not touched.

        The next run restores state from the destination, as on an empty machine.

        Args:
            pipeline_name: Also go on under another name.

        Returns:
            This pipeline, as if new; a new one under another name if one is given. It is the active one.
        """
        name = self._name if pipeline_name is None else check_pipeline_name(pipeline_name)
        self._starts_anew = False

        async with self._folder(may_be_damaged=True) as folder:
            await in_thread(partial(wipe, folder.store), folder.threads)
            folder.head = Head()
            await folder.look()

        self._last_trace = None
        dropped = self if name == self._name else await self._under(name)
        dropped.activate()

        return dropped

    async def _under(self, name: str) -> Pipeline:
        made = Made(
            pipeline_name=name,
            options=self._options,
            destination=self._destination.for_pipeline(name) if self._destination is not None else None,
            staging=self._staging,
            dataset_name=self._dataset_name,
        )

        return await in_thread(partial(Pipeline.of, made), anyio.CapacityLimiter(1))
