"""Which state counts: the working folder's or the destination's. Pure, but for the warnings that it emits.

The head of a working folder is what the destination had when this machine last committed or looked, so where the two
disagree the destination has moved on, or has lost something, and in both cases it is right: rows that it does not have
must be loaded again, and rows that it has must not. In words:

===========================  ==============================================================================
the destination has          what counts
===========================  ==============================================================================
nothing, nor has the head    nothing: a first run
no dataset, but a head       nothing, with a warning: everything is loaded again
a package that is pending    the head: the commit was cut off before it was noted here
the head's package           the head, unless the dataset's state is of the same or a higher version and differs
another package or place     the destination's state and schemas, with a warning where that drops local ones
===========================  ==============================================================================

Local values (`Pipeline.set_local_state_val`) and pending packages are kept in every case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from asyncelt.engine.environment import Environment
from asyncelt.errors import CannotRestorePipeline
from asyncelt.load.protocol import Known, Restored
from asyncelt.observe import Warned
from asyncelt.schema.stored import from_json
from asyncelt.storage.head import Head
from asyncelt.storage.package import Pending
from asyncelt.storage.state import STATE_ENGINE_VERSION, StateDoc, decode_state, encode_state, migrate_state

__all__ = ["known_of", "reconcile"]


def known_of(environment: Environment, head: Head) -> Known | None:
    """What the destination need not tell again, if it still has it: then `reconcile` changes nothing.

    Returns:
        None where the head has not all of it.
    """
    if head.load_id is None or head.state is None or _is_elsewhere(environment, head):
        return None

    names = decode_state(head.state).get("schema_names")

    if not isinstance(names, list) or not head.schemas.keys() >= set(names):
        return None

    return Known(load_id=head.load_id, state=head.state)


def reconcile(environment: Environment, head: Head, restored: Restored, pending: Pending) -> Head:
    """The head to go on from: the same object where nothing changes.

    Raises:
        CannotRestorePipeline: The state at the destination is of another pipeline.
        StorageError: It cannot be read, or a newer release has written it.
    """
    if not environment.capabilities.stores_state:
        return head

    if restored.head_load_id in pending.all:
        # Our own commit, which was cut off before it was noted here. Loading the package again notes it.
        return head

    if not environment.restore_from_destination:
        # State is not shared, but the place in the chain of commits is.
        return head if head.load_id == restored.head_load_id else replace(head, load_id=restored.head_load_id)

    elsewhere = _is_elsewhere(environment, head)

    if not restored.exists and elsewhere and pending:
        # They go there, with the state that they carry; the commit says so.
        return head

    if not restored.exists:
        return _after_loss(environment, head, elsewhere=elsewhere)

    if head.load_id == restored.head_load_id and not elsewhere:
        return _agreeing(environment, head, restored)

    if pending and not elsewhere and head.load_id is not None:
        environment.emit(
            Warned(
                pipeline_name=environment.pipeline_name,
                message=(
                    f"Another owner has committed package {restored.head_load_id}; this folder knew {head.load_id}. "
                    "Pending packages were made before that and will be refused: abort_packages() gives them up, the "
                    "next run then extracts their rows again."
                ),
            )
        )

    return _taken_over(environment, head, restored)


def _agreeing(environment: Environment, head: Head, restored: Restored) -> Head:
    """Same package on both sides. Something else may still have written a newer state into the dataset."""
    if restored.is_known:
        return head

    if _is_newer(restored.state, head.state):
        return _taken_over(environment, head, restored)

    missing = restored.schemas.keys() - head.schemas.keys()

    if not missing or head.state is None:
        return head

    known = decode_state(head.state).get("schema_names")
    wanted = [name for name in restored.schemas if name in missing and isinstance(known, list) and name in known]
    found = {name: from_json(restored.schemas[name]) for name in wanted}

    return replace(head, schemas={**head.schemas, **found}) if found else head


def _taken_over(environment: Environment, head: Head, restored: Restored) -> Head:
    state = document = None

    if restored.state is not None:
        stored = decode_state(restored.state)
        _check_owner(environment, stored)
        document = _of_today(stored)
        # Encoded anew only where it is another one: that it is the same is told by its text.
        state = restored.state if document is stored else encode_state(document)
    elif head.load_id is not None and head.state is not None:
        environment.emit(
            Warned(
                pipeline_name=environment.pipeline_name,
                message=(
                    f"Dataset {environment.dataset_name!r} at {environment.required_destination.location} knows no "
                    f"state of this pipeline, which had loaded package {head.load_id} into dataset "
                    f"{head.dataset_name!r}. State and schemas start anew, so that everything is loaded again."
                ),
            )
        )

    # Schemas of other pipelines may share the dataset; a pipeline that has never been here takes none of them.
    schemas = restored.schemas if state is not None or restored.head_load_id is not None else {}
    names = document.get("schema_names") if document is not None else None
    wanted = [name for name in schemas if not isinstance(names, list) or name in names]

    return replace(
        head,
        load_id=restored.head_load_id,
        state=state,
        schemas={name: from_json(schemas[name]) for name in wanted},
        dataset_name=environment.dataset_name,
        destination_type=environment.required_destination.destination_type,
        destination_name=environment.required_destination.destination_name,
        place=environment.place,
        local={**head.local, "first_run": False} if state is not None else head.local,
        edited=None,
        edited_on=None,
    )


def _check_owner(environment: Environment, document: StateDoc) -> None:
    owner = document.get("pipeline_name")

    if owner not in (None, environment.pipeline_name):
        raise CannotRestorePipeline(
            f"The state in dataset {environment.dataset_name!r} is of pipeline {owner!r}, not of "
            f"{environment.pipeline_name!r}."
        )


def _after_loss(environment: Environment, head: Head, *, elsewhere: bool) -> Head:
    if head.load_id is None:
        return head

    where = f"Dataset {environment.dataset_name!r} does not exist at {environment.required_destination.location}"
    what = (
        f"this pipeline has loaded package {head.load_id} into dataset {head.dataset_name!r} before, which stays as it "
        "is; sync_destination() there takes its state up again"
        if elsewhere
        else f"this pipeline had loaded package {head.load_id} into it"
    )
    environment.emit(
        Warned(
            pipeline_name=environment.pipeline_name,
            message=f"{where}; {what}. State and schemas start anew, so that everything is loaded.",
        )
    )

    return Head(local=head.local)


def _is_elsewhere(environment: Environment, head: Head) -> bool:
    if head.load_id is None and head.state is None:
        return False

    if head.place is not None:
        return head.place != environment.place

    same_type = head.destination_type in (None, environment.required_destination.destination_type)

    return not same_type or head.dataset_name not in (None, environment.dataset_name)


def _is_newer(remote: str | None, local: str | None) -> bool:
    if remote is None or remote == local:
        return False

    if local is None:
        return True

    ours, theirs = _of_today(decode_state(local)), _of_today(decode_state(remote))

    return _version(theirs) >= _version(ours) and theirs.get("_version_hash") != ours.get("_version_hash")


def _of_today(document: StateDoc) -> StateDoc:
    return document if document.get("_state_engine_version") == STATE_ENGINE_VERSION else migrate_state(document)


def _version(document: Mapping[str, object]) -> int:
    version = document.get("_state_version", 0)

    return version if isinstance(version, int) else 0
