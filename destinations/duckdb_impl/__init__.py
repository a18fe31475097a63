"""The DuckDB destination: ``factory`` builds it, ``session`` talks to the event loop, the rest to DuckDB."""
