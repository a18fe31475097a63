"""What was found in configuration, for the traces of pipelines. Values that are or look secret are never kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from asyncelt.configuration.providers import KeyPath, Provider, SetInCode, TomlFiles

__all__ = ["LOOKS_SECRET", "Resolved", "note", "resolved_values"]

MOST = 1000
LOOKS_SECRET = re.compile(r"://[^/@\s]*:[^/\s]*@|password|secret|token|credential|access-key", re.IGNORECASE)
_KEY = re.compile(r"api.?key|private.?key|passphrase|signature|salt", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """One value that was found."""

    key: str
    value: object
    """None for a secret."""
    is_secret_hint: bool
    """Whether a secret was asked for."""
    sections: tuple[str, ...]
    provider_name: str

    def asdict(self) -> dict[str, object]:
        """Plain values, under the reference's names."""
        return {
            "key": self.key,
            "value": self.value,
            "is_secret_hint": self.is_secret_hint,
            "sections": list(self.sections),
            "provider_name": self.provider_name,
        }


_RESOLVED: ContextVar[dict[tuple[str, KeyPath], Resolved] | None] = ContextVar("asyncelt_resolved", default=None)
"""By pipeline and path: seen by the task that has looked first, and by those that it has started since."""


def note(pipeline: str, path: KeyPath, value: object, provider: Provider, *, is_secret: bool) -> None:
    """Remember a value that was found while this pipeline was active; the oldest go when there are too many."""
    known = _RESOLVED.get()

    if known is None:
        known = {}
        _RESOLVED.set(known)

    *sections, key = path
    is_hidden = is_secret or _holds_secret(path, value, provider)
    known[pipeline, path] = Resolved(
        key=key,
        value=None if is_hidden else value,
        is_secret_hint=is_secret,
        sections=tuple(sections),
        provider_name=provider.name,
    )

    while len(known) > MOST:
        known.pop(next(iter(known)))


def resolved_values(pipeline: str) -> tuple[Mapping[str, object], ...]:
    """What was found while this pipeline was active, in this task and those that it comes from."""
    return tuple(one.asdict() for (name, _), one in (_RESOLVED.get() or {}).items() if name == pipeline)


def _holds_secret(path: KeyPath, value: object, provider: Provider) -> bool:
    """Whether a value must not be shown though nobody has asked for a secret."""
    if isinstance(provider, TomlFiles) and provider.holds_secrets:
        return True

    if isinstance(provider, SetInCode) and any(
        secret for known, (_, secret) in provider.values.items() if known[: len(path)] == path
    ):
        return True

    text = f"{path[-1]} {value}"

    return LOOKS_SECRET.search(text) is not None or _KEY.search(text) is not None
