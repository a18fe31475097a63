"""Between Arrow and PostgreSQL's binary COPY format: pure functions, no connection.

The way in has two steps. First each column is *lowered* by Arrow and numpy kernels to what the wire holds: integers of
the right width, counts of microseconds since 2000, ready-made bytes (`lowering`, `numeric`). Then pgpq, which is
compiled, only interleaves these columns into rows: measured on 100,000 rows of ten columns, in a third of the time of
scattering the fields with numpy. It is given small slices, since it holds the interpreter lock.

What pgpq is not asked to do, because it refuses it or does it differently: ``null``, dictionary, nanosecond and
``decimal256`` columns; ``infinity`` of dates and timestamps (it moves them by thirty years with all others); text that
the server refuses; UUIDs; numerics from text or floats. Decimals of 128 bits it writes in less than half of our time,
but there is one road for all decimals, which is the server's own form byte by byte (a test).

The way out finds the rows of a whole buffer at once (`frames`) and lifts each column out of them (`lifting`).

What a type cannot hold is refused by column and row before the server sees it. What an INSERT rounds is rounded here
too: digits beyond the scale of a numeric, spaces beyond a ``varchar(n)``, doubles in a ``real`` column. Nanoseconds
become microseconds, the finest that PostgreSQL has.
"""

from __future__ import annotations

from asyncelt.destinations.postgres_impl.copy.decode import decode
from asyncelt.destinations.postgres_impl.copy.encode import encode
from asyncelt.destinations.postgres_impl.copy.types import CopyColumn, CopyValueError, arrow_type_of

__all__ = ["CopyColumn", "CopyValueError", "arrow_type_of", "decode", "encode"]
