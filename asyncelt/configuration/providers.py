"""Where values come from: each provider answers a path of sections and a key. No provider ever shows a value."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeAlias

from asyncelt.errors import ConfigError

__all__ = ["SET_IN_CODE", "Environment", "KeyPath", "Provider", "SetInCode", "TomlFiles", "forget_files", "providers"]

KeyPath: TypeAlias = tuple[str, ...]
"""Sections, outermost first, and the key."""

_FOLDERS = (".asyncelt", ".dlt")
_ODD = re.compile(r"[^A-Z0-9_]")


class Provider(Protocol):
    """One place to look in."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def holds_secrets(self) -> bool:
        """Whether secrets may be there."""
        ...

    @property
    def is_text(self) -> bool:
        """Whether all values are text that stands for something else."""
        ...

    def get(self, path: KeyPath) -> object | None:
        """The value; None where there is none."""
        ...

    def spelled(self, path: KeyPath) -> str:
        """How the path is written there."""
        ...


@dataclass(frozen=True, slots=True)
class SetInCode:
    """What the program has set, by path; with whether it is a secret."""

    values: Mapping[KeyPath, tuple[object, bool]] = field(repr=False)

    @property
    def name(self) -> str:
        """For people."""
        return "set in code"

    @property
    def holds_secrets(self) -> bool:
        """Whatever the program sets."""
        return True

    @property
    def is_text(self) -> bool:
        """Values are what they are."""
        return False

    def get(self, path: KeyPath) -> object | None:
        """The value, or a mapping of those that were set below the path."""
        if path in self.values:
            return self.values[path][0]

        below: dict[str, object] = {}

        for known, (value, _) in self.values.items():
            if known[: len(path)] == path:
                inner = below

                for section in known[len(path) : -1]:
                    deeper = inner.setdefault(section, {})
                    inner = deeper if isinstance(deeper, dict) else {}

                inner[known[-1]] = value

        return below or None

    def spelled(self, path: KeyPath) -> str:
        """With dots."""
        return ".".join(path)


SET_IN_CODE: ContextVar[SetInCode] = ContextVar("asyncelt_set_in_code", default=SetInCode({}))  # noqa: B039 - frozen
"""Seen by the task that sets it and by those that it starts."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Variables named ``SECTION__KEY``."""

    variables: Mapping[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """For people."""
        return "environment"

    @property
    def holds_secrets(self) -> bool:
        """That is what it is there for."""
        return True

    @property
    def is_text(self) -> bool:
        """A variable cannot be anything else."""
        return True

    def get(self, path: KeyPath) -> str | None:
        """The variable."""
        return self.variables.get(self.spelled(path))

    def spelled(self, path: KeyPath) -> str:
        """In capitals, with two underscores between sections."""
        return _variable(path)


@dataclass(frozen=True, slots=True)
class TomlFiles:
    """Files of one name; those of the project outrank those of the home folder."""

    file_name: str
    holds_secrets: bool
    paths: tuple[Path, ...]
    """All that were looked for."""
    documents: tuple[Mapping[str, object], ...] = field(repr=False)
    """Of those that are there."""

    @property
    def name(self) -> str:
        """For people."""
        return self.file_name

    @property
    def is_text(self) -> bool:
        """TOML has types."""
        return False

    def get(self, path: KeyPath) -> object | None:
        """The value of the first file that has it; tables are laid over each other."""
        found: object | None = None

        for document in self.documents:
            value = _inside(document, path)

            if found is None:
                found = value
            elif isinstance(found, Mapping) and isinstance(value, Mapping):
                found = _merged(value, found)

        return found

    def spelled(self, path: KeyPath) -> str:
        """With dots."""
        return ".".join(path)


def providers() -> Sequence[Provider]:
    """All of them, in the order in which they are asked.

    Raises:
        ConfigError: A file is no TOML.
    """
    folders = _folders()
    secrets, config = (_files(name, *folders) for name in ("secrets.toml", "config.toml"))

    return SET_IN_CODE.get(), Environment(os.environ), secrets, config


def forget_files() -> None:
    """Read the files again when the next value is asked for."""
    _files.cache_clear()


def _folders() -> tuple[str, str]:
    """Of the project, and home. As text: it takes longer to make paths than to look up what is kept under them."""
    project = os.environ.get("ASYNCELT_PROJECT_DIR") or os.environ.get("DLT_PROJECT_DIR") or os.getcwd()  # noqa: PTH109

    return project, os.path.expanduser("~")  # noqa: PTH111


@lru_cache(maxsize=16)
def _files(file_name: str, project: str, home: str) -> TomlFiles:
    roots = dict.fromkeys((Path(project), Path(home)))
    paths = tuple(root / folder / file_name for root in roots for folder in _FOLDERS)
    documents = tuple(document for path in paths if (document := _read(path)) is not None)

    return TomlFiles(file_name, file_name == "secrets.toml", paths, documents)


@lru_cache(maxsize=1024)
def _variable(path: KeyPath) -> str:
    return "__".join(_ODD.sub("_", part.upper()) for part in path)


def _read(path: Path) -> Mapping[str, object] | None:
    try:
        text = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8, so it is not TOML.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error

    # Most programs have no such file: the parser is imported where there is one.
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The chain is cut, and of the message only the place is kept: the rest may show what stands there.
        where = re.search(r"\(at [^()]*\)", str(error))

        raise ConfigError(f"{path} is not valid TOML {where[0] if where else ''}".rstrip() + ".") from None


def _inside(document: Mapping[str, object], path: KeyPath) -> object | None:
    value: object = document

    for part in path:
        if not isinstance(value, Mapping):
            return None

        value = value.get(part)

    return value


def _merged(under: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(under)

    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value

    return merged
