"""What a resource is refused for, as far as can be told without reading it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

from asyncelt.arguments import choice, expect
from asyncelt.errors import ConfigError, InvalidResourceData
from asyncelt.extract.functions import check_name
from asyncelt.extract.hinting import DYNAMIC, is_dynamic
from asyncelt.schema.hints import TableHints
from asyncelt.types import OnError

__all__ = ["check_definition", "checked_policy", "without_arguments", "without_parent"]


def check_definition(name: str, data: object, table_name: object, hints: TableHints) -> None:
    """Refuse what cannot be a resource, as far as can be told without reading it.

    Raises:
        ConfigError: The name or a hint is wrong.
        InvalidResourceData: The data cannot be read.
    """
    check_name(name, "resource")

    if table_name is not None and not isinstance(table_name, str) and not callable(table_name):
        raise ConfigError(f"Resource {name!r}: table_name is text or a function of a row, not {table_name!r}.")

    if isinstance(data, str):
        raise InvalidResourceData(
            f"Resource {name!r} was given text. Pass rows (a list of dicts, a generator, a frame), JSON as bytes, or "
            "JsonPage(text)."
        )

    if data is None:
        raise InvalidResourceData(f"Resource {name!r} was given None instead of data.")

    if callable(table_name):
        return

    for hint in DYNAMIC:
        if is_dynamic(getattr(hints, hint)):
            raise ConfigError(
                f"Resource {name!r}: {hint} is a function of a row, which it can be only if table_name is one too."
            )


def checked_policy(policy: object, where: str) -> OnError:
    """What an error costs, checked.

    Raises:
        ConfigError: There is no such policy.
    """
    expect(where, choice(OnError), on_error=policy)

    return cast("OnError", policy)


def without_parent(name: str) -> ConfigError:
    """The error of a transformer that is read without a resource before it."""
    return ConfigError(
        f"Transformer {name!r} has no resource to take its items from: pass data_from=..., or use "
        "resource | transformer."
    )


def without_arguments(name: str, function: Callable[..., object], *, is_transformer: bool) -> ConfigError:
    """The error of a resource that is read before its function has the arguments it needs."""
    kind, besides = ("Transformer", " besides the item") if is_transformer else ("Resource", "")

    return ConfigError(
        f"{kind} {name!r} takes arguments{besides} {inspect.signature(function)}; call it with them before it is run."
    )
