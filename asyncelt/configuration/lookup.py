"""Finding one value: which paths are tried, in which provider, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace

from asyncelt.configuration.providers import KeyPath, Provider, SetInCode, TomlFiles, providers
from asyncelt.configuration.resolved import note
from asyncelt.errors import ConfigError, ConfigValueMissing

__all__ = ["PIPELINE", "Found", "Wanted", "find", "missing"]

PIPELINE: ContextVar[str | None] = ContextVar("asyncelt_configured_pipeline", default=None)
"""Name of the pipeline that is active in this task: sections below its name outrank all others."""

_COMPACT = ("sources", "destination")
_COMPACT_SECTIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A value that is looked for.

    Sections are dropped from the inside out: ``sources.module.github.key``, ``sources.module.key``,
    ``sources.github.key``, ``sources.key``, ``key``.
    """

    key: str
    sections: tuple[str, ...] = ()
    inner: tuple[str, ...] = ()
    """Sections between those and the key, which are never dropped."""
    secret: bool = False
    bare: bool = True
    """Whether the key counts without any section."""
    exact: bool = False
    """Whether it counts only with all its sections."""

    @property
    def paths(self) -> tuple[KeyPath, ...]:
        """Where it may stand, the most particular place first."""
        sections = self.sections

        if self.exact:
            return ((*sections, *self.inner, self.key),)

        chosen = [sections[:length] for length in range(len(sections), -1, -1)]

        if len(sections) >= _COMPACT_SECTIONS and sections[0] in _COMPACT and sections[1] != sections[2]:
            chosen.insert(2, (sections[0], *sections[2:]))

        return tuple((*path, *self.inner, self.key) for path in chosen if path or self.bare)

    def of(self, field: str) -> Wanted:
        """A value inside this one, where this one is a section."""
        return replace(self, inner=(*self.inner, self.key), key=field)


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """A value and where it was found. Never shows the value."""

    value: object
    provider: Provider
    path: KeyPath

    @property
    def place(self) -> str:
        """Where, for people."""
        return f"{self.provider.spelled(self.path)} ({self.provider.name})"

    def __repr__(self) -> str:
        return f"<Found {self.place}>"


def find(wanted: Wanted, known: Sequence[Provider] | None = None) -> Found | None:
    """The value that counts; None where there is none.

    Args:
        wanted: What is looked for.
        known: Where to look: for who asks for many values at once. None: in `providers` as of now.

    Raises:
        ConfigError: A secret stands in ``config.toml``, or a file cannot be read.
    """
    for provider, path in _places(wanted, known or providers()):
        value = provider.get(path)

        if value is None:
            continue

        found = Found(value, provider, path)

        if wanted.secret and not _may_hold(provider, path):
            raise ConfigError(
                f"{found.place} is a secret: it belongs into secrets.toml or into the environment, as "
                f"{'__'.join(path).upper()}."
            )

        if (pipeline := PIPELINE.get()) is not None:
            note(pipeline, path, value, provider, is_secret=wanted.secret)

        return found

    return None


def missing(wanted: Wanted, what: str) -> ConfigValueMissing:
    """The error that says what is missing and names all the places where it was looked for."""
    known = providers()
    lines = []

    for provider in known:
        if isinstance(provider, SetInCode) or (wanted.secret and not provider.holds_secrets):
            continue

        spelled = ", ".join(provider.spelled(path) for one, path in _places(wanted, known) if one is provider)
        lines.append(f"  {provider.name}: {spelled}")

        if isinstance(provider, TomlFiles):
            there = [path for path in provider.paths if path.exists()]
            where = ", ".join(map(str, there or provider.paths))
            lines.append(f"    {'in' if there else 'there is no'} {where}")

    kind = "secret" if wanted.secret else "config value"

    return ConfigValueMissing(
        f"The {kind} {what} is missing. Pass it, or set one of these; the first that is there counts:\n"
        + "\n".join(lines)
    )


def _places(wanted: Wanted, known: Sequence[Provider]) -> Iterator[tuple[Provider, KeyPath]]:
    pipeline, paths = PIPELINE.get(), wanted.paths

    for prefix in ((pipeline,), ()) if pipeline else ((),):
        for provider in known:
            for path in paths:
                yield provider, (*prefix, *path)


def _may_hold(provider: Provider, path: KeyPath) -> bool:
    if isinstance(provider, SetInCode):
        return all(secret for known, (_, secret) in provider.values.items() if known[: len(path)] == path)

    return provider.holds_secrets
