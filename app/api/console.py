"""The console: one page at `/`, and the files that it is made of. Read once: nothing else of the disk can be asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response

from app.errors import UnknownRoute

PAGE = "index.html"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Its own files, its own service, and pictures that it has made. No inline script or style, no frame, no form, no other host.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked again each time, and answered with 304: an upgrade is seen at once
}
NOT_MODIFIED = 304


@dataclass(frozen=True, slots=True)
class ConsoleFile:
    data: bytes
    kind: str
    etag: str


def read_console(folder: Path) -> Mapping[str, ConsoleFile]:
    """File name -> what is served under it."""
    return {path.name: _console_file(path) for path in sorted(folder.iterdir()) if path.suffix in KINDS}


def console_router(files: Mapping[str, ConsoleFile]) -> APIRouter:
    """Neither in the description nor behind a key: the page asks for a key when a call needs one."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def console_page(request: Request) -> Response:
        return _answer(request, files[PAGE])

    @router.get("/console/{name}")
    async def console_file(name: str, request: Request) -> Response:
        if name not in files:
            raise UnknownRoute(request.url.path)
        return _answer(request, files[name])

    return router


def _console_file(path: Path) -> ConsoleFile:
    data = path.read_bytes()
    return ConsoleFile(data, KINDS[path.suffix], f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def _answer(request: Request, file: ConsoleFile) -> Response:
    headers = {**HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=NOT_MODIFIED, headers=headers)
    return Response(file.data, media_type=file.kind, headers=headers)
