"""Which Postgres database, and how it is written. Imports no driver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from asyncelt.errors import ConfigError
from asyncelt.types import ReplaceStrategy

if TYPE_CHECKING:
    from asyncpg import Pool, Record

__all__ = ["STAGING_THRESHOLD", "Address", "PostgresConfig", "address_of"]

STAGING_THRESHOLD: Final = 1024 * 1024 * 1024
"""Staged, rows cost the server a third to two thirds more. So much is copied for minutes, which nobody wants twice."""
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d{0,7}))?")
_LAST_PORT = 65535
_SCHEMES = ("postgresql", "postgres")
_PARTS = ("host", "port", "database", "user", "password", "ssl")
_ALIASES = {"username": "user", "dbname": "database", "sslmode": "ssl"}
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
"""Of TLS; the driver takes them from a connection string only."""
_IGNORED = frozenset({"drivername", "client_encoding"})
"""Keys of the reference's credentials that say nothing here: asyncpg speaks UTF-8 only."""
_TIMEOUT = "connect_timeout"
_DEFAULT_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How to connect. What it does not say is taken from the environment (``PGHOST`` and others), as libpq does."""

    dsn: str | None = field(default=None, repr=False)
    parts: Mapping[str, str | int] = field(default_factory=dict, repr=False)
    """Arguments of ``asyncpg.connect``; they win over the DSN."""
    timeout_s: float = _DEFAULT_TIMEOUT_S

    @property
    def files(self) -> Mapping[str, str]:
        """Files that the connection needs, by the name of the setting."""
        return {key: value for key, value in parse_qsl(urlsplit(self.dsn or "").query) if key in _FILES}

    @property
    def location(self) -> str:
        """Host, port and database, without secrets."""
        url = urlsplit(self.dsn or "")
        host = str(self.parts.get("host") or url.hostname or "")
        port = self.parts.get("port") or _port_of(url.netloc)
        database = str(self.parts.get("database") or url.path.removeprefix("/"))

        return f"postgresql://{quote(host, safe='')}{f':{port}' if port else ''}/{database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """Either an address, or a pool of the caller."""

    address: Address = field(default_factory=Address)
    pool: Pool[Record] | None = None
    pool_size: int = 4
    create_indexes: bool = True
    replace_strategy: ReplaceStrategy = "truncate-and-insert"
    """Of tables that do not name one."""
    staging_threshold: int | None = STAGING_THRESHOLD
    """Bytes of job files from which on a run is staged before its commit; None: none is."""
    pooled: bool = False
    """Whether a pooler hands out server connections per transaction: nothing may outlive one then."""
    commit_timeout_s: float = 60.0
    """How long the answer to a COMMIT is waited for when the caller has been cancelled."""

    @property
    def location(self) -> str:
        """Where the data goes, fit for printing."""
        return "postgresql://:external:" if self.pool is not None else self.address.location


def address_of(credentials: str | Mapping[str, object] | None, parts: Mapping[str, object]) -> Address:
    """The address that a user means.

    Args:
        credentials: A connection string, a mapping with its parts, or nothing.
        parts: Single parts; they win.

    Raises:
        ConfigError: The string has another scheme, or the mapping a key that is no part of an address.
    """
    dsn, timeout = _split(credentials) if isinstance(credentials, str) else (None, None)
    named = dict(credentials) if isinstance(credentials, Mapping) else {}
    named.update({key: value for key, value in parts.items() if value is not None})
    given = named.pop(_TIMEOUT, timeout)
    files = {key: str(named.pop(key)) for key in _FILES if key in named}

    return Address(
        dsn=_with_options(dsn or "postgresql://", files) if files else dsn,
        parts=dict(_part(key, value) for key, value in named.items() if key not in _IGNORED and value is not None),
        timeout_s=_DEFAULT_TIMEOUT_S if given is None else _seconds(given),
    )


def _split(dsn: str) -> tuple[str, str | None]:
    """A connection string without what asyncpg would hand to the server as a setting; and its timeout."""
    url = urlsplit(dsn)
    scheme, _, _driver = url.scheme.partition("+")

    if scheme not in _SCHEMES:
        # The string is not shown: it may be a password.
        raise ConfigError("postgres credentials must begin with postgresql://, as in postgresql://user@host:5432/name.")

    if not all(_is_host(host) for host in url.netloc.rpartition("@")[2].split(",")):
        raise ConfigError(
            "postgres credentials: the port is not a number from 1 to 65535, as in "
            "postgresql://user:password@host:5432/name. In user and password / is written as %2F, @ as %40, : as %3A."
        )

    options = parse_qsl(url.query, keep_blank_values=True)
    kept = [(key, value) for key, value in options if key != _TIMEOUT and key not in _IGNORED]
    query = urlencode(kept, quote_via=quote)

    return urlunsplit(("postgresql", url.netloc, url.path, query, "")), dict(options).get(_TIMEOUT)


def _is_host(text: str) -> bool:
    found = _HOST.fullmatch(text)

    return found is not None and 1 <= int(found[2] or 5432) <= _LAST_PORT


def _with_options(dsn: str, options: Mapping[str, str]) -> str:
    url = urlsplit(dsn)
    query = urlencode({**dict(parse_qsl(url.query, keep_blank_values=True)), **options}, quote_via=quote)

    return urlunsplit((url.scheme, url.netloc, url.path or "/", query, ""))


def _part(key: str, value: object) -> tuple[str, str | int]:
    name = _ALIASES.get(key, key)

    if name not in _PARTS:
        raise ConfigError(
            f"postgres credentials have no {key!r}; they have host, port, database, username, password, sslmode, "
            "connect_timeout, sslrootcert, sslcert, sslkey, sslcrl."
        )

    if name != "port":
        return name, str(value)

    port = int(str(value)) if str(value).isdecimal() else 0

    if not 1 <= port <= _LAST_PORT:
        raise ConfigError(f"postgres credentials: the port is not a number from 1 to {_LAST_PORT}: {value!r}.")

    return name, port


def _seconds(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        raise ConfigError(f"postgres credentials: {_TIMEOUT} is a number of seconds, not {value!r}.") from None


def _port_of(netloc: str) -> str:
    _, colon, port = netloc.rpartition("@")[2].rpartition(":")

    return port if colon and port.isdigit() else ""
