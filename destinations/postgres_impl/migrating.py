"""CREATE and ADD COLUMN, for which all owners of a dataset take turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asyncelt.destinations.postgres_impl.connections import Connection
from asyncelt.destinations.postgres_impl.locks import take_ddl_turn
from asyncelt.destinations.postgres_impl.reading import DIALECT, SYSTEM_TABLES, Catalog, read_catalog
from asyncelt.destinations.postgres_impl.types import MAX_NAME_BYTES, postgres_type
from asyncelt.destinations.sql import ddl, system
from asyncelt.destinations.sql.names import Dataset
from asyncelt.destinations.sql.planning import tables_with_new_root_key, wanted_tables
from asyncelt.errors import DestinationRejected
from asyncelt.flow import Package
from asyncelt.schema.model import Column, Table

__all__ = ["Updates", "migrate", "missing_columns", "names_of", "require_table"]

Updates = dict[str, dict[str, tuple[str, ...]]]
"""New columns: load id -> table -> columns."""

_HAS_DATASET = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
_OWN = frozenset(one.name for one in system.OWN_TABLES)
_MANY = 100
"""Columns of a table whose rows are kept in one piece where they fit a page."""


def names_of(packages: Iterable[Package]) -> set[str]:
    """Every table that a commit may have to do with."""
    names: set[str] = set(SYSTEM_TABLES)

    for package in packages:
        names.update(package.schema.tables, package.dropped_tables, package.truncated_tables)

    return names


def missing_columns(package: Package, catalog: Catalog, *, except_for: Iterable[str] = ()) -> dict[str, Table]:
    """Tables that lack something that the package needs, by name.

    Args:
        package: To be written.
        catalog: What is there.
        except_for: Tables that are not looked at.
    """
    left_out = frozenset(except_for)
    wanted = wanted_tables(package, lambda name: name in catalog)

    return {name: one for name, one in wanted.items() if name not in left_out and _new_columns(one, catalog)}


async def migrate(
    connection: Connection,
    dataset: Dataset,
    packages: Sequence[Package],
    *,
    create_indexes: bool,
    except_for: Iterable[str] = (),
) -> Updates:
    """Bring the tables of the packages to their schemas, in a transaction that is not committed here.

    Nested tables that get a root key have it filled for the rows that are there.

    Args:
        connection: In a transaction.
        dataset: Created if it is not there.
        packages: In the order in which they will be written.
        create_indexes: Whether unique columns that are added to a table get an index.
        except_for: Tables that are left as they are.

    Returns:
        What was new. Empty when nothing was to be done; then nothing was locked either.
    """
    left_out = frozenset(except_for)
    catalog = await read_catalog(connection, dataset, names_of(packages))

    if not any(missing_columns(package, catalog, except_for=left_out) for package in packages):
        return {}

    await take_ddl_turn(connection, dataset.name)

    # Asked again: whoever had the turn before may have made them.
    catalog = await read_catalog(connection, dataset, names_of(packages))

    await _require_dataset(connection, dataset)
    updates: Updates = {}

    for package in packages:
        tables = missing_columns(package, catalog, except_for=left_out)
        done: dict[str, tuple[str, ...]] = {}

        for name, one in tables.items():
            done[name] = await _migrate_table(connection, dataset, one, catalog, create_indexes=create_indexes)

        await _fill_root_keys(connection, dataset, package, catalog, done)
        updates[package.load_id] = {name: columns for name, columns in done.items() if name not in _OWN}

    return updates


async def require_table(connection: Connection, dataset: Dataset, one: Table) -> None:
    """Make a table of our own if it is not there, in a transaction that is not committed here."""
    if one.name in await read_catalog(connection, dataset, [one.name]):
        return

    await take_ddl_turn(connection, dataset.name)
    catalog = await read_catalog(connection, dataset, [one.name])

    if one.name not in catalog:
        await _require_dataset(connection, dataset)
        await _migrate_table(connection, dataset, one, catalog, create_indexes=False)


async def _require_dataset(connection: Connection, dataset: Dataset) -> None:
    # IF NOT EXISTS alone would ask for the right to create schemas, which a role that was given one may not have.
    if not await connection.fetchval(_HAS_DATASET, dataset.name):
        await connection.execute(ddl.create_dataset(dataset, DIALECT))


def _options(columns: Sequence[Column]) -> str:
    """A row of hundreds of columns is larger than what the server keeps in one piece.

    It would move most of them elsewhere, one by one. Left in the row, 500 columns cost it a quarter less processor time
    and a third less space.
    """
    return " WITH (toast_tuple_target = 8160)" if len(columns) >= _MANY else ""


def _new_columns(one: Table, catalog: Catalog) -> tuple[Column, ...]:
    return ddl.new_columns(one, catalog.get(one.name), fold=str)


async def _migrate_table(
    connection: Connection, dataset: Dataset, one: Table, catalog: Catalog, *, create_indexes: bool
) -> tuple[str, ...]:
    columns = _new_columns(one, catalog)
    _check_names(one, columns)

    if one.name not in catalog:
        # Without indexes: they are made when the first rows are there.
        create = ddl.create_table(dataset, one.name, columns, postgres_type, DIALECT) + _options(columns)
        await connection.execute(create)
    else:
        for new in columns:
            add = ddl.add_column(dataset, one.name, new, postgres_type, DIALECT, unique=create_indexes)
            await connection.execute(add)

    catalog.setdefault(one.name, {}).update({new.name: postgres_type(new) for new in columns})

    return tuple(new.name for new in columns)


def _check_names(one: Table, columns: Sequence[Column]) -> None:
    """Refuse names that Postgres would cut off: it counts bytes, and says nothing."""
    for name in (one.name, *(new.name for new in columns)):
        size = len(name.encode())

        if size > MAX_NAME_BYTES:
            raise DestinationRejected(
                f"Table {one.name!r}: the name {name!r} has {size} bytes, Postgres keeps {MAX_NAME_BYTES}. Rename it "
                "in the data or by a hint, or use the naming convention snake_case, which shortens names."
            ).at(table=one.name)


async def _fill_root_keys(
    connection: Connection,
    dataset: Dataset,
    package: Package,
    catalog: Catalog,
    updates: Mapping[str, tuple[str, ...]],
) -> None:
    for child in tables_with_new_root_key(package, updates):
        if child.parent is None or child.parent not in catalog:
            continue

        statement = ddl.fill_root_key(dataset, child, package.schema.tables[child.parent], DIALECT)

        if statement is not None:
            await connection.execute(statement)
