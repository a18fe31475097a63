"""What is said of a session that is used after its end."""

from __future__ import annotations

from asyncelt.errors import UsageError

__all__ = ["closed_session"]


def closed_session() -> UsageError:
    """The error of a call that comes after the session's block has ended."""
    return UsageError(
        "This connection has been closed, as its `async with` block has ended. Make calls inside the block, or open "
        "another one."
    )
