"""What the reference makes of a stored schema: JSON on stdin, its texts as JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
import warnings

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"


def main() -> None:
    warnings.simplefilter("ignore")
    import dlt
    import yaml

    request = json.load(sys.stdin)
    schema = dlt.Schema.from_dict(request["stored"])
    again = dlt.Schema.from_dict(yaml.safe_load(request["yaml"]))
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
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    main()
