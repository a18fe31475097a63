"""``python -m benchmarks --against REV``: an older commit and this tree, interleaved. Nothing may get slower.

Both sides run the benchmark programs of this tree, in processes of their own; only the package differs. A round
measures each side once, and every other round begins with the other side, so that a slow minute hits both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Case, Log, one_run

__all__ = ["TOLERANCE", "Compared", "Tree", "compare_case", "older_tree", "print_compared", "this_tree"]

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1.10
"""A greater ratio of medians is slower, if the new median is also beyond the slowest run of the old commit."""
_BUILD = "from setuptools import setup; setup()"
_WHERE = "import asyncelt; print(asyncelt.__file__)"


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder in which the benchmark programs find one version of the package."""

    name: str
    folder: Path


@dataclass(slots=True, kw_only=True)
class Compared:
    """The runs of one case with both versions, in seconds."""

    case: Case
    old: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def ratio(self) -> float:
        """Median of the new over that of the old: above 1 is slower."""
        return statistics.median(self.new) / statistics.median(self.old)

    @property
    def is_slower(self) -> bool:
        """Whether the difference is more than the tolerance, and more than how far runs of one commit lie apart."""
        return self.error is None and self.ratio > TOLERANCE and statistics.median(self.new) > max(self.old)


@contextmanager
def this_tree() -> Iterator[Tree]:
    """The package as it is here, changes that are not committed included."""
    with tempfile.TemporaryDirectory(prefix="asyncelt-new-") as folder:
        yield _view(_git("describe", "--always", "--dirty"), Path(folder), ROOT)


@contextmanager
def older_tree(revision: str) -> Iterator[Tree]:
    """The package as of a commit, unpacked elsewhere, with its extension built if this tree has one.

    Raises:
        RuntimeError: There is no such commit, or it cannot be built.
    """
    with tempfile.TemporaryDirectory(prefix="asyncelt-old-") as folder:
        name = _git("rev-parse", "--short", f"{revision}^{{commit}}")
        unpacked, archive = Path(folder) / "unpacked", Path(folder) / "tree.tar"
        _git("archive", "--output", str(archive), name)

        with tarfile.open(archive) as files:
            files.extractall(unpacked, filter="data")

        if _extensions(ROOT) and not _extensions(unpacked):
            _run([sys.executable, "-c", _BUILD, "--quiet", "build_ext", "--inplace"], unpacked)

        yield _view(name, Path(folder) / "view", unpacked)


def compare_case(case: Case, old: Tree, new: Tree, repeats: int, log: Log) -> Compared:
    """Measure a case with both versions, round by round."""
    compared = Compared(case=case)
    sides = [(old, compared.old), (new, compared.new)]

    for number in range(repeats):
        for tree, walls in sides if number % 2 == 0 else sides[::-1]:
            log(f"{case.label}, {case.rows:,} rows: {tree.name}, round {number + 1} of {repeats}")

            try:
                walls.append(one_run(case, tree.folder).wall)
            except RuntimeError as error:
                compared.error = f"{tree.name}: {error}"

                return compared

    return compared


def print_compared(console: Console, results: Sequence[Compared], old: Tree, new: Tree) -> None:
    """One line per case: medians with the fastest and slowest run of both, and what the new one takes of the old."""
    table = Table(title="whole run(), extract to commit; seconds: median (fastest to slowest)")

    for heading in ("case", "rows", old.name, new.name, "new / old", ""):
        table.add_column(heading, justify="left" if heading in {"case", ""} else "right")

    for result in results:
        head = [result.case.label, f"{result.case.rows:,}"]

        if result.error is not None:
            table.add_row(*head, "", "", "", f"[red]failed: {result.error[-200:]}[/red]")
            continue

        verdict = "[red]slower[/red]" if result.is_slower else ""
        table.add_row(*head, _spread(result.old), _spread(result.new), f"[bold]{result.ratio:.2f}[/bold]", verdict)

    console.print(table)


def _spread(walls: Sequence[float]) -> str:
    return f"{statistics.median(walls):.3f} ({min(walls):.3f} to {max(walls):.3f})"


def _view(name: str, folder: Path, root: Path) -> Tree:
    """A folder with this tree's programs and ``root``'s package."""
    folder.mkdir(exist_ok=True)

    for part, source in (("benchmarks", ROOT), ("tests", ROOT), ("asyncelt", root)):
        (folder / part).symlink_to(source / part, target_is_directory=True)

    found = Path(_run([sys.executable, "-c", _WHERE], folder)).resolve()

    if found != (root / "asyncelt" / "__init__.py").resolve():
        raise RuntimeError(f"{found} is imported instead of the package of {name}; is PYTHONPATH set?")

    return Tree(name, folder)


def _extensions(root: Path) -> list[Path]:
    return list((root / "asyncelt" / "normalize").glob("_columns*.so"))


def _git(*arguments: str) -> str:
    return _run(["git", *arguments], ROOT)


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)

    if done.returncode:
        raise RuntimeError(f"{command[0]} {' '.join(command[1:4])} failed: {done.stderr.strip()[-800:]}")

    return done.stdout.strip()
