"""What traces say about configuration: where each value was found, and never a secret."""

from __future__ import annotations

import asyncio

import orjson
import pytest

import asyncelt
from asyncelt.info import PipelineTrace


@asyncelt.source(name="shop")
def shop(
    token: str = asyncelt.secrets.value,
    page_size: int = asyncelt.config.value,
    url: str = "http://localhost",
    api_key: str = "",
    note: str = "",
):
    async def orders():
        yield [{"id": number, "signed": len(token) + len(api_key)} for number in range(page_size)]

    return asyncelt.resource(orders, name="orders")


def values_of(trace: PipelineTrace | None) -> dict[str, tuple[object, ...]]:
    assert trace is not None

    return {
        ".".join([*one["sections"], one["key"]]): (one["value"], one["is_secret_hint"], one["provider_name"])  # type: ignore[list-item, misc]
        for one in trace.resolved_config_values
    }


async def test_traces_say_what_was_found_and_where(write, monkeypatch, tmp_path):
    write("[sources.shop]\npage_size = 2\nurl = 'http://me:hidden@localhost'\n[other.sources.shop]\npage_size = 9")
    write("[sources.shop]\nnote = 'hidden'\napi_key = 'hidden'", "secrets.toml")
    monkeypatch.setenv("SOURCES__SHOP__TOKEN", "hidden")
    monkeypatch.setenv("ASYNCELT__LIMITS__NORMALIZE_WORKERS", "1")
    pipeline = asyncelt.pipeline("resolving", destination="memory", dataset_name="d", pipelines_dir=tmp_path)
    await pipeline.run(shop())
    found = values_of(pipeline.last_trace)

    assert found == {
        "asyncelt.limits.normalize_workers": ("1", False, "environment"),
        "sources.shop.token": (None, True, "environment"),
        "sources.shop.page_size": (2, False, "config.toml"),
        "sources.shop.url": (None, False, "config.toml"),
        "sources.shop.api_key": (None, False, "secrets.toml"),
        "sources.shop.note": (None, False, "secrets.toml"),
    }
    kept = (tmp_path / "resolving" / "trace.json").read_bytes()
    assert b"hidden" not in kept
    assert len(orjson.loads(kept)["resolved_config_values"]) == 6

    # What a later process adds joins what was kept.
    other = asyncelt.pipeline("resolving_later", destination="memory", pipelines_dir=tmp_path)
    await other.run([{"id": 1}], table_name="t")
    assert values_of(other.last_trace) == {"asyncelt.limits.normalize_workers": ("1", False, "environment")}


async def test_secrets_set_in_code_are_not_shown(tmp_path):
    with asyncelt.secrets.values({"sources.shop.page_size": 1, "sources.shop.token": "hidden"}):
        pipeline = asyncelt.pipeline("coded", destination="memory", dataset_name="d", pipelines_dir=tmp_path)
        await pipeline.run(shop())

    assert values_of(pipeline.last_trace)["sources.shop.page_size"] == (None, False, "set in code")


async def test_pipelines_side_by_side_do_not_mix(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCES__SHOP__TOKEN", "x")

    async def one(name: str, size: int) -> asyncelt.Pipeline:
        pipeline = asyncelt.pipeline(name, destination="memory", dataset_name="d", pipelines_dir=tmp_path)

        with asyncelt.config.values({f"{name}.sources.shop.page_size": size}):
            await pipeline.run(shop())

        return pipeline

    pipelines = await asyncio.gather(one("left", 1), one("right", 2))
    sizes = [
        {key: value for key, (value, *_) in values_of(one.last_trace).items() if key.endswith("page_size")}
        for one in pipelines
    ]
    assert sizes == [{"left.sources.shop.page_size": 1}, {"right.sources.shop.page_size": 2}]


@pytest.mark.parametrize("number", [1, 1500])
def test_what_is_remembered_is_bounded(tmp_path, number):
    asyncelt.pipeline("bounded", destination="memory", pipelines_dir=tmp_path)

    with asyncelt.config.values({f"section.key_{at}": at for at in range(number)}):
        for at in range(number):
            assert asyncelt.config[f"section.key_{at}"] == at

    from asyncelt.configuration.resolved import MOST, resolved_values

    found = resolved_values("bounded")
    assert len(found) <= MOST
    assert found[-1]["value"] == number - 1
