"""How users define data, and how it is pumped into pages."""

from __future__ import annotations

from asyncelt.extract.data import as_sources as as_sources
from asyncelt.extract.decorators import resource as resource, transformer as transformer
from asyncelt.extract.items import JsonPage as JsonPage, with_table_name as with_table_name
from asyncelt.extract.pages import Page as Page
from asyncelt.extract.pump import PumpReport as PumpReport, Send as Send, pump as pump
from asyncelt.extract.resource import Resource as Resource
from asyncelt.extract.resource_function import ResourceFunction as ResourceFunction
from asyncelt.extract.source import Source as Source
from asyncelt.extract.source_decorator import source as source

__all__ = [
    "JsonPage",
    "Page",
    "PumpReport",
    "Resource",
    "ResourceFunction",
    "Send",
    "Source",
    "as_sources",
    "pump",
    "resource",
    "source",
    "transformer",
    "with_table_name",
]
