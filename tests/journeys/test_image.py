"""The image, built without an engine by buildah and run as it is: not root, and nothing in it to be written to.

Asked for by naming a local image with Python 3.11 to 3.13 and pip, since no registry is at hand where the tests run:
`TESTS_IMAGE_BASE=localhost/debian-local:bookworm make test ARGS=tests/journeys/test_image.py`. docs/testing.md says how to make
one.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.server import free_port

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("TESTS_IMAGE_BASE")
BUILDAH = os.environ.get("TESTS_BUILDAH", "buildah").split()
IMAGE = "localhost/firstsight-test"
# What pip needs inside to reach a registry as it does outside. Of the test, not of the Dockerfile.
NETWORK = ["--volume=/etc/ssl/certs:/etc/ssl/certs:ro", "--volume=/etc/resolv.conf:/etc/resolv.conf:ro"]
CERTIFICATES = "--env=PIP_CERT=/etc/ssl/certs/ca-certificates.crt"

pytestmark = [
    pytest.mark.skipif(BASE is None, reason="TESTS_IMAGE_BASE names no image to build on"),
    pytest.mark.timeout(3600),
]


def buildah(*arguments: str) -> str:
    environment = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"} | os.environ
    done = subprocess.run([*BUILDAH, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the image as the Dockerfile makes it."""
    buildah(
        "bud",
        "--layers",
        "--pull-never",
        f"--build-arg=BASE={BASE}",
        *NETWORK,
        CERTIFICATES,
        "--tag=localhost/firstsight-test",
        ".",
    )
    name = buildah("from", "--pull-never", "localhost/firstsight-test")
    yield name
    buildah("rm", name)


def test_the_image_runs_as_nobody_who_could_change_it(container: str) -> None:
    assert buildah("run", container, "--", "id", "-u") == "10001"
    found = buildah("run", container, "--", "find", "/srv", "-writable", "-not", "-type", "l")
    assert found.splitlines() == ["/srv/var"]


# Starts the service as the image would, and tells what it answers when it is ready.
ASK = """
import subprocess, time, urllib.request
service = subprocess.Popen(["/srv/venv/bin/firstsight", "serve"], stderr=subprocess.DEVNULL)
while service.poll() is None:
    try:
        print(urllib.request.urlopen("http://127.0.0.1:" + PORT + "/readyz").read().decode())
        break
    except OSError:
        time.sleep(0.1)
service.terminate()
raise SystemExit(service.wait())
"""


def test_the_image_serves_and_has_all_that_the_command_needs(container: str) -> None:
    run, port = ("run", container, "--", "/srv/venv/bin/firstsight"), free_port()
    buildah(*run, "models", "verify")
    assert buildah(*run, "keys", "create", "a", "--file", "/srv/var/keys.json").startswith("fs_")
    settings = (f"--env=FIRSTSIGHT_PORT={port}", "--env=FIRSTSIGHT_API_KEYS_FILE=/srv/var/keys.json")
    answer = buildah("run", *settings, container, "--", "/srv/venv/bin/python", "-c", f"PORT = '{port}'" + ASK)
    assert json.loads(answer) == {"ready": True, "waiting_for": None}
