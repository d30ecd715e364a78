"""The store that several replicas share: a Redis.

A commit is one script, so all of it or nothing, and Redis flushes it before it answers where it is set to `appendfsync always`.
The log is a stream whose ids are <epoch>-<version>. All keys of a collection share a hash tag, so that a Cluster has them in one
place.

    <prefix>meta      hash: epoch, version, tag of the last change, bytes of the log, what the last pack is
    <prefix>versions  hash: class name -> version of its last change
    <prefix>ids       hash: class name -> id, which a rename leaves as it is
    <prefix>records   hash: class id -> the class without its examples
    <prefix>examples:<id>, crops:<id>   hashes: example id -> record, crop
    <prefix>log       stream: change, tag
    <prefix>receipt:…  hashes: record, version; or holder, while the write is at work. They go by themselves
    <prefix>pack:…    strings: a snapshot in large pieces, which a start reads without holding Redis up. Never the truth.

A Redis that was restored from an older copy has the same epoch and other changes. Every change has a random tag, by which whoever
has read it knows it again; who does not find it begins a new epoch, and then all read a snapshot.
"""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as ConnectionLost

from app.adapters.records import (
    decode_change,
    decode_class,
    decode_example,
    decode_receipt,
    encode_change,
    encode_class,
    encode_example,
    encode_receipt,
)
from app.adapters.redis_server import Client, connect, faults_named, weaknesses, without_password
from app.domain.changes import (
    RECEIPTS_KEPT_S,
    Change,
    ClassRefitted,
    ClassRemoved,
    ClassRenamed,
    Committed,
    ExampleRemoved,
    Receipt,
    Snapshot,
    fold_expected,
    fold_snapshot,
)
from app.domain.values import ClassState
from app.errors import IncompatibleStore, KeyInProgress, LogTrimmed, NameTaken, StoreTooWeak, StoreUnavailable, VersionConflict

LAYOUT = 1  # of the keys; kept in meta
COMMIT = Path(__file__).with_name("commit.lua").read_text()

# Which server this is: another number after each of its starts, and after a failover. KEYS: any of the collection.
SERVER = """
return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
"""
# Makes meta where there is none, and says which layout is there. KEYS: meta. ARGV: layout, epoch.
OPEN = """
redis.call('HSETNX', KEYS[1], 'layout', ARGV[1])
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[2])
return redis.call('HGET', KEYS[1], 'layout')
"""
# KEYS: versions, ids, records. ARGV: class name.
HEAD = """
local id = redis.call('HGET', KEYS[2], ARGV[1])
if not id then return false end
return {id, redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[3], id)}
"""
# KEYS: meta, log. ARGV: after, limit, epoch and version of the last change that the caller has seen.
FOLLOW = """
local epoch, version, tag = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version', 'tag'))
epoch, version = epoch or '0', version or '0'
local seen = redis.call('XRANGE', KEYS[2], ARGV[3] .. '-' .. ARGV[4], ARGV[3] .. '-' .. ARGV[4])
local entries = redis.call('XRANGE', KEYS[2], '(' .. epoch .. '-' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {epoch, version, tag or '', seen, entries}
"""
# KEYS: meta. ARGV: the epoch that ends, the one that begins if nobody was faster.
BEGIN_EPOCH = """
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then redis.call('HSET', KEYS[1], 'epoch', ARGV[2]) end
"""
# Where the log ends, and what all classes are called. KEYS: meta, versions.
NAMES = """
local epoch, version = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'version'))
return {epoch or '0', version or '0', redis.call('HKEYS', KEYS[2])}
"""
# Some classes with their examples, as they are at one moment. KEYS: versions, ids, records. ARGV: prefix of the keys of examples,
# in the same slot; names.
CLASSES = """
local classes = {}
for position = 2, #ARGV do
    local id = redis.call('HGET', KEYS[2], ARGV[position])
    if id then
        local version, record = redis.call('HGET', KEYS[1], ARGV[position]), redis.call('HGET', KEYS[3], id)
        table.insert(classes, {version, record, redis.call('HVALS', ARGV[1] .. id)})
    end
end
return classes
"""
# What came of a write, or whose it is to do. KEYS: receipt. ARGV: holder, milliseconds of the lease.
BEGIN = """
local record, version = unpack(redis.call('HMGET', KEYS[1], 'record', 'version'))
if record then return {record, version} end
redis.call('HSETNX', KEYS[1], 'holder', ARGV[1])
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return false end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {}
"""
# KEYS: receipt. ARGV: holder.
END = """
if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('DEL', KEYS[1]) end
"""
# Makes a finished pack the one to start from, and lets go of the one before it. KEYS: meta, then the pieces. ARGV: epoch,
# version, name of the pack, prefix of pieces, seconds for those who still read the old one, classes in it.
PUBLISH_PACK = """
local epoch, old, pieces = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'pack', 'pack_pieces'))
if epoch ~= ARGV[1] then return 0 end
for position = 2, #KEYS do redis.call('PERSIST', KEYS[position]) end
redis.call('HSET', KEYS[1], 'pack', ARGV[3], 'pack_pieces', #KEYS - 1, 'pack_epoch', ARGV[1], 'pack_version', ARGV[2],
    'pack_classes', ARGV[6])
for piece = 0, tonumber(pieces or '0') - 1 do redis.call('EXPIRE', ARGV[4] .. old .. ':' .. piece, ARGV[5]) end
return 1
"""

