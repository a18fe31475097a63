"""The suite of asyncelt.testing over a real S3 server."""

from __future__ import annotations

import pytest

from asyncelt.testing import DestinationConformance

pytestmark = pytest.mark.slow


class TestConformance(DestinationConformance):
    @pytest.fixture
    def destination(self, s3):
        return s3

    @pytest.fixture
    def file_format(self):
        return "parquet"
