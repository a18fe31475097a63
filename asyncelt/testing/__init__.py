"""For authors of destinations: the conformance suite, and packages to feed a destination by hand.

::

    import pytest
    from asyncelt.testing import DestinationConformance

    class TestMyDestination(DestinationConformance):
        @pytest.fixture
        def destination(self, tmp_path):
            return my_destination(tmp_path)

The tests are coroutines; pytest runs them with anyio's plugin (``anyio_mode = "auto"``). Needs pytest.
"""

from __future__ import annotations

import pytest

# Before the import below: so that a failing assertion of the suite shows its values.
pytest.register_assert_rewrite("asyncelt.testing.conformance", "asyncelt.testing.merging", "asyncelt.testing.streaming")

from asyncelt.testing.conformance import DestinationConformance as DestinationConformance  # noqa: E402
from asyncelt.testing.packages import (  # noqa: E402
    Tables as Tables,
    make_commit as make_commit,
    make_package as make_package,
    state_row as state_row,
)

__all__ = ["DestinationConformance", "Tables", "make_commit", "make_package", "state_row"]
