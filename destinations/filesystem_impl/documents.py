"""Small JSON files of a dataset: what they are called and what is in them. Pure.

The reference's own (``_dlt_loads``, ``_dlt_version``, ``_dlt_pipeline_state``, ``init``) are named and written as it
does. Ours:

* ``_asyncelt_commits/<last load id>.json``: the marker of a commit. With it, everything that it names is committed.
* ``_asyncelt_checkpoints/``, in buckets: what the commits up to one of them come to, so that nobody reads all of them.
* ``_asyncelt_leases/<pipeline>__<member>.json``: epoch and head.
* ``_asyncelt_uploads/<pipeline>__<member>/<epoch>-<last load id>.json``, in buckets: which files an owner is bringing.
* ``_asyncelt_blocked/<last load id>.json``, in folders: writes of a commit that a table in a table format has refused.
* ``_asyncelt_staged/<load id>.<job>``: rows of a table in a table format, from before the marker until it has them.
* ``_asyncelt_runs/<hash>.json``: which packages a run with a caller-given id has committed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import cast

import orjson

from asyncelt.destinations.filesystem_impl.lake import LakeWrite
from asyncelt.destinations.filesystem_impl.layout import path_part
from asyncelt.flow import JobFile
from asyncelt.load.protocol import Lease
from asyncelt.schema.system import LOADS_TABLE, STATE_TABLE, VERSION_TABLE
from asyncelt.types import JsonValue, LoadId, TableName

__all__ = [
    "BLOCKED",
    "CHECKPOINTS",
    "COMMITS",
    "INIT",
    "LEASES",
    "LOCK",
    "RUNS",
    "STAGED",
    "UPLOADS",
    "MarkedPackage",
    "Marker",
    "lease_document",
    "lease_path",
    "load_document",
    "load_path",
    "parse_marker",
    "run_path",
    "split_name",
    "staged_path",
    "state_path",
    "upload_path",
    "uploads_folder",
    "version_path",
]

BLOCKED = "_asyncelt_blocked"
CHECKPOINTS = "_asyncelt_checkpoints"
COMMITS = "_asyncelt_commits"
LEASES = "_asyncelt_leases"
RUNS = "_asyncelt_runs"
STAGED = "_asyncelt_staged"
UPLOADS = "_asyncelt_uploads"
LOCK = "_asyncelt_lock"
INIT = b'{"initial_version": 2, "current_version": 2}'
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedPackage:
    """One package in a marker. ``version`` and ``states`` are rows of the reference's tables, ready to be written."""

    load_id: LoadId
    schema_name: str
    version_hash: str
    files: Mapping[TableName, Sequence[str]] = field(default_factory=dict)
    """Paths relative to the dataset's folder, in job order."""
    version: Mapping[str, JsonValue] | None = None
    states: Sequence[Mapping[str, JsonValue]] = ()
    lakes: Sequence[LakeWrite] = ()
    """Commits of tables that are kept in a table format; they follow from the marker."""

    @property
    def staged(self) -> Iterator[str]:
        """Files that are there until the tables have been committed."""
        return (path for write in self.lakes for path in write.files)

    @property
    def paths(self) -> Iterator[str]:
        """All files that have to be there for the commit."""
        yield from (path for of_table in self.files.values() for path in of_table)
        yield from self.staged


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """One commit."""

    pipeline_name: str
    member: str
    epoch: int
    parent_load_id: LoadId | None
    run_id: str | None
    committed_at: str
    packages: Sequence[MarkedPackage]
    superseded: Sequence[str] = ()
    """Files of replaced tables, which are no part of the dataset any more."""

    @property
    def name(self) -> LoadId:
        """Load id of the last package, which names the marker."""
        return self.packages[-1].load_id

    def to_json(self) -> bytes:
        """The marker's content."""
        return orjson.dumps({"format_version": _FORMAT_VERSION, **_plain(self)})


