"""The compiled extension: plain rows to Arrow columns in one pass. Built where a C compiler is; see `plain_road`."""

from typing import TypeAlias

from typing_extensions import Buffer

class Refused(ValueError):
    """The rows hold something that only another road can take; what was read so far is of no use."""

class Values:
    """Values of one kind of one place: an Arrow array that can be taken once."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]: ...

Place: TypeAlias = tuple[str, list[tuple[int, Values]], list[Place] | None, int | None]
"""Raw key, values by kind (bool, double, integer, text), places below where it was an object, number of the table of
its elements where it was a list."""

Found: TypeAlias = tuple[int, Place] | tuple[int, Place, Values, Values]
"""A table: rows, the place of its elements, and for all but the first with rows: parents' rows and positions."""

def trim() -> None:
    """Give memory that was freed back to the system, where the C library keeps it."""

class Columns:
    """Rows on their way into columns. One thread at a time."""

    def add_json(self, data: Buffer, /) -> int:
        """Add the rows of an array of objects, of lines of objects, or of one object; returns how many there were.

        Lets go of the interpreter lock.

        Raises:
            Refused: No JSON in UTF-8, or not plain: a key that comes twice, an integer over 64 bits, a row that is no
                object.
        """

    def add_rows(self, rows: list[object], start: int, seconds: float, /) -> int:
        """Add rows from ``start`` on for about ``seconds``; returns the index of the first that was not taken.

        Raises:
            Refused: A value, or a key, of any type but dict, list, str, int, float, bool and None.
        """

    def finish(self) -> list[Found]:
        """The tables, parents before their children. No rows can be added afterwards.

        Lets go of the interpreter lock while nulls are filled in.

        Raises:
            Refused: The tables would be much wider than their rows are.
        """
