"""Ten questions that any change to the engine has to be asked, taken apart so that each part has its tests."""

from __future__ import annotations

__all__ = ["PROBES"]

PROBES: dict[str, str] = {
    "probe.1.round_robin": "Resources are read side by side, one item each in turn",
    "probe.1.fifo": "Resources are read one after the other",
    "probe.1.coroutines": "Results of coroutines and deferred functions keep the order in which they were yielded",
    "probe.1.generators": "Items of a generator keep their order",
    "probe.2.liveness": "The event loop stays free during a run",
    "probe.2.cancel": "Cancelled at any point of any step, what is documented is left and nothing else",
    "probe.3.poison": "A package that is refused every time names itself and stays in the way until it is given up",
    "probe.3.transient": "Errors that may pass are tried again, five times by default, and raised then",
    "probe.3.terminal": "An error that does not pass is raised at once, and the state does not move",
    "probe.3.partial": "A load that fails half-way leaves nothing that can be seen, and is resumed whole",
    "probe.3.kill": "Killed with kill -9 in any stage, the next run loses and doubles nothing",
    "probe.4.local-missing": "State is restored on an empty machine",
    "probe.4.remote-missing": "A dataset that is gone is loaded anew, and this is said",
    "probe.4.remote-newer": "A folder that is behind takes the state of the destination",
    "probe.4.local-newer": "A folder that is ahead keeps its state",
    "probe.4.renamed": "A new dataset name never wipes anything silently",
    "probe.5.refresh": "drop_sources, drop_resources, drop_data",
    "probe.5.dev_mode": "dev_mode on, off, on again",
    "probe.5.import": "An edited schema file takes the place of the pipeline's schema",
    "probe.6.documents": "Real documents give the tables that the reference gives",
    "probe.7.root": "Contracts: three entities by four modes on root tables",
    "probe.7.nested": "... on nested tables",
    "probe.7.arrow": "... on Arrow tables",
    "probe.7.models": "... by models given as columns",
    "probe.8.nested": "Every merge strategy with nested tables",
    "probe.8.hard_delete": "... with deletions",
    "probe.8.dedup_sort": "... with a column that decides between rows of one key",
    "probe.8.duplicates": "... with rows of one key in one load",
    "probe.8.empty": "... with a load without rows",
    "probe.9.range": "Incremental: open and closed ends, end_value, min and max",
    "probe.9.missing": "... values that are missing",
    "probe.9.lag": "... lag",
    "probe.9.order": "... sources in an order, and in the wrong one",
    "probe.9.replace": "... with replace and with merge",
    "probe.10.several": "Two pipelines at the same time in one event loop",
    "probe.10.same": "The same pipeline at the same time: one waits, or is refused",
}
