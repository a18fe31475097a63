"""Processes that share the partitions of a topic, into one Postgres table. SIGTERM drains one.

``python kafka_member.py folder dsn servers topic`` imports everything once, and takes commands: ``start member`` forks a
member off, and is answered with its process id; ``wait pid`` with its exit code.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
import warnings
from pathlib import Path

import asyncelt
from tests.sources.consumers import KAFKA
from tests.support.killing import MODULES

NUMBERS = "numbers"


async def main(member: str, folder: str, dsn: str, servers: str, topic: str) -> None:
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    pipeline = asyncelt.pipeline(
        "shared",
        destination=asyncelt.destinations.postgres(dsn),
        dataset_name="data",
        pipelines_dir=Path(folder) / "work",
        member=member,
    )
    source = asyncelt.sources.kafka(topic, group="g", servers=servers, **KAFKA)
    shared = asyncelt.sources.events(source, table_name=NUMBERS)

    async with pipeline.stream(shared, roll=asyncelt.Roll(seconds=0.1)):
        await ending.wait()


def serve(where: list[str]) -> None:
    for line in sys.stdin:
        command, what = line.split()

        if command == "wait":
            print(os.waitstatus_to_exitcode(os.waitpid(int(what), 0)[1]), flush=True)
            continue

        pid = os.fork()

        if pid == 0:
            asyncio.run(main(what, *where))
            os._exit(0)

        print(pid, flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", asyncelt.errors.AsynceltWarning)

    for module in ("aiokafka", *MODULES):
        importlib.import_module(module)

    serve(sys.argv[1:])
