"""A real S3 server for tests: SeaweedFS, one process, its data in a folder of the tests."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["KEY", "READER", "SECRET", "Seaweed"]

KEY, SECRET = "test", "testtest"
READER = {"aws_access_key_id": "reader", "aws_secret_access_key": "readerreader"}
"""Somebody who may look at everything and change nothing."""
_READY_S = 90.0
_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
)


@dataclass(slots=True)
class Seaweed:
    """The server. A context manager; killed, not stopped, at the end: nobody wants its data any more.

    Args:
        folder: For its data and logs.
    """

    folder: Path
    port: int = 0
    filer: int = 0
    ports: dict[str, int] = field(default_factory=dict)
    iceberg: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """Of somebody who may do everything."""
        return {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}

    @property
    def catalog(self) -> dict[str, str]:
        """Its REST catalog of Iceberg tables, as pyiceberg takes it."""
        uri = f"http://127.0.0.1:{self.iceberg}"

        return {
            "type": "rest",
            "uri": uri,
            "warehouse": "s3://ice",
            "credential": f"{KEY}:{SECRET}",
            "oauth2-server-uri": f"{uri}/v1/oauth/tokens",
        }

    def __enter__(self) -> Seaweed:
        (self.folder / "log").mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(json.dumps({"identities": [_identity(KEY, SECRET, "Admin"), _reader()]}))
        self.start()

        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers; again after `kill`, on the same ports and with the same data."""
        self.ports = self.ports or dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self.port, self.filer, self.iceberg = (self.ports[one] for one in ("s3.port", "filer.port", "s3.port.iceberg"))
        sockets = [f"-{one}.localSocket={self.folder / one}.sock" for one in ("s3", "filer")]
        command = [
            str(Path(sys.executable).with_name("weed")),
            f"-logdir={self.folder / 'log'}",
            "mini",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.lance=0",
            f"-s3.config={self.folder / 's3.json'}",
            "-bucket=lake",
            "-tableBucket=ice",
            *sockets,
            *(f"-{name}={port}" for name, port in self.ports.items()),
        ]
        (self.folder / "data").mkdir(exist_ok=True)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder)
        deadline = time.monotonic() + _READY_S

        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-2000:] for path in (self.folder / "log").glob("weed.ERROR*"))
                raise AssertionError(f"SeaweedFS did not start: {logs}")

            time.sleep(0.02)

    def kill(self) -> None:
        """Kill it, as a crash of the machine would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        # It is healthy before its bucket is there.
        addresses = (f"{self.url}/healthz", f"http://127.0.0.1:{self.filer}/buckets/lake/")

        try:
            for address in addresses:
                with urllib.request.urlopen(address, timeout=10):
                    pass
        except OSError:
            return False

        return True


def _identity(key: str, secret: str, *actions: str) -> dict[str, object]:
    return {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": list(actions)}


def _reader() -> dict[str, object]:
    return _identity(READER["aws_access_key_id"], READER["aws_secret_access_key"], "Read", "List")


def _free_ports(count: int) -> list[int]:
    # All are open at once, so that no two are the same; below the range from which the kernel gives others theirs.
    found: list[int] = []
    port = 20_000 + os.getpid() * 37 % 10_000

    while len(found) < count:
        port += 1

        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue

            found.append(port)

    return found
