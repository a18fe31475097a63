"""What can be asked of a pipeline without doing anything."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path

from asyncelt import current
from asyncelt.configuration.lookup import PIPELINE
from asyncelt.errors import AsynceltWarning, PackageCorrupt, PipelineNotActive, SchemaNotFound
from asyncelt.info.trace import PipelineTrace
from asyncelt.load.protocol import Destination
from asyncelt.load.staging import check_staging
from asyncelt.pipeline.making import Made
from asyncelt.pipeline.options import DestinationReference, destination_of, staging_of
from asyncelt.pipeline.tracing import read_trace
from asyncelt.schema.model import Schema
from asyncelt.schema.naming import Naming, naming_for
from asyncelt.storage.head import Head, HeadFile, Tip, read_tip
from asyncelt.storage.package import PackageStore, Pending
from asyncelt.storage.state import StateDoc, decode_state, default_state

__all__ = ["PipelineFacts"]


class PipelineFacts:
    """Facts about a pipeline, answered from memory."""

    def __init__(self, made: Made) -> None:
        self._name = made.pipeline_name
        self._options = made.options
        self._observers = list(made.options.observers)
        self._destination = made.destination
        self._staging = made.staging
        self._dataset_name = made.dataset_name
        self._starts_anew = made.options.starts_anew
        self._head_file = HeadFile(self._root)
        self._head = Head()
        self._pending = Pending()
        self._tip = Tip()
        self._last_trace: PipelineTrace | None = None

        if not self._starts_anew:
            self._read_folder()

    # ------------------------------------------------------------------ what it is

    @property
    def pipeline_name(self) -> str:
        """The name that state and working folder go by."""
        return self._name

    @property
    def member(self) -> str:
        """Name of this process among several that run the pipeline; "" when there is only one."""
        return self._options.member

    @property
    def pipelines_dir(self) -> str:
        """Folder with one working folder per pipeline."""
        return str(self._options.pipelines_dir)

    @property
    def working_dir(self) -> str:
        """This pipeline's working folder."""
        return str(self._root)

    @property
    def pipeline_salt(self) -> str:
        """Given by the user, else made from the name. Nothing is encrypted with it yet."""
        return self._options.pipeline_salt

    @property
    def dev_mode(self) -> bool:
        """Whether each instance begins with an empty folder and a dataset of its own."""
        return self._options.dev_mode

    @property
    def refresh(self) -> str | None:
        """What extract and run refresh where they are not told."""
        return self._options.refresh

    @property
    def destination(self) -> Destination | None:
        """Where the data goes."""
        return self._destination

    @destination.setter
    def destination(self, reference: DestinationReference) -> None:
        found = destination_of(reference, None, self._name)

        if found is not None and self._staging is not None:
            check_staging(found, self._staging)

        self._destination = found

    @property
    def staging(self) -> Destination | None:
        """Where job files go before the destination loads them."""
        return self._staging

    @staging.setter
    def staging(self, reference: DestinationReference) -> None:
        self._staging = staging_of(reference, self._destination, self._name)

    @property
    def dataset_name(self) -> str | None:
        """Name of the dataset, after the destination's naming convention; None while there is no destination."""
        if self._destination is None and self._dataset_name is None:
            return None

        capabilities = self._destination.capabilities if self._destination is not None else None

        if self._dataset_name is None and capabilities is not None and not capabilities.dataset_required:
            return None

        raw = (self._dataset_name or f"{self._name}_dataset") + self._options.dataset_suffix
        convention = capabilities.naming_convention if capabilities else None

        return naming_for(
            convention or "snake_case", capabilities.max_identifier_length if capabilities else None
        ).identifier(raw)

    @property
    def is_active(self) -> bool:
        """Whether this is the pipeline that ``asyncelt.pipeline()`` returns in this task."""
        return current.activated.get() is self

    def activate(self) -> None:
        """Make this the pipeline that ``asyncelt.pipeline()`` without arguments returns in this task."""
        PIPELINE.set(self._name)
        current.activated.set(self)  # type: ignore[arg-type]  # the only subclass is Pipeline

    def deactivate(self) -> None:
        """Undo `activate`.

        Raises:
            PipelineNotActive: It is not active in this task.
        """
        if not self.is_active:
            raise PipelineNotActive(f"Pipeline {self._name!r} is not active in this task.")

        current.activated.set(None)
        PIPELINE.set(None)

    # ------------------------------------------------------------------ what it knows

    @property
    def default_schema_name(self) -> str:
        """Name of the schema that plain data goes by."""
        known = self._document().get("default_schema_name")

        if isinstance(known, str):
            return known

        return naming_for("snake_case", 64).identifier(self._name.removesuffix("_pipeline") or self._name)

    @property
    def schema_names(self) -> list[str]:
        """Names of all schemas, sorted."""
        return sorted(self._tip.schemas)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """All schemas as of the last package."""
        return _Schemas(self._name, self._tip.schemas)

    @property
    def default_schema(self) -> Schema:
        """The default schema.

        Raises:
            SchemaNotFound: Nothing has been extracted yet.
        """
        schema = self._tip.schemas.get(self.default_schema_name)

        if schema is None:
            raise SchemaNotFound(f"Pipeline {self._name!r} has no schema yet: run it once.")

        return schema

    @property
    def naming(self) -> Naming:
        """Naming convention of the default schema, else of the destination."""
        capabilities = self._destination.capabilities if self._destination is not None else None
        schema = self._tip.schemas.get(self.default_schema_name)
        names = schema.normalizers.get("names") if schema is not None else None
        convention = names if isinstance(names, str) else capabilities.naming_convention if capabilities else None

        return naming_for(convention or "snake_case", capabilities.max_identifier_length if capabilities else None)

    @property
    def state(self) -> dict[str, object]:
        """A copy of the state document as of the last package, pending ones included; changing it has no effect."""
        return {**copy.deepcopy(self._document()), "_local": self._local()}

    @property
    def first_run(self) -> bool:
        """True until a load has ended well, or state was restored from the destination."""
        return bool(self._head.local.get("first_run", True))

    @property
    def has_pending_data(self) -> bool:
        """Whether packages wait for normalize or load, as of the last call of this object."""
        return bool(self._pending)

    @property
    def has_data(self) -> bool:
        """Whether this pipeline has ever loaded anything, or has something to load."""
        return not self.first_run or bool(self._tip.schemas) or self.has_pending_data

    @property
    def last_trace(self) -> PipelineTrace | None:
        """What the last calls did; of an earlier process, if this object has made none."""
        if self._last_trace is None and not self._starts_anew:
            self._last_trace = read_trace(self._root)

        return self._last_trace

    def __repr__(self) -> str:
        said = {
            "pipeline_name": self._name,
            "destination": self._destination.destination_name if self._destination else None,
            "staging": self._staging.destination_name if self._staging else None,
            "dataset_name": self.dataset_name,
            "default_schema_name": self.default_schema_name if self._tip.schemas else None,
            "schema_names": self.schema_names or None,
            "first_run": self.first_run,
            "dev_mode": self.dev_mode or None,
            "is_active": self.is_active,
            "pipelines_dir": self.pipelines_dir,
            "working_dir": self.working_dir,
        }

        return (
            f"<asyncelt.pipeline({', '.join(f'{key}={value!r}' for key, value in said.items() if value is not None)})>"
        )

    # ------------------------------------------------------------------ inside

    @property
    def _root(self) -> Path:
        root = self._options.pipelines_dir / self._name

        return root / f"member-{self.member}" if self.member else root

    @property
    def _store(self) -> PackageStore:
        return PackageStore(self._root)

    def _document(self) -> StateDoc:
        encoded = self._tip.document

        return default_state(self._name) if encoded is None else decode_state(encoded)

    def _local(self) -> dict[str, object]:
        return {"first_run": True, "_dev_mode": self.dev_mode, **self._head.local}

    def _read_folder(self) -> None:
        """Take note of what the working folder says, as far as it can be read."""
        self._head = self._head_file.read()

        if self._head.local.get("_dev_mode") and not self.dev_mode:
            # Of an instance in dev_mode: the first call removes it.
            self._head = Head()
            return

        self._pending = self._store.pending()

        try:
            self._tip = read_tip(self._store, self._head, self._pending)
        except PackageCorrupt as error:
            warnings.warn(
                f"Pipeline {self._name!r}: {error} abort_packages() gives pending packages up.",
                AsynceltWarning,
                stacklevel=4,
            )
            self._tip = Tip(load_id=self._head.load_id, state=self._head.state, schemas=self._head.schemas)


class _Schemas(dict[str, Schema]):
    """Schemas by name; a name that is not there is said."""

    def __init__(self, pipeline_name: str, schemas: Mapping[str, Schema]) -> None:
        super().__init__(schemas)
        self._pipeline_name = pipeline_name

    def __missing__(self, name: str) -> Schema:
        raise SchemaNotFound(
            f"Pipeline {self._pipeline_name!r} has no schema {name!r}; it has {', '.join(map(repr, self)) or 'none'}."
        )
