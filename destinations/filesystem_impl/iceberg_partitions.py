"""Rows of partitioned Iceberg tables: which belong together. Blocking; Arrow kernels, no loop over rows.

pyiceberg takes a package of its own for years, months, days, hours and buckets, and looks for the rows of each
partition in all rows; here each row is looked at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, PrimitiveType, StringType

from asyncelt.destinations.filesystem_impl.partitioning import Partitioning

__all__ = ["Splitter", "is_writable", "spec_of"]

Values: TypeAlias = "pa.ChunkedArray[Any]"

_FIRST_ID: Final = 1000
_DAY_US: Final = 24 * 3600 * 1_000_000
_HOUR_US: Final = 3600 * 1_000_000
_ROW: Final = "row"
_KNOWN: Final[Mapping[str, Callable[[int | None], Transform[Any, Any]]]] = {
    "identity": lambda _: IdentityTransform(),
    "year": lambda _: YearTransform(),
    "month": lambda _: MonthTransform(),
    "day": lambda _: DayTransform(),
    "hour": lambda _: HourTransform(),
    "bucket": lambda number: BucketTransform(number or 1),
    "truncate": lambda number: TruncateTransform(number or 1),
}
_WRITABLE: Final = (
    IdentityTransform,
    YearTransform,
    MonthTransform,
    DayTransform,
    HourTransform,
    BucketTransform,
    TruncateTransform,
    VoidTransform,
)


def spec_of(schema: Schema, fields: Sequence[Partitioning]) -> PartitionSpec:
    """How a new table is partitioned."""
    if not fields:
        return UNPARTITIONED_PARTITION_SPEC

    return PartitionSpec(
        *(
            PartitionField(
                source_id=schema.find_field(one.column).field_id,
                field_id=number,
                transform=_KNOWN[one.transform](one.number),
                name=one.name,
            )
            for number, one in enumerate(fields, start=_FIRST_ID)
        )
    )


def is_writable(spec: PartitionSpec, schema: Schema) -> bool:
    """Whether rows of a table that somebody else has made can be put where they belong."""
    top = {one.field_id for one in schema.fields}

    return all(isinstance(one.transform, _WRITABLE) and one.source_id in top for one in spec.fields)


@dataclass(frozen=True, slots=True)
class Splitter:
    """Tells apart the rows of partitions.

    Args:
        spec: How the table is partitioned.
        schema: Of the table; rows have all of its columns, in its types.
    """

    spec: PartitionSpec
    schema: Schema

    def split(self, rows: pa.Table) -> Iterator[tuple[Record, pa.Table]]:
        """The rows of each partition, in the order in which they have come."""
        if self.spec.is_unpartitioned():
            yield Record(), rows

            return

        values = [self._values(field, rows) for field in self.spec.fields]
        names = [str(number) for number in range(len(values))]
        numbered = pa.table([*values, pa.array(range(rows.num_rows), pa.int64())], names=[*names, _ROW])
        # In one thread, or the order of rows would be lost.
        groups = pa.TableGroupBy(numbered, names, use_threads=False).aggregate([(_ROW, "list")])
        records = zip(*(groups.column(name).to_pylist() for name in names), strict=True)
        members = groups.column(f"{_ROW}_list").combine_chunks()

        for number, record in enumerate(records):
            yield Record(*record), rows.take(members[number].values)

    def _values(self, field: PartitionField, rows: pa.Table) -> Values:
        source = self.schema.find_field(field.source_id)
        column = rows.column(source.name)

        return _transformed(field.transform, source.field_type, _physical(column), column)


def _physical(column: Values) -> Values:
    """As Iceberg keeps values in its metadata: days, and microseconds."""
    if pa.types.is_date(column.type):
        return column.cast(pa.int32()).cast(pa.int64())

    if pa.types.is_timestamp(column.type) or pa.types.is_time(column.type):
        return column.cast(pa.int64())

    return column


def _transformed(transform: Transform[Any, Any], kind: Any, values: Values, column: Values) -> Values:
    if isinstance(transform, VoidTransform):
        return pa.chunked_array([pa.nulls(len(values))])

    if isinstance(transform, IdentityTransform):
        return values

    if isinstance(transform, YearTransform):
        return _years(column)

    if isinstance(transform, MonthTransform):
        return cast("Values", pc.add(pc.multiply(_years(column), 12), pc.subtract(pc.month(column), 1)))

    if isinstance(transform, DayTransform):
        return values if pa.types.is_date(column.type) else _floored(values, _DAY_US)

    if isinstance(transform, HourTransform):
        return _floored(values, _HOUR_US)

    if isinstance(transform, TruncateTransform) and isinstance(kind, LongType):
        return cast("Values", pc.multiply(_floored(values, transform.width), transform.width))

    if isinstance(transform, TruncateTransform) and isinstance(kind, StringType):
        return cast("Values", pc.utf8_slice_codeunits(values, 0, transform.width))

    return _each(transform, kind, values)


def _years(column: Values) -> Values:
    return cast("Values", pc.subtract(pc.year(column), 1970))


def _floored(values: Values, by: int) -> Values:
    """Divided and rounded down, where Arrow rounds towards zero."""
    quotient = pc.divide(values, by)
    too_large = pc.greater(pc.multiply(quotient, by), values)

    return cast("Values", pc.subtract(quotient, too_large.cast(pa.int64())))


def _each(transform: Transform[Any, Any], kind: PrimitiveType, values: Values) -> Values:
    """There is no kernel for it: of each value that occurs once."""
    encoded = values.combine_chunks().dictionary_encode()
    apply = transform.transform(kind)
    result = pa.int64() if isinstance(transform, BucketTransform) else values.type
    made = pa.array([apply(value) for value in encoded.dictionary.to_pylist()], result)

    return pa.chunked_array([made.take(encoded.indices)])
