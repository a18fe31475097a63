"""Which tests of the conformance suite the format of job files can make a difference to."""

from __future__ import annotations

__all__ = ["AS_TEXT"]

AS_TEXT = frozenset(
    {
        "test_columns_that_come_later_are_null_in_older_rows",
        "test_every_data_type_comes_back",
        "test_jobs_of_a_table_keep_their_order",
        "test_names_may_have_any_character",
        "test_other_calls_go_on_beside_a_stream",
        "test_replace_puts_new_rows_in_place_of_the_old",
        "test_a_stream_gives_all_rows_in_batches_of_a_bounded_size",
    }
)
"""They run with JSON lines, the others with Parquet."""
