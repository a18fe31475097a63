"""Requests as messages: an ASGI application that answers 202 when what it was sent is safe."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import anyio
import orjson

from asyncelt.arguments import COUNT, PATH, TEXT, Kind, expect, expect_if_given
from asyncelt.errors import MessageNotCommitted
from asyncelt.extract.intervals import Intervals
from asyncelt.extract.messages import Message, Receipt
from asyncelt.sources.desk import CommittedDesk, Desk, SpooledDesk

__all__ = ["DedupKey", "Webhook", "WebhookRequest", "webhook"]

Scope: TypeAlias = MutableMapping[str, object]
Event: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

_RETRY_AFTER: Final = (b"retry-after", b"1")
_CLOSE: Final = (b"connection", b"close")
KEY_COLUMN: Final = "_dedup_key"
_THROWN_AWAY: Final = 16 * 1024 * 1024
"""Bytes of a body that is too long which are taken all the same."""
_THROWN_AWAY_S: Final = 5.0
_BODY_S: Final = 30.0
"""How long a client may take to send one."""
_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Of all bodies that wait for their answers."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """What the hooks of a webhook see."""

    method: str
    path: str
    """Behind the place the application is mounted at; ``/`` at least."""
    query: str
    headers: Mapping[str, str]
    """Names in lower case. Of several headers with one name the values are joined with a comma."""
    client: str | None
    """Address of whoever has connected."""
    body: bytes = field(repr=False)


DedupKey: TypeAlias = str | Callable[[WebhookRequest], str | None]
Authenticate: TypeAlias = Callable[[WebhookRequest], bool | Awaitable[bool]]
AuthenticateBy: TypeAlias = Literal["request", "headers"]


class _Refused(Exception):
    """An answer other than 202."""

    def __init__(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


@dataclass(slots=True)
class _Body:
    """Of a request, as far as it has come."""

    parts: list[bytes] = field(default_factory=list)
    size: int = 0


class Webhook:
    """An ASGI application and an `EventSource`. Made by `webhook`. Belongs to one event loop, and to one stream."""

    def __init__(
        self,
        desk: Desk,
        *,
        capacity: int,
        max_body_bytes: int,
        authenticate: Authenticate | None,
        authenticate_by: AuthenticateBy = "request",
        dedup_key: DedupKey | None,
        waiting_bytes: int = _WAITING_BYTES,
        body_s: float = _BODY_S,
    ) -> None:
        self._desk = desk
        self._capacity = capacity
        self._max_body_bytes = max_body_bytes
        self._authenticate = authenticate
        self._authenticate_by = authenticate_by
        self._dedup_key = dedup_key
        self._taken = 0
        """Requests that are being read, or wait for their answer."""
        self._waiting_bytes = max(waiting_bytes, max_body_bytes)
        self._taken_bytes = 0
        """Of their bodies, as far as they have come."""
        self._body_s = body_s

    @property
    def name(self) -> str:
        """See `EventSource.name`."""
        return self._desk.name

    @property
    def key_column(self) -> str | None:
        """See `Keyed`."""
        return None if self._dedup_key is None else KEY_COLUMN

    @property
    def has_positions(self) -> bool:
        """See `Positioned.has_positions`."""
        return self._desk.has_positions

    @property
    def can_reopen(self) -> bool:
        """See `SupportsReopening.can_reopen`: what is on the disk can be read again."""
        return self._desk.has_positions

    # ------------------------------------------------------------------ for a server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI 3 has it."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return

        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return

        try:
            await self._take(scope, receive)
        except _Refused as refused:
            await _answer(send, refused.status, {"error": str(refused)}, *refused.headers)
        else:
            await _answer(send, 202, {"status": "accepted"})

    async def _take(self, scope: Scope, receive: Receive) -> None:
        if scope["method"] not in {"POST", "PUT"}:
            raise _Refused(405, "Send it with POST or PUT.", (b"allow", b"POST, PUT"))

        request = _request(scope)

        if self._authenticate_by == "headers":
            try:
                await self._check(request)
            except _Refused:
                await _throw_away(receive)
                raise

        if self._taken >= self._capacity or self._desk.is_full:
            raise _too_much()

        self._taken += 1
        body = _Body()

        try:
            await self._read(request, receive, body)
            request = replace(request, body=b"".join(body.parts))

            if self._authenticate_by == "request":
                await self._check(request)

            await self._keep(request)
        finally:
            self._taken -= 1
            self._taken_bytes -= body.size

    async def _check(self, request: WebhookRequest) -> None:
        if self._authenticate is None:
            return

        answer = self._authenticate(request)

        if not (await answer if inspect.isawaitable(answer) else answer):
            raise _Refused(401, "Not authenticated.")

    async def _keep(self, request: WebhookRequest) -> None:
        message = Message(
            request.body,
            headers=request.headers,
            key=self._key(request),
            topic=request.path,
            timestamp=time.time(),
        )

        try:
            await self._desk.put(message)
        except MessageNotCommitted:
            raise _Refused(503, "It may not have been committed. Send it again.", _RETRY_AFTER) from None

    def _key(self, request: WebhookRequest) -> str | None:
        if self._dedup_key is None:
            return None

        if callable(self._dedup_key):
            if key := self._dedup_key(request):
                return key

            raise _Refused(400, "The request has no key, by which a repetition could be told.")

        if key := request.headers.get(self._dedup_key.lower()):
            return key

        raise _Refused(400, f"The header {self._dedup_key} is missing, by which a repetition could be told.")

    async def _read(self, request: WebhookRequest, receive: Receive, body: _Body) -> None:
        said = request.headers.get("content-length", "")

        if said.isdecimal() and int(said) > self._max_body_bytes:
            await _throw_away(receive)
            raise self._too_large()

        try:
            with anyio.fail_after(self._body_s):
                await self._receive(receive, body)
        except TimeoutError:
            raise _Refused(408, f"The body did not come within {self._body_s:g} s.", _CLOSE) from None

    async def _receive(self, receive: Receive, body: _Body) -> None:
        more = True

        while more:
            event = await receive()

            if event["type"] == "http.disconnect":
                raise _Refused(400, "The request has ended before its body.")

            part = event.get("body", b"")
            assert isinstance(part, bytes)  # noqa: S101 - ASGI says so
            more = bool(event.get("more_body", False))
            body.parts.append(part)
            body.size += len(part)
            self._taken_bytes += len(part)

            if body.size > self._max_body_bytes or self._taken_bytes > self._waiting_bytes:
                body.parts.clear()

                if more:
                    await _throw_away(receive)

                raise self._too_large() if body.size > self._max_body_bytes else _too_much()

    def _too_large(self) -> _Refused:
        return _Refused(413, f"The body has more than {self._max_body_bytes} bytes.", _CLOSE)

    # ------------------------------------------------------------------ for the stream

    def renew(self) -> None:
        """See `Renewable.renew`."""
        self._desk.renew()

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`."""
        await self._desk.position(committed)

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`."""
        return await self._desk.fetch(most)

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`."""
        return await self._desk.ack(receipts)

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`."""
        await self._desk.nack(receipts)

    async def close(self) -> None:
        """See `EventSource.close`. Requests are answered 503 from here on."""
        await self._desk.close()


