"""The drill as `make drill` runs it, a fiftieth of it and without a judgement of times."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

needs_servers = pytest.mark.skipif(
    "TESTS_SKIP_NOTHING" not in os.environ and None in (shutil.which("redis-server"), shutil.which("nginx")),
    reason="redis-server and nginx are not installed",
)


@needs_servers
@pytest.mark.timeout(600)
def test_two_replicas_behind_nginx_on_one_redis_hold_what_is_promised() -> None:
    command = [sys.executable, "-m", "drill", "--scale", "0.02", "--untimed"]
    drill = subprocess.run(command, capture_output=True, text=True)
    assert drill.returncode == 0, drill.stdout + drill.stderr
    assert "all holds" in drill.stdout
