"""Which files a process has open."""

from __future__ import annotations

import os
from pathlib import Path


def open_files(folder: Path) -> list[str]:
    """Files below ``folder`` that this process holds open."""
    found = []

    for descriptor in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue

        if target.startswith(str(folder)):
            found.append(target)

    return found
