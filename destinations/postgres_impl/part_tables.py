"""The staged way of a large package: its files are copied before the commit, each in a transaction of its own.

A ledger says which files have arrived. Like the staging tables it is unlogged: that saves the server half of the
writing, and a crash empties both, so that they always agree. What the ledger does not know is copied by the commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Final

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.postgres_impl.locks import living_owners, take_ddl_turn, take_part_turn
from asyncelt.destinations.postgres_impl.parts import STAGING_PREFIX, Part, Parts, owner_prefix
from asyncelt.destinations.postgres_impl.reading import DIALECT, Catalog, read_catalog
from asyncelt.destinations.postgres_impl.statistics import analyze_keys
from asyncelt.destinations.postgres_impl.writing import WORTH_STATISTICS, Work
from asyncelt.destinations.sql.names import Dataset, table
from asyncelt.destinations.sql.planning import foreign_columns
from asyncelt.destinations.sql.temporary import empty_rows, typed_columns
from asyncelt.failpoints import failpoint
from asyncelt.flow import ROOT_ROW, Package
from asyncelt.load.protocol import Target
from asyncelt.types import LoadId

__all__ = ["LEDGER", "adopt", "arrived_parts", "drop_orphans", "drop_parts", "part_tables", "stage_next"]

LEDGER: Final = "_asyncelt_ledger"
_MAY_CREATE: Final = "SELECT has_schema_privilege($1, 'CREATE')"
_TABLES: Final = """
SELECT c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname, $2)
"""
_UNUSED: Final = (
    _TABLES
    + """
