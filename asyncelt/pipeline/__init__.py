"""The public face: a pipeline is a name, a working folder, a destination and a dataset.

Building one does no network and reads at most a few small local files. Everything that touches disk or network is a
coroutine and runs in the caller's own event loop; every property answers from memory.
"""

from __future__ import annotations

from asyncelt.pipeline.facade import Pipeline as Pipeline
from asyncelt.pipeline.factory import (
    attach as attach,
    check_pipeline_name as check_pipeline_name,
    pipeline as pipeline,
    replay as replay,
    run as run,
)

__all__ = ["Pipeline", "attach", "pipeline", "replay", "run"]
