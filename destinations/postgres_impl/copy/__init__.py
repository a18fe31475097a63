"""Binary COPY: Arrow batches into the bytes that Postgres reads, and back. Blocking, for worker threads."""

from __future__ import annotations

from asyncelt.destinations.postgres_impl.copy.columns import CopyColumn
from asyncelt.destinations.postgres_impl.copy.decoding import decode
from asyncelt.destinations.postgres_impl.copy.encoding import encode

__all__ = ["CopyColumn", "decode", "encode"]
