"""Rows that go through the pydantic model that was given as columns.

What a row may do that the model does not foresee is said by the schema contract, or, where that says nothing, by the
model. Only classes that are pydantic models already get here, so nothing imports pydantic that has not been imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from asyncelt.errors import ConfigError, DataValidationError
from asyncelt.schema.columns import pydantic_contract

__all__ = ["ModelValidator", "field_of", "validator_of"]

_EXTRA: Final = {"evolve": "allow", "discard_value": "ignore", "freeze": "forbid", "discard_row": "forbid"}
"""What pydantic calls the modes of columns."""
_LENIENT: Final = frozenset({"evolve", "discard_value"})
"""Modes of types in which the model says no more than the names: the contract does the rest, in normalize."""


@dataclass(frozen=True, slots=True)
class ModelValidator:
    """Makes of a row what a model makes of it. Rows that are no dicts and no models of the class are refused.

    Args:
        model: A pydantic model class.
        column_mode: What a field costs that the model does not have: ``evolve``: nothing, it is loaded;
            ``discard_value``: itself; ``discard_row``: its row; ``freeze``: what the resource's ``on_error`` says.
        data_mode: What a value costs that is not what the model wants: ``freeze`` and ``discard_row`` as above (one
            ``discard_row`` holds for both). With ``evolve`` and ``discard_value`` the model looks at names only; the
            contract decides in normalize.

    Raises:
        ConfigError: The modes are not what the model says, and pydantic is too old to be told.
    """

    model: type[object]
    column_mode: str
    data_mode: str

    def __post_init__(self) -> None:
        if self._extra is not None and not _takes_extra():
            raise ConfigError(
                f"The contract has columns={self.column_mode!r}, the model {self.model.__name__} says otherwise; that "
                f"needs pydantic 2.12: take it, or set extra={_EXTRA[self.column_mode]!r} in the model."
            )

    def __call__(self, row: object) -> object | None:
        """The row as the model gives it back, by its aliases; None: it is left out.

        Raises:
            DataValidationError: The model does not take it, and the contract does not let it be left out.
        """
        try:
            return self._lenient(row) if self.data_mode in _LENIENT else self._strict(row)
        except _validation_error() as error:
            self._blame(row, error)

        return None

    def field_of(self, row: object, name: str) -> object:
        """One field of a row that was refused, as it would be in the row that the model gives back.

        Returns:
            Its value; None where it is not there, or at fault itself.
        """
        value = field_of(row, name)
        adapter = None if self.data_mode in _LENIENT else _adapter(cast("Any", self.model), name)

        if value is None or adapter is None:
            return value

        try:
            return cast(object, adapter.validate_python(value))
        except _validation_error():
            return None

    @property
    def _extra(self) -> str | None:
        """What pydantic has to be told; None: the model, and those in it, say so themselves."""
        wanted, config = _EXTRA[self.column_mode], cast("Mapping[str, str]", getattr(self.model, "model_config", {}))

        return None if self.data_mode in _LENIENT or wanted == (config.get("extra") or "ignore") else wanted

    def _strict(self, row: object) -> object:
        model: Any = self.model
        extra = self._extra
        made = model.model_validate(row) if extra is None else model.model_validate(row, extra=extra)
        config = getattr(model, "dlt_config", None) or {}

        if config.get("return_validated_models"):
            return made

        dumped = made.model_dump(by_alias=True)

        return _with_extra(made, dumped) if extra == "allow" else dumped

    def _lenient(self, row: object) -> object | None:
        """The fields of the model, whatever their values, and others if they may come."""
        if not isinstance(row, Mapping) or getattr(self.model, "__pydantic_root_model__", False):
            return row

        fields = cast("Mapping[str, Any]", getattr(self.model, "model_fields", {}))
        names = [field.alias or name for name, field in fields.items()]
        found: dict[object, object] = {name: row.get(name) for name in names}
        others = [name for name in row if name not in found]

        if not others or self.column_mode == "discard_value":
            return found

        if self.column_mode == "evolve":
            return found | {name: row[name] for name in others}

        if self.column_mode == "discard_row":
            return None

        raise self._error(f"field {others[0]!r} is not one of its fields", "columns", row, str(others[0]))

    def _blame(self, row: object, error: Any) -> None:
        """Raise, unless faults may cost the row. As in the reference, one ``discard_row`` is enough for all of them."""
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        is_no_row = not isinstance(row, Mapping) and any(one["type"] == "model_type" for one in faults)

        if is_no_row:
            raise self._error(f"a {type(row).__name__} is neither a mapping nor the model", "data_type", row) from error

        if "discard_row" in (self.column_mode, self.data_mode):
            return

        first = faults[0]
        where = f"field {'.'.join(map(str, first['loc']))!r}: " if first["loc"] else ""
        entity = "columns" if first["type"] == "extra_forbidden" else "data_type"

        column = str(first["loc"][0]) if first["loc"] else None

        raise self._error(f"{where}{first['msg']} ({first['type']})", entity, row, column) from error

    def _error(self, why: str, entity: str, row: object, column: str | None = None) -> DataValidationError:
        return DataValidationError(
            f"A row does not fit the model {self.model.__name__}: {why}. The schema contract freezes {entity}: mend "
            f"the row or the model, or let such rows go by schema_contract={{{entity!r}: 'discard_row'}} or on_error="
            "'skip'.",
            column_name=column,
            schema_entity=entity,
            contract_mode="freeze",
            schema_contract={"tables": "evolve", "columns": self.column_mode, "data_type": self.data_mode},
            data_item=row,
        )

    def __repr__(self) -> str:
        return f"<ModelValidator {self.model.__name__}, columns={self.column_mode}, data_type={self.data_mode}>"


def _with_extra(made: Any, dumped: Any) -> Any:
    """What a model has been dumped to, with fields that it took at run time, which it does not dump by itself."""
    if isinstance(made, list | tuple) and isinstance(dumped, list | tuple):
        return [_with_extra(one, other) for one, other in zip(made, dumped, strict=True)]

    if isinstance(made, Mapping) and isinstance(dumped, dict):
        return {name: _with_extra(made.get(name), value) for name, value in dumped.items()}

    if getattr(made, "__pydantic_root_model__", False):
        return _with_extra(cast("Any", made).root, dumped)

    fields = getattr(type(made), "__pydantic_fields__", None)

    if not fields or not isinstance(dumped, dict):
        return dumped

    known = {field.serialization_alias or field.alias or name: name for name, field in fields.items()}
    found = {key: _with_extra(getattr(made, known.get(key, ""), None), value) for key, value in dumped.items()}

    return {**found, **(getattr(made, "__pydantic_extra__", None) or {})}


def validator_of(model: type[object], contract: object, where: str) -> ModelValidator:
    """The validator of a model under a schema contract.

    Args:
        model: A pydantic model class.
        contract: Of the resource: a mode, modes by entity, or nothing.
        where: Names the resource in messages.

    Raises:
        ConfigError: The contract is a function of a row, or cannot be followed.
    """
    if contract is not None and not isinstance(contract, str | Mapping):
        raise ConfigError(f"{where}: with a model as columns, schema_contract cannot be a function of a row.")

    given = dict.fromkeys(("columns", "data_type"), contract) if isinstance(contract, str) else dict(contract or {})
    modes = {**pydantic_contract(model), **{key: mode for key, mode in given.items() if mode is not None}}

    for entity in ("columns", "data_type"):
        if modes[entity] not in _EXTRA:
            raise ConfigError(
                f"{where}: schema_contract: {entity} is one of {', '.join(_EXTRA)}, not {modes[entity]!r}."
            )

    return ModelValidator(model, str(modes["columns"]), str(modes["data_type"]))


def field_of(row: object, name: str) -> object:
    """One field of a row, whatever form it has; None: it has no such field."""
    return row.get(name) if isinstance(row, Mapping) else getattr(row, name, None)


@lru_cache(maxsize=128)
def _adapter(model: type[object], name: str) -> Any:
    """What reads one field of a model; None: it has no such field."""
    from pydantic import TypeAdapter

    fields = cast("Mapping[str, Any]", getattr(model, "model_fields", {}))
    field = next((one for key, one in fields.items() if name in (one.alias, key)), None)

    return None if field is None else TypeAdapter(field.annotation)


def _validation_error() -> type[Exception]:
    from pydantic import ValidationError

    return ValidationError


def _takes_extra() -> bool:
    from pydantic import VERSION

    return tuple(int(part) for part in VERSION.split(".")[:2]) >= (2, 12)
