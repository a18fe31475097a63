"""The Postgres destination: ``factory`` builds it, the engine talks to ``session``, the rest talks to Postgres."""
