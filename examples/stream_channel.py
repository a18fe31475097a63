"""A stream inside a service: requests hand over rows and answer when they are committed; the end loses nothing.

Several tasks play the requests. Each package has what came within a tenth of a second, whoever sent it.
"""

from __future__ import annotations

import asyncio

import asyncelt


async def request(orders: asyncelt.sources.Channel, number: int) -> str:
    await asyncio.sleep(0.01 * number)
    await orders.send({"id": number, "items": [{"sku": f"sku-{number % 3}", "count": number}]})

    return f"order {number} is in the database"


async def main() -> None:
    pipeline = asyncelt.pipeline("service", destination="duckdb", dataset_name="raw")
    orders = asyncelt.sources.channel("orders")

    async with pipeline.stream(orders, roll=asyncelt.Roll(seconds=0.1)) as stream:
        answers = await asyncio.gather(*(request(orders, number) for number in range(20)))
        print(answers[-1])

        # Nobody waits for this one; the stream ends when it has committed everything that was sent.
        await orders.send({"id": 100, "note": "a new column"}, until="accepted")
        orders.end()
        await stream.ended()

    print(stream.stats)

    async with pipeline.sql_client() as sql:
        print(await sql.query("SELECT count(*) AS orders, count(note) AS notes FROM orders"))


asyncio.run(main())
