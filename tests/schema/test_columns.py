from __future__ import annotations

import dataclasses
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, ClassVar, Literal, NewType, Optional, Union
from uuid import UUID

import msgspec
import pyarrow as pa
import pydantic
import pytest

from asyncelt.errors import ConfigError
from asyncelt.schema.columns import declared_columns, is_pydantic_model, pydantic_contract

UserId = NewType("UserId", int)


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    S = 1


class Inner(pydantic.BaseModel):
    a: int
    b: str | None = None


class Model(pydantic.BaseModel):
    text: str
    number: int
    real: float
    flag: bool
    raw: bytes
    exact: Decimal
    at: datetime
    on: date
    clock: time
    key: UUID
    colour: Colour
    size: Size
    kind: Literal["a", "b"]
    user: UserId
    maybe: Optional[int] = None  # noqa: UP045
    maybe_too: str | None = None
    either: Union[int, str] = 1  # noqa: UP007
    either_or_none: int | str | None = None
    noted: Annotated[int, pydantic.Field(gt=0)] = 1
    anything: Any = None
    items: list[int] = []
    bare_list: list = []
    pair: tuple[int, str] = (1, "")
    mapping: dict[str, int] = {}
    inner: Inner
    inner_maybe: Inner | None = None
    inners: list[Inner] = []
    packed: pydantic.Json[list[int]]
    packed_any: pydantic.Json[Any]
    secret: pydantic.SecretStr
    link: pydantic.AnyUrl
    renamed: int = pydantic.Field(alias="camelName")


class Flat(Model):
    dlt_config: ClassVar = {"skip_nested_types": True}


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int
    name: str


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    name: str
    good: bool


class Pet(pydantic.RootModel[Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]]):
    pass


def found(columns):
    return {name: (c.get("data_type"), c.get("nullable")) for name, c in declared_columns(columns, "Table 't'").items()}


@pytest.mark.parametrize("model", [Model, Flat, Inner, Pet])
def test_columns_of_a_pydantic_model_equal_the_reference_s(model):
    pytest.importorskip("dlt")
    from dlt.common.libs.pydantic import pydantic_to_table_schema_columns

    theirs = pydantic_to_table_schema_columns(model)

    assert theirs == declared_columns(model, "Table 't'")
    assert list(theirs) == list(declared_columns(model, "Table 't'"))


def test_a_none_that_comes_first_does_not_decide():
    class Odd(pydantic.BaseModel):
        a: None | int = None

    assert found(Odd) == {"a": ("bigint", True)}


@pytest.mark.parametrize("extra,columns", [(None, "discard_value"), ("forbid", "freeze"), ("allow", "evolve")])
def test_the_contract_of_a_model(extra, columns):
    model = pydantic.create_model("M", __config__=pydantic.ConfigDict(extra=extra) if extra else None, a=(int, ...))

    assert pydantic_contract(model) == {"tables": "evolve", "columns": columns, "data_type": "freeze"}
    assert is_pydantic_model(model)
    assert not is_pydantic_model(int)


class Struct(msgspec.Struct, rename="camel"):
    user_id: int
    tags: list[str]
    at: datetime | None = None
    anything: Any = None


@dataclasses.dataclass
class Record:
    a: int
    b: Decimal | None
    c: dict[str, int]
    d: frozenset[int]
    e: Any


def test_columns_of_msgspec_and_dataclasses():
    assert found(Struct) == {"userId": ("bigint", False), "tags": ("json", False), "at": ("timestamp", True)}
    assert found(Record) == {
        "a": ("bigint", False),
        "b": ("decimal", True),
        "c": ("json", False),
        "d": ("json", False),
    }


def test_columns_of_an_arrow_schema():
    schema = pa.schema([pa.field("Id", pa.int32(), nullable=False), pa.field("x", pa.struct([("a", pa.int8())]))])

    assert declared_columns(schema, "t") == {
        "Id": {"name": "Id", "nullable": False, "data_type": "bigint", "precision": 32},
        "x": {"name": "x", "nullable": True, "data_type": "json"},
    }

    with pytest.raises(ConfigError, match="duration"):
        declared_columns(pa.schema([("a", pa.duration("s"))]), "t")


def test_declarations_are_not_changed():
    given = {"a": {"data_type": "text"}}
    columns = declared_columns(given, "t")
    columns["a"]["nullable"] = False

    assert given == {"a": {"data_type": "text"}}
    assert declared_columns(None, "t") == {}
