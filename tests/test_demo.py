"""The demo's parts one by one, and the whole of it twice over."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from rich.console import Console

import asyncelt
from asyncelt.cli import main
from asyncelt.demo.api import Client, connect, serve
from asyncelt.demo.catalog import _requirement, read_catalog
from asyncelt.demo.show import Position, run_demo

CATALOG = [
    {"name": f"package-{number}", "version": "1.0", "installed_at": f"2026-01-{number:02}T00:00:00.000000+00:00"}
    for number in range(1, 26)
]


async def read_all(client: Client, path: str) -> list[str]:
    names = []

    while path:
        page = await client.get(path)
        names.extend(item["name"] for item in page["items"])
        path = page.get("next")

    return names


async def test_the_api_serves_every_item_once_over_one_connection():
    async with serve(CATALOG) as port, connect(port) as client:
        assert await read_all(client, "/distributions?limit=4") == [item["name"] for item in CATALOG]


async def test_the_api_leaves_out_what_is_older_than_since():
    async with serve(CATALOG) as port, connect(port) as client:
        path = "/distributions?limit=2&since=2026-01-23T00:00:00.000000%2B00:00"
        assert await read_all(client, path) == ["package-23", "package-24", "package-25"]


async def test_an_error_inside_the_block_comes_out_as_it_is():
    with pytest.raises(KeyError, match="mine"):
        async with serve(CATALOG):
            raise KeyError("mine")


async def test_clients_are_served_side_by_side():
    async with serve(CATALOG) as port, anyio.create_task_group() as tasks:

        async def read() -> None:
            async with connect(port) as client:
                assert len(await read_all(client, "/distributions?limit=3")) == len(CATALOG)

        for _ in range(5):
            tasks.start_soon(read)


@pytest.mark.parametrize(
    "path, message",
    [
        ("/nothing", "404 Not Found: no such path: /nothing"),
        ("/distributions?limit=x", "400 Bad Request: offset and limit"),
    ],
)
async def test_the_api_refuses_in_words(path, message):
    async with serve(CATALOG) as port, connect(port) as client:
        with pytest.raises(OSError, match=re.escape(message)):
            await client.get(path)


async def test_only_get_is_offered():
    async with serve(CATALOG) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(b"DELETE /distributions HTTP/1.1\r\n\r\n")
        assert (await stream.receive()).startswith(b"HTTP/1.1 405 ")


def test_the_catalog_describes_every_distribution_once():
    catalog = read_catalog()
    names = [item["name"].lower() for item in catalog]
    assert "anyio" in names
    assert len(names) == len(set(names))
    assert [item["installed_at"] for item in catalog] == sorted(item["installed_at"] for item in catalog)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("anyio", {"name": "anyio"}),
        ("Typing_Extensions>=4.5; python_version < '3.13'",
         {"name": "typing-extensions", "versions": ">=4.5", "marker": "python_version < '3.13'"}),
        ("a.b[x, y] (>=1,<2)", {"name": "a-b", "extras": ["x", "y"], "versions": ">=1,<2"}),
        ("p @ file:///p.whl", {"name": "p", "versions": "@ file:///p.whl"}),
    ],
)  # fmt: skip
def test_requirements_are_taken_apart(line, expected):
    assert _requirement(line) == expected


def test_a_position_knows_what_it_has_seen_of_its_own_moment():
    one, two, three = (
        {"name": name, "version": "1", "installed_at": at} for name, at in (("a", "1"), ("b", "1"), ("c", "2"))
    )
    position = Position().after([one])
    assert not position.is_new(one)
    assert position.is_new(two)
    assert not position.after([two]).is_new(one)
    assert position.after([two, three]).is_new(three) is False
    assert position.after([]) == position


async def run_once(folder: Path, catalog: list[dict], *, reset: bool = False) -> str:
    console = Console(file=io.StringIO(), width=120)
    await run_demo(folder, reset=reset, console=console, read=lambda: catalog)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows_of(output: str, table: str) -> int:
    match = re.search(rf"^{table} +([\d,]+)$", output, re.MULTILINE)
    assert match is not None, output
    return int(match[1].replace(",", ""))


def installed(name: str, at: str, version: str = "1.0", files: int = 2) -> dict:
    return {
        "name": name,
        "version": version,
        "installed_at": f"2026-03-{at}T00:00:00.000000+00:00",
        "requirements": [{"name": "anyio", "versions": ">=4"}, {"name": "numpy", "marker": "extra == 'x'"}],
        "files": [{"path": f"{name}/{number}.py", "suffix": ".py", "size": 1024 * number} for number in range(files)],
    }


async def test_the_second_run_loads_only_what_is_new(tmp_path):
    catalog = [installed(f"package-{number}", "01") for number in range(12)]
    first = await run_once(tmp_path, catalog)
    assert "First run: loaded all 12" in first
    assert rows_of(first, "distributions") == 12
    assert rows_of(first, "distributions__files") == 24
    assert re.search(r"anyio +12 +no", first)
    assert (tmp_path / "asyncelt_demo.duckdb").exists()

    second = await run_once(tmp_path, catalog)
    assert "Nothing new since the last run" in second
    assert rows_of(second, "distributions") == 12

    catalog += [installed("package-a", "01"), installed("package-0", "02", version="2.0", files=5)]
    del catalog[0]
    third = await run_once(tmp_path, catalog)
    assert "Loaded the 2 that are new or changed" in third
    assert rows_of(third, "distributions") == 13
    assert rows_of(third, "distributions__files") == 2 * 12 + 5

    again = await run_once(tmp_path, catalog, reset=True)
    assert "First run: loaded all 13" in again


async def test_an_environment_with_next_to_nothing_is_fine(tmp_path):
    lonely = {"name": "lonely", "version": "1", "installed_at": "2026-03-01T00:00:00.000000+00:00"}
    output = await run_once(tmp_path, [lonely])
    assert "First run: loaded all 1 " in output
    assert "there is no table distributions__files" in output
    assert "there is no table distributions__requirements" in output


@pytest.mark.slow
def test_the_command_runs_on_this_environment(tmp_path, capsys):
    assert main(["demo", "--folder", str(tmp_path)]) == 0
    assert "First run: loaded all" in capsys.readouterr().out
    assert main(["demo", "--folder", str(tmp_path)]) == 0
    assert "Nothing new since the last run" in capsys.readouterr().out


def test_the_command_line_without_a_command_shows_its_help(capsys):
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["dmeo"])

    assert stopped.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_named_in_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--folder", str(tmp_path / "file")]) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(r"asyncelt: --folder .*file cannot be used: File exists\.\n", printed.err)


def test_the_command_is_there_as_a_module():
    result = subprocess.run([sys.executable, "-m", "asyncelt", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"asyncelt {asyncelt.__version__}\n"