PACK_EVERY = (
    1000  # changes: what a start has to fold after reading a pack, and what one piece of Redis' time may cost without one
)
PIECE_BYTES = 4_000_000  # so that with its last record it stays under 4 MiB: past that Redis' allocator takes 5
CLASSES_AT_ONCE = 5  # of up to a thousand examples each, which are 40 MB
PACK_LOCK_S = 120
OLD_PACK_S = 600
TAG_BYTES = 8
NONE, NOT_ASKED = b"none", b""  # in place of the server whose settings were looked at
RECORD_SIZE = struct.Struct("<I")

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last change of the log, when it was last read here to its end."""

    epoch: int
    version: int
    tag: bytes


@dataclass(frozen=True, slots=True)
class _Head:
    """What a commit has to know of its class as it is."""

    class_id: str
    state: ClassState | None  # without examples


class RedisStore:
    def __init__(
        self,
        address: str,
        *,
        collection: str = "default",
        keep_changes: int = 10_000,
        keep_bytes: int = 256 * 2**20,
        pack_every: int = PACK_EVERY,
        may_be_weak: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises StoreAway when Redis does not answer, StoreTooWeak as `check` does; with `may_be_weak` nothing is too weak.

        `keep_changes` and `keep_bytes` as in the SQLite store. IncompatibleStore when a newer version has written here.
        """
        self._address = address
        self._prefix = f"firstsight:{{{collection}}}:"
        self._keep = (keep_changes, keep_bytes)
        self._pack_every = pack_every
        self._now = now
        self._seen = _Seen(0, 0, b"")
        self._packed = (0, 0)  # epoch of the log, version of its last pack, as known here
        self._may_be_weak = may_be_weak
        self._server = NOT_ASKED if may_be_weak else NONE
        self._client: Client = connect(address)
        self.check()
        with faults_named(address):
            layout = int(self._script(OPEN, ("meta",), LAYOUT, self._new_epoch()))
        if layout > LAYOUT:
            raise IncompatibleStore(f"{without_password(address)} has layout {layout}; this version knows {LAYOUT}.")

    def check(self) -> None:
        if self._may_be_weak:
            return
        with faults_named(self._address):
            # In this order: should another server take over in between, its settings count for nobody.
            server = self._script(SERVER, ("meta",))
            found = weaknesses(self._client, self._key("meta"))
        self._server = NONE if found else server
        if found:
            raise StoreTooWeak(
                f"Redis could lose what it acknowledges: {'; '.join(found)}. Set that there, or here "
                "FIRSTSIGHT_ALLOW_WEAK_REDIS=true if losing enrolments is no harm."
            )

    def commit(self, change: Change, *, expected: int, crops: Mapping[str, bytes], receipt: Receipt | None = None) -> int:
        if receipt is not None and self.find_receipt(receipt.key):
            raise KeyInProgress
        head = self._read(lambda: self._head_of(change.class_name))
        # The version is not known yet; it stands beside the record, and not in it. Folded without the examples it has, the class
        # comes back with those to write.
        state = fold_expected(head.state, Committed(0, change), expected=expected)
        of_class = (f"examples:{head.class_id}", f"crops:{head.class_id}", _receipt_key(receipt.key if receipt else ""))
        keys = ("meta", "versions", "ids", "records", "log", *of_class)
        arguments = tuple(self._arguments(change, expected, head, state, crops, receipt))
        outcome, *told = self._once(COMMIT, keys, self._server, *arguments)
        while outcome == b"stranger":  # since the last look another server has taken over, or its settings were found too weak
            self.check()
            outcome, *told = self._once(COMMIT, keys, self._server, *arguments)
        match outcome:
            case b"conflict":
                raise VersionConflict(change.class_name, expected=expected, found=int(told[0]))
            case b"done":
                raise KeyInProgress
            case b"taken":
                raise NameTaken(change.new_name if isinstance(change, ClassRenamed) else change.class_name)
        return int(told[0])

    def snapshot(self) -> Snapshot:
        return self._read(lambda: self._from_pack() or self._read_whole())

    def follow(self, after: int, *, epoch: int | None = None, limit: int = 1000) -> Sequence[Committed]:
        seen = self._seen
        found, last, tag, seen_entry, entries = self._read(
            lambda: self._script(FOLLOW, ("meta", "log"), after, limit, seen.epoch, seen.version)
        )
        found_epoch, last_version = int(found), int(last)
        if epoch is not None and epoch != found_epoch:
            raise LogTrimmed(f"The log is of epoch {found_epoch}, not {epoch}.")
        if seen.epoch == found_epoch and _is_replaced(seen, last_version, seen_entry):
            self._begin_epoch(found_epoch)
            raise LogTrimmed(f"The log has not the change {seen.version} that was read from it: it was replaced.")
        first = _version_of(entries[0]) if entries else last_version + 1
        if first != after + 1:
            raise LogTrimmed(f"The log begins at change {first}, after {after} it has a gap.")
        if after + len(entries) == last_version:
            self._see(_Seen(found_epoch, last_version, tag))
        return [Committed(_version_of(entry), decode_change(_record_of(entry))) for entry in entries]

    def read_crop(self, class_name: str, example_id: str) -> bytes | None:
        class_id = self._read(lambda: self._client.hget(self._key("ids"), class_name))
        if class_id is None:
            return None
        crop: bytes | None = self._read(lambda: self._client.hget(self._key(f"crops:{class_id.decode()}"), example_id))
        return crop

    def keep_snapshot(self, version: int, take: Callable[[], Snapshot]) -> None:
        """Packs a snapshot when the last pack has fallen behind. One of the replicas does it; the others find the lock."""
        if not self._is_pack_due(version):
            return
        self._packed = self._read(self._last_pack)
        if not self._is_pack_due(version):
            return
        with faults_named(self._address):
            if self._client.set(self._key("pack:lock"), b"", nx=True, ex=PACK_LOCK_S):
                self._write_pack(take())
                self._client.delete(self._key("pack:lock"))

    def begin(self, key: str, *, holder: str, lease_s: float) -> Receipt | None:
        found = self._read(lambda: self._script(BEGIN, (_receipt_key(key),), holder, int(lease_s * 1000)))
        if found is None:
            raise KeyInProgress
        return decode_receipt(key, found[0], int(found[1])) if found else None

    def end(self, key: str, *, holder: str) -> None:
        self._read(lambda: self._script(END, (_receipt_key(key),), holder))

    def find_receipt(self, key: str) -> Receipt | None:
        record, version = self._read(lambda: self._client.hmget(self._key(_receipt_key(key)), "record", "version"))
        return None if record is None else decode_receipt(key, record, int(version))

    def clear(self) -> None:
        """Removes the collection with all its keys. Replicas notice, and what is committed next begins a later epoch."""
        with faults_named(self._address):
            for key in self._client.scan_iter(match=_literally(self._prefix) + "*", count=1000):
                self._client.delete(key)
            self._script(OPEN, ("meta",), LAYOUT, max(self._new_epoch(), self._seen.epoch + 1))

    def close(self) -> None:
        with faults_named(self._address):
            self._client.close()

    def _is_pack_due(self, version: int) -> bool:
        epoch, packed = self._packed
        return version - (packed if epoch == self._seen.epoch else 0) >= self._pack_every

    def _head_of(self, class_name: str) -> _Head:
        found = self._script(HEAD, ("versions", "ids", "records"), class_name)
        if not found:
            return _Head(secrets.token_hex(8), None)
        class_id, version, record = found
        return _Head(class_id.decode(), replace(decode_class(record), version=int(version)))

    def _arguments(
        self,
        change: Change,
        expected: int,
        head: _Head,
        state: ClassState | None,
        crops: Mapping[str, bytes],
        receipt: Receipt | None,
    ) -> Iterator[Any]:
        """What commit.lua is given after the server, in its order."""
        yield from (self._new_epoch(), change.class_name, expected)
        if state is None:
            yield from ("", head.class_id, b"")
        else:
            yield from (state.name, head.class_id, encode_class(replace(state, examples=())))
        examples = () if state is None else state.examples
        yield from (encode_change(change), secrets.token_bytes(TAG_BYTES), *self._keep, _lost_by(change))
        yield from (encode_receipt(receipt) if receipt else b"", RECEIPTS_KEPT_S, len(examples))
        for example in examples:
            yield from (example.id, encode_example(example))
        for example_id, crop in crops.items():
            yield from (example_id, crop)

    def _from_pack(self) -> Snapshot | None:
        """A snapshot made of the last pack and the log since; None when there is none to be had in this way."""
        meta = self._client.hmget(self._key("meta"), "epoch", "pack_epoch", "pack_version", "pack", "pack_pieces", "pack_classes")
        epoch, pack_epoch, version, name, pieces, count = meta
        if name is None or pack_epoch != epoch:
            return None
        keys = [self._key(f"pack:{name.decode()}:{piece}") for piece in range(int(pieces))]
        read = [self._client.get(key) for key in keys]  # one by one, so that none holds Redis up for long
        if None in read:
            return None
        try:
            packed = Snapshot(int(version), tuple(map(decode_class, _unpacked(read))), int(epoch))
            return fold_snapshot(packed, self._all_since(packed)) if len(packed.classes) == int(count) else None
        except (LogTrimmed, StoreUnavailable, IncompatibleStore, struct.error):
            return None  # the log is trimmed past the pack, or the pack is damaged: the records are the truth

    def _all_since(self, snapshot: Snapshot) -> Iterator[Committed]:
        version = snapshot.version
        while changes := self.follow(version, epoch=snapshot.epoch):
            yield from changes
            version = changes[-1].version

    def _read_whole(self) -> Snapshot:
        """Some classes at a time, so that Redis is not held up for long, and then again those that were changed meanwhile."""
        while True:
            epoch, version, names = self._script(NAMES, ("meta", "versions"))
            try:
                return self._read_all(int(epoch), int(version), [name.decode() for name in names])
            except LogTrimmed:  # it was replaced meanwhile
                continue

    def _read_all(self, epoch: int, version: int, names: Sequence[str]) -> Snapshot:
        found: dict[str, ClassState] = {}
        for first in range(0, len(names), CLASSES_AT_ONCE):
            found |= self._read_classes(names[first : first + CLASSES_AT_ONCE])
        # What was read is as it was at `version` or later. When nothing is left to follow, all is as it is at the log's end.
        while changes := self.follow(version, epoch=epoch):
            version = changes[-1].version
            changed = {name for each in changes for name in _names_in(each.change)}
            for name in changed:
                found.pop(name, None)
            found |= self._read_classes(sorted(changed))
        return Snapshot(version, tuple(found[name] for name in sorted(found)), epoch)

    def _read_classes(self, names: Sequence[str]) -> dict[str, ClassState]:
        classes = self._script(CLASSES, ("versions", "ids", "records"), self._key("examples:"), *names)
        return {state.name: state for state in map(_decode, classes)}

    def _write_pack(self, snapshot: Snapshot) -> None:
        name = f"{snapshot.epoch}-{snapshot.version}-{secrets.token_hex(4)}"
        keys = []
        for piece, data in enumerate(_packed(snapshot.classes)):
            keys.append(f"pack:{name}:{piece}")
            # It goes by itself, should this process die before the pack is published.
            self._client.set(self._key(keys[-1]), data, ex=OLD_PACK_S)
        arguments = (snapshot.epoch, snapshot.version, name, self._key("pack:"), OLD_PACK_S, len(snapshot.classes))
        if self._script(PUBLISH_PACK, ("meta", *keys), *arguments):
            self._packed = (snapshot.epoch, snapshot.version)

    def _last_pack(self) -> tuple[int, int]:
        epoch, pack_epoch, version = self._client.hmget(self._key("meta"), "epoch", "pack_epoch", "pack_version")
        return int(epoch or 0), int(version) if pack_epoch == epoch and version else 0

    def _see(self, seen: _Seen) -> None:
        self._seen = seen  # in one step, since threads that read the log do so side by side

    def _begin_epoch(self, ended: int) -> None:
        with faults_named(self._address):
            self._script(BEGIN_EPOCH, ("meta",), ended, max(self._new_epoch(), ended + 1))

    def _new_epoch(self) -> int:
        return int(self._now() * 1000)  # milliseconds since 1970, as in the ids that Redis itself gives

    def _key(self, name: str) -> str:
        return self._prefix + name

    def _script(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        return self._client.eval(script, len(keys), *map(self._key, keys), *arguments)

    def _once(self, script: str, keys: Sequence[str], *arguments: Any) -> Any:
        """Never a second time: if the answer is lost, nobody knows whether it was done."""
        with faults_named(self._address):
            return self._script(script, keys, *arguments)

    def _read(self, read: Callable[[], Result]) -> Result:
        """What does no harm twice is tried a second time: the first may have met a connection that died while nobody used it."""
        with faults_named(self._address):
            try:
                return read()
            except ConnectionLost:
                return read()


def _literally(text: str) -> str:
    """A pattern of Redis that matches the text alone."""
    return "".join(f"\\{character}" if character in "*?[]^\\" else character for character in text)


def _receipt_key(key: str) -> str:
    return f"receipt:{key}"


def _names_in(change: Change) -> tuple[str, ...]:
    """Of the classes that a change may have made other than they were."""
    return (change.class_name, change.new_name) if isinstance(change, ClassRenamed) else (change.class_name,)


def _lost_by(change: Change) -> str:
    match change:
        case ClassRemoved():
            return "all"
        case ClassRefitted():  # its crops stay
            return "examples"
        case ExampleRemoved():
            return f"={change.example_id}"
        case _:
            return ""


def _is_replaced(seen: _Seen, last_version: int, seen_entry: Sequence[Any]) -> bool:
    """Whether the log is one in which the change that was seen never was. One that is trimmed away proves nothing."""
    return last_version < seen.version or bool(seen_entry and seen.tag and _tag_of(seen_entry[0]) != seen.tag)


# An entry of the log, as a script returns it: [id, ["change", record, "tag", tag]].


def _version_of(entry: Sequence[Any]) -> int:
    return int(entry[0].partition(b"-")[2])


def _record_of(entry: Sequence[Any]) -> bytes:
    record: bytes = entry[1][1]
    return record


def _tag_of(entry: Sequence[Any]) -> bytes:
    tag: bytes = entry[1][3]
    return tag


def _decode(found: Sequence[Any]) -> ClassState:
    version, record, examples = found
    decoded = sorted(map(decode_example, examples), key=lambda example: example.id)
    return replace(decode_class(record), version=int(version), examples=tuple(decoded))


def _packed(classes: Iterable[ClassState]) -> Iterator[bytes]:
    """Records one after the other, each after its size, in pieces of about PIECE_BYTES; at least one, and never half a record."""
    piece = bytearray()
    for state in classes:
        record = encode_class(state)
        piece += RECORD_SIZE.pack(len(record)) + record
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece = bytearray()
    yield bytes(piece)


def _unpacked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        at = 0
        while at < len(piece):
            (size,) = RECORD_SIZE.unpack_from(piece, at)
            at += RECORD_SIZE.size + size
            yield piece[at - size : at]
