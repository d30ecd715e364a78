"""Redis servers of one's own: started on a free port over a folder, as durable as in production, killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from demo.server import free_port

ANSWERS_WITHIN_S = 20
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
# `.ci/run` installs the server and sets TESTS_SKIP_NOTHING: where it is set, a test without its server fails.
needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and "TESTS_SKIP_NOTHING" not in os.environ, reason="redis-server is not installed"
)


@dataclass
class RedisServer:
    folder: Path
    port: int
    command: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def address(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port)

    def all_keys(self) -> list[bytes]:
        return list(self.client.scan_iter())

    def start(self, **settings: str) -> None:
        """Starts it again, with these settings in addition."""
        changed = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
        self.process = subprocess.Popen([*self.command, *changed], stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + ANSWERS_WITHIN_S
        while True:
            try:
                self.client.ping()
                return
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                if time.monotonic() > give_up or self.process.poll() is not None:
                    raise

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def redis_server(folder: Path, *options: str, config: Path | None = None) -> Iterator[RedisServer]:
    """A server whose state is under `folder`; `options` in addition to those that make it durable. With a `config` a Sentinel."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    common = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
    kind = (str(config), *common, "--sentinel") if config else (*common, *DURABLE, *options)
    server = RedisServer(folder, port, ("redis-server", *kind))
    server.start()
    try:
        yield server
    finally:
        server.kill()
