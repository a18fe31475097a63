"""What a stream has done so far."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from asyncelt.types import LoadId

__all__ = ["StreamStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """Figures of one stream, as of the moment they were asked for."""

    pipeline_name: str
    started_at: float
    """Unix time in seconds, like all times here."""
    seconds: float = 0.0
    """Since then."""
    packages: int = 0
    """Committed."""
    rows: int = 0
    """Committed, in root tables."""
    bytes: int = 0
    """Committed, as they were received."""
    messages: int = 0
    """Acknowledged."""
    repeated: int = 0
    """Deliveries that were left out because the message was committed, or on its way."""
    overtaken: int = 0
    """How often another process had committed messages first: what was in flight was given up, and read again."""
    dead_letters: int = 0
    """Messages that could not be read, and rows that could not be loaded: they went to quarantine."""
    queued: int = 0
    """Packages that are closed and wait: to be packed, or for their commit."""
    memory: int = 0
    """Bytes in flight."""
    waited_s: float = 0.0
    """How long sources have waited: for memory, and for each other's safe points."""
    retries: int = 0
    """Attempts that the destination failed and that were made again."""
    away_s: float | None = None
    """While it fails them: how long it had been doing so when it was tried last."""
    last_load_id: LoadId | None = None
    last_commit_at: float | None = None
    lag_s: float | None = None
    """Age of the oldest package that waits for its commit; if none does, of the last one when it was committed. Counted
    from its first row."""
    sources_away: tuple[str, ...] = ()
    """Sources whose brokers do not answer."""
    is_drained: bool = True
    """False: the deadline of a drain has passed, and what was in flight was given up."""

    @property
    def rows_per_second(self) -> float:
        """Since the start."""
        return self.rows / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        last = (
            "none yet" if self.last_commit_at is None else f"{datetime.fromtimestamp(self.last_commit_at, UTC):%X} UTC"
        )

        return (
            f"Stream {self.pipeline_name}: {self.rows} rows in {self.packages} packages, {self.messages} messages "
            f"acknowledged, {self.repeated} repeated, {self.queued} packages waiting; last commit: {last}."
        )
