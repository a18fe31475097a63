"""Real documents: the service models that ship inside botocore. Deep, uneven, with maps keyed by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.differential.cases import Case, Run
from tests.differential.comparing import compare
from tests.differential.conftest import Ours
from tests.differential.reference import Outcome

pytestmark = [pytest.mark.differential, pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ("kinesis-video-webrtc-storage", "apigatewaymanagementapi", "workmailmessageflow", "forecastquery")
MEDIUM = ("sts", "sqs", "sso", "simpledbv2", "acm-pca", "codecatalyst")
FORMS = ("pages", "bytes", "by-two")


def _model(service: str) -> Mapping[str, Any]:
    loaders = pytest.importorskip("botocore.loaders")

    return _plain(loaders.Loader().load_service_model(service, "service-2"))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}

    return [_plain(item) for item in value] if isinstance(value, list) else value


def _named(items: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    return tuple({"key": key, **item} for key, item in items.items())


def _whole_models() -> Case:
    pages = tuple((_model(service),) for service in SMALL)

    return Case(id="botocore-whole-models", runs=(Run(pages=pages[:2]), Run(pages=pages[2:])))


def _parts(part: str) -> Case:
    pages = tuple(_named(_model(service)[part]) for service in MEDIUM)

    return Case(
        id=f"botocore-{part}",
        runs=tuple(Run(pages=(page,), table_name=part) for page in pages),
    )


def _operations_replaced() -> Case:
    pages = [_named(_model(service)["operations"]) for service in MEDIUM[:3]]
    arguments = {"write_disposition": "merge", "primary_key": "key"}

    return Case(id="botocore-merged", runs=tuple(Run(pages=(page, page[:5]), arguments=arguments) for page in pages))


CASES: Mapping[str, Callable[[], Case]] = {
    "whole-models": _whole_models,
    "operations": lambda: _parts("operations"),
    "shapes": lambda: _parts("shapes"),
    "merged": _operations_replaced,
}


@pytest.mark.covers("probe.6.documents")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in CASES])
async def test_service_models(name: str, form: str, reference: Callable[[Case], Outcome], run_ours: Ours) -> None:
    case = CASES[name]()
    expected, actual = reference(case), await run_ours(case, form)

    assert expected.error is None
    assert actual.error is None
    assert [] == compare(expected.dataset, actual.dataset)
