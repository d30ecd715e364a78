"""A service of one's own for the length of a command: another process on a free port of this machine, its state in memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.client import Firstsight, FirstsightError

READY_WITHIN_S = 120
LOOKS_EVERY_S = 0.1
# What decides answers goes along; where a service listens and what it keeps does not.
INHERITED = ("MODELS_DIR", "DEVICE", "VERIFY", "SYNTHESIS", "DETECTOR", "INFERENCE_THREADS", "DECODE_THREADS")


class NotStarted(FirstsightError):
    def __init__(self) -> None:
        super().__init__(
            "The service that this command runs for itself did not start; what it says about that stands above. "
            "It takes the networks in `models`, or in FIRSTSIGHT_MODELS_DIR where that is set."
        )


@contextmanager
def private_service() -> Iterator[Firstsight]:
    """NotStarted when it does not; why, it says on standard error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "app.cli", "serve"], env=_environment(port))  # our own
    try:
        with Firstsight(f"http://127.0.0.1:{port}", retries=8) as firstsight:
            _await(firstsight, process)
            yield firstsight
    finally:
        process.terminate()
        process.wait()


def _environment(port: int) -> dict[str, str]:
    inherited = {f"FIRSTSIGHT_{name}" for name in INHERITED}
    kept = {name: value for name, value in os.environ.items() if name in inherited or not name.startswith("FIRSTSIGHT_")}
    ours = {"PORT": str(port), "STORE": "memory://", "LOG_LEVEL": "error", "REQUEST_TIMEOUT_S": "60"}
    return kept | {f"FIRSTSIGHT_{name}": value for name, value in ours.items()}


def _await(firstsight: Firstsight, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            firstsight.info()
            return
        except FirstsightError:
            time.sleep(LOOKS_EVERY_S)
    raise NotStarted
