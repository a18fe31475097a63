"""The schemas of a run while it grows them."""

from __future__ import annotations

from collections.abc import Mapping

from asyncelt.schema.model import Schema

__all__ = ["SchemaBook"]


class SchemaBook:
    """The schemas of a run as of the page that was sequenced last. Belongs to the event loop."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = dict(schemas)

    def __getitem__(self, name: str) -> Schema:
        return self._schemas[name]

    def __contains__(self, name: str) -> bool:
        return name in self._schemas

    def set(self, schema: Schema) -> None:
        """Move one schema forward."""
        self._schemas[schema.name] = schema

    def all(self) -> dict[str, Schema]:
        """Every schema as of now."""
        return dict(self._schemas)
