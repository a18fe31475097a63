"""For authors of destinations: the conformance suite, and packages to feed a destination by hand.

::

    from asyncelt.testing import DestinationConformance

    class TestMyDestination(DestinationConformance):
        @pytest.fixture
        def destination(self, tmp_path):
            return my_destination(tmp_path)

The tests are coroutines; pytest runs them with anyio's plugin (``anyio_mode = "auto"``).
"""

from __future__ import annotations

from asyncelt.testing.packages import Tables as Tables, make_commit as make_commit, make_package as make_package

__all__ = ["Tables", "make_commit", "make_package"]
