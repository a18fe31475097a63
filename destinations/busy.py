"""Something that another owner holds for a moment, without telling when it lets go."""

from __future__ import annotations

from asyncelt.errors import DestinationUnavailable

__all__ = ["Busy"]


class Busy(DestinationUnavailable):
    """Another process or session holds it now. Nothing has been changed; wait and try again."""
