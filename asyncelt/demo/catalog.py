"""What the demo serves: the metadata of every distribution installed in this environment.

Real data that every machine has: nested, uneven, with lists inside and fields that are often missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path

from asyncelt.types import JsonValue

__all__ = ["read_catalog"]

_REQUIREMENT = re.compile(
    r"""\s*(?P<name>[A-Za-z0-9][\w.-]*)\s*
        (?:\[(?P<extras>[^\]]*)\])?\s*
        (?P<versions>[^;]*?)\s*
        (?:;\s*(?P<marker>.*?)\s*)?$""",
    re.VERBOSE,
)


def read_catalog() -> list[dict[str, JsonValue]]:
    """Describe each distribution once, oldest installation first. Reads many small files: run it in a thread."""
    found: dict[str, dict[str, JsonValue]] = {}

    for distribution in distributions():
        name = distribution.metadata["Name"]

        if name and name.lower() not in found:  # the first one on the path is the one that is imported
            found[name.lower()] = _describe(name, distribution)

    return sorted(found.values(), key=lambda item: (str(item["installed_at"]), str(item["name"])))


def _describe(name: str, distribution: Distribution) -> dict[str, JsonValue]:
    metadata = distribution.metadata
    described: dict[str, JsonValue] = {
        "name": name,
        "version": distribution.version,
        "installed_at": _installed_at(distribution),
        "requirements": [_requirement(line) for line in distribution.requires or []],
        "files": list(_files(distribution)),
        "entry_points": [
            {"group": point.group, "name": point.name, "value": point.value} for point in distribution.entry_points
        ],
        "classifiers": list(metadata.get_all("Classifier") or []),
        "about": {
            "summary": _field(metadata, "Summary"),
            "license": _field(metadata, "License-Expression") or _field(metadata, "License"),
            "python": _field(metadata, "Requires-Python"),
        },
    }

    return {key: value for key, value in described.items() if value not in (None, [])}


def _installed_at(distribution: Distribution) -> str:
    """When its metadata folder was written, to the microsecond.

    The folder's time, not a file's: installers that link files from a cache keep the files' old times.
    """
    marker = next((file for file in distribution.files or [] if file.name in {"METADATA", "PKG-INFO"}), None)
    folder = Path(str(distribution.locate_file(marker))).parent if marker is not None else None
    stamp = folder.stat().st_mtime if folder is not None and folder.exists() else 0.0

    return datetime.fromtimestamp(stamp, tz=UTC).isoformat(timespec="microseconds")


def _files(distribution: Distribution) -> Iterator[dict[str, JsonValue]]:
    for file in distribution.files or []:
        described: dict[str, JsonValue] = {"path": str(file), "suffix": file.suffix}

        if file.size is not None:
            described["size"] = file.size

        yield described


def _requirement(line: str) -> dict[str, JsonValue]:
    match = _REQUIREMENT.match(line)

    if match is None:
        return {"name": line}

    described: dict[str, JsonValue] = {"name": re.sub(r"[-_.]+", "-", match["name"]).lower()}

    if match["extras"]:
        described["extras"] = [extra.strip() for extra in match["extras"].split(",")]

    if match["versions"]:
        described["versions"] = match["versions"].strip(" ()")

    if match["marker"]:
        described["marker"] = match["marker"]

    return described


def _field(metadata: PackageMetadata, name: str) -> str | None:
    """The first line: some packages put the whole licence text into a field."""
    text = metadata[name].strip() if name in metadata else ""

    return text.splitlines()[0] if text else None
