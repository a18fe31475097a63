"""Page through an API with several requests in flight, and load only what has changed since the last run.

`Api` stands for the client you use; it lives in the same event loop as everything else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncelt


class Api:
    """Orders with their lines; newer ones have a greater ``updated_at``."""

    def __init__(self, orders: int) -> None:
        self.orders = [
            {"id": number, "updated_at": f"2026-01-{number % 28 + 1:02}T00:00:00Z", "customer": {"name": "ada"}}
            for number in range(orders)
        ]

    async def page(self, number: int, *, since: str, size: int = 20) -> list[dict]:
        await asyncio.sleep(0.005)
        changed = sorted((o for o in self.orders if o["updated_at"] >= since), key=lambda order: order["updated_at"])

        return changed[number * size : (number + 1) * size]

    async def lines(self, order_id: int) -> list[dict]:
        await asyncio.sleep(0.005)

        return [{"article": f"article {order_id % 7}", "pieces": n + 1, "price": 9.5} for n in range(order_id % 4)]


@asyncelt.resource(primary_key="id", write_disposition="merge")
async def orders(api: Api) -> AsyncIterator[list[dict]]:
    """Orders changed since the last committed run, with their lines as a child table.

    Those of the last moment are read again, since one more may have come in it; the key merges them.
    """
    state = asyncelt.current.resource_state()
    since = state.get("since", "")
    number = 0

    while page := await api.page(number, since=since):
        lines = await asyncio.gather(*(api.lines(order["id"]) for order in page))
        yield [order | {"lines": found} for order, found in zip(page, lines, strict=True)]
        state["since"] = page[-1]["updated_at"]
        number += 1


async def main() -> None:
    api = Api(orders=90)
    pipeline = asyncelt.pipeline("shop", destination="duckdb", dataset_name="raw")
    print(await pipeline.run(orders(api)))

    api.orders.append({"id": 1000, "updated_at": "2026-02-01T00:00:00Z", "customer": {"name": "bob"}})
    info = await pipeline.run(orders(api))
    print(f"second run: {info.row_counts.get('orders')} of {len(api.orders)} orders were read again or are new")

    async with pipeline.sql_client() as sql:
        answer = await sql.query(
            "SELECT article, sum(pieces) AS pieces FROM orders__lines GROUP BY article ORDER BY pieces DESC LIMIT 3"
        )
        print(answer.to_pylist())


if __name__ == "__main__":
    asyncio.run(main())
