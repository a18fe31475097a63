"""The driver's client: built in a thread, used on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol, cast

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from anyio.to_thread import run_sync
from botocore.handlers import add_expect_header

from asyncelt.destinations.filesystem_impl.s3.config import S3Config
from asyncelt.destinations.filesystem_impl.s3.errors import FAILURES, translated

__all__ = ["Answer", "Client", "new_session", "opened_client"]

Answer = Mapping[str, object]


class Client(Protocol):
    """A client of S3, as far as it is used here."""

    async def __aenter__(self) -> Client: ...

    async def __aexit__(self, kind: object, value: object, trace: object) -> None: ...


class _Request(Protocol):
    headers: Mapping[str, str]
    context: dict[str, object]


class _Emitter(Protocol):
    def register(self, event_name: str, handler: object) -> None: ...

    def unregister(self, event_name: str, handler: object) -> None: ...


class _Meta(Protocol):
    events: _Emitter


class _Events(Protocol):
    meta: _Meta


def new_session(config: S3Config) -> AioSession:
    """What clients are made of. Holds the service's description, which takes long to read: kept per destination."""
    return AioSession(profile=config.profile_name)


@asynccontextmanager
async def opened_client(session: AioSession, config: S3Config) -> AsyncIterator[Client]:
    """A client inside the block.

    Raises:
        ConfigError: There is no such profile, or half of the credentials.
    """
    try:
        client = await run_sync(partial(_built, session, config))
    except FAILURES as error:
        raise translated(error, config, "making a client") from error

    async with client:
        yield client


def _built(session: AioSession, config: S3Config) -> Client:
    """Reads and parses files for a quarter of a second; its coroutine waits for nothing of our loop."""
    own = config.endpoint_url is not None
    # Other services than AWS need not know its newer checksums.
    checksums = "when_required" if own else "when_supported"
    options = AioConfig(
        signature_version="s3v4",
        user_agent="asyncelt",  # the driver takes a tenth of a request to describe the machine anew
        connect_timeout=config.connect_timeout_s,
        read_timeout=config.read_timeout_s,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": config.attempts},
        s3={"addressing_style": "path" if config.path_style else "auto"},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )

    async def build() -> object:
        return await session._create_client(  # noqa: SLF001 - the public way gives no client outside of its loop
            "s3",
            region_name=config.region_name or ("us-east-1" if own else None),
            endpoint_url=config.endpoint_url,
            aws_access_key_id=config.access_key_id,
            aws_secret_access_key=config.secret_access_key,
            aws_session_token=config.session_token,
            # Without TLS nobody has to read certificates, which takes a tenth of a second.
            verify=False if own and str(config.endpoint_url).startswith("http://") else None,
            config=options,
        )

    client = asyncio.run(build())
    # Asking first whether a body may come costs a turn for each, and the driver waits for that answer without end.
    events = cast("_Events", client).meta.events
    events.unregister("before-call.s3", add_expect_header)
    unsigned = options.merge(AioConfig(s3={**cast("dict[str, object]", options.s3), "payload_signing_enabled": False}))

    def leave_body_unsigned(request: _Request, **_: object) -> None:
        """Sign the digest that was made in a thread, which stands among the headers, in place of the body."""
        if "Content-MD5" in request.headers:
            request.context["client_config"] = unsigned

    events.register("before-sign.s3", leave_body_unsigned)

    return cast("Client", client)
