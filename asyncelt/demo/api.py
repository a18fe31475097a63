"""A paginated JSON API on loopback, and a client for it: HTTP/1.1 over anyio, as little of it as is needed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, urlencode, urlsplit

import anyio
import orjson
from anyio.abc import ByteStream, SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from asyncelt._async import unwrap
from asyncelt.types import JsonValue

__all__ = ["Client", "connect", "serve"]

HOST = "127.0.0.1"
MAX_HEAD_BYTES = 16 * 1024
MAX_PAGE_ITEMS = 100


# -------------------------------------------------------------------------------------------------- server


@asynccontextmanager
async def serve(catalog: Sequence[Mapping[str, JsonValue]]) -> AsyncGenerator[int]:
    """Serve ``GET /distributions?since=…&offset=…&limit=…`` for as long as the block lasts; yields the port.

    ``since`` keeps what was installed at that moment or later. An answer holds ``items`` and, unless it is the
    last one, ``next``: the path of the following page.
    """

    async def handle(stream: SocketStream) -> None:
        async with stream:
            reader = BufferedByteReceiveStream(stream)

            try:
                while await _answer(reader, stream, catalog):
                    pass
            except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
                return  # the client has gone

    try:
        async with await anyio.create_tcp_listener(local_host=HOST) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, handle)

            yield listener.extra(SocketAttribute.local_port)

            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:  # the block's own error comes out as it went in
        error = unwrap(group)
        raise error from error.__cause__


async def _answer(
    reader: BufferedByteReceiveStream, stream: ByteStream, catalog: Sequence[Mapping[str, JsonValue]]
) -> bool:
    """Answer one request; False when the connection is to be closed."""
    head = await reader.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)
    request, *headers = head.decode("latin-1").split("\r\n")
    status, body = _respond(request, catalog)
    keep = status is HTTPStatus.OK and "connection: close" not in (header.lower() for header in headers)
    payload = orjson.dumps(body)
    await stream.send(
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode("ascii")
        + payload
    )

    return keep


def _respond(request: str, catalog: Sequence[Mapping[str, JsonValue]]) -> tuple[HTTPStatus, dict[str, object]]:
    method, _, rest = request.partition(" ")
    target = urlsplit(rest.partition(" ")[0])

    if method != "GET":
        return HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"{method} is not offered, only GET"}

    if target.path != "/distributions":
        return HTTPStatus.NOT_FOUND, {"error": f"no such path: {target.path}; there is /distributions"}

    query = {key: values[-1] for key, values in parse_qs(target.query).items()}

    try:
        offset = max(int(query.get("offset", "0")), 0)
        limit = min(max(int(query.get("limit", "20")), 1), MAX_PAGE_ITEMS)
    except ValueError:
        return HTTPStatus.BAD_REQUEST, {"error": "offset and limit are whole numbers"}

    since = query.get("since", "")
    matching = [item for item in catalog if str(item["installed_at"]) >= since]
    answer: dict[str, object] = {"items": matching[offset : offset + limit], "total": len(matching)}

    if offset + limit < len(matching):
        following = {"offset": offset + limit, "limit": limit} | ({"since": since} if since else {})
        answer["next"] = f"/distributions?{urlencode(following)}"

    return HTTPStatus.OK, answer


# -------------------------------------------------------------------------------------------------- client


@dataclass(slots=True)
class Client:
    """One connection that is kept open between requests. One request at a time."""

    stream: ByteStream
    reader: BufferedByteReceiveStream

    async def get(self, path: str) -> dict[str, JsonValue]:
        """Fetch one JSON document.

        Raises:
            OSError: The server answered with anything but 200.
        """
        await self.stream.send(
            f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n\r\n".encode("ascii")
        )
        head = await self.reader.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self.reader.receive_exactly(int(headers["content-length"]))
        document: dict[str, JsonValue] = orjson.loads(body)

        if status_line.split()[1] != "200":
            raise OSError(f"GET {path}: {status_line.partition(' ')[2]}: {document.get('error')}")

        return document


@asynccontextmanager
async def connect(port: int) -> AsyncGenerator[Client]:
    """Connect to the API on this machine; closed when the block is left."""
    async with await anyio.connect_tcp(HOST, port) as stream:
        yield Client(stream=stream, reader=BufferedByteReceiveStream(stream))
