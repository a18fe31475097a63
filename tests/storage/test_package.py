"""Load packages: sealing is all or nothing, garbage goes, corruption is noticed."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from asyncelt.errors import LoadPackageNotFound, PackageCorrupt
from asyncelt.failpoints import installed
from asyncelt.flow import JobFile, Package
from asyncelt.schema.system import new_schema
from asyncelt.storage.package import PackageDraft, PackageStore, SealedPackage
from asyncelt.types import LoadId, TableName


def draft_with_job(store: PackageStore, load_id: str, *, bundle: tuple[str, ...] = ()) -> SealedPackage:
    """An unfinished package with one job file."""
    draft: PackageDraft = store.draft(LoadId(load_id))
    name = "t.0000000001.0.parquet"
    (draft.jobs_folder / name).write_bytes(b"12345")
    job = JobFile(job_id="t.0000000001", table=TableName("t"), file_name=name, file_format="parquet", rows=1, nbytes=5)
    package = Package(
        load_id=LoadId(load_id),
        pipeline_name="p",
        dataset_name="d",
        folder=draft.folder,
        schema=new_schema("s"),
        jobs=(job,),
        bundle=tuple(LoadId(one) for one in bundle or (load_id,)),
        run_id="r",
        replaced_tables=(TableName("t"),),
        dropped_tables=(TableName("u"), TableName("u__x")),
        truncated_tables=(TableName("v"),),
        row_counts={TableName("t"): 1},
        created_at=1.0,
    )

    return SealedPackage(package=package, state="state")


@pytest.fixture
def store(tmp_path: Path) -> PackageStore:
    """An empty working folder."""
    store = PackageStore(tmp_path)
    store.prepare()

    return store


def test_a_sealed_package_reads_back_as_it_was(store: PackageStore) -> None:
    (sealed,) = store.seal([draft_with_job(store, "1.0")])

    assert store.read(LoadId("1.0")) == sealed
    assert store.pending().sealed == ("1.0",)
    assert sealed.package.path_of(sealed.package.jobs[0]).read_bytes() == b"12345"


def test_an_unfinished_package_is_garbage(store: PackageStore) -> None:
    draft_with_job(store, "1.0")

    assert not store.prepare()
    assert list((store.root / "packages" / "building").iterdir()) == []


def test_a_bundle_that_was_sealed_in_part_never_happened(store: PackageStore) -> None:
    """Killed between the two renames: neither package is left."""
    packages = [draft_with_job(store, one, bundle=("1.0", "2.0")) for one in ("1.0", "2.0")]
    seals = 0

    class Killed(BaseException):
        pass

    def kill(point: str) -> None:
        nonlocal seals
        seals += point == "package.after_seal"

        if seals == 1:
            raise Killed

    with installed(kill), pytest.raises(Killed):
        store.seal(packages)

    assert store.pending().sealed == ("1.0",)
    assert not store.prepare()


def test_a_completed_package_keeps_its_manifest_and_drops_its_data(store: PackageStore) -> None:
    (sealed,) = store.seal([draft_with_job(store, "1.0")])
    store.complete([sealed.package.load_id], keep=10)

    assert not store.pending()
    assert store.done_ids() == ["1.0"]
    assert store.read(LoadId("1.0")).package.status == "loaded"
    assert store.disk.measure() == 0


def test_only_so_many_manifests_are_kept(store: PackageStore) -> None:
    for number in range(5):
        (sealed,) = store.seal([draft_with_job(store, f"{number}.0")])
        store.complete([sealed.package.load_id], keep=2)

    assert store.done_ids() == ["3.0", "4.0"]


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_job_file_is_noticed(store: PackageStore, damage: str) -> None:
    (sealed,) = store.seal([draft_with_job(store, "1.0")])
    path = sealed.package.path_of(sealed.package.jobs[0])

    if damage == "cut":
        path.write_bytes(b"123")
    else:
        path.unlink()

    with pytest.raises(PackageCorrupt, match=r"t\.0000000001\.0\.parquet of load package 1\.0"):
        store.read(LoadId("1.0"))


def test_a_package_of_another_format_version_is_refused(store: PackageStore) -> None:
    store.seal([draft_with_job(store, "1.0")])
    manifest = store.root / "packages" / "sealed" / "1.0" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"format_version":2', b'"format_version":99'))

    with pytest.raises(PackageCorrupt, match="format version 99"):
        store.read(LoadId("1.0"))


def test_a_package_of_the_first_format_version_is_read(store: PackageStore) -> None:
    """As an earlier release sealed it: without what later versions know."""
    store.seal([draft_with_job(store, "1.0")])
    path = store.root / "packages" / "sealed" / "1.0" / "manifest.json"
    manifest = orjson.loads(path.read_bytes())

    for key in ("place", "refresh", "dropped_tables", "truncated_tables", "completed_at", "schema_update"):
        del manifest[key]

    path.write_bytes(orjson.dumps({**manifest, "format_version": 1}))
    found = store.read(LoadId("1.0"))

    assert found.state == "state"
    assert found.package.row_counts == {"t": 1}
    assert found.package.dropped_tables == ()


def test_an_unknown_package_is_named(store: PackageStore) -> None:
    with pytest.raises(LoadPackageNotFound, match=r"7\.0"):
        store.read(LoadId("7.0"))
