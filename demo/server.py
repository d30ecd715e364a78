"""A Firstsight of one's own: started on a free port, waited for, stopped again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

READY_WITHIN_S = 60
STOPPED_WITHIN_S = 30
INHERITED = ("FIRSTSIGHT_MODELS_DIR", "FIRSTSIGHT_DEVICE")  # what is asked about; all else is as if nobody had set it


@dataclass(frozen=True)
class Server:
    http: httpx.Client
    process: subprocess.Popen[bytes]
    ready_after_s: float  # from the start of the process to its first 200 on /readyz


@contextmanager
def serving(settings: Mapping[str, str], *, log: int | None = None) -> Iterator[Server]:
    """Runs `firstsight serve` with these FIRSTSIGHT_ settings, without the prefix. `log` is what `Popen` takes for stderr."""
    port = free_port()
    given = {"PORT": str(port), "LOG_LEVEL": "error", **settings}
    environment = {name: value for name, value in os.environ.items() if name in INHERITED or not name.startswith("FIRSTSIGHT_")}
    environment |= {f"FIRSTSIGHT_{name}": value for name, value in given.items()}
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "app.cli", "serve"], env=environment, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            wait_until_ready(http, process)
            yield Server(http, process, time.monotonic() - started)
    finally:
        process.terminate()
        process.wait(STOPPED_WITHIN_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_until_ready(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            if http.get("/readyz").is_success:
                return
        except httpx.ConnectError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"the server was not ready within {READY_WITHIN_S} s; what it said is above")
