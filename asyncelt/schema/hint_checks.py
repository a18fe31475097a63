"""Checks of single hints, before any I/O: each says where, what is wrong and what is allowed."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final, get_args

from asyncelt.errors import ConfigError
from asyncelt.types import MergeStrategy, ReplaceStrategy, WriteDisposition

__all__ = [
    "FILE_FORMATS",
    "MERGE_HINTS",
    "SCD2_OPTIONS",
    "STRATEGIES_OF_OPTION",
    "TABLE_FORMATS",
    "check_contract",
    "check_disposition",
    "check_reference",
    "key_names",
    "one_of",
]

DISPOSITIONS: Final[tuple[str, ...]] = get_args(WriteDisposition)
MERGE_STRATEGIES: Final[tuple[str, ...]] = get_args(MergeStrategy)
REPLACE_STRATEGIES: Final[tuple[str, ...]] = get_args(ReplaceStrategy)
CONTRACT_MODES: Final = ("evolve", "freeze", "discard_row", "discard_value")
CONTRACT_ENTITIES: Final = ("tables", "columns", "data_type")
TABLE_FORMATS: Final = ("iceberg", "delta", "hive", "native")
FILE_FORMATS: Final = ("preferred", "parquet", "jsonl", "insert_values", "csv", "model")
MERGE_HINTS: Final = {
    "strategy": "x-merge-strategy",
    "deduplicated": "x-stage-data-deduplicated",
    "source_filter": "x-merge-source-filter",
    "destination_scope": "x-merge-destination-scope",
    "skip_unchanged_rows": "x-merge-skip-unchanged-rows",
}
STRATEGIES_OF_OPTION: Final[dict[str, tuple[str, ...]]] = {
    "source_filter": ("delete-insert", "scd2", "upsert", "cdc"),
    "destination_scope": ("delete-insert", "scd2", "cdc"),
    "skip_unchanged_rows": ("upsert", "cdc"),
    "row_version_column_name": ("scd2", "upsert", "cdc"),
}
SCD2_OPTIONS: Final = ("validity_column_names", "active_record_timestamp", "boundary_timestamp")
"""Elsewhere they have no effect."""
MERGE_OPTIONS: Final = ("disposition", *MERGE_HINTS, "row_version_column_name", *SCD2_OPTIONS)
CONDITION_NAMES: Final = frozenset({"table", "staging_table"})


def check_disposition(given: object, where: str) -> None:
    """Check a write disposition, a text or a mapping with options. Raises `ConfigError`."""
    if given is None or isinstance(given, str):
        one_of(given, DISPOSITIONS, f"{where}, write_disposition")
        return

    if not isinstance(given, Mapping) or "disposition" not in given:
        raise ConfigError(f"{where}: write_disposition is a text or a mapping with 'disposition', not {given!r}.")

    one_of(given["disposition"], DISPOSITIONS, f"{where}, write_disposition")

    if unknown := [key for key in given if key not in MERGE_OPTIONS]:
        raise ConfigError(
            f"{where}: write_disposition has unknown options {', '.join(map(str, unknown))}; "
            f"there are {', '.join(MERGE_OPTIONS)}."
        )

    strategies = {"merge": MERGE_STRATEGIES, "replace": REPLACE_STRATEGIES}.get(str(given["disposition"]))

    if strategies:
        one_of(given.get("strategy"), strategies, f"{where}, strategy of {given['disposition']}")

    if given["disposition"] == "merge":
        _check_merge_options(given, where)


def _check_merge_options(given: Mapping[str, object], where: str) -> None:
    strategy = given.get("strategy")

    for option, supporting in STRATEGIES_OF_OPTION.items():
        if strategy and given.get(option) and strategy not in supporting:
            raise ConfigError(
                f"{where}: {option} goes with the strategies {', '.join(supporting)}, not with {strategy}."
            )

    for option in ("source_filter", "destination_scope"):
        if condition := given.get(option):
            _check_condition(str(condition), f"{where}, {option}")

    for option in ("active_record_timestamp", "boundary_timestamp"):
        value = given.get(option)

        if value is None or isinstance(value, date):
            continue

        try:
            datetime.fromisoformat(str(value))
        except ValueError:
            raise ConfigError(f"{where}: {option} is a datetime or ISO text, not {value!r}.") from None

    names: object = given.get("validity_column_names")

    if names and (
        not isinstance(names, Sequence) or len(names) != len(("from", "to")) or len(set(names)) != len(names)
    ):
        raise ConfigError(f"{where}: validity_column_names are two names that differ, from and to, not {names!r}.")


def _check_condition(condition: str, where: str) -> None:
    try:
        used = {name for _, name, _, _ in string.Formatter().parse(condition) if name is not None}
    except ValueError as error:
        raise ConfigError(f"{where}: {condition!r} cannot be read ({error}); write a brace as {{{{ or }}}}.") from error

    if unknown := used - CONDITION_NAMES:
        raise ConfigError(
            f"{where}: {condition!r} uses unknown placeholders {', '.join(sorted(unknown))}; "
            f"there are {', '.join(sorted(CONDITION_NAMES))}."
        )


def check_contract(contract: object, where: str) -> None:
    """Check a schema contract, one mode or a mapping from entity to mode. Raises `ConfigError`."""
    if contract is None or contract == "":
        return

    if isinstance(contract, str):
        one_of(contract, CONTRACT_MODES, f"{where}, schema_contract")
        return

    if not isinstance(contract, Mapping):
        raise ConfigError(f"{where}: schema_contract is a mode or a mapping from entity to mode, not {contract!r}.")

    for entity, mode in contract.items():
        one_of(entity, CONTRACT_ENTITIES, f"{where}, schema_contract")
        one_of(mode, CONTRACT_MODES, f"{where}, schema_contract of {entity}")


def check_reference(reference: object, where: str) -> None:
    """Check one reference to another table. Raises `ConfigError`."""
    if not isinstance(reference, Mapping) or not reference.get("referenced_table"):
        raise ConfigError(f"{where}: a reference is a mapping with 'referenced_table', not {reference!r}.")

    own, other = reference.get("columns"), reference.get("referenced_columns")

    if not own or not other or len(own) != len(other):
        raise ConfigError(
            f"{where}: the reference to {reference['referenced_table']!r} needs 'columns' and 'referenced_columns' "
            "of the same length."
        )


def key_names(keys: object, where: str) -> tuple[str, ...]:
    """Column names of a key hint; none for None and blank text. Raises `ConfigError`."""
    if keys is None:
        return ()

    names = (keys,) if isinstance(keys, str) else keys

    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: the name of a column or a list of them, not {keys!r}.")

    if any(not name.strip() for name in names) and keys != "":
        raise ConfigError(f"{where}: the name of a column cannot be blank.")

    return tuple(name for name in names if name)


def one_of(value: object, allowed: Sequence[str], where: str) -> None:
    """Check that a value is one of a list, or None. Raises `ConfigError`."""
    if value is not None and value not in allowed:
        raise ConfigError(f"{where}: {value!r} is unknown; allowed: {', '.join(allowed)}.")
