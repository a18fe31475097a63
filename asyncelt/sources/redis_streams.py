"""Redis and Valkey streams: a consumer group as an event source."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Final

import anyio

from asyncelt._async import in_thread
from asyncelt.arguments import NAMES, SECONDS, TEXT, expect, expect_if_given
from asyncelt.errors import ConfigError, ExtractError, UsageError
from asyncelt.extract.intervals import EMPTY, Intervals
from asyncelt.extract.messages import Bodies, Message, Receipt, Tell
from asyncelt.sources.clients import import_client
from asyncelt.sources.outages import Outage
from asyncelt.sources.redis_client import (
    FORGET,
    address_of,
    arguments_of,
    ask,
    away,
    check_url,
    client_of,
    failing_over,
    is_lost_group,
    is_passing,
)
from asyncelt.sources.redis_entries import (
    Entries,
    Given,
    bodies_of,
    by_stream,
    claimed_of,
    entries_of,
    entry_id,
    messages_of,
    position_of,
    text_of,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["RedisStreamSource", "redis_stream"]

_LONG_POLL_S: Final = 10.0
_REQUEST_BYTES: Final = 8 * 1024 * 1024
"""To ask for at a time, about: entries may be large."""
_WEIGHED: Final = 16
"""Entries of an answer whose size stands for all."""
_FIRST_ENTRIES: Final = 10
"""To ask for as long as nothing is known of their size."""
_PIECE: Final = 1000
"""Ids in a command."""

_import = partial(import_client, "redis_stream", "redis", "redis", "redis.asyncio", "redis.exceptions")


class RedisStreamSource:
    """Messages of streams, through one consumer group. Made by `redis_stream`.

    Positions are made of entry ids, so what is delivered again, by whatever consumer, is told apart.
    """

    def __init__(
        self,
        streams: Sequence[str],
        group: str,
        *,
        consumer: str | None,
        url: str,
        field: str | None,
        start: str,
        claim_after_s: float,
        options: Mapping[str, object],
    ) -> None:
        self._streams = tuple(streams)
        self._group = group
        self._is_named = consumer is not None
        self._consumer = consumer or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._url = url
        self._field = None if field is None else field.encode()
        self._start = start
        self._claim_after_ms = max(int(claim_after_s * 1000), 1)
        self._options = dict(options)
        self._committed: dict[str, Intervals] = {}
        self._client: Redis | None = None
        self._module: ModuleType | None = None
        self._mine: dict[str, str] = {}
        """By stream: entries of this consumer are still to be read again, those behind this id."""
        self._claims: dict[str, str] = {}
        """By stream: where looking for the entries of dead consumers goes on."""
        self._claimed_at: float | None = None
        self._open: dict[str, set[bytes]] = {one: set() for one in self._streams}
        """By stream: entries that were given to the stream, which has not said what became of them."""
        self._nbytes = _REQUEST_BYTES // _FIRST_ENTRIES
        """Of an entry, about."""
        self._outage = Outage()
        self._was_open = False
        self._is_member = False
        """Whether the groups are there, which a consumer can leave."""

    @property
    def name(self) -> str:
        """See `EventSource.name`. Without the streams, which are the partitions: there may be more of them tomorrow."""
        return f"redis_{self._group}"

    @property
    def has_positions(self) -> bool:
        """See `Positioned.has_positions`."""
        return True

    @property
    def can_reopen(self) -> bool:
        """See `SupportsReopening.can_reopen`."""
        return True

    def report_to(self, tell: Tell) -> None:
        """See `ReportsOutages`."""
        self._outage.report_to(tell)

    async def position(self, committed: Mapping[str, Intervals]) -> None:
        """See `EventSource.position`. A group that does not exist is made, after what has been committed."""
        module = self._module = await in_thread(_import, anyio.CapacityLimiter(1))
        self._committed = dict(committed)
        self._open = {one: set() for one in self._streams}
        self._claims.clear()
        self._claimed_at = None
        arguments = partial(arguments_of, self._options, _LONG_POLL_S * 3)
        options = await in_thread(arguments, anyio.CapacityLimiter(1))
        self._client = client_of(module, self._url, options)
        self._is_member = False
        await self._make_groups_patiently(is_again=self._was_open)
        self._was_open = self._is_member = True
        self._read_again()

    @property
    def has_bodies(self) -> bool:
        """See `DeliversBodies.has_bodies`."""
        return self._field is not None

    async def fetch(self, most: int) -> Sequence[Message]:
        """See `EventSource.fetch`. Never ends by itself; a server that is away is waited for.

        Raises:
            ExtractError: The server knows the password no more.
            redis.exceptions.ResponseError: It answers with an error that does not pass.
        """
        return [one for given in await self._fetched(most) for one in messages_of(given, self._field, self)]

    async def fetch_bodies(self, most: int) -> Sequence[Bodies]:
        """See `DeliversBodies.fetch_bodies`. Raises what `fetch` does."""
        if self._field is None:
            raise UsageError(f"Redis source {self.name!r} has no payloads: it was made without field=.")

        return [bodies_of(given, self._field, self) for given in await self._fetched(most)]

    async def _fetched(self, most: int) -> Sequence[Given]:
        errors = importlib.import_module("redis.exceptions")  # imported off the loop before

        while True:
            # The server counts entries only.
            count = max(min(most, _REQUEST_BYTES // self._nbytes), 1)

            try:
                found = await self._mine_again(count) or await self._claimed(count) or await self._fresh(count)
                self._outage.over()
            except errors.AuthenticationError as error:
                raise self._unwelcome(error) from error
            except (*away(errors), *failing_over(errors)) as error:
                await self._outage.wait(error)

                if isinstance(error, failing_over(errors)):
                    # Another server is the right one now, or will be.
                    await self._required().connection_pool.disconnect()

                # An answer that was lost on its way is among what this consumer has not acknowledged.
                self._read_again()
                continue
            except errors.ResponseError as error:
                if is_lost_group(error):
                    await self._make_groups_patiently(is_again=True)
                elif is_passing(error):
                    await self._outage.wait(error)
                else:
                    raise

                continue

            if found:
                return found

    async def ack(self, receipts: Sequence[Receipt]) -> Mapping[str, int]:
        """See `EventSource.ack`. The floor is the group's: what it has delivered and nobody has left open."""
        client = self._required()
        floors: dict[str, int] = {}
        streams: set[str] = set()

        try:
            for at in range(0, len(receipts), _PIECE):
                piece = receipts[at : at + _PIECE]
                self._settle(piece)

                for stream, ids in by_stream(piece).items():
                    streams.add(stream)
                    await client.xack(stream, self._group, *ids)
        except BaseException:
            # They will come again, and must not look as if the stream had them still.
            self._settle(receipts)
            raise

        for stream in streams:
            floor = await self._floor(client, stream)

            if floor is not None:
                floors[stream] = floor
                self._committed[stream] = self._committed.get(stream, EMPTY).raised(floor)

        return floors

    async def nack(self, receipts: Sequence[Receipt]) -> None:
        """See `EventSource.nack`. Other consumers may claim them at once."""
        self._settle(receipts)

        for stream, ids in by_stream(receipts).items():
            await self._release(stream, ids)

    async def close(self) -> None:
        """See `EventSource.close`. The group stays, and a consumer that was given a name."""
        client, self._client = self._client, None

        if client is None:
            return

        try:
            if self._is_member and not self._is_named:
                for stream in self._streams:
                    await self._leave(client, stream)
        finally:
            await client.aclose()

    # ------------------------------------------------------------------ reading

    async def _make_groups_patiently(self, *, is_again: bool) -> None:
        """Wait for a server that is starting; and for one that is away, if it was there before."""
        errors = importlib.import_module("redis.exceptions")
        passing = (*away(errors), *failing_over(errors)) if is_again else (errors.BusyLoadingError,)

        while True:
            try:
                await self._make_groups()
                self._outage.over()
                return
            except errors.AuthenticationError as error:
                raise self._unwelcome(error) from error
            except passing as error:
                await self._outage.wait(error)
            except away(errors) as error:
                raise ExtractError(
                    f"Redis source {self.name!r}: cannot connect to {address_of(self._url)}: {error}. Is the address "
                    "right (url=), is the server up, and does it want TLS (rediss://)?"
                ) from error

    async def _make_groups(self) -> None:
        client = self._required()
        errors = importlib.import_module("redis.exceptions")

        for stream in self._streams:
            known = self._committed.get(stream, EMPTY)
            start = self._start if not known else "0" if known.floor is None else entry_id(known.floor)

            try:
                await client.xgroup_create(stream, self._group, id=start, mkstream=True)
            except errors.ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def _unwelcome(self, error: Exception) -> ExtractError:
        why = str(error).rstrip(".")

        return ExtractError(
            f"Redis source {self.name!r}: the server does not let us in: {why}. Check user and password in url=, or "
            "username= and password=."
        )

    def _read_again(self) -> None:
        self._mine = dict.fromkeys(self._streams, "0-0")

    async def _mine_again(self, most: int) -> list[Given]:
        """What this consumer was given and has not acknowledged: before a crash, or with an answer that was lost."""
        while self._mine:
            stream, after = next(iter(self._mine.items()))
            entries = (await self._read({stream: after}, most)).get(stream, [])

            if not entries:
                del self._mine[stream]
                continue

            self._mine[stream] = entries[-1][0].decode()

            if found := await self._taken(stream, entries):
                return found

        return []

    async def _claimed(self, most: int) -> list[Given]:
        """What other consumers were given long ago and have not acknowledged: they are dead, or slow."""
        client = self._required()
        now = time.monotonic()
        is_due = self._claimed_at is None or now >= self._claimed_at + self._claim_after_ms / 2000

        if not self._claims and is_due:
            self._claims = dict.fromkeys(self._streams, "0-0")
            self._claimed_at = now
            await self._forget_the_dead(client)

        while self._claims:
            stream, start = next(iter(self._claims.items()))
            answer = await client.xautoclaim(
                stream, self._group, self._consumer, self._claim_after_ms, start_id=start, count=most
            )
            following, entries = claimed_of(answer)

            if following == b"0-0":
                del self._claims[stream]
            else:
                self._claims[stream] = following.decode()

            if found := await self._taken(stream, entries):
                return found

        return []

    async def _forget_the_dead(self, client: Redis) -> None:
        """Take names out of the group that nobody will use again, and that have nothing open any more."""
        errors = importlib.import_module("redis.exceptions")

        for stream in self._streams:
            # Where scripts may not be run, names stay: nothing depends on it.
            with contextlib.suppress(errors.ResponseError):
                await client.eval(FORGET, 1, stream, self._group, str(10 * self._claim_after_ms), self._consumer)

    async def _fresh(self, most: int) -> list[Given]:
        wait_ms = min(int(_LONG_POLL_S * 1000), self._claim_after_ms)
        found = await self._read(dict.fromkeys(self._streams, ">"), most, wait_ms)

        return [given for stream, entries in found.items() for given in self._given(stream, entries, again=False)]

    async def _read(self, after: Mapping[str, str], most: int, wait_ms: int | None = None) -> dict[str, Entries]:
        """Entries by stream. Past the client's own method, which goes through each answer once more."""
        wait = () if wait_ms is None else ("BLOCK", wait_ms)
        command = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", most, *wait)

        client = self._required()

        return entries_of(await ask(client, *command, "STREAMS", *after.keys(), *after.values()))

    async def _taken(self, stream: str, entries: Entries) -> list[Given]:
        """Of what somebody had before. Entries that were deleted meanwhile would keep the floor down for ever."""
        gone = [one for one, fields in entries if one and not fields and one not in self._open[stream]]

        if gone:
            await self._required().xack(stream, self._group, *gone)

        return self._given(stream, entries, again=True)

    def _given(self, stream: str, entries: Entries, *, again: bool) -> list[Given]:
        weighed = [fields for _, fields in entries[:_WEIGHED] if fields]

        if weighed:
            self._nbytes = max(sum(sum(map(len, fields)) for fields in weighed) // len(weighed), 1)

        # One that is open here may be claimed by ourselves, which tells the server that somebody is at it.
        known = self._open[stream]
        found = [(one, fields) for one, fields in entries if fields and one not in known]
        known.update([one for one, _ in found])

        return [Given(stream, found, again)] if found else []

    # ------------------------------------------------------------------ letting go

    async def _floor(self, client: Redis, stream: str) -> int | None:
        async with client.pipeline(transaction=True) as together:
            together.xinfo_groups(stream)
            together.xpending(stream, self._group)
            groups, pending = await together.execute()

        delivered = next((one["last-delivered-id"] for one in groups if text_of(one["name"]) == self._group), None)

        if delivered is None:
            return None

        return position_of(pending["min"])[1] - 1 if pending["pending"] else position_of(delivered)[1]

    def _settle(self, receipts: Sequence[Receipt]) -> None:
        for stream, ids in by_stream(receipts).items():
            self._open[stream].difference_update(ids)

    async def _release(self, stream: str, ids: Sequence[bytes]) -> None:
        """Make entries look as if they had been idle long enough to be claimed."""
        for at in range(0, len(ids), _PIECE):
            await self._required().xclaim(
                stream,
                self._group,
                self._consumer,
                min_idle_time=0,
                message_ids=list(ids[at : at + _PIECE]),
                idle=self._claim_after_ms,
                justid=True,
            )

    async def _leave(self, client: Redis, stream: str) -> None:
        """Forget this consumer, whose name will not come again; its entries are given free first."""
        while True:
            pending = await client.xpending_range(stream, self._group, "-", "+", _PIECE, self._consumer, idle=None)

            if not pending:
                await client.xgroup_delconsumer(stream, self._group, self._consumer)
                return

            await client.xclaim(
                stream,
                self._group,
                "released",
                min_idle_time=0,
                message_ids=[one["message_id"] for one in pending],
                idle=self._claim_after_ms,
                justid=True,
            )

    def _required(self) -> Redis:
        if self._client is None:
            raise UsageError(f"Redis source {self.name!r} is not connected. Pass it to pipeline.stream().")

        return self._client


def redis_stream(
    streams: str | Sequence[str],
    *,
    group: str,
    consumer: str | None = None,
    url: str = "redis://127.0.0.1:6379",
    field: str | None = None,
    start: str = "0",
    claim_after_s: float = 120.0,
    **options: object,
) -> RedisStreamSource:
    """Messages of Redis or Valkey streams, exactly once in the destination, for `Pipeline.stream`.

    Args:
        streams: Keys of the streams; made if they do not exist.
        group: Consumer group; made if it does not exist. Streams that share it share the messages.
        consumer: Name in the group: one that stays the same has what it left open again at once. None: a new name
            each time, which is taken away at the end.
        url: Where to connect.
        field: Field of an entry that is its payload, in JSON; the others are headers. None: the fields are the row.
        start: Where a new group starts: ``0`` with all that is there, ``$`` with what comes.
        claim_after_s: When an entry that somebody has not acknowledged is taken over. Should be longer than a package
            takes until its commit; when it is not, repetitions are left out.
        options: More arguments of ``redis.asyncio.from_url``: credentials, TLS.

    Raises:
        ConfigError: A name is missing, or ``url`` has an argument that is not possible.
    """
    expect("redis_stream", NAMES, streams=streams)
    expect("redis_stream", TEXT, group=group, url=url)
    expect("redis_stream", SECONDS, claim_after_s=claim_after_s)
    expect_if_given("redis_stream", TEXT, consumer=consumer, field=field)
    names = [streams] if isinstance(streams, str) else list(streams)

    if not names or not all(names) or not group:
        raise ConfigError(f"redis_stream({streams!r}, group={group!r}): both names are needed.")

    check_url(url)

    return RedisStreamSource(
        names,
        group,
        consumer=consumer,
        url=url,
        field=field,
        start=start,
        claim_after_s=claim_after_s,
        options=options,
    )
