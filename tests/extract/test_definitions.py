"""Resources, sources and decorators describe; arguments are checked at once, data is read later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import asyncelt
from asyncelt.errors import ConfigError, InvalidResourceData, ResourceNameMissing, UsageError
from asyncelt.extract.data import as_sources
from tests.extract.pumping import pumped


@asyncelt.resource
async def plain() -> AsyncIterator[object]:
    """Docs of plain."""
    yield {"a": 1}


@asyncelt.resource(name="other", write_disposition="merge", primary_key="a", max_table_nesting=1)
def with_arguments(count: int, *, start: int = 0) -> Iterator[object]:
    yield from ({"a": number} for number in range(start, count))


@pytest.mark.covers(
    "resource.data",
    "resource.name",
    "resource.write_disposition",
    "resource.primary_key",
    "resource.max_table_nesting",
    "Resource.name",
    "Resource.table_name",
    "Resource.write_disposition",
    "Resource.max_table_nesting",
)
def test_decorators_with_and_without_parentheses() -> None:
    assert plain.name == "plain"
    assert plain.__doc__ == "Docs of plain."
    assert plain.table_name == "plain"
    assert with_arguments.name == "other"
    assert with_arguments.write_disposition == "merge"
    assert plain.write_disposition == "append"
    assert with_arguments.hints.primary_key == "a"
    assert with_arguments.hints.resource == "other"
    assert with_arguments.max_table_nesting == 1
    assert asyncelt.resource([1], "numbers").name == "numbers"


@pytest.mark.covers("Resource.bind", "Resource.explicit_args", "Resource.requires_args")
async def test_arguments_are_bound_once_and_checked_at_once() -> None:
    bound = with_arguments(3, start=1)

    assert (await pumped(bound)).rows() == [{"a": 1}, {"a": 2}]
    assert bound.explicit_args == {"count": 3, "start": 1}
    assert with_arguments.requires_args
    assert not bound.requires_args
    assert not plain.requires_args

    with pytest.raises(UsageError, match="'other' cannot be called: it has its arguments already"):
        bound(1)

    with pytest.raises(UsageError, match="made from data"):
        asyncelt.resource([1], name="numbers")()

    for wrong in ({"begin": 1}, {"count": 1, "end": 2}):
        with pytest.raises(TypeError, match="'other'"):
            with_arguments(**wrong)

    with pytest.raises(ConfigError, match=r"'other' takes arguments \(count"):
        await pumped(with_arguments)

    with pytest.raises(UsageError, match="not been called"):
        _ = plain.explicit_args


@pytest.mark.covers("Resource.with_name", "Resource.with_name.new_name")
async def test_a_call_makes_a_copy() -> None:
    first, second = with_arguments(1).add_map(lambda row: row), with_arguments(2)

    assert len((await pumped(second)).rows()) == 2
    assert len((await pumped(first)).rows()) == 1
    assert with_arguments.with_name("renamed").name == "renamed"
    assert with_arguments.name == "other"


@pytest.mark.parametrize(
    "options",
    [
        {"write_disposition": "upsert"},
        {"primary_key": 1},
        {"columns": [1]},
        {"schema_contract": "never"},
        {"max_table_nesting": -1},
        {"table_name": 1},
        {"name": " "},
        {"write_disposition": lambda row: "append"},
    ],
)
def test_wrong_arguments_are_refused_at_decoration(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        asyncelt.resource(**options)(plain_function)  # type: ignore[call-overload]


def plain_function() -> Iterator[object]:
    yield {"a": 1}


def test_what_cannot_be_a_resource() -> None:
    with pytest.raises(ResourceNameMissing):
        asyncelt.resource([{"a": 1}])

    with pytest.raises(ResourceNameMissing):
        asyncelt.resource(lambda: 1)

    with pytest.raises(InvalidResourceData, match="was given text"):
        asyncelt.resource("text", name="r")

    with pytest.raises(InvalidResourceData, match="already"):
        asyncelt.resource(plain)

    with pytest.raises(ConfigError, match="decorates functions"):
        asyncelt.resource(name="r")([1])  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match="needs a first parameter"):
        asyncelt.transformer(plain_function)  # type: ignore[arg-type]


@pytest.mark.covers(
    "Resource.apply_hints",
    "Resource.apply_hints.primary_key",
    "Resource.apply_hints.write_disposition",
    "Resource.apply_hints.table_name",
)
def test_hints_can_be_changed_and_removed() -> None:
    resource = plain().apply_hints(primary_key="a", write_disposition="replace", table_name="t")

    assert (resource.hints.name, resource.hints.primary_key, resource.write_disposition) == ("t", "a", "replace")

    resource.apply_hints(primary_key="", write_disposition="", table_name="")

    assert (resource.hints.name, resource.hints.primary_key, resource.write_disposition) == ("plain", "", "append")

    with pytest.raises(ConfigError):
        resource.apply_hints(write_disposition="upsert", primary_key="b")

    assert (resource.write_disposition, resource.hints.primary_key) == ("append", "")
    assert plain.hints.primary_key is None


@asyncelt.source(max_table_nesting=2)
def shop(count: int = 1) -> object:
    return plain, with_arguments(count)


@asyncelt.source
async def async_shop() -> object:
    return [plain, with_arguments(1)]


@asyncelt.source(name="yielding")
async def yielding_shop(count: int = 1) -> AsyncIterator[object]:
    yield plain
    yield with_arguments(count)


@asyncelt.source(schema_contract="freeze")
def generator_shop() -> Iterator[object]:
    yield plain


@pytest.mark.covers(
    "source.func",
    "source.name",
    "source.max_table_nesting",
    "source.schema_contract",
    "Source.name",
    "Source.max_table_nesting",
    "Source.schema_contract",
    "Source.resources",
    "Resource.source_name",
    "Source.add_limit",
    "Source.add_limit.max_items",
)
async def test_sources_in_every_form() -> None:
    for source in (shop(), await async_shop(), await yielding_shop(2)):
        assert list(source.resources) == ["plain", "other"]
        assert source.resources["plain"].source_name == source.name

    assert shop().name == "shop"
    assert shop().max_table_nesting == 2
    assert (await yielding_shop()).name == "yielding"
    assert generator_shop().schema_contract == "freeze"
    assert shop().plain.name == "plain"
    assert len([row async for row in shop(3)]) == 4
    assert len([row async for row in shop(3).add_limit(1)]) == 2


@pytest.mark.covers(
    "Source.with_resources",
    "Source.selected_resources",
    "Source.resources",
    "ResourceDict.select",
)
def test_resources_of_a_source_are_selected_on_a_copy() -> None:
    source = shop()
    selected = source.with_resources("other")

    assert list(selected.selected_resources) == ["other"]
    assert list(source.selected_resources) == ["plain", "other"]

    with pytest.raises(ConfigError, match="has no resource 'nothing'; it has 'plain', 'other'"):
        source.with_resources("other", "nothing")

    with pytest.raises(AttributeError, match="no resource 'nothing'"):
        _ = source.nothing

    with pytest.raises(KeyError, match="nothing"):
        source.resources["nothing"]


def test_what_a_source_must_not_give() -> None:
    def nothing() -> None: ...

    for wrong, message in (
        (nothing, "gave None"),
        (lambda: [plain, plain], "has a resource 'plain' already"),
        (lambda: [{"a": 1}], "neither a resource nor data with a name"),
    ):
        with pytest.raises(InvalidResourceData, match=message):
            asyncelt.source(wrong, name="wrong")()


async def names(data: object, **hints: object) -> list[tuple[str, list[str]]]:
    sources = await as_sources(data, default_schema_name="default", **hints)  # type: ignore[arg-type]

    return [(source.name, list(source.resources)) for source in sources]


async def test_whatever_is_passed_to_a_run_becomes_sources() -> None:
    assert await names(plain) == [("default", ["plain"])]
    assert await names(shop) == [("shop", ["plain", "other"])]
    assert await names(shop()) == [("shop", ["plain", "other"])]
    assert await names(async_shop()) == [("async_shop", ["plain", "other"])]
    assert await names(async_shop) == [("async_shop", ["plain", "other"])]
    assert await names([yielding_shop(), shop()]) == [("shop", ["plain", "other"]), ("yielding", ["plain", "other"])]
    assert await names([plain, with_arguments(1), shop()]) == [
        ("default", ["plain", "other"]),
        ("shop", ["plain", "other"]),
    ]
    assert await names([plain, plain]) == [("default", ["plain"]), ("default", ["plain"])]
    assert await names([{"a": 1}], table_name="t") == [("default", ["t"])]
    assert await names({"a": 1}, table_name="t") == [("default", ["t"])]
    assert await names(b'{"a": 1}', table_name="t") == [("default", ["t"])]
    assert await names([], table_name="t") == [("default", ["t"])]
    assert await names(plain_function) == [("default", ["plain_function"])]
    assert await names(plain_function()) == [("default", ["plain_function"])]

    async def rows() -> object:
        return [{"a": 1}]

    assert await names(rows(), table_name="t") == [("default", ["t"])]

    async def resources() -> object:
        return plain

    assert await names(resources()) == [("default", ["plain"])]


async def test_hints_are_laid_over_copies() -> None:
    source = shop()
    found = await as_sources(
        source, default_schema_name="default", table_name="t", write_disposition="replace", schema_contract="freeze"
    )

    assert {resource.hints.name for resource in found[0].resources.values()} == {"t"}
    assert {resource.write_disposition for resource in found[0].resources.values()} == {"replace"}
    assert found[0].schema_contract == "freeze"
    assert source.plain.hints.name == "plain"
    assert source.schema_contract is None


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([{"a": 1}], ResourceNameMissing, "pass table_name"),
        ({"a": 1}, ResourceNameMissing, "pass table_name"),
        ("text", InvalidResourceData, "Text is not data"),
        (None, InvalidResourceData, "None was passed"),
        ([plain, {"a": 1}], ResourceNameMissing, "dict has no name"),
    ],
)
async def test_what_cannot_be_run(data: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await names(data)


# ---------------------------------------------------------------------- the resources of a source


def chained() -> asyncelt.Source:
    """A resource that feeds one that feeds another, and one that stands alone."""
    first = asyncelt.resource([{"a": 1}], name="first")
    second = asyncelt.transformer(lambda row: {"b": row["a"]}, name="second", data_from=first)
    third = asyncelt.transformer(lambda row: {"c": row["b"]}, name="third", data_from=second)

    return asyncelt.Source("chained", [third, asyncelt.resource([{"a": 9}], name="alone")])


@pytest.mark.covers("ResourceDict.extracted", "ResourceDict.selected_dag", "ResourceDict.selected")
def test_resources_say_what_is_read_and_what_feeds_what() -> None:
    resources = chained().resources

    assert list(resources.selected) == ["third", "alone"]
    assert [one.name for one in resources.extracted] == ["third", "second", "first", "alone"]
    assert resources.selected_dag == [("second", "third"), ("first", "second"), ("alone", "alone")]


@pytest.mark.covers("ResourceDict.__setitem__", "ResourceDict.add")
async def test_a_resource_can_be_put_in_the_place_of_another() -> None:
    source = chained()
    source.resources["alone"] = asyncelt.resource([{"a": 5}], name="alone")
    source.resources["more"] = asyncelt.resource([{"a": 6}], name="more")
    source.resources.add(asyncelt.resource([{"a": 7}], name="added"))

    assert [row async for row in source] == [{"c": 1}, {"a": 5}, {"a": 6}, {"a": 7}]
    assert source.resources["more"].source_name == "chained"

    with pytest.raises(ConfigError, match=r"'more' cannot be kept as 'other'.*with_name"):
        source.resources["other"] = source.resources["more"]


@pytest.mark.covers("ResourceDict.detach", "ResourceDict.detach.resource_name")
async def test_a_detached_resource_is_independent() -> None:
    source = chained()
    detached = source.resources.detach()
    detached.add_map(lambda row: {**row, "own": True})

    assert (detached.name, detached.source_name) == ("third", None)
    assert [row async for row in detached] == [{"c": 1, "own": True}]
    assert [row async for row in source] == [{"c": 1}, {"a": 9}]
    assert source.resources.detach("alone").name == "alone"

    with pytest.raises(KeyError, match="nothing"):
        source.resources.detach("nothing")
