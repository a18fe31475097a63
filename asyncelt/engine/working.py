"""What the workers of a run do with one page. Blocking: called from threads, but for `still_valid`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asyncelt.flow import ArrowPage, Conformed, RawBatch, Rows
from asyncelt.normalize.memory import let_go_of_own_memory
from asyncelt.normalize.page import Normalizer, Shredded
from asyncelt.normalize.sifting import Sifted, check_required, check_storable, refused_whole, sift
from asyncelt.schema.model import Schema, SchemaDelta

__all__ = ["Done", "conformed_page", "free", "shaped_page", "shredded_page", "sifted_page", "still_valid", "unsifted"]

_FREED_AT_ONCE: Final = 256
"""Rows."""


@dataclass(slots=True)
class Done:
    """A page as its worker left it."""

    raw: RawBatch
    shredded: Shredded | None
    """None: its rows are told apart when it is its turn, since some of them cannot be loaded."""
    conformed: Conformed
    sizes: tuple[int, ...]
    """Bytes of each conformed batch; measured in the worker, since Arrow lets go of the interpreter lock for it."""
    schema: Schema


def free(spent: list[Done]) -> None:
    """Free pages in small pieces: a large list of rows would hold the interpreter lock until all are gone."""
    while spent:
        payload = spent.pop().raw.payload

        if isinstance(payload, Rows):
            items = payload.items

            while items:
                del items[-_FREED_AT_ONCE:]


def shredded_page(normalizer: Normalizer, raw: RawBatch, schema: Schema, spent: list[Done]) -> Shredded:
    """Take a page apart, and free those in ``spent`` and what the page before has left."""
    free(spent)
    let_go_of_own_memory(raw.nbytes)

    return normalizer.shred(raw, schema)


def conformed_page(normalizer: Normalizer, shredded: Shredded, schema: Schema) -> tuple[Conformed, tuple[int, ...]]:
    """A page under a schema, and the bytes of each of its tables."""
    conformed = _checked(normalizer, normalizer.conform(shredded, schema), shredded.batch, schema)

    if isinstance(shredded.batch.payload, ArrowPage):
        # Cut out of something larger, maybe: only its own rows count.
        return conformed, tuple(int(batch.data.nbytes) for batch in conformed.batches)

    return conformed, tuple(int(batch.data.get_total_buffer_size()) for batch in conformed.batches)


def shaped_page(
    normalizer: Normalizer, raw: RawBatch, schema: Schema, spent: list[Done]
) -> tuple[Shredded, Conformed, tuple[int, ...]]:
    """`shredded_page` and `conformed_page`, under one schema."""
    shredded = shredded_page(normalizer, raw, schema, spent)

    return shredded, *conformed_page(normalizer, shredded, schema)


def unsifted(raw: RawBatch, schema: Schema) -> Done:
    """A page that cannot be loaded whole."""
    nothing = Conformed(delta=SchemaDelta(), batches=())

    return Done(raw, None, nothing, (), schema)


def sifted_page(normalizer: Normalizer, raw: RawBatch, schema: Schema) -> tuple[Sifted, tuple[int, ...]]:
    """What of a page can be loaded, and the bytes of each of its tables."""

    def attempt(batch: RawBatch, under: Schema) -> Conformed:
        return _checked(normalizer, normalizer.conform(normalizer.shred(batch, under), under), batch, under)

    found = refused_whole(raw, raw.refusal) if raw.refusal is not None else sift(raw, schema, attempt)

    return found, tuple(int(batch.data.nbytes) for batch in found.conformed.batches)


def _checked(normalizer: Normalizer, conformed: Conformed, batch: RawBatch, schema: Schema) -> Conformed:
    """Where bad rows are left out, those that only the destination would refuse have to be found now."""
    if batch.on_error != "fail":
        check_required(conformed, batch, schema)
        check_storable(conformed, schema, normalizer.context.capabilities)

    return conformed


def still_valid(conformed: Conformed, used: Schema, current: Schema) -> bool:
    """Whether the tables the page touches are the very same values as when it was conformed."""
    if used is current:
        return True

    touched = {batch.table for batch in conformed.batches} | {table.name for table in conformed.delta.tables}

    return all(used.tables.get(name) is current.tables.get(name) for name in touched)