def _too_much() -> _Refused:
    return _Refused(429, "Too much is waiting to be committed. Send it again.", _RETRY_AFTER)


async def _throw_away(receive: Receive) -> None:
    """Take the rest of a body that is not wanted, but only so much of it, for so long.

    A client that is still sending when the connection is closed never sees the answer.
    """
    size = 0

    with anyio.move_on_after(_THROWN_AWAY_S):
        while size < _THROWN_AWAY:
            event = await receive()
            part = event.get("body", b"")
            size += len(part) if isinstance(part, bytes) else 0

            if event["type"] == "http.disconnect" or not event.get("more_body", False):
                return


async def _live(receive: Receive, send: Send) -> None:
    """Started and stopped by a server that asks; the stream is somebody else's."""
    while True:
        event = await receive()

        if event["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _answer(send: Send, status: int, content: object, *headers: tuple[bytes, bytes]) -> None:
    body = orjson.dumps(content)
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


def _request(scope: Scope) -> WebhookRequest:
    """What is known of it before its body."""
    client = scope.get("client")
    query = scope.get("query_string", b"")

    return WebhookRequest(
        method=str(scope["method"]),
        path=_path(scope),
        query=query.decode("latin-1") if isinstance(query, bytes) else str(query),
        headers=_headers(scope),
        client=str(client[0]) if isinstance(client, Sequence) and client else None,
        body=b"",
    )


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    given = scope.get("headers", ())
    assert isinstance(given, Sequence)  # noqa: S101 - ASGI says so

    for raw_name, raw_value in given:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value

    return found


def _path(scope: Scope) -> str:
    """The path below the place where the application is mounted. Frameworks differ in whether ``path`` has it."""
    path, root = str(scope.get("path", "/")), str(scope.get("root_path", ""))

    return (path.removeprefix(root) if root and (path + "/").startswith(root + "/") else path) or "/"


_DEDUP_KEY = Kind(
    "the name of a header or a function of the request", lambda value: callable(value) or TEXT.accepts(value)
)
_AUTHENTICATE_BY = Kind("'request' or 'headers'", lambda value: value in get_args(AuthenticateBy))
_AUTHENTICATE = Kind("a function of the request", callable, is_secret=True)


def webhook(
    name: str = "webhook",
    *,
    spool: str | Path | None = None,
    dedup_key: DedupKey | None = None,
    authenticate: Authenticate | None = None,
    authenticate_by: AuthenticateBy = "request",
    max_body_bytes: int = 1024 * 1024,
    capacity: int = 1000,
    spool_bytes: int = 1024 * 1024 * 1024,
) -> Webhook:
    """An ASGI application to mount, and a source for `Pipeline.stream`: each request is a message.

    A 202 means that the message is in the destination, or, with ``spool``, on the disk, from where it is loaded once.

    Args:
        name: Of its resource and, unless `events` says otherwise, its table.
        spool: A folder of this process's own: answer as soon as the message is on the disk there. What is in it is
            loaded by the next stream, if this one cannot. None: answer after the commit.
        dedup_key: Name of a header, or a function of the request, that tells a repetition: it becomes the column
            ``_dedup_key`` and the primary key, of which the first row stays. A request without it is answered 400.
        authenticate: Whether a request is welcome; 401 if not. What it raises is the server's to answer.
        authenticate_by: What it needs: ``request``, with its body, as for signatures; or ``headers``: then it is asked
            before anything of the body is read or counted, and sees none.
        max_body_bytes: A longer body is answered 413.
        capacity: How many requests may be waiting at a time; others are answered 429. So are those whose bodies would
            be more than 64 MiB with those that wait.
        spool_bytes: How large the files in ``spool`` may be; requests beyond are answered 429.

    Raises:
        ConfigError: A limit below 1, or there is no such ``authenticate_by``.
    """
    expect("webhook", TEXT, name=name)
    where = f"webhook({name!r})"
    expect(where, COUNT, capacity=capacity, max_body_bytes=max_body_bytes, spool_bytes=spool_bytes)
    expect_if_given(where, PATH, spool=spool)
    expect_if_given(where, _DEDUP_KEY, dedup_key=dedup_key)
    expect_if_given(where, _AUTHENTICATE, authenticate=authenticate)

    expect(where, _AUTHENTICATE_BY, authenticate_by=authenticate_by)
    desk: Desk = CommittedDesk(name, capacity) if spool is None else SpooledDesk(name, Path(spool), spool_bytes)

    return Webhook(
        desk,
        capacity=capacity,
        max_body_bytes=max_body_bytes,
        authenticate=authenticate,
        authenticate_by=authenticate_by,
        dedup_key=dedup_key,
    )
