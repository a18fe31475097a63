"""How names from data and from hints become names of tables and columns.

A convention turns one *identifier* into a safe one, a *path* (a key that may already hold the separator, such as
``address__city``) part by part, and *joins* parts that are safe already. What does not fit into the longest name of
a destination keeps its head and tail around a short hash of the original, so that it stays unique and stable.

The results equal those of the reference for every name it can load; see ``docs/departures.md`` for the names that it
cannot (keys of separators only become ``_empty``).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Final, Protocol, TypeAlias, final, runtime_checkable

import orjson

from asyncelt.errors import ConfigError

__all__ = ["CONVENTIONS", "EMPTY_KEY", "Naming", "NamingReference", "key_text", "naming_for"]

EMPTY_KEY: Final = "_empty"
"""What a blank key of the data becomes."""
CACHE_SIZE: Final = 8192
"""Names remembered per instance and kind; keys may be ids, so there must be a bound."""
TAG_BYTES: Final = 4
"""Bytes of the hash in a shortened name, which are six characters of text."""
TAG_ALPHABET: Final = bytes.maketrans(b"/+", b"ab")

UNDERSCORES: Final = re.compile("__+")
TRAILING_UNDERSCORES: Final = re.compile("_+$")
LEADING_DIGITS: Final = re.compile(r"^\d+")
UNSAFE: Final = re.compile(r"[^a-zA-Z\d_]+")
CAMEL_WORD: Final = re.compile("([^_])([A-Z][a-z]+)")
CAMEL_STEP: Final = re.compile("([a-z0-9])([A-Z])")
SPOKEN_SIGNS: Final = str.maketrans("+-*@|", "x_xal")
DIRECT_SIGNS: Final = str.maketrans("\n\r'\"▶", "_____")
DUCK_SIGNS: Final = str.maketrans('\n\r"', "___")


@runtime_checkable
class Naming(Protocol):
    """A naming convention, bound to the longest name that a destination takes. Safe to share between threads."""

    @property
    def name(self) -> str:
        """As the stored schema keeps it: a short name, or ``module.Class`` for a user's own."""
        ...

    @property
    def is_case_sensitive(self) -> bool:
        """Whether two names may differ in case only."""
        ...

    @property
    def path_separator(self) -> str:
        """Stands between the parts of a nested column or table."""
        ...

    @property
    def max_length(self) -> int | None:
        """Characters of the longest name; None: no bound."""
        ...

    def identifier(self, raw: str) -> str:
        """One name, taken as a whole. Raises `ConfigError` when nothing is left of it."""
        ...

    def path(self, raw: object) -> str:
        """One key of the data, or a hint's name: parts between separators become safe one by one.

        Never fails and never returns a blank name. A key that is no text is first written as JSON writes it.
        """
        ...

    def join(self, *parts: str) -> str:
        """A nested name from parts that went through `identifier` or `path`, shortened as a whole."""
        ...


NamingReference: TypeAlias = "str | Callable[[int | None], object] | Naming"
"""A name, a class (anything that takes the longest name), or an instance."""


def naming_for(reference: NamingReference, max_length: int | None = None) -> Naming:
    """Find a convention and bind it to a longest name.

    Args:
        reference: A short name (`CONVENTIONS`), ``"module.Class"`` or a module that has a ``NamingConvention``, a class
            that takes ``max_length``, or a finished instance. A class may have the methods of `Naming` or those of the
            reference's conventions (``normalize_identifier``, ...).
        max_length: Characters of the longest name; None or 0: no bound. Not applied to an instance.

    Raises:
        ConfigError: There is no such convention, or it is not a naming convention.
    """
    if max_length is not None and max_length < 0:
        raise ConfigError(f"The longest name cannot have {max_length} characters.")

    if isinstance(reference, str) and reference in CONVENTIONS:
        return _Convention(CONVENTIONS[reference], max_length or None)

    maker = _import(reference) if isinstance(reference, str) else reference
    found = maker if isinstance(maker, Naming) and not isinstance(maker, type) else _make(maker, max_length)

    if isinstance(found, Naming):
        return found

    if isinstance(found, _Foreign):
        return _Convention(_adapt(found), max_length or None)

    raise ConfigError(
        f"{reference!r} is not a naming convention: it needs identifier, path and join, or normalize_identifier."
    )


def _make(maker: object, max_length: int | None) -> object:
    if not callable(maker):
        return maker

    try:
        return maker(max_length or None)
    except TypeError as error:
        raise ConfigError(
            f"{maker!r} is not a naming convention: it cannot be made with the longest name as its one argument."
        ) from error


