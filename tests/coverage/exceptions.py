"""Members of the reference that no test can prove, and why. A name stands for its arguments too.

`LEFT_OUT` is not there on purpose, `MISSING` is not there yet; that they are not there is tested. `ACCEPTED` is there, so
that programs need not be changed, and has no effect.
"""

from __future__ import annotations

__all__ = ["ACCEPTED", "LEFT_OUT", "MISSING"]

_INSIDE = "a detail of dlt's own engine"
_HINTS = "read `resource.hints`, which has all of them"
_INPUTS = (
    "names of tables and endpoints for the trace of dlt's platform; `resource_metrics()` can say them in the run's info"
)
_CONTEXT = "there are no run contexts; settings are taken once, when the pipeline is made"

LEFT_OUT: dict[str, str] = {
    "pipeline.full_refresh": "dlt's own old name of `dev_mode`",
    "resource.standalone": "deprecated there, without effect",
    "resource.data_from": "`asyncelt.transformer(data_from=...)`",
    "transformer.standalone": "deprecated there, without effect",
    "Pipeline.encryption_seed": "nothing is encrypted on the disk, and no secret is written there",
    "Pipeline.attached_pipeline": _INSIDE,
    "Pipeline.collector": "observers, given as `progress=`; see [watching a run](watching.md)",
    "Pipeline.config": _CONTEXT,
    "Pipeline.runtime_config": _CONTEXT,
    "Pipeline.run_context": _CONTEXT,
    "Pipeline.last_run_context": _CONTEXT,
    "Resource.Empty": _INSIDE,
    "Resource.from_data": "`asyncelt.resource(data, ...)`",
    "Resource.add_pipe": "`resource | transformer`",
    "Resource.limit": _INSIDE,
    "Resource.validate_transformer_generator_function": _INSIDE,
    "Resource.validate_dynamic_hints": _INSIDE,
    "Resource.validate_write_disposition_hint": _INSIDE,
    "Resource.validate_reference_hint": _INSIDE,
    "Resource.has_other_dynamic_hints": _INSIDE,
    "Resource.get_nested_hints": _HINTS,
    "Resource.compute_nested_table_schemas": _INSIDE,
    "Resource.compute_tables": _INSIDE,
    "Resource.merge_hints": "`apply_hints`, or `mark.with_hints` with an item",
    "Resource.set_incremental": "`apply_hints(incremental=...)`",
    "Resource.custom_metrics": "`info.custom_metrics`, for each run",
    "Source.from_data": "`asyncelt.Source(name, resources)`",
    "ResourceDict.pipes": "there are no pipes",
    "ResourceDict.selected_pipes": "there are no pipes",
    "ResourceDict.extracted_pipes": "there are no pipes",
    "ResourceDict.with_pipe": "there are no pipes",
    "ResourceDict.__delitem__": "refused there too; `source.with_resources(...)` leaves some out",
    "Incremental.placement_affinity": _INSIDE,
    "Incremental.set_deduplication_key": "`primary_key=`",
    "Incremental.copy.with_transient_state": _INSIDE,
    "Incremental.with_cursor": "`incremental(cursor_path)`",
    "Incremental.cursor_value_hash": _INSIDE,
    "Incremental.on_resolved": _INSIDE,
    "Incremental.parse_native_representation": _INSIDE,
    "Incremental.get_state": "`asyncelt.current.resource_state()`",
    "Incremental.get_incremental_value_type": _INSIDE,
    "Incremental.bind.pipe": "there are no pipes",
    "Incremental.can_close": "`row_order` closes the source by itself",
    "Incremental.ensure_instance": _INSIDE,
    "Incremental.custom_metrics": "`info.custom_metrics`",
    "current.pipe": "there are no pipes",
    "current.run_context": _CONTEXT,
    "Resource.inputs": _INPUTS,
    "Resource.add_input": _INPUTS,
    "current.load_package_state": "what a resource has to remember is in `resource_state()`; packages are looked at by "
    "`pipeline.get_load_package_state(load_id)`",
    "current.destination_state": "a destination keeps what it has to remember in the dataset, in the commit of the rows",
    "current.timezone": "times are stored in UTC, or as they are where the column has no zone",
}

MISSING: dict[str, str] = {}

ACCEPTED: dict[str, str] = {
    "pipeline.pipeline_salt": "kept, and used for nothing: nothing is encrypted on the disk",
    "attach.pipeline_salt": "kept, and used for nothing: nothing is encrypted on the disk",
    "Pipeline.pipeline_salt": "kept, and used for nothing: nothing is encrypted on the disk",
    "resource.spec": "arguments are found by name and type",
    "transformer.spec": "arguments are found by name and type",
    "source.spec": "arguments are found by name and type",
    "resource.parallelized": "resources always run side by side",
    "source.parallelized": "resources always run side by side",
    "Resource.parallelize": "resources always run side by side",
    "Source.parallelize": "resources always run side by side",
    "Source.discover_schema.meta": "`asyncelt.mark` around the item says the same",
    "Resource.compute_table_schema.meta": "`asyncelt.mark` around the item says the same",
    "Pipeline.drop_pending_packages.with_partial_loads": "no package is ever partially loaded",
}
