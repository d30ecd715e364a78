"""Writes that may be sent again: with the same Idempotency-Key a request happens once, and every time is told what came of it.

What is told is committed with the change, so that neither is there without the other. A request that stored nothing (a dry run, a
refusal) leaves no receipt: sent again, it is done again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from app.api.schemas import ClassOut, EnrolmentReportOut, RemovedOut
from app.domain.changes import Receipt
from app.domain.values import Upload
from app.errors import InvalidInput, KeyInProgress, KeyReused
from app.service.collection import Collection
from app.service.pools import Deadline

Told = TypeVar("Told", EnrolmentReportOut, ClassOut, RemovedOut)  # what is told of a write, with the version that it made

KEY = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(slots=True)
class Write:
    """One write as it was asked for. Without a key it leaves no receipt."""

    key: str | None  # SHA-256 of whose it is and which, in hex
    fingerprint: str = ""
    stored: bool = False  # not by a dry run, nor by an enrolment of what is there

    def receipt(self, answer: ClassOut | EnrolmentReportOut | RemovedOut) -> Receipt | None:
        """For an answer whose version is not known yet; asked for when there is something to commit."""
        self.stored = True
        if self.key is None:
            return None
        return Receipt(self.key, self.fingerprint, answer.model_dump(mode="json", by_alias=True, exclude={"version"}))


async def once(
    write: Write,
    shape: type[Told],
    work: Callable[[Write], Awaitable[Told]],
    *,
    collection: Collection,
    deadline: Deadline,
) -> tuple[Told, bool]:
    """What is told, and whether it was told before. KeyReused for a key of another request, KeyInProgress while it runs."""
    if write.key is None:
        return await work(write), False
    async with collection.writing(write.key, deadline) as receipt:
        if receipt is not None:
            return told(receipt, write, shape), True
        try:
            answer = await work(write)
        except KeyInProgress:
            if receipt := await collection.find_receipt(write.key, deadline):
                return told(receipt, write, shape), True
            raise
        # Where nothing was left to store, another replica may have done it: this one stood still for longer than its lease.
        if not write.stored and (receipt := await collection.find_receipt(write.key, deadline)):
            return told(receipt, write, shape), True
        return answer, False


def told(receipt: Receipt, write: Write, shape: type[Told]) -> Told:
    if receipt.fingerprint != write.fingerprint:
        raise KeyReused
    return shape.model_validate({**receipt.answer, "version": receipt.version})


def write_of(request: Request, content: bytes, *, caller: str) -> Write:
    """The write that a request asks for. `content` says what is in its body, in whatever form; `caller` whose key it is."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return Write(None)
    if not KEY.fullmatch(key):
        raise InvalidInput(
            "An Idempotency-Key is 1 to 200 visible characters of ASCII, such as a UUID.", field="Idempotency-Key", limit=200
        )
    scope = request.scope
    asked = (
        scope["method"].encode(),
        scope["path"].encode(),
        scope["query_string"],
        request.headers.get("if-match", "").encode(),
    )
    return Write(_digest(caller.encode(), key.encode()), _digest(*asked, content))


def content_of(uploads: Sequence[Upload]) -> bytes:
    """The same for the same pictures and boxes, in whatever form they were sent: a form's boundary is another each time."""
    return b"".join(hashlib.sha256(upload.data).digest() + repr(upload.box).encode() for upload in uploads)


def _digest(*parts: bytes) -> str:
    sized = (len(part).to_bytes(8, "big") + part for part in parts)  # so that no part can run into the next
    return hashlib.sha256(b"".join(sized)).hexdigest()
