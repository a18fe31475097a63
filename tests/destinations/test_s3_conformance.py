"""The suite of asyncelt.testing over a real S3 server."""

from __future__ import annotations

import pytest

from asyncelt.testing import DestinationConformance

pytestmark = pytest.mark.slow


class TestConformance(DestinationConformance):
    # Each of these is a commit of some forty requests. Those that are left out differ in nothing that is only done here.
    cancelled_after = (1, 5, 21)
    spared = frozenset({"filesystem.before_upload", "filesystem.before_commit", "filesystem.finished"})

    @pytest.fixture
    def destination(self, s3):
        return s3

    @pytest.fixture
    def file_format(self):
        return "parquet"
