"""Arrow tables as bytes and back. Blocking and pure; called from threads."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["pack_table", "unpack_table"]


def pack_table(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()

    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)

    return sink.getvalue().to_pybytes()


def unpack_table(data: bytes) -> pa.Table:
    """The table again; without a copy, so ``data`` lives as long as it does.

    Raises:
        pyarrow.ArrowInvalid: This is no Arrow stream, or it is cut off.
    """
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()
