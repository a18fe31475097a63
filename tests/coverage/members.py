"""What the reference has: every member and option, taken from its own signatures into ``members.json``.

``python -m tests.coverage.members`` asks the installed reference and writes the file, which is checked in so that
the table can be made without it. Names are dotted, as in code: ``Pipeline.run.columns`` is an argument of a method,
``pipeline.dev_mode`` one of the factory, ``contract.tables.freeze`` a value of an option.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

__all__ = ["FILE", "asked", "stored"]

FILE = Path(__file__).with_name("members.json")
_SPECIAL = {"ResourceDict": ("__setitem__", "__delitem__"), "Pipeline": ("__init__",)}
"""Special methods that programs use. What a pipeline is made with is listed with the factory."""
OWN = ("dlt.pipeline.", "dlt.extract.", "dlt.common.pipeline", "dlt.common.schema.")


def stored() -> dict[str, list[str]]:
    """Group -> names, as checked in."""
    groups: dict[str, list[str]] = json.loads(FILE.read_text())["groups"]

    return groups


def asked() -> dict[str, Any]:
    """What the installed reference says, asked in a process of its own."""
    said = subprocess.run(
        [sys.executable, "-m", "tests.coverage.members", "--print"],
        cwd=FILE.parents[2],
        env={**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, Any] = json.loads(said)

    return found


# ------------------------------------------------------------------------------- in the process of the reference


def _of_reference() -> dict[str, object]:
    import dlt
    from dlt.common.schema import typing as options
    from dlt.extract.incremental import Incremental
    from dlt.extract.resource import DltResource
    from dlt.extract.source import DltResourceDict, DltSource
    from dlt.pipeline import current
    from dlt.pipeline.pipeline import Pipeline

    functions = {
        name: getattr(dlt, name) for name in ("pipeline", "attach", "run", "resource", "transformer", "source")
    }
    groups: dict[str, Iterator[str]] = {
        **{name: _arguments(name, function) for name, function in functions.items()},
        "Pipeline": _members("Pipeline", Pipeline),
        "Resource": _members("Resource", DltResource),
        "Source": _members("Source", DltSource),
        "ResourceDict": _members("ResourceDict", DltResourceDict),
        "incremental": _arguments("incremental", Incremental.__init__),
        "Incremental": _members("Incremental", Incremental),
        "mark": (name for one in dlt.mark.__all__ for name in _with_arguments(f"mark.{one}", getattr(dlt.mark, one))),
        # Its own list leaves out two that are there and are used.
        "current": (f"current.{name}" for name in (*current.__all__, "pipeline", "state")),
        "contract": _contract(options),
        "disposition": _dispositions(options),
        "refresh": (f"refresh.{mode}" for mode in get_args(_refresh_modes())),
    }

    return {
        "reference": dlt.__version__,
        "groups": {name: list(dict.fromkeys(found)) for name, found in groups.items()},
    }


def _refresh_modes() -> object:
    from dlt.common.pipeline import TRefreshMode

    return TRefreshMode


def _arguments(name: str, function: Any) -> Iterator[str]:
    """Those that are named; `*args` and `**kwargs` hand on to somebody else."""
    for argument in inspect.signature(function).parameters.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue

        if argument.name not in ("self", "cls") and not argument.name.startswith("_"):
            yield f"{name}.{argument.name}"


def _with_arguments(name: str, member: Any) -> Iterator[str]:
    yield name

    if inspect.isroutine(member):
        yield from _arguments(name, member)


def _members(name: str, of: type) -> Iterator[str]:
    """Methods with their arguments, properties and annotated attributes, of the class and its bases in the reference."""
    own = [one for one in of.__mro__ if one.__module__.startswith(OWN)]

    for one in own:
        for member in vars(one):
            if member in _SPECIAL.get(name, ()):
                yield f"{name}.{member}"
            elif not member.startswith("_") and not member.isupper() and not inspect.isclass(getattr(of, member)):
                yield from _with_arguments(f"{name}.{member}", inspect.unwrap(getattr(of, member)))

        for member in inspect.get_annotations(one):
            if not member.startswith("_") and not member.isupper():
                yield f"{name}.{member}"


def _contract(options: Any) -> Iterator[str]:
    modes = get_args(options.TSchemaEvolutionMode)

    for entity in options.TSchemaContractDict.__annotations__:
        yield from (f"contract.{entity}.{mode}" for mode in modes)

    yield from (f"contract.{mode}" for mode in modes)


def _dispositions(options: Any) -> Iterator[str]:
    yield from (f"disposition.{name}" for name in get_args(options.TWriteDisposition))
    yield from (f"disposition.replace.{name}" for name in get_args(options.TLoaderReplaceStrategy))
    strategies = {
        kind: get_type_hints(kind)
        for name, kind in vars(options).items()
        if name.endswith("StrategyDict") and isinstance(kind, type)
    }

    for strategy in get_args(options.TLoaderMergeStrategy):
        yield f"disposition.merge.{strategy}"

        for fields in strategies.values():
            if strategy in get_args(fields["strategy"]):
                yield from (
                    f"disposition.merge.{strategy}.{one}" for one in fields if one not in ("disposition", "strategy")
                )


if __name__ == "__main__":
    document = json.dumps(_of_reference(), indent=2) + "\n"

    if "--print" in sys.argv:
        print(document)
    else:
        FILE.write_text(document)
