"""Load columns as columns: Arrow tables and pandas frames, from a plain generator that runs in a thread.

Needs `asyncelt[pandas]`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa

import asyncelt


@asyncelt.resource(name="temperatures", write_disposition="replace")
def temperatures() -> Iterator[pa.Table]:
    """One Arrow table per station; a synchronous resource has a thread of its own."""
    for station in range(3):
        yield pa.table(
            {
                "station": pa.array([station] * 24, pa.int64()),
                "hour": pa.array(range(24), pa.int64()),
                "degrees": pa.array([10 + station + hour / 10 for hour in range(24)], pa.float64()),
            }
        )


async def main() -> None:
    pipeline = asyncelt.pipeline("weather", destination="duckdb", dataset_name="raw")
    stations = pd.DataFrame({"station": [0, 1, 2], "name": ["Ulm", "Bonn", "Kiel"]})
    await pipeline.run(temperatures())
    await pipeline.run(stations, table_name="stations", write_disposition="replace")

    async with pipeline.sql_client() as sql:
        answer = await sql.query(
            "SELECT name, max(degrees) AS warmest FROM temperatures JOIN stations USING (station) GROUP BY 1 ORDER BY 1"
        )

    print(answer.to_pandas())


if __name__ == "__main__":
    asyncio.run(main())
