"""``asyncelt.config`` and ``asyncelt.secrets``: values by dotted keys, and the placeholders for arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar, overload

from asyncelt.arguments import TEXT, expect
from asyncelt.configuration.lookup import Wanted, find, missing
from asyncelt.configuration.providers import SET_IN_CODE, SetInCode, TomlFiles, forget_files, providers

__all__ = ["Accessor", "Placeholder", "config", "secrets"]

T = TypeVar("T")


class Placeholder:
    """Default of an argument whose value is looked for when the function is called."""

    def __init__(self, name: str, *, secret: bool) -> None:
        self._name = name
        self.secret = secret

    def __repr__(self) -> str:
        return self._name


class Accessor:
    """Values by dotted keys such as ``"sources.github.page_size"``.

    The active pipeline's name counts as an outermost section. Nothing here shows values; the representation lists
    the places that are looked in.
    """

    value: ClassVar[Any]
    """Default for an argument of a resource or source: replaced by the value when the function is called."""

    def __init__(self, name: str, *, secret: bool) -> None:
        self._name = name
        self._secret = secret

    def __getitem__(self, key: str) -> Any:
        """The value.

        Raises:
            ConfigValueMissing: It is nowhere; a KeyError too.
            ConfigError: A file cannot be read, or a secret stands where it must not.
        """
        from asyncelt.configuration.casting import guessed

        wanted = self._wanted(key)
        found = find(wanted)

        if found is None:
            raise missing(wanted, repr(key))

        return guessed(found, secret=self._secret)

    @overload
    def get(self, key: str, expected_type: None = None, default: object = None) -> Any: ...

    @overload
    def get(self, key: str, expected_type: type[T], default: None = None) -> T | None: ...

    @overload
    def get(self, key: str, expected_type: type[T], default: T) -> T: ...

    def get(self, key: str, expected_type: object = None, default: object = None) -> object:
        """The value as a type; ``default`` where it is nowhere.

        Args:
            key: Sections and name, with dots.
            expected_type: A type, also a dataclass or model, whose fields may stand in different places.
            default: Returned as it is.

        Raises:
            ConfigError: The value cannot be read as the type.
        """
        from asyncelt.configuration.casting import guessed
        from asyncelt.configuration.resolving import resolve

        wanted = self._wanted(key)

        if expected_type is not None:
            return resolve(wanted, expected_type, default)

        found = find(wanted)

        return default if found is None else guessed(found, secret=self._secret)

    def __contains__(self, key: str) -> bool:
        return find(self._wanted(key)) is not None

    def __setitem__(self, key: str, value: object) -> None:
        """Set a value for this task and those that it starts; it outranks environment and files."""
        self._set({key: value})

    @contextmanager
    def values(self, values: Mapping[str, object]) -> Iterator[None]:
        """Set values inside the block."""
        before = SET_IN_CODE.get()
        self._set(values)

        try:
            yield
        finally:
            SET_IN_CODE.set(before)

    def reload(self) -> None:
        """Read the files again when the next value is asked for."""
        forget_files()

    def __repr__(self) -> str:
        there = [str(path) for one in providers() if isinstance(one, TomlFiles) for path in one.paths if path.exists()]

        return f"<asyncelt.{self._name}: environment{''.join(', ' + path for path in there)}>"

    def _wanted(self, key: str) -> Wanted:
        expect(f"asyncelt.{self._name}", TEXT, key=key)
        *sections, name = key.split(".")

        # Exactly this place: sections are dropped only for arguments and settings.
        return Wanted(key=name, sections=tuple(sections), secret=self._secret, exact=True)

    def _set(self, values: Mapping[str, object]) -> None:
        known = dict(SET_IN_CODE.get().values)
        known.update({tuple(key.split(".")): (value, self._secret) for key, value in values.items()})
        SET_IN_CODE.set(SetInCode(known))


class _Config(Accessor):
    value: ClassVar[Any] = Placeholder("asyncelt.config.value", secret=False)


class _Secrets(Accessor):
    value: ClassVar[Any] = Placeholder("asyncelt.secrets.value", secret=True)


config = _Config("config", secret=False)
"""All values, from wherever they come."""
secrets = _Secrets("secrets", secret=True)
"""Values from the environment and ``secrets.toml``; one that stands in ``config.toml`` is refused."""
