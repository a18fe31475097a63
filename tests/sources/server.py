"""A real NATS server with JetStream, that tests may kill and start again on the same data."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["NatsServer"]


@dataclass(slots=True)
class NatsServer:
    """One server, on a port of its own."""

    folder: Path
    port: int = 0
    user: str = ""
    """Name and password, with a colon between them; none: anybody may come."""
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]

        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        command = [str(program), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder)]

        if self.user:
            name, _, password = self.user.partition(":")
            command += ["--user", name, "--pass", password]

        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 90

        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as found:
                    assert found.recv(4) == b"INFO"
                    return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline, "nats-server does not start"
                time.sleep(0.01)

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
