"""The process of one measurement: ``python -m benchmarks.measure '<job as JSON>'`` prints the result as JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import sys
import warnings

from benchmarks.data import SHAPES, pool
from benchmarks.job import Job

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    job = Job(**json.loads(sys.argv[1]))
    side = importlib.import_module(f"benchmarks.{job.side}")
    measured = side.measure(job, pool(SHAPES[job.shape]))
    print(json.dumps(dataclasses.asdict(measured)))
