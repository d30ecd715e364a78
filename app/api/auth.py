"""API keys: who may call what. The file holds SHA-256 hashes only; a key itself is shown once, when it is made."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from app.errors import Forbidden, InvalidSettings, RateExceeded, Unauthenticated, UnknownKeys
from app.logs import logger

log = logger(__name__)

RECHECK_S = 0.5  # half of the second within which a revoked key has to stop working
KEY_PREFIX = "fs_"  # so that a leaked key can be searched for
KEY_BYTES = 32
IPV4, IPV6_NETWORK_BITS = 4, 64

DEFAULT_COLLECTION = "default"  # of keys that name no other, and of everybody where there are no keys
RATE = re.compile(r"[1-9]\d{0,8}/(second|minute|hour|day)(;[1-9]\d{0,8}/(second|minute|hour|day))*")


# Who is counted (a key's id, or "from" and an address) and the rate -> None when the call is within it, else the whole seconds
# until another may be. Not a Protocol of ports.py, since the command that makes keys comes here too, and is to load no numpy.
CountCall = Callable[[str, str], Awaitable[int | None]]


class Scope(IntEnum):
    """Each includes the ones before it."""

    READ = 1  # GETs, classify, detect
    ENROL = 2  # also examples, and changes of classes
    ADMIN = 3  # also deleting classes, and metrics


ScopeName = Annotated[
    Scope,
    BeforeValidator(lambda name: Scope[name.upper()] if isinstance(name, str) and name.upper() in Scope.__members__ else name),
    PlainSerializer(lambda scope: scope.name.lower()),
]


def _checked_rate(rate: str | None) -> str | None:
    if rate is not None and not RATE.fullmatch(rate):
        raise ValueError("is a rate such as 100/second, 6000/minute or 10/second;1000/hour")
    return rate


class Key(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[\w.-]{1,64}$")  # for people; it may be logged
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    scope: ScopeName
    collection: str = Field(default=DEFAULT_COLLECTION, pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")  # all that it may see
    rate: Annotated[str | None, AfterValidator(_checked_rate)] = None  # such as 100/second; None: the one in the settings


class KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[Key, ...] = ()


class KeyRing:
    """The keys in a file, as they are now."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.monotonic) -> None:
        """InvalidSettings when the file cannot be used."""
        self._path = path
        self._now = now
        self._checked_at = now()
        self._stamp = _stamp_of(path)
        self._keys = _read(path).keys

    @property
    def collections(self) -> frozenset[str]:
        """Those that any key is bound to."""
        return frozenset(key.collection for key in self._keys)

    def find(self, presented: str) -> Key | None:
        self._follow_file()
        digest = hashlib.sha256(presented.encode()).hexdigest()
        # Every key is compared, in constant time each: how long it takes says nothing about how near a guess was.
        found = [key for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        return found[0] if found else None

    def _follow_file(self) -> None:
        if self._now() - self._checked_at < RECHECK_S:
            return
        self._checked_at = self._now()
        stamp = _stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = _read(self._path).keys
        except InvalidSettings as error:
            # Half an edit must not lock everybody out; the keys that were good stay so until the file can be read again.
            log.error("keys not re-read", detail=error.detail)


def create_key(path: Path, *, key_id: str, scope: Scope, collection: str = DEFAULT_COLLECTION, rate: str | None = None) -> str:
    """Adds a key to the file, which is made if need be, and returns it. It is not kept anywhere."""
    keys = _read(path).keys if os.path.exists(path) else ()  # not Path's, which raises where the folder may not be searched
    if any(key.id == key_id for key in keys):
        raise InvalidSettings([f"{path} has a key {key_id!r} already"])
    presented = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(presented.encode()).hexdigest()
    entry = {"id": key_id, "sha256": digest, "scope": scope, "collection": collection, "rate": rate}
    _write(path, KeyFile(keys=(*keys, _valid(path, entry))))
    return presented


def revoke_key(path: Path, *, key_id: str) -> None:
    """Removes a key from the file; it stops working within a second."""
    keys = _read(path).keys
    left = tuple(key for key in keys if key.id != key_id)
    if len(left) == len(keys):
        raise InvalidSettings([f"{path} has no key {key_id!r}"])
    _write(path, KeyFile(keys=left))


def read_keys(path: Path) -> tuple[Key, ...]:
    return _read(path).keys


bearer = HTTPBearer(auto_error=False, description="An API key, where the service runs with keys.")


def needs(scope: Scope) -> Any:
    """The dependency of a route that asks for a key of this scope, where the service runs with keys."""

    async def check(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> None:
        request.state.writes = request.method != "GET" and scope > Scope.READ  # for the audit, refused or not
        keys: KeyRing | None = request.app.state.keys
        if keys is None:
            return
        key = keys.find(credentials.credentials) if credentials else None
        if key is None:
            if credentials:
                await _count_unknown_key(request)
            raise Unauthenticated("Send a valid key in the header 'Authorization: Bearer <key>'.", field="Authorization")
        request.state.key = key
        if key.scope < scope:
            raise Forbidden(
                f"The key {key.id!r} has scope {key.scope.name.lower()}; this needs {scope.name.lower()}.",
                limit=scope.name.lower(),
            )
        await _count(request, key)

    return Security(check)


def caller_of(request: Request) -> tuple[str, str]:
    """Id of the key and its collection; where nobody is asked for keys, all are one caller of the one collection."""
    key: Key | None = getattr(request.state, "key", None)
    return ("", DEFAULT_COLLECTION) if key is None else (key.id, key.collection)


async def _count(request: Request, key: Key) -> None:
    rate = key.rate or request.app.state.rate
    if rate is None:
        return
    count_call: CountCall = request.app.state.count_call
    wait_s = await count_call(key.id, rate)
    if wait_s is not None:
        raise RateExceeded(key.id, rate, retry_after_s=wait_s)


async def _count_unknown_key(request: Request) -> None:
    # Keys that are right are never counted: who shares an address with somebody who guesses, or with a program that goes on
    # with a key that was revoked, is not locked out. There is nothing to be had by guessing 256 random bits.
    rate: str = request.app.state.unknown_key_rate
    count_call: CountCall = request.app.state.count_call
    wait_s = await count_call(f"from {source_of(request)}", rate)  # no key has a blank in its id
    if wait_s is not None:
        raise UnknownKeys(rate, retry_after_s=wait_s)


def source_of(request: Request) -> str:
    """The address that a request comes from; of IPv6 the network of 64 bits, all of which one machine may call from."""
    address = request.client.host if request.client else ""
    try:
        parsed = ip_address(address)
    except ValueError:  # no TCP
        return address
    return address if parsed.version == IPV4 else str(ip_network((parsed, IPV6_NETWORK_BITS), strict=False))


def _read(path: Path) -> KeyFile:
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSettings([f"FIRSTSIGHT_API_KEYS_FILE={path}: {error.strerror}"]) from None
    except ValidationError as error:
        raise _invalid(path, error) from None


def _valid(path: Path, entry: dict[str, object]) -> Key:
    try:
        return Key.model_validate(entry)
    except ValidationError as error:
        raise _invalid(path, error) from None


def _invalid(path: Path, error: ValidationError) -> InvalidSettings:
    return InvalidSettings([f"{path}: {'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}" for fault in error.errors()])


def _write(path: Path, key_file: KeyFile) -> None:
    # Beside the file and then in its place, so that a running service reads the old keys or the new ones.
    beside = path.with_name(path.name + ".new")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(key_file.model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing in it
        beside.replace(path)
    except OSError as error:
        raise InvalidSettings([f"{path} cannot be written: {error.strerror}"]) from None


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
