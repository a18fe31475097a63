"""A real S3 server for the tests of destinations, started by the first that needs it."""

from __future__ import annotations

import itertools

import pytest

from asyncelt import destinations
from tests.support.seaweed import Seaweed

_prefixes = itertools.count()


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory):
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket_url():
    """A prefix that no other test uses."""
    return f"s3://lake/t{next(_prefixes)}"


@pytest.fixture
def s3(seaweed, bucket_url):
    """A destination with nothing in it."""
    return destinations.filesystem(bucket_url, endpoint_url=seaweed.url, credentials=seaweed.credentials)
