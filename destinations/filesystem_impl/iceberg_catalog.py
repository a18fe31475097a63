"""The catalog in which the Iceberg tables of a dataset are found. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    AuthorizationExpiredError,
    CommitFailedException,
    CommitStateUnknownException,
    ForbiddenError,
    NoSuchTableError,
    OAuthError,
    RESTError,
    ServerError,
    ServiceUnavailableError,
    TableAlreadyExistsError,
    UnauthorizedError,
    ValidationException,
)
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from requests import RequestException
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from asyncelt.destinations.filesystem_impl.catalogs import CatalogConfig, without_secrets
from asyncelt.destinations.filesystem_impl.storage import Store
from asyncelt.errors import ConfigError, DestinationRejected, DestinationUnavailable
from asyncelt.types import TableName

__all__ = ["Source", "Tables", "opened"]

_FILE: Final = "_asyncelt_iceberg.db"
_S3: Final = {
    "aws_access_key_id": "s3.access-key-id",
    "aws_secret_access_key": "s3.secret-access-key",
    "aws_session_token": "s3.session-token",
    "aws_region": "s3.region",
    "aws_endpoint_url": "s3.endpoint",
    "aws_virtual_hosted_style_request": "s3.force-virtual-addressing",
}
"""What a store says of its bucket, as pyiceberg calls it."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Where the tables of a dataset are found.

    Args:
        config: The catalog.
        namespace: Of the dataset in it.
    """

    config: CatalogConfig
    namespace: str


@dataclass(frozen=True, slots=True)
class Source:
    """A catalog that has been opened, for one dataset."""

    tables: Tables
    store: Store
    catalog: Catalog

    def find(self, name: TableName) -> Table | None:
        """The newest version of a table, if there is one."""
        try:
            return self.catalog.load_table((self.tables.namespace, name))
        except NoSuchTableError:
            return None

    def create(self, name: TableName, schema: Schema, spec: PartitionSpec, properties: Mapping[str, str]) -> Table:
        """The table, which is made unless another session was quicker."""
        identifier = (self.tables.namespace, name)
        location = None if self.tables.config.places_tables else self.store.table_address(name)[0]
        self.catalog.create_namespace_if_not_exists((self.tables.namespace,))

        try:
            return self.catalog.create_table(identifier, schema, location, spec, properties=dict(properties))
        except TableAlreadyExistsError:
            return self.catalog.load_table(identifier)


@contextmanager
def opened(tables: Tables, store: Store) -> Iterator[Source]:
    """The catalog, inside the block.

    Raises:
        ConfigError: The catalog is not usable.
        DestinationRejected: It does not take what is asked of it.
        DestinationUnavailable: It does not answer.
    """
    config, known = tables.config, dict(tables.config.properties)

    try:
        with _loaded(config, store) as catalog:
            # With those of pyiceberg's own configuration.
            known |= {key: str(value) for key, value in catalog.properties.items()}

            yield Source(tables, store, catalog)
    except (CommitFailedException, CommitStateUnknownException):
        raise
    except (RESTError, OSError, SQLAlchemyError, ValidationException) as error:
        kind, message = _translated(error, config)

        if kind is None:
            raise

        told = without_secrets(message, known)

        # The message of the cause would show what this one does not.
        raise kind(told) from (error if told == message else None)


_SHUT_OUT: Final = (UnauthorizedError, ForbiddenError, AuthorizationExpiredError, OAuthError)
_SILENT: Final = (ServerError, ServiceUnavailableError, RequestException, OperationalError)


def _translated(
    error: Exception, config: CatalogConfig
) -> tuple[type[DestinationRejected | DestinationUnavailable] | None, str]:
    """What an error of the catalog is to us, and its message; None: none of the catalog's."""
    if isinstance(error, _SHUT_OUT):
        return DestinationRejected, f"{_name(config)} does not let us in: {error}. Check its credentials."

    if isinstance(error, _SILENT):
        return DestinationUnavailable, f"{_name(config)} does not answer: {_first_line(error)}"

    if not isinstance(error, OSError):
        return DestinationRejected, f"{_name(config)}: {_first_line(error)}"

    if "ACCESS_DENIED" in str(error):
        return DestinationRejected, f"{_name(config)}: its files cannot be written: {_first_line(error)}"

    return None, ""


def _loaded(config: CatalogConfig, store: Store) -> Catalog:
    properties = {"py-io-impl": "pyiceberg.io.pyarrow.PyArrowFileIO", **_storage(store), **config.properties}

    if config.is_default:
        if "://" in store.address:
            raise ConfigError(
                f"Iceberg tables in {store.address} need a catalog: filesystem(..., iceberg_catalog=...), the address "
                "of a SQL database or a REST catalog."
            )

        folder = Path(store.address)
        folder.mkdir(parents=True, exist_ok=True)
        uri = URL.create("sqlite", database=str(folder / _FILE)).render_as_string(hide_password=False)
        properties |= {"type": "sql", "uri": uri}

    try:
        return load_catalog(config.name, **properties)
    except (ImportError, ValueError, LookupError, ArgumentError) as error:
        message = f"{_name(config)} cannot be used: {_first_line(error)}"
        told = without_secrets(message, {key: str(value) for key, value in properties.items()})

        raise ConfigError(told) from (error if told == message else None)


def _storage(store: Store) -> dict[str, str]:
    """How pyiceberg gets at data files."""
    _, options = store.table_address("table")

    if "aws_profile" in options:
        raise ConfigError(
            "Iceberg tables: the driver knows no profile_name. Set AWS_PROFILE in the environment, or pass the keys."
        )

    return {_S3[name]: value for name, value in options.items() if name in _S3}


def _name(config: CatalogConfig) -> str:
    if config.is_default:
        return "The Iceberg catalog of the dataset's folder"

    # Its address may have a password in it.
    return f"The Iceberg catalog {config.name!r}"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
