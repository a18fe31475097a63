"""The command ``asyncelt``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio

import asyncelt
from asyncelt.errors import ConfigError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 1 for an error, 130 when interrupted."""
    options = _parser().parse_args(arguments)

    if options.command is None:
        _parser().print_help()
        return 0

    try:
        _demo(options.folder, reset=options.reset)
    except asyncelt.AsynceltError as error:
        print(f"asyncelt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nasyncelt: stopped. Nothing is half-done; run it again.", file=sys.stderr)
        return 130

    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="asyncelt", description="Async-first ingestion: async generators in, tables out."
    )
    parser.add_argument("--version", action="version", version=f"asyncelt {asyncelt.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    demo = commands.add_parser(
        "demo",
        help="load the metadata of the installed distributions into DuckDB and ask two questions; needs no network",
    )
    demo.add_argument("--reset", action="store_true", help="forget earlier runs of the demo")
    demo.add_argument("--folder", type=Path, default=Path(), help="where the database goes (default: here)")

    return parser


def _demo(folder: Path, *, reset: bool) -> None:
    from asyncelt.demo import run_demo

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--folder {folder} cannot be used: {error.strerror}.") from error

    anyio.run(partial(run_demo, folder, reset=reset))


if __name__ == "__main__":
    sys.exit(main())
