from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import CONSOLE, create_app
from tests.conftest import MakeClient, fake_adapters, settings_for_tests, wait_for_start

FILES = sorted(path.name for path in CONSOLE.iterdir())


def test_the_page_is_at_the_root(client: TestClient) -> None:
    page = client.get("/")

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>Firstsight</title>" in page.text


@pytest.mark.parametrize("path", ["/", *(f"/console/{name}" for name in FILES)])
def test_every_file_allows_its_own_service_only(client: TestClient, path: str) -> None:
    headers = client.get(path).headers

    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert not any("unsafe" in value or "http" in value for value in policy.values())
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")


@pytest.mark.parametrize("name", FILES)
def test_a_file_names_no_other_host(name: str) -> None:
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", (CONSOLE / name).read_text())

    assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # the name of a format, which nobody fetches


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".html")])
def test_the_page_has_no_script_or_style_within(name: str) -> None:
    page = (CONSOLE / name).read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|javascript:", page) == []


def test_no_markup_is_made_of_text() -> None:
    for path in CONSOLE.glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", path.read_text()), (
            path
        )


@pytest.mark.parametrize(
    "path", ["/console/", "/console/x.js", "/console/..%2Fmain.py", "/console/../main.py", "/console/__init__.py"]
)
def test_nothing_else_of_the_disk_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_a_file_that_has_not_changed_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/console/app.js")
    again = client.get("/console/app.js", headers={"If-None-Match": first.headers["etag"]})
    other = client.get("/console/style.css", headers={"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content, other.status_code) == (304, b"", 200)


def test_the_page_needs_no_key_and_its_calls_do(make_client: MakeClient, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"keys": []}')
    client = make_client(api_keys_file=keys)

    assert [client.get(path).status_code for path in ("/", "/console/app.js", "/classes")] == [200, 200, 401]


def test_the_page_is_there_while_the_service_starts() -> None:
    opened = threading.Event()

    def open_slowly(settings: object) -> object:
        opened.wait()
        return fake_adapters(settings)  # type: ignore[arg-type]

    with TestClient(create_app(settings_for_tests(), open_adapters=open_slowly)) as client:  # type: ignore[arg-type]
        early = [client.get(path).status_code for path in ("/", "/console/app.js", "/classes")]
        opened.set()
        wait_for_start(client)

    assert early == [200, 200, 503]
