"""Marks that several tests share."""

from __future__ import annotations

import pytest

__all__ = ["FORMS", "LONG"]

LONG = (pytest.mark.slow, pytest.mark.long)
"""Of one more combination of parameters each of which is tested elsewhere too: ``make test-long``, not CI."""
FORMS = (pytest.mark.slow, pytest.mark.forms)
"""Of a differential rule in one more form of its pages: ``make test-long``, not CI."""
