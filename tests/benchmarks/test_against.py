"""Old and new commit side by side: what counts as slower, and that both versions are what they are called."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.against import Compared, Tree, compare_case, older_tree, print_compared, this_tree
from benchmarks.harness import Case

CASE = Case(shape="flat", form="dict", target="parquet", rows=1_000)
OLD, NEW = Tree("old", Path("old")), Tree("new", Path("new"))


def printed(*results: Compared) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_compared(console, results, OLD, NEW)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("old", "new", "is_slower"),
    [
        ([1.0, 1.1, 1.2], [1.0, 1.15, 1.2], False),
        ([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], True),
        ([1.0, 1.1, 1.9], [1.3, 1.4, 1.5], False),  # as far apart as runs of the old one are
        ([1.0, 1.01, 1.02], [1.05, 1.05, 1.05], False),  # beyond them, but by less than a tenth
    ],
)
def test_slower_is_more_than_a_tenth_and_more_than_the_spread(
    old: list[float], new: list[float], is_slower: bool
) -> None:
    compared = Compared(case=CASE, old=old, new=new)

    assert compared.is_slower is is_slower
    assert ("slower" in printed(compared)) is is_slower


def test_medians_spread_and_failures_are_shown() -> None:
    text = printed(Compared(case=CASE, old=[1, 2, 4], new=[2, 3, 9]), Compared(case=CASE, error="old: no such thing"))

    assert "2.000 (1.000 to 4.000)" in text
    assert "1.50" in text
    assert "failed: old: no such thing" in text


def test_a_commit_that_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeError, match="no-such-commit"), older_tree("no-such-commit"):
        pass


@pytest.mark.benchmark
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_versions_run() -> None:
    with older_tree("HEAD") as old, this_tree() as new:
        found = [
            subprocess.run(
                [sys.executable, "-c", "import asyncelt.normalize._columns as c; print(c.__file__)"],
                cwd=tree.folder,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for tree in (old, new)
        ]
        compared = compare_case(CASE, old, new, 1, lambda _: None)

    assert found[0] != found[1]
    assert compared.error is None
    assert (len(compared.old), len(compared.new)) == (1, 1)
