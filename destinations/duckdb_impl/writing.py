"""The rows of one package: emptied tables, appended rows, merges. Inside the commit's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import duckdb

from asyncelt.destinations.duckdb_impl.catalog import Catalog
from asyncelt.destinations.duckdb_impl.errors import translate
from asyncelt.destinations.duckdb_impl.files import insert_jobs
from asyncelt.destinations.duckdb_impl.job_paths import JobPaths, local_job_path
from asyncelt.destinations.duckdb_impl.statements import DIALECT, Statements
from asyncelt.destinations.sql.names import Dataset
from asyncelt.destinations.sql.writing import Append, Place, Stage, Statement, package_work
from asyncelt.flow import ROOT_ROW, JobFile, Package
from asyncelt.schema.model import Column
from asyncelt.types import ReplaceStrategy, TableName

__all__ = ["Work", "write_package"]

_ROOT_ROW_COLUMN: Final = Column(name=ROOT_ROW, data_type="bigint")


@dataclass(frozen=True, slots=True)
class Work:
    """One transaction on one dataset."""

    database: Statements
    dataset: Dataset
    catalog: Catalog
    replace_strategy: ReplaceStrategy = "truncate-and-insert"
    paths: JobPaths = local_job_path
    """Where the job files are."""

    def has(self, name: str) -> bool:
        """Whether the dataset has the table."""
        return name in self.catalog

    def execute_for(self, package: Package, name: str, sql: str, parameters: Sequence[object] = ()) -> None:
        """Run a statement that writes a table of a package; an error says which."""
        try:
            self.database.execute(sql, parameters)
        except duckdb.Error as error:
            found = translate(error, f"writing table {name!r} of load {package.load_id}")
            raise found.at(load_id=package.load_id, table=name) from error


def write_package(work: Work, package: Package, *, emptied: Iterable[TableName] = ()) -> None:
    """Write the rows of one package; its tables are there with all their columns.

    Args:
        work: The transaction.
        package: What to write.
        emptied: Tables whose rows go first.
    """
    place = Place(
        dataset=work.dataset,
        dialect=DIALECT,
        arrival="rowid",
        columns_of=work.catalog.columns_of,
        replace_strategy=work.replace_strategy,
    )

    for action in package_work(place, package, emptied=emptied):
        match action:
            case Statement(name, sql, parameters):
                work.execute_for(package, name, sql, parameters)
            case Append(name, jobs):
                _append(work, package, name, jobs)
            case Stage(name, staged, jobs):
                _stage(work, package, name, staged, jobs)


def _append(work: Work, package: Package, name: TableName, jobs: Sequence[JobFile]) -> None:
    one = package.schema.tables[name]

    for sql, parameters in insert_jobs(package, one, jobs, name, work.dataset, paths=work.paths):
        work.execute_for(package, name, sql, parameters)


def _stage(work: Work, package: Package, name: TableName, staged: str, jobs: Sequence[JobFile]) -> None:
    one = package.schema.tables[name]
    with_number = replace(one, columns={**one.columns, ROOT_ROW: _ROOT_ROW_COLUMN})

    for sql, parameters in insert_jobs(package, with_number, jobs, staged, None, paths=work.paths):
        work.execute_for(package, name, sql, parameters)
