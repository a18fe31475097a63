"""Where a job's file goes: layouts with placeholders. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from asyncelt.errors import ConfigError
from asyncelt.flow import JobFile, Package

__all__ = ["DEFAULT_LAYOUT", "Layout", "Moment", "Placeholder", "path_part"]

DEFAULT_LAYOUT = "{table_name}/{load_id}.{file_id}.{ext}"

Placeholder: TypeAlias = "str | int | Callable[[str, str, str, str, str], object]"
"""A value, or a function of (schema name, table name, load id, file id, extension)."""

Moment: TypeAlias = "datetime | Callable[[], datetime]"

_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
_DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
_DATE_NAMES = frozenset(
    [
        "YYYY",
        "YY",
        "Y",
        "MMMM",
        "MMM",
        "MM",
        "M",
        "DD",
        "D",
        "HH",
        "H",
        "mm",
        "m",
        "dddd",
        "ddd",
        "dd",
        "d",
        "ss",
        "s",
        "SSSS",
        "SSS",
        "SS",
        "S",
        "Q",
    ]
)
_OWN_NAMES = frozenset(
    [
        "table_name",
        "schema_name",
        "load_id",
        "file_id",
        "ext",
        "curr_date",
        "timestamp",
        "timestamp_ms",
        "load_package_timestamp",
        "load_package_timestamp_ms",
    ]
)
_PLACEHOLDER = re.compile(r"\{(.*?)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A checked layout.

    Raises:
        ConfigError: An unknown placeholder, or a layout by which files of different tables, loads or jobs could
            get the same name.
    """

    text: str = DEFAULT_LAYOUT
    extra: Mapping[str, Placeholder] = field(default_factory=dict)
    now: Moment | None = None
    """What the date placeholders mean; None: the time of the load package, so that a retry gives the same names."""

    def __post_init__(self) -> None:
        used = _PLACEHOLDER.findall(self.text)
        unknown = [name for name in used if name not in _DATE_NAMES | _OWN_NAMES | set(self.extra)]

        if unknown:
            known = ", ".join(sorted(_OWN_NAMES | set(self.extra)))
            raise ConfigError(
                f"Layout {self.text!r} has unknown placeholders: {', '.join(unknown)}. Known are {known}, and parts of "
                "the date such as {YYYY}, {MM}, {DD}."
            )

        if "table_name" not in used:
            raise ConfigError(f"Layout {self.text!r} needs {{table_name}}: files of several tables would mix.")

        if "file_id" not in used:
            raise ConfigError(
                f"Layout {self.text!r} needs {{file_id}}: several files of one load would overwrite each other."
            )

        if self.text.startswith("/") or ".." in self.text.split("/"):
            raise ConfigError(f"Layout {self.text!r} leads out of the dataset's folder.")

    def path_of(self, package: Package, job: JobFile, *, epoch: int | None = None) -> str:
        """Path of a job's file, relative to the dataset's folder.

        Args:
            package: Its package.
            job: The job.
            epoch: Becomes part of the file id, where files of several owners may not have one name.
        """
        file_id = job.job_id.removeprefix(f"{job.table}.") + ("" if epoch is None else f"-e{epoch}")
        extension = job.file_name.rpartition(".")[2]
        values: dict[str, object] = {
            "table_name": path_part(job.table),
            "schema_name": path_part(package.schema.name),
            "load_id": package.load_id,
            "file_id": file_id,
            "ext": extension,
        }
        values.update(self._times(package))

        for name, value in self.extra.items():
            given = (package.schema.name, job.table, package.load_id, file_id, extension)
            values[name] = path_part(str(value(*given) if callable(value) else value))

        text = self.text if "{ext}" in self.text else f"{self.text}.{{ext}}"

        return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), text)

    def pattern_of(self, table: str) -> re.Pattern[str]:
        """Matches the paths of a table's files; the group ``load_id`` is the load they came with, if they tell."""
        text = self.text if "{ext}" in self.text else f"{self.text}.{{ext}}"
        pieces = []
        seen: set[str] = set()

        for literal, name in re.findall(r"([^{]*)(?:\{(.*?)\})?", text):
            pieces.append(re.escape(literal))

            if name == "table_name":
                pieces.append(re.escape(path_part(table)))
            elif name == "load_id" and name not in seen:
                pieces.append(r"(?P<load_id>\d+(?:\.\d+)?)")
            elif name == "ext":
                pieces.append(r"(?P<ext>parquet|jsonl)(?:\.gz)?" if name not in seen else r"[^/]+?")
            elif name:
                pieces.append(r"[^/]+?")

            seen.add(name)

        return re.compile("".join(pieces))

    def _times(self, package: Package) -> dict[str, str]:
        made = datetime.fromtimestamp(package.created_at or float(package.load_id), tz=UTC)
        now = self.now() if callable(self.now) else self.now or made
        values = {name: _date_part(now, name) for name in _DATE_NAMES}
        values["curr_date"] = now.date().isoformat()

        for name, moment in (("timestamp", now), ("load_package_timestamp", made)):
            values[name] = str(int(moment.timestamp()))
            values[f"{name}_ms"] = str(int(moment.timestamp()) * 1000 + moment.microsecond // 1000)

        return values


def path_part(name: str) -> str:
    """A name as one part of a path: what would lead elsewhere is percent-encoded."""
    safe = name.replace("/", "%2F").replace("\0", "%00")

    return f"%2E{safe[1:]}" if safe.startswith(".") else safe


def _date_part(now: datetime, name: str) -> str:
    """One part of the date, spelled as the reference spells it."""
    weekday = (now.weekday() + 1) % 7
    numbers = {"M": now.month, "D": now.day, "H": now.hour, "m": now.minute, "s": now.second}

    if name[0] == "Y":
        return f"{now.year % 100:02d}" if name == "YY" else str(now.year)

    if name in {"MMMM", "MMM"}:
        month = _MONTHS[now.month - 1]
        return month if name == "MMMM" else month[:3]

    if name[0] == "d":
        day = _DAYS[weekday]
        return {"dddd": day, "ddd": day[:3], "dd": day[:2], "d": str(weekday)}[name]

    if name[0] == "S":
        return f"{now.microsecond:06d}"[: len(name)]

    if name == "Q":
        return str((now.month - 1) // 3 + 1)

    number = numbers[name[0]]

    return str(number) if len(name) == 1 else f"{number:02d}"
