"""Places on the S3 server of the session (`tests.conftest.seaweed`)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from asyncelt import destinations

_prefixes = itertools.count()


@pytest.fixture
def bucket_url():
    """A prefix that no other test uses."""
    return f"s3://lake/t{next(_prefixes)}"


@pytest.fixture(scope="session")
def _lake(seaweed):
    """Keeps what a driver reads before its first request: a quarter of a second."""
    return destinations.filesystem("s3://lake", endpoint_url=seaweed.url, credentials=seaweed.credentials)


@pytest.fixture
def s3(_lake, bucket_url):
    """A destination with nothing in it."""
    config = replace(_lake.site.config, prefix=bucket_url.removeprefix("s3://lake/"))

    return replace(_lake, site=replace(_lake.site, config=config))
