"""Errors of Postgres and its driver as ours, in one table."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from asyncelt.errors import DestinationRejected, DestinationUnavailable, LoadError, LoadTimeout, UndefinedRelation

__all__ = ["DRIVER_ERRORS", "POOLED", "translate", "translated"]

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""Everything that a call of the driver raises. The internal one: the server has said goodbye while nobody listened."""

_PASSING = frozenset(
    {
        "08",  # connection exceptions
        "40",  # deadlocks, serialization
        "53",  # too many connections, out of memory, disk full
        "58",  # errors of the operating system below the server
    }
)
_PASSING_STATES = frozenset(
    {
        "25006",  # read-only: after a failover this server is not the primary any more
        "25P02",  # the transaction has failed before
        "25P03",  # idle in transaction for too long
        "55006",  # object in use
        "55P03",  # lock timeout
        "57P01",  # the server is being shut down
        "57P02",  # it has crashed
        "57P03",  # it is starting
        "57P05",  # idle for too long
        # Somebody else has just made what was not there: next time it is.
        "42P06",
        "42P07",
        "42701",
        "42710",
    }
)
_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""What the driver remembers of a table was true once."""
_CANCELED = "57014"
_OF_POOLER = "08P01"
_UNDEFINED = frozenset({"42P01", "3F000"})
POOLED = "a pooler in transaction mode seems to stand before the server: postgres(..., pooled=True)."
_HINTS = {
    "08P01": "leave the parameter out of the credentials, ALTER ROLE ... SET gives a role its settings; or have the "
    "pooler take no notice of it (ignore_startup_parameters).",
    "26000": POOLED,
    "42P05": POOLED,
    "28P01": "check username and password in the credentials.",
    "28000": "check the credentials, and pg_hba.conf of the server.",
    "3D000": "create the database first; asyncelt creates schemas and tables in it.",
    "42501": "grant the role CREATE on the database, and USAGE and CREATE on the schema.",
    "23502": "if the column is not one of asyncelt's, give it a default or let it be null.",
    "25006": "connect to the primary server; this one only answers queries.",
    "42704": "a type of an extension has to be made first, in the dataset or in public: CREATE EXTENSION postgis.",
    "42809": "a view, or another thing that is no table, has the name of a table: rename it, or use another dataset.",
    "53100": "make room on the server's disk.",
    "53300": "a run needs two connections: close others, raise the limit of server or role, or lower pool_size.",
    "55P03": "somebody else holds a lock on the table (pg_locks says who), for longer than lock_timeout allows.",
    "57014": "if the server did it, give the role time enough: ALTER ROLE ... SET statement_timeout.",
    "22021": "Postgres cannot store the character NUL in text; remove it in a map step (add_map).",
}
_REFUSED_BY_POOLER = (
    (re.compile("(password|SASL) authentication failed|no such user"), "28P01"),
    (re.compile('(no such database|database ".*" does not exist)'), "3D000"),
    (re.compile("unsupported startup parameter"), "08P01"),
)
"""What PgBouncer says in one state, 08P01, and does not think better of; and the state of Postgres for it."""
_UNREACHED = "check host and port in the credentials, and that the server runs and can be reached from here."
_UNTRUSTED = (
    "sslrootcert names the file with the certificate of the authority that has signed the server's; verify-full also "
    "wants the server's name as host."
)
_NO_TLS = "rejected SSL upgrade"
_NO_TLS_HINT = "the server has no TLS: turn it on there (ssl = on), or ask for less (sslmode=prefer)."
_PLACE = re.compile(r"COPY .*?, line (\d+)(?:, column ([^:]+))?")
_CATALOG = "pg_"


def translate(error: BaseException, doing: str) -> LoadError:
    """Our error for one of `DRIVER_ERRORS`. ``doing`` completes the sentence "Postgres failed while ..."."""
    # What the server says more is not part of its message.
    said = error.args[0] if isinstance(error, asyncpg.PostgresError) and error.args else error
    message = f"Postgres failed while {doing}: {str(said).strip() or type(error).__name__}"

    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, message)

    if isinstance(error, asyncpg.InterfaceError) and "closed" not in str(error) and "released" not in str(error):
        return DestinationRejected(message, code=type(error).__name__)

    if isinstance(error, ssl.SSLCertVerificationError) or _NO_TLS in str(error):
        return DestinationRejected(f"{message} Hint: {_NO_TLS_HINT if _NO_TLS in str(error) else _UNTRUSTED}")

    # A file that is not there: the socket of a server.
    unreached = isinstance(error, socket.gaierror | ConnectionRefusedError | FileNotFoundError)

    return DestinationUnavailable(_with_hint(message, _UNREACHED if unreached else None))


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise our errors for the driver's inside the block."""
    try:
        yield
    except LoadError:
        raise
    except DRIVER_ERRORS as error:
        raise translate(error, doing) from error


def _of_server(error: asyncpg.PostgresError, message: str) -> LoadError:
    state = error.sqlstate or ""

    if state == _CANCELED:
        return LoadTimeout(_with_hint(message, _HINTS[state]))

    refused = _refused_by_pooler(error) if state == _OF_POOLER else None

    if refused is not None:
        return DestinationRejected(message, code=refused, hint=_HINTS[refused])

    if state[:2] in _PASSING or state in _PASSING_STATES or isinstance(error, _STALE) or _is_race(error):
        return DestinationUnavailable(_with_hint(message, _HINTS.get(state)))

    kind = UndefinedRelation if state in _UNDEFINED else DestinationRejected
    hint = _HINTS.get(state) or _text(error, "hint")

    return kind(message + _place_of(error), code=state, detail=_text(error, "detail"), hint=hint)


def _refused_by_pooler(error: asyncpg.PostgresError) -> str | None:
    return next((state for pattern, state in _REFUSED_BY_POOLER if pattern.match(str(error))), None)


def _with_hint(message: str, hint: str | None) -> str:
    return message + (f" Hint: {hint}" if hint else "")


def _is_race(error: asyncpg.PostgresError) -> bool:
    """Two transactions that make the same schema, table or type meet in a unique index of the catalog."""
    return isinstance(error, asyncpg.UniqueViolationError) and (_text(error, "table_name") or "").startswith(_CATALOG)


def _place_of(error: asyncpg.PostgresError) -> str:
    """Column and row, where Postgres knows them."""
    found = _PLACE.search(_text(error, "context") or "")
    column = _text(error, "column_name") or (found[2] if found else None)
    row = found[1] if found else None

    if column is None and row is None:
        return ""

    return f" ({', '.join([f'column {column!r}'] * bool(column) + [f'row {row}'] * bool(row))})"


def _text(error: asyncpg.PostgresError, name: str) -> str | None:
    # The driver sets as attributes what the server has sent.
    value = getattr(error, name, None)

    return value if isinstance(value, str) and value else None
