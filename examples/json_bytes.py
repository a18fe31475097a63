"""Hand over JSON as it was received: it is parsed off the loop, without a Python object per row.

The fastest way in when an API answers with JSON: do not decode it at all.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import asyncelt


async def response(page: int) -> bytes:
    """Stands for ``await http.get(...)`` and ``.content``."""
    await asyncio.sleep(0.002)
    events = [
        {"id": f"{page}-{n}", "type": "push", "repo": {"name": f"repo {n % 5}"}, "commits": [{"sha": "af", "size": n}]}
        for n in range(100)
    ]

    return json.dumps({"status": "ok", "data": {"events": events}}).encode()


@asyncelt.resource(primary_key="id")
async def events(pages: int) -> AsyncIterator[asyncelt.JsonPage]:
    """Bodies as they come; ``items`` says where in the document the rows are."""
    for page in range(pages):
        yield asyncelt.JsonPage(await response(page), items="data.events")


async def main() -> None:
    pipeline = asyncelt.pipeline("activity", destination="duckdb", dataset_name="raw")
    info = await pipeline.run(events(20))
    print(info)
    print({table: rows for table, rows in info.row_counts.items() if not table.startswith("_dlt")})


if __name__ == "__main__":
    asyncio.run(main())
