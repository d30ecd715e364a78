"""The image, built without an engine by buildah and run as it is: not root, and nothing in it to be written to.

Asked for by naming a local image with Python 3.11 to 3.13 and pip, since no registry is at hand where the tests run:
`TESTS_IMAGE_BASE=localhost/debian-local:bookworm make test ARGS=tests/journeys/test_image.py`. docs/testing.md says how to make
one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = os.environ.get("TESTS_IMAGE_BASE")
BUILDAH = os.environ.get("TESTS_BUILDAH", "buildah").split()
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
    buildah("bud", "--pull-never", f"--build-arg=BASE={BASE}", *NETWORK, CERTIFICATES, "--tag=localhost/firstsight-test", ".")
    name = buildah("from", "--pull-never", "localhost/firstsight-test")
    yield name
    buildah("rm", name)


def test_the_image_runs_as_nobody_who_could_change_it(container: str) -> None:
    assert buildah("run", container, "--", "id", "-u") == "10001"
    found = buildah("run", container, "--", "find", "/srv", "-writable", "-not", "-type", "l")
    assert found.splitlines() == ["/srv/var"]


def test_the_image_has_all_that_the_command_needs(container: str) -> None:
    command = ("run", container, "--", "/srv/venv/bin/firstsight")
    assert "FIRSTSIGHT_HOST" in buildah(*command, "config", "show")
    buildah(*command, "models", "verify")
    assert buildah(*command, "keys", "create", "a", "--file", "/srv/var/keys.json").startswith("fs_")
