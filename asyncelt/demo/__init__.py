"""``asyncelt demo``: an API, a pipeline and two questions, in one process and without a network."""

from __future__ import annotations

from asyncelt.demo.show import run_demo as run_demo

__all__ = ["run_demo"]