def _plain(marker: Marker) -> dict[str, object]:
    packages = [
        {
            "load_id": one.load_id,
            "schema_name": one.schema_name,
            "version_hash": one.version_hash,
            "files": dict(one.files),
            "version": one.version,
            "states": list(one.states),
            **({"lakes": [asdict(write) for write in one.lakes]} if one.lakes else {}),
        }
        for one in marker.packages
    ]

    return {
        "pipeline_name": marker.pipeline_name,
        "member": marker.member,
        "epoch": marker.epoch,
        "parent_load_id": marker.parent_load_id,
        "run_id": marker.run_id,
        "committed_at": marker.committed_at,
        "packages": packages,
        "superseded": list(marker.superseded),
    }


def parse_marker(content: bytes) -> Marker:
    """The marker that `Marker.to_json` wrote."""
    fields = cast("dict[str, object]", orjson.loads(content))
    packages = [_marked(one) for one in cast("list[dict[str, object]]", fields.pop("packages"))]
    del fields["format_version"]

    return Marker(packages=packages, **fields)  # type: ignore[arg-type]


def _marked(fields: dict[str, object]) -> MarkedPackage:
    writes = cast("list[dict[str, object]]", fields.pop("lakes", []))

    return MarkedPackage(lakes=[LakeWrite(**one) for one in writes], **fields)  # type: ignore[arg-type]


def staged_path(load_id: LoadId, job: JobFile, epoch: int | None) -> str:
    """Where a job's file waits for the commit of its table."""
    owner = "" if epoch is None else f"-e{epoch}"
    extension = job.file_name.partition(f"{job.job_id}.")[2]

    # No folder per load: in a local folder it would stay.
    return f"{STAGED}/{load_id}{owner}.{path_part(job.job_id)}.{extension}"


def lease_path(pipeline_name: str, member: str) -> str:
    """Where epoch and head of a pipeline's member stand."""
    return f"{LEASES}/{path_part(pipeline_name)}__{path_part(member)}.json"


def uploads_folder(pipeline_name: str, member: str) -> str:
    """Where the owners of a pipeline's member announce the files that they bring."""
    return f"{UPLOADS}/{path_part(pipeline_name)}__{path_part(member)}"


def upload_path(pipeline_name: str, member: str, epoch: int, commit_name: str) -> str:
    """Where an owner announces the files of one commit."""
    return f"{uploads_folder(pipeline_name, member)}/{epoch}-{commit_name}.json"


def run_path(pipeline_name: str, run_id: str) -> str:
    """Where the packages of a run stand. Hashed, since a run id may be any text."""
    digest = hashlib.sha256(f"{pipeline_name}\0{run_id}".encode()).hexdigest()

    return f"{RUNS}/{digest[:40]}.json"


def load_path(schema_name: str, load_id: str) -> str:
    """File of a row of ``_dlt_loads``."""
    return f"{LOADS_TABLE}/{schema_name}__{load_id}.jsonl"


def version_path(schema_name: str, load_id: str, version_hash: str) -> str:
    """File of a row of ``_dlt_version``."""
    return f"{VERSION_TABLE}/{schema_name}__{load_id}__{_hex(version_hash)}.jsonl"


def state_path(pipeline_name: str, load_id: str, version_hash: str) -> str:
    """File of a row of ``_dlt_pipeline_state``."""
    return f"{STATE_TABLE}/{pipeline_name}__{load_id}__{_hex(version_hash)}.jsonl"


def split_name(name: str, parts: int) -> list[str]:
    """The parts of such a file's name, from the right; fewer when it is none of these files."""
    return name.removesuffix(".jsonl").rsplit("__", parts - 1)


def load_document(package: MarkedPackage) -> dict[str, JsonValue]:
    """A row of ``_dlt_loads``."""
    return {
        "load_id": package.load_id,
        "schema_name": package.schema_name,
        "status": 0,
        "inserted_at": datetime.now(UTC).isoformat(),
        "schema_version_hash": package.version_hash,
    }


def lease_document(lease: Lease) -> bytes:
    """Content of a lease file."""
    return orjson.dumps({"epoch": lease.epoch, "head_load_id": lease.head_load_id})


def _hex(base64_hash: str) -> str:
    """The reference puts hashes into names as hexadecimal digits; what is no base64 is hashed."""
    try:
        return base64.b64decode(base64_hash, validate=True).hex()
    except ValueError:
        return hashlib.sha3_256(base64_hash.encode()).hexdigest()
