"""What owners that have died leave: files that they had announced, and that no commit has. Blocking."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from asyncelt.destinations.filesystem_impl.content import Content
from asyncelt.destinations.filesystem_impl.documents import uploads_folder
from asyncelt.destinations.filesystem_impl.storage import Store

__all__ = ["remove_leftovers"]


def remove_leftovers(store: Store, content: Callable[[], Content], pipeline_name: str, member: str, epoch: int) -> None:
    """Remove data files and open uploads of owners that can no longer commit.

    Args:
        store: Of the dataset.
        content: What is committed; asked only where something has been left.
        pipeline_name: Whose.
        member: Of the pipeline.
        epoch: Of the owner that has taken over.
    """
    folder = uploads_folder(pipeline_name, member)
    old = [name for name in store.names(folder) if name.endswith(".json") and int(name.partition("-")[0]) < epoch]

    if not old:
        return

    announcements = [f"{folder}/{name}" for name in old]
    announced = {path for text in store.read_each(announcements) if text for path in orjson.loads(text)}
    committed = content()
    live = committed.staged.union(path for paths in committed.files.values() for path in paths)
    store.abort_uploads(announced)
    store.remove(sorted(announced - live))
    store.remove(announcements)
