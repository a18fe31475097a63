"""What the reference makes of a stored schema, in a process of its own."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any


def main(stored: dict[str, Any], text: str, output: str) -> None:
    """Write the texts of a schema, and what it reads in a text of ours, as JSON into a file."""
    warnings.simplefilter("ignore")
    import dlt
    import yaml

    schema = dlt.Schema.from_dict(stored)
    again = dlt.Schema.from_dict(yaml.safe_load(text))
    texts = {
        "mermaid": schema.to_mermaid(),
        "mermaid_data": schema.to_mermaid(include_dlt_tables=False),
        "yaml": schema.to_pretty_yaml(),
        "json": schema.to_pretty_json(),
        # Last: it adds a hash to the list of the schema itself.
        "yaml_without_hints": schema.to_pretty_yaml(remove_processing_hints=True),
        "hash_of_ours": again.stored_version_hash,
        "is_modified": again.is_modified,
    }
    Path(output).write_text(json.dumps(texts))