def key_text(key: object) -> str:
    """A key of a mapping as the text that JSON gives it: 1 is ``1``, None ``null``, True ``true``, dates in ISO form.

    Keys that JSON cannot write (bytes, tuples, decimals, large integers) are written as Python writes them.
    """
    if isinstance(key, str):
        return key

    try:
        document = orjson.loads(orjson.dumps({key: 0}, option=orjson.OPT_NON_STR_KEYS))
    except TypeError:
        return str(key)

    return str(next(iter(document)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What tells one convention from another."""

    name: str
    case_sensitive: bool
    separator: str = "__"
    convert: Callable[[str], str]
    """A stripped, non-blank name to a safe one, which may still be too long."""
    max_length: int | None = None
    """A bound that the convention itself sets."""


@final
class _Convention:
    """A rule with a bound and a cache; see `Naming` for what the methods promise."""

    __slots__ = ("_identifier", "_join", "_path", "max_length", "rule")

    def __init__(self, rule: Rule, max_length: int | None) -> None:
        self.rule = rule
        self.max_length = min((n for n in (max_length, rule.max_length) if n), default=None)
        self._identifier = lru_cache(maxsize=CACHE_SIZE)(_identifier_of(rule, self.max_length))
        self._path = lru_cache(maxsize=CACHE_SIZE)(_path_of(rule, self._identifier, self.max_length))
        self._join = lru_cache(maxsize=CACHE_SIZE)(_join_of(rule, self.max_length))

    @property
    def name(self) -> str:
        return self.rule.name

    @property
    def is_case_sensitive(self) -> bool:
        return self.rule.case_sensitive

    @property
    def path_separator(self) -> str:
        return self.rule.separator

    def identifier(self, raw: str) -> str:
        name = self._identifier(raw)

        if not name:
            raise ConfigError(f"The name {raw!r} is blank; a table or column needs a name with a visible character.")

        return name

    def path(self, raw: object) -> str:
        return self._path(raw if isinstance(raw, str) else key_text(raw))

    def join(self, *parts: str) -> str:
        return self._join(*parts)

    def __reduce__(self) -> tuple[Callable[..., Naming], tuple[str, int | None]]:
        return naming_for, (self.rule.name, self.max_length)

    def __repr__(self) -> str:
        return f"<naming {self.rule.name!r}, max_length={self.max_length}>"


def _identifier_of(rule: Rule, max_length: int | None) -> Callable[[str], str]:
    def identifier(raw: str) -> str:
        stripped = raw.strip()

        return _shorten(rule.convert(stripped), stripped, max_length) if stripped else ""

    return identifier


def _path_of(rule: Rule, identifier: Callable[[str], str], max_length: int | None) -> Callable[[str], str]:
    def path(raw: str) -> str:
        # A part may become blank only here: "a____b" has an empty part, and sql_cs_v1 leaves nothing of "%_".
        parts = (identifier(part) for part in raw.split(rule.separator) if part.strip())
        joined = rule.separator.join(part for part in parts if part.strip())

        return _shorten(joined, raw, max_length) or EMPTY_KEY

    return path


def _join_of(rule: Rule, max_length: int | None) -> Callable[..., str]:
    def join(*parts: str) -> str:
        joined = rule.separator.join(part for part in parts if part.strip())

        return _shorten(joined, joined, max_length)

    return join


def _shorten(name: str, original: str, max_length: int | None) -> str:
    if max_length is None or len(name) <= max_length:
        return name

    # Unpaired surrogates cannot be encoded strictly, and a hash of them is as good as any.
    digest = hashlib.shake_128(original.encode("utf-8", "surrogatepass")).digest(TAG_BYTES)
    tag = base64.b64encode(digest).rstrip(b"=").translate(TAG_ALPHABET).lower().decode("ascii")[:max_length]
    kept = max_length - len(tag)
    tail = kept // 2

    return name[: kept - tail] + tag + name[len(name) - tail :]


def _snake_case(name: str) -> str:
    safe = UNSAFE.sub("_", name.translate(SPOKEN_SIGNS))
    lower = CAMEL_STEP.sub(r"\1_\2", CAMEL_WORD.sub(r"\1_\2", safe)).lower()
    prefixed = "_" + lower if LEADING_DIGITS.match(lower) else lower
    stem = prefixed.rstrip("_")

    return UNDERSCORES.sub("_", stem + "x" * (len(prefixed) - len(stem)))


def _sql_cs(name: str) -> str:
    safe = UNSAFE.sub("_", name)
    prefixed = "_" + safe if LEADING_DIGITS.match(safe) else safe
    stem = prefixed if prefixed == "_" else TRAILING_UNDERSCORES.sub("", prefixed)

    return UNDERSCORES.sub("_", stem)


def _sql_ci(name: str) -> str:
    return _sql_cs(name).lower()


def _direct(name: str) -> str:
    return name.translate(DIRECT_SIGNS)


def _duck_case(name: str) -> str:
    return UNDERSCORES.sub("_", name.translate(DUCK_SIGNS))


CONVENTIONS: Final[dict[str, Rule]] = {
    rule.name: rule
    for rule in (
        Rule(name="snake_case", case_sensitive=False, convert=_snake_case),
        Rule(name="duck_case", case_sensitive=True, convert=_duck_case),
        Rule(name="sql_ci_v1", case_sensitive=False, convert=_sql_ci),
        Rule(name="sql_cs_v1", case_sensitive=True, convert=_sql_cs),
        Rule(name="direct", case_sensitive=True, separator="▶", convert=_direct),
    )
}
"""The conventions that have a short name."""


@runtime_checkable
class _Foreign(Protocol):
    """The part of the reference's convention classes that is needed to use one."""

    PATH_SEPARATOR: str

    @property
    def is_case_sensitive(self) -> bool: ...

    def normalize_identifier(self, identifier: str) -> str: ...


def _adapt(convention: _Foreign) -> Rule:
    kind = type(convention)

    return Rule(
        name=f"{kind.__module__}.{kind.__qualname__}",
        case_sensitive=convention.is_case_sensitive,
        separator=convention.PATH_SEPARATOR,
        convert=convention.normalize_identifier,
    )


def _import(reference: str) -> object:
    module_name, _, class_name = reference.rpartition(".")

    for module, attribute in ((module_name, class_name), (reference, "NamingConvention")):
        if not module:
            continue

        try:
            found = getattr(import_module(module), attribute, None)
        except ImportError:
            continue

        if isinstance(found, type):
            return found

    raise ConfigError(
        f"There is no naming convention {reference!r}; use one of {', '.join(CONVENTIONS)}, or 'module.Class'."
    )
