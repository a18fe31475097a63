"""Async-first ingestion: async generators in, tables out, in the event loop you already have.

The names below are the public ones. Importing this package loads no driver and no display.
"""

from __future__ import annotations

from asyncelt import (
    current as current,
    destinations as destinations,
    errors as errors,
    mark as mark,
    sources as sources,
)
from asyncelt.budget import ByteBudget as ByteBudget
from asyncelt.config import Limits as Limits, Retry as Retry, Roll as Roll, Settings as Settings
from asyncelt.configuration.accessors import config as config, secrets as secrets
from asyncelt.engine.stream.handle import Stream as Stream
from asyncelt.errors import (
    AsynceltError as AsynceltError,
    AsynceltWarning as AsynceltWarning,
    PipelineBusy as PipelineBusy,
    PipelineStepFailed as PipelineStepFailed,
)
from asyncelt.extract.decorators import resource as resource, transformer as transformer
from asyncelt.extract.functions import defer as defer
from asyncelt.extract.items import JsonPage as JsonPage, with_table_name as with_table_name
from asyncelt.extract.messages import (
    EventSource as EventSource,
    Message as Message,
    Receipt as Receipt,
    checkpoint as checkpoint,
)
from asyncelt.extract.resource import Resource as Resource
from asyncelt.extract.source import Source as Source
from asyncelt.extract.source_decorator import source as source
from asyncelt.info.streams import StreamStats as StreamStats
from asyncelt.observe import Event as Event, Observer as Observer
from asyncelt.pipeline import (
    Pipeline as Pipeline,
    attach as attach,
    pipeline as pipeline,
    replay as replay,
    run as run,
)
from asyncelt.reading.client import SqlClient as SqlClient
from asyncelt.reading.dataset import Dataset as Dataset, dataset as dataset
from asyncelt.reading.relation import Relation as Relation
from asyncelt.schema.model import Schema as Schema

__version__ = "0.1.0"

__all__ = [  # noqa: RUF022 - grouped by what they are for
    # describing data
    "JsonPage",
    "Resource",
    "Schema",
    "Source",
    "current",
    "defer",
    "mark",
    "resource",
    "source",
    "sources",
    "transformer",
    "with_table_name",
    # streams
    "EventSource",
    "Message",
    "Receipt",
    "Roll",
    "Stream",
    "StreamStats",
    "checkpoint",
    # loading it
    "Pipeline",
    "attach",
    "pipeline",
    "replay",
    "run",
    "destinations",
    # reading it back
    "Dataset",
    "Relation",
    "SqlClient",
    "dataset",
    # settings
    "config",
    "secrets",
    "ByteBudget",
    "Limits",
    "Retry",
    "Settings",
    # watching a run
    "Event",
    "Observer",
    # errors; the whole tree is in asyncelt.errors
    "AsynceltError",
    "AsynceltWarning",
    "PipelineBusy",
    "PipelineStepFailed",
    "errors",
]
