"""Sources that are defined once and run by both libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

PIPELINE, DATASET = "defined", "data"
Row = dict[str, Any]
Definition = Callable[[Any, int], Any]


def _orders(run: int = 0) -> list[Row]:
    return [
        {"id": run * 10 + n, "kind": "ab"[n % 2], "at": run + n, "lines": [{"n": n}, {"n": n + 1}]} for n in range(4)
    ]


def tree(lib: Any, run: int) -> Any:
    """A parent with its own table, and transformers of all kinds."""

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        yield _orders(run)
        yield {"id": 99, "kind": "z", "at": 9, "lines": []}

    @lib.transformer(data_from=orders)
    def lines(item: Any) -> Iterator[object]:
        for order in item if isinstance(item, list) else [item]:
            yield [{"order": order["id"], **line} for line in order["lines"]]

    @lib.transformer(data_from=orders)
    def ids(item: Any, factor: int) -> object:
        return [{"id": order["id"] * factor} for order in (item if isinstance(item, list) else [item])]

    @lib.transformer(data_from=lines)
    def doubled(item: list[Row]) -> Iterator[object]:
        for line in item:
            if line["n"] % 2:
                yield {"n": line["n"] * 2}

    return [orders, lines, orders | ids(3), doubled]


def unselected(lib: Any, run: int) -> Any:
    """A parent that only feeds."""

    @lib.resource(selected=False, name="orders")
    def orders() -> Iterator[object]:
        yield from _orders(run)

    @lib.transformer(data_from=orders)
    def kinds(item: Row) -> object:
        return {"kind": item["kind"]}

    @lib.source(name="shop")
    def shop() -> Any:
        return orders, kinds

    return shop()


def piped(lib: Any, run: int) -> Any:
    """Functions behind a pipe, deferred work and steps."""

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        yield _orders(run)

    @lib.transformer(name="later")
    def later(item: list[Row]) -> Iterator[object]:
        @lib.defer
        def detail(order: Row) -> Row:
            return {"id": order["id"], "more": {"kind": order["kind"]}}

        for order in item:
            yield detail(order)

    return (orders | later).add_filter(lambda row: row["id"] % 10).add_map(lambda row: {**row, "mapped": True})


def dynamic(lib: Any, run: int) -> Any:
    """Hints that are functions of a row."""

    @lib.resource(
        name="orders",
        table_name=lambda row: f"orders_{row['kind']}",
        primary_key=lambda row: "id" if row["kind"] == "a" else "at",
        write_disposition=lambda row: "merge" if row["kind"] == "a" else "append",
        columns=lambda row: {"at": {"data_type": "text" if row["kind"] == "a" else "double"}},
    )
    def orders() -> Iterator[object]:
        yield _orders()
        yield _orders(run)

    return orders


def variants(lib: Any, run: int) -> Any:
    """Hints and tables that come with the data."""
    mark = lib.mark

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        yield mark.with_hints(
            {"id": run, "more": "1"}, mark.make_hints(columns=[{"name": "more", "data_type": "bigint"}])
        )
        hints = mark.make_hints(table_name="keyed", primary_key="id", write_disposition="merge")
        yield mark.with_hints({"id": 1, "run": run}, hints, create_table_variant=True)
        yield mark.with_table_name({"id": 2, "run": run}, "keyed")
        yield mark.with_table_name({"id": run}, "elsewhere")
        yield {"id": run, "more": "2"}

    return orders


def cursors(lib: Any, run: int) -> Any:
    """A cursor as a default argument."""

    @lib.resource(name="orders", primary_key="id")
    def orders(at: Any = lib.sources.incremental("at", initial_value=1)) -> Iterator[object]:  # noqa: B008
        yield [{**row, "start": at.start_value, "last": at.last_value} for row in _orders(run)]
        yield [{**row, "start": at.start_value, "last": at.last_value} for row in _orders(run + 1)]

    return orders


def materialized(lib: Any, run: int) -> Any:
    """A table without rows, hints of nested tables, a limit."""

    @lib.resource(name="empty", columns={"id": {"data_type": "bigint"}, "name": {"data_type": "text"}})
    def empty() -> Iterator[object]:
        yield lib.mark.materialize_table_schema()

    @lib.resource(name="orders", nested_hints={"lines": {"columns": {"n": {"name": "n", "data_type": "double"}}}})
    def orders() -> Iterator[object]:
        yield from _orders(run)

    return [empty, orders.add_limit(3)]


HINTS: Row = {
    "table_name": "renamed",
    "max_table_nesting": 1,
    "write_disposition": {"disposition": "merge", "strategy": "upsert"},
    "columns": {"at": {"data_type": "double", "description": "when"}},
    "primary_key": "id",
    "merge_key": "kind",
    "schema_contract": {"data_type": "discard_value"},
    "table_format": "iceberg",
    "file_format": "parquet",
    "references": [{"columns": ["kind"], "referenced_table": "kinds", "referenced_columns": ["name"]}],
    "nested_hints": {"lines": {"columns": {"n": {"name": "n", "data_type": "text"}}}},
}


def _changing(run: int) -> list[Row]:
    return [{**order, "changes": "text" if run else 1} for order in _orders(run)]


def hinted(lib: Any, run: int) -> Any:
    """Every hint a resource can have."""

    @lib.resource(name="orders", parallelized=True, section="one", spec=None, selected=True, **HINTS)
    def orders() -> Iterator[object]:
        yield _changing(run)

    return orders


def hinted_transformer(lib: Any, run: int) -> Any:
    """Every hint a transformer can have."""

    @lib.resource(name="parent", selected=False)
    def parent() -> Iterator[object]:
        yield _changing(run)

    def orders(item: Any) -> object:
        return item

    return lib.transformer(
        orders, data_from=parent, name="orders", parallelized=True, section="one", spec=None, selected=True, **HINTS
    )


def hinted_later(lib: Any, run: int) -> Any:
    """The same hints, applied to a resource."""

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        yield _changing(run)

    given = {name: hint for name, hint in HINTS.items() if name != "max_table_nesting"}

    return orders.apply_hints(incremental=lib.sources.incremental("id"), **given)


def marked(lib: Any, run: int) -> Any:
    """The same hints, with the data."""
    mark = lib.mark

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        given = {name: hint for name, hint in HINTS.items() if name not in ("max_table_nesting", "table_name")}
        yield mark.with_hints(_changing(run), mark.make_hints(additional_table_hints={"x-own": run}, **given))

    return orders


def settings_of_a_source(lib: Any, run: int) -> Any:
    """A source with settings of its own and a limit, under another name."""

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        yield _orders(run)
        yield {"id": 100 + run, f"new_{run}": run, "lines": [{"n": 1, "deep": [{"deeper": [1]}]}]}
        yield {"id": 999}

    @lib.source(
        name="shop", section="one", max_table_nesting=2, root_key=True, schema_contract={"columns": "discard_row"}
    )
    def shop() -> Any:
        return orders

    return shop().clone(with_name="store").add_limit(2)


def settings_that_go(lib: Any, run: int) -> Any:
    """A source that no longer says what it said in its first run."""

    @lib.resource(name="orders")
    def orders() -> Iterator[object]:
        yield [{**order, f"new_{run}": run} for order in _orders(run)]

    settings = (
        {} if run else {"root_key": True, "max_table_nesting": 1, "schema_contract": {"columns": "discard_value"}}
    )

    return lib.source(lambda: orders, name="shop", **settings)()


DEFINITIONS: dict[str, Definition] = {
    function.__name__: function
    for function in (
        *(tree, unselected, piped, dynamic, variants, cursors, materialized),
        *(hinted, hinted_transformer, hinted_later, marked, settings_of_a_source, settings_that_go),
    )
}
RUNS = 2


def cursor_of_a_transformer(lib: Any, run: int) -> Any:
    """A transformer whose items do not come in the order of its cursor."""

    @lib.resource(name="parent", selected=False)
    def parent() -> Iterator[object]:
        yield {"n": 3}
        yield {"n": 1}

    @lib.transformer(data_from=parent, name="items", primary_key="n")
    def items(item: Row, n: Any = lib.sources.incremental("n")) -> object:  # noqa: B008
        return {**item, "run": run}

    return [parent, items]


def cursor_that_is_merged(lib: Any, run: int) -> Any:
    """A cursor of min, of which only the initial value is passed."""

    @lib.resource(name="items", primary_key="n")
    def items(n: Any = lib.sources.incremental("n", last_value_func=min)) -> object:  # noqa: B008
        yield [{"n": 5, "run": run}, {"n": 3, "run": run}, {"n": 7, "run": run}]

    return items(n=lib.sources.incremental(initial_value=5))


DEPARTURES: dict[str, Definition] = {
    "cursor-of-a-transformer": cursor_of_a_transformer,
    "cursor-that-is-merged": cursor_that_is_merged,
}


def main(folder: str, name: str) -> None:
    """Run a definition with the reference."""
    import dlt
    import duckdb

    pipeline = dlt.pipeline(
        PIPELINE,
        destination=dlt.destinations.duckdb(f"{folder}/theirs.duckdb"),
        dataset_name=DATASET,
        pipelines_dir=f"{folder}/theirs",
    )

    # Held open: else the reference makes a whole DuckDB each time it opens it.
    with duckdb.connect(f"{folder}/theirs.duckdb"):
        for run in range(RUNS):
            pipeline.run({**DEFINITIONS, **DEPARTURES}[name](dlt, run))