AND pg_has_role(c.relowner, 'USAGE') AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks AS l WHERE l.relation = c.oid)
"""
)
"""What may be dropped, and is neither filled nor read now."""
_MAY_FORGET: Final = "SELECT has_table_privilege($1, 'SELECT') AND has_table_privilege($1, 'DELETE')"


@dataclass(frozen=True, slots=True)
class _Statements:
    """On the ledger of one dataset."""

    ledger: str

    @property
    def create(self) -> str:
        """Once per dataset."""
        return (
            f"CREATE UNLOGGED TABLE IF NOT EXISTS {self.ledger} (pipeline_name varchar NOT NULL, "
            "member varchar NOT NULL, load_id varchar NOT NULL, job_id varchar NOT NULL, row_count bigint NOT NULL, "
            "PRIMARY KEY (load_id, job_id))"
        )

    @property
    def record(self) -> str:
        """A file has arrived: (pipeline_name, member, load_id, job_id, row_count)."""
        return f"INSERT INTO {self.ledger} VALUES ($1, $2, $3, $4, $5)"  # noqa: S608 - a quoted name

    @property
    def arrived(self) -> str:
        """Files of (load_ids)."""
        return f"SELECT load_id, job_id FROM {self.ledger} WHERE load_id = ANY ($1::text[])"  # noqa: S608

    @property
    def owners(self) -> str:
        """Whose files have arrived."""
        return f"SELECT DISTINCT pipeline_name, member FROM {self.ledger}"  # noqa: S608

    @property
    def forget_files(self) -> str:
        """The files (job_ids) of (load_id)."""
        return f"DELETE FROM {self.ledger} WHERE load_id = $1 AND job_id = ANY ($2::text[])"  # noqa: S608

    @property
    def forget_others(self) -> str:
        """Everything of (pipeline_name, member) that is not of (load_ids)."""
        return (
            f"DELETE FROM {self.ledger} WHERE pipeline_name = $1 AND member = $2 "  # noqa: S608
            "AND load_id <> ALL ($3::text[])"
        )


async def part_tables(connection: Connection, dataset: Dataset) -> list[str]:
    """Staging tables of the dataset, whoever has made them."""
    return [str(row[0]) for row in await connection.fetch(_TABLES, dataset.name, STAGING_PREFIX)]


async def drop_orphans(connection: Connection, dataset: Dataset, target: Target) -> None:
    """Drop what other pipelines and members have staged whose owner is not alive, and forget their files.

    They might never come back. If they do, then the commit copies what it does not find. What is in use, or belongs to
    a role that we are not, is left alone. Of tables whose owner the ledger does not know, a crash of the server has
    emptied both.

    Args:
        connection: In a transaction, which the caller commits.
        dataset: Where.
        target: Who asks; its own tables are left to `adopt`.
    """
    await take_ddl_turn(connection, dataset.name)
    names = [str(row[0]) for row in await connection.fetch(_UNUSED, dataset.name, STAGING_PREFIX)]
    statements = _statements(dataset)
    owners: set[Target] = set()

    if LEDGER in await read_catalog(connection, dataset, [LEDGER]):
        if not await connection.fetchval(_MAY_FORGET, statements.ledger):
            return

        found = await connection.fetch(statements.owners)
        owners = {replace(target, pipeline_name=str(name), member=str(member)) for name, member in found}

    living = {*await living_owners(connection, owners), target}
    kept = tuple(owner_prefix(one) for one in living)

    for name in names:
        if not name.startswith(kept):
            await connection.execute(f"DROP TABLE IF EXISTS {_path(dataset, name)}")

    for one in owners - living:
        await connection.execute(statements.forget_others, one.pipeline_name, one.member, [])


async def adopt(connection: Connection, dataset: Dataset, target: Target, parts: Parts, found: Collection[str]) -> bool:
    """Take over what a dead owner has staged of the same packages, drop the rest, and make the ledger if need be.

    The tables get names with our epoch, so that an owner that was only stopped finds them no more.

    Args:
        connection: In a transaction, which the caller commits.
        dataset: Where.
        target: Whose.
        parts: What is to be staged.
        found: Staging tables of this pipeline and member.

    Returns:
        Whether parts can be staged: the role may make tables, and there are parts.
    """
    await take_ddl_turn(connection, dataset.name)
    wanted = {part.digest: part for part in parts.values()}
    statements = _statements(dataset)

    for name in found:
        part = wanted.get(name.rpartition("_")[2])

        if part is None or (name != part.name and part.name in found):
            await connection.execute(f"DROP TABLE IF EXISTS {_path(dataset, name)}")
        elif name != part.name:
            await connection.execute(f"ALTER TABLE {_path(dataset, name)} RENAME TO {_path(None, part.name)}")

    has_ledger = LEDGER in await read_catalog(connection, dataset, [LEDGER])

    if has_ledger:
        load_ids = sorted({part.load_id for part in parts.values()})
        await connection.execute(statements.forget_others, target.pipeline_name, target.member, load_ids)

    if not parts or not await connection.fetchval(_MAY_CREATE, dataset.name):
        return False

    if not has_ledger:
        await connection.execute(statements.create)

    return True


async def stage_next(work: Work, target: Target, package: Package, part: Part) -> bool:
    """Copy the first file of a part that has not arrived; the caller commits.

    Returns:
        False when all have arrived; then nothing was done.

    Raises:
        DestinationRejected: Table, column and row of a value that is refused.
    """
    # A transaction that did this before, and whose answer was lost, is over then.
    await take_part_turn(work.connection, work.dataset.name, part.name)
    work.catalog.update(await read_catalog(work.connection, work.dataset, [part.table, part.name]))
    arrived = await _arrived(work, [part.load_id]) if work.has(part.name) else set()
    missing = [job for job in part.jobs if (part.load_id, job.job_id) not in arrived]

    if not missing:
        return False

    is_new = len(missing) == len(part.jobs)

    if is_new:
        await _create(work, package, part)

    job = missing[0]
    await work.copy(package, part.table, [job], staged=part.name, freeze=is_new)

    if part.is_merged and len(missing) == 1 and part.rows >= WORTH_STATISTICS:
        await work.execute_for(
            package, part.table, analyze_keys(package.schema.tables[part.table], table(part.name, work.dataset))
        )

    row = (target.pipeline_name, target.member, part.load_id, job.job_id, job.rows)
    await work.execute_for(package, part.table, _statements(work.dataset).record, row)
    failpoint("postgres.before_stage_commit")

    return True


async def arrived_parts(work: Work, packages: Iterable[Package], parts: Parts) -> Parts:
    """Those parts all files of which have arrived, and whose tables have the columns that they should have by now."""
    by_id = {package.load_id: package for package in packages}
    wanted = {part.name: part for part in parts.values() if part.load_id in by_id}
    catalog = await read_catalog(work.connection, work.dataset, [LEDGER, *wanted]) if wanted else {}

    if LEDGER not in catalog:
        return {}

    arrived = await _arrived(work, sorted(by_id))
    whole: set[str] = set()

    for name, part in wanted.items():
        has_all_files = all((part.load_id, job.job_id) in arrived for job in part.jobs)

        if has_all_files and _columns(work.catalog, by_id[part.load_id], part) <= catalog.get(name, {}).keys():
            whole.add(name)

    return {key: part for key, part in parts.items() if part.name in whole}


async def drop_parts(connection: Connection, dataset: Dataset, parts: Parts) -> None:
    """Drop the staging tables, and forget their files."""
    files: dict[LoadId, list[str]] = {}

    for load_id, job_id in parts:
        files.setdefault(load_id, []).append(job_id)

    for name in sorted({part.name for part in parts.values()}):
        await connection.execute(f"DROP TABLE IF EXISTS {_path(dataset, name)}")

    if files and LEDGER in await read_catalog(connection, dataset, [LEDGER]):
        for load_id, job_ids in files.items():
            await connection.execute(_statements(dataset).forget_files, load_id, job_ids)


async def _create(work: Work, package: Package, part: Part) -> None:
    one = package.schema.tables[part.table]
    path = _path(work.dataset, part.name)
    rows = empty_rows(work.dataset, one, _foreign(work.catalog, package, part)).sql(dialect=DIALECT)
    job_ids = [job.job_id for job in part.jobs]
    await work.execute_for(package, part.table, f"DROP TABLE IF EXISTS {path}")
    await work.execute_for(package, part.table, _statements(work.dataset).forget_files, (part.load_id, job_ids))
    await work.execute_for(
        package, part.table, f"CREATE UNLOGGED TABLE {path} WITH (autovacuum_enabled = false) AS {rows}"
    )


async def _arrived(work: Work, load_ids: list[LoadId]) -> set[tuple[LoadId, str]]:
    found = await work.connection.fetch(_statements(work.dataset).arrived, load_ids)

    return {(LoadId(str(load_id)), str(job_id)) for load_id, job_id in found}


def _columns(catalog: Catalog, package: Package, part: Part) -> set[str]:
    return {*typed_columns(package.schema.tables[part.table]), *_foreign(catalog, package, part), ROOT_ROW}


def _foreign(catalog: Catalog, package: Package, part: Part) -> tuple[str, ...]:
    """Columns of other programs, which a merge carries over."""
    if not part.is_merged:
        return ()

    return foreign_columns(package.schema.tables[part.table], catalog.get(part.table, {}))


def _statements(dataset: Dataset) -> _Statements:
    return _Statements(_path(dataset, LEDGER))


def _path(dataset: Dataset | None, name: str) -> str:
    return table(name, dataset).sql(dialect=DIALECT)
