"""Changed orders by a cursor, their details by a transformer with many requests in flight: one reading feeds both.

`Api` stands for the client you use; it lives in the same event loop as everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncelt


class Api:
    """Orders; newer ones have a greater ``updated_at``."""

    def __init__(self) -> None:
        self.orders = [{"id": n, "updated_at": f"2026-01-{n % 28 + 1:02}T00:00:00Z"} for n in range(100)]
        self.calls = 0

    async def pages(self, since: str, size: int = 25) -> AsyncIterator[list[dict]]:
        self.calls += 1
        changed = sorted((o for o in self.orders if o["updated_at"] >= since), key=lambda order: order["updated_at"])

        for start in range(0, len(changed), size):
            await asyncio.sleep(0.005)
            yield changed[start : start + size]

    async def detail(self, order_id: int) -> dict:
        await asyncio.sleep(0.005)

        return {"order_id": order_id, "lines": [{"article": f"article {order_id % 7}", "pieces": order_id % 3 + 1}]}


api = Api()


@asyncelt.resource(primary_key="id", write_disposition="merge")
async def orders(
    updated_at: asyncelt.sources.incremental[str] = asyncelt.sources.incremental(
        "updated_at", initial_value="2026-01-01T00:00:00Z", row_order="asc"
    ),
) -> AsyncIterator[list[dict]]:
    async for page in api.pages(since=updated_at.last_value or ""):
        yield page


@asyncelt.transformer(data_from=orders, primary_key="order_id", write_disposition="merge")
async def details(page: list[dict]) -> list[dict]:
    return await asyncio.gather(*(api.detail(order["id"]) for order in page))


async def main() -> None:
    pipeline = asyncelt.pipeline("cursor", destination="duckdb", dataset_name="raw")
    print(await pipeline.run([orders, details]))
    print(f"the orders were paged through {api.calls} time for both tables")

    api.orders.append({"id": 1000, "updated_at": "2026-02-01T00:00:00Z"})
    info = await pipeline.run([orders, details])
    print("second run:", {table: info.row_counts.get(table, 0) for table in ("orders", "details")})

    async with pipeline.sql_client() as sql:
        answer = await sql.query("SELECT article, sum(pieces) AS pieces FROM details__lines GROUP BY ALL ORDER BY ALL")
        print(answer.to_pylist())


if __name__ == "__main__":
    asyncio.run(main())
