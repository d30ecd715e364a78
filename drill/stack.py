"""What docker-compose.yml starts, on loopback and without images: a Redis, two replicas, nginx with the configuration it has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from demo.server import free_port

ROOT = Path(__file__).parent.parent
STARTS_WITHIN_S = 120
OWN_FILES = "/tmp/nginx"  # noqa: S108  # as the configuration has it, in a container of its own
PASSWORD = "drill"  # noqa: S105  # of a Redis that lives as long as the drill


@dataclass
class Process:
    """A process that can be killed and started again with the same command."""

    command: list[str]
    answers: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FIRSTSIGHT_")}
        self.running = subprocess.Popen(self.command, env=environment | self.environment, stdout=subprocess.DEVNULL)
        give_up = time.monotonic() + STARTS_WITHIN_S
        while not self.answers():
            if self.running.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{self.command[0]} did not start")
            time.sleep(0.02)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.running is not None:
            self.running.send_signal(number)
            self.running.wait(60)
            self.running = None


@dataclass
class Stack:
    redis: Process
    replicas: tuple[Process, Process]
    urls: tuple[str, str]  # of the replicas
    nginx_url: str
    redis_url: str


@contextmanager
def stack(folder: Path, models: Path) -> Iterator[Stack]:
    """Everything up and ready, with its state under `folder`."""
    redis_port, nginx_port, *ports = (free_port() for _ in range(4))
    redis_url = f"redis://:{PASSWORD}@127.0.0.1:{redis_port}/0"
    redis = Process(_redis_command(folder, redis_port), lambda: _answers_redis(redis_port))
    replicas = [Process(*_replica(port, redis_url, models)) for port in ports]
    nginx = Process(_nginx_command(folder, nginx_port, ports), lambda: _answers(f"http://127.0.0.1:{nginx_port}/healthz"))
    with ExitStack() as running:
        for process in (redis, *replicas, nginx):
            running.callback(process.kill if process is redis else process.stop)
            process.start()
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        yield Stack(redis, (replicas[0], replicas[1]), (urls[0], urls[1]), f"http://127.0.0.1:{nginx_port}", redis_url)


def _redis_command(folder: Path, port: int) -> list[str]:
    (folder / "redis").mkdir()
    own = ["--dir", str(folder / "redis"), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
    return ["redis-server", str(ROOT / "deploy" / "redis" / "redis.conf"), *own]


def _replica(port: int, redis_url: str, models: Path) -> tuple[list[str], Callable[[], bool], dict[str, str]]:
    settings = {
        "PORT": str(port),
        "STORE": redis_url,
        "MODELS_DIR": str(models),
        "LOG_LEVEL": "error",
        "MAX_EXAMPLES_PER_CLASS": "2500",
        "INFERENCE_THREADS": "2",
        "DECODE_THREADS": "2",
    }
    environment = {f"FIRSTSIGHT_{name}": value for name, value in settings.items()}
    return [sys.executable, "-m", "app.cli", "serve"], lambda: _answers(f"http://127.0.0.1:{port}/readyz"), environment


def _nginx_command(folder: Path, port: int, upstreams: list[int]) -> list[str]:
    """nginx with the file that ships, but for the addresses and where it writes."""
    configuration = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()
    for name, upstream in zip(("one", "two"), upstreams, strict=True):
        configuration = configuration.replace(f"server {name}:8000", f"server 127.0.0.1:{upstream}")
    configuration = configuration.replace("listen 8080", f"listen 127.0.0.1:{port}").replace(OWN_FILES, f"{folder}/nginx")
    configuration = configuration.replace("error_log stderr", f"error_log {folder}/nginx.log")
    (folder / "nginx.conf").write_text("daemon off;\n" + configuration)
    return ["nginx", "-e", f"{folder}/nginx.log", "-c", str(folder / "nginx.conf")]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.TransportError:
        return False


def _answers_redis(port: int) -> bool:
    asked = subprocess.run(
        ["redis-cli", "-p", str(port), "ping"], capture_output=True, text=True, env=os.environ | {"REDISCLI_AUTH": PASSWORD}
    )
    return "PONG" in asked.stdout
