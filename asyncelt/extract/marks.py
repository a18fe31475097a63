"""What data may be wrapped in, to say more about it than it says itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from asyncelt.arguments import MAPPING, PATH, expect
from asyncelt.errors import ConfigError
from asyncelt.extract.hinting import is_dynamic
from asyncelt.extract.items import Mark, Marked, Materialized, with_table_name
from asyncelt.flow import JsonBody

__all__ = [
    "make_hints",
    "make_nested_hints",
    "materialize_table_schema",
    "with_file_import",
    "with_hints",
    "with_table_name",
]

_CHUNK_BYTES: Final = 1024 * 1024
_BATCH_ROWS: Final = 50_000
_RENAMED: Final = {"parent_table_name": "parent", "additional_table_hints": "additional"}


def make_hints(  # noqa: PLR0913 - the reference's arguments
    table_name: str | Callable[..., str] | None = None,
    *,
    parent_table_name: object = None,
    write_disposition: object = None,
    columns: object = None,
    primary_key: object = None,
    merge_key: object = None,
    schema_contract: object = None,
    table_format: object = None,
    file_format: object = None,
    references: object = None,
    nested_hints: object = None,
    additional_table_hints: Mapping[str, object] | None = None,
    incremental: object = None,
) -> dict[str, object]:
    """Hints for `with_hints` and `with_file_import`, by the names that ``apply_hints`` has.

    Returns:
        Those that were given.
    """
    given = {
        "table_name": table_name,
        "parent": parent_table_name,
        "write_disposition": write_disposition,
        "columns": columns,
        "primary_key": primary_key,
        "merge_key": merge_key,
        "schema_contract": schema_contract,
        "table_format": table_format,
        "file_format": file_format,
        "references": references,
        "nested_hints": nested_hints,
        "additional": additional_table_hints,
        "incremental": incremental,
    }

    return {name: value for name, value in given.items() if value is not None}


def make_nested_hints(  # noqa: PLR0913 - the reference's arguments
    *,
    parent_table_name: object = None,
    write_disposition: object = None,
    columns: object = None,
    primary_key: object = None,
    merge_key: object = None,
    schema_contract: object = None,
    table_format: object = None,
    file_format: object = None,
    references: object = None,
    additional_table_hints: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Hints of one nested table: a value of ``nested_hints``, whose keys are paths.

    Returns:
        Those that were given; a mapping of the same names is as good.
    """
    return make_hints(
        parent_table_name=parent_table_name,
        write_disposition=write_disposition,
        columns=columns,
        primary_key=primary_key,
        merge_key=merge_key,
        schema_contract=schema_contract,
        table_format=table_format,
        file_format=file_format,
        references=references,
        additional_table_hints=additional_table_hints,
    )


def with_hints(item: object, hints: Mapping[str, object], create_table_variant: bool = False) -> Marked:  # noqa: FBT001, FBT002
    """Change hints from this item on.

    Args:
        item: What to load; None: only the hints are wanted.
        hints: As `make_hints` gives them.
        create_table_variant: The hints are for the table that they name and for nothing else, and the item goes there.
            Otherwise they are the resource's, for the rest of the run.

    Raises:
        ConfigError: A variant without a table name, or with a function as a hint.
    """
    expect("with_hints", MAPPING, hints=hints)
    changes = {_RENAMED.get(name, name): value for name, value in hints.items()}
    name = changes.get("table_name")

    if create_table_variant and (not isinstance(name, str) or not name):
        raise ConfigError(f"with_hints(create_table_variant=True) needs hints with the name of a table, not {name!r}.")

    if not create_table_variant and is_dynamic(name):
        raise ConfigError("with_hints: a table_name function can only be set before a run, with apply_hints.")

    table = name if create_table_variant and isinstance(name, str) else None

    return Marked(item, Mark(table, changes, create_table_variant))


def materialize_table_schema() -> Marked:
    """Yield this to let the table exist with the columns of its hints, even if there are no rows."""
    return Marked(Materialized(), Mark())


def with_file_import(
    file_path: str | Path,
    file_format: str,
    items_count: int = 0,  # noqa: ARG001 - counted while the file is read
    hints: Mapping[str, object] | pa.Table | pa.Schema | None = None,
) -> Marked:
    """Load the rows of a file: Parquet, JSON lines or CSV. It is read in batches, off the loop, and left as it is.

    Args:
        file_path: The file.
        file_format: ``parquet``, ``jsonl`` or ``csv``.
        items_count: Accepted for the reference's sake.
        hints: As `make_hints` gives them, or a table or schema whose columns are the hints.

    Raises:
        ConfigError: Files of this format cannot be read. A file that does not exist ends the run.
    """
    expect("with_file_import", PATH, file_path=file_path)
    path = Path(file_path)
    readers = {"parquet": _parquet, "jsonl": _jsonl, "csv": _csv}

    if file_format not in readers:
        raise ConfigError(f"with_file_import reads {', '.join(readers)}, not {file_format!r} ({path.name}).")

    if isinstance(hints, pa.Table | pa.Schema):
        hints = make_hints(columns=hints.schema if isinstance(hints, pa.Table) else hints)

    return Marked(readers[file_format](path), Mark(hints=dict(hints) if hints else None))


def _parquet(path: Path) -> Iterator[object]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        # One row group after the other: asked for all of them, the reader decodes far ahead of who takes the rows.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=[group]):
                yield pa.Table.from_batches([batch])


def _csv(path: Path) -> Iterator[object]:
    from pyarrow import csv

    with csv.open_csv(path) as reader:
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _jsonl(path: Path) -> Iterator[object]:
    with path.open("rb") as file:
        while lines := file.readlines(_CHUNK_BYTES):
            yield JsonBody(b"".join(lines))
