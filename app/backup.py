"""Backup and restore of a collection. A backup is a SQLite store, whatever it was made of, so the one can become the other.

`cli.py` alone comes here; it knows every layer, as `main.py` does.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from app.adapters.store_redis import RedisStore
from app.adapters.store_sqlite import SqliteStore, copy_file
from app.errors import BackupRefused
from app.main import file_of, is_shared
from app.service.backup import copy_collection

SQLITE = "sqlite:///"


def back_up(address: str, collection: str, file: Path) -> None:
    """Makes `file` a backup of the collection, with all that was acknowledged before. The service may go on writing meanwhile."""
    _refuse_memory(address)
    if file.exists():
        raise BackupRefused(f"{file} is there already: name another file.")
    if not is_shared(address):
        copy_file(file_of(Path(address.removeprefix(SQLITE)), collection), file)
        return
    unfinished = file.with_name(file.name + ".unfinished")
    try:
        with (
            closing(RedisStore(address, collection=collection, may_be_weak=True)) as source,
            closing(SqliteStore(unfinished)) as kept,
        ):
            copy_collection(source, kept)
        copy_file(unfinished, file)
    finally:
        for left in file.parent.glob(unfinished.name + "*"):
            left.unlink()


def restore(file: Path, address: str, collection: str, *, replace: bool) -> None:
    """Makes the collection what it was in a backup, in a later epoch. BackupRefused where there are classes, unless `replace`."""
    _refuse_memory(address)
    if not file.is_file():
        raise BackupRefused(f"There is no backup {file}.")
    if is_shared(address):
        _restore_shared(file, address, collection, replace=replace)
    else:
        _restore_file(file, file_of(Path(address.removeprefix(SQLITE)), collection), replace=replace)


def _restore_shared(file: Path, address: str, collection: str, *, replace: bool) -> None:
    unpacked = file.with_name(file.name + ".restored")
    try:
        copy_file(file, unpacked)  # opened as a store, the backup itself would be written to
        with (
            closing(SqliteStore(unpacked)) as source,
            closing(RedisStore(address, collection=collection, may_be_weak=True)) as target,
        ):
            if replace:
                target.snapshot()  # which epoch it was, so that the next is later
                target.clear()
            copy_collection(source, target)
    finally:
        for left in file.parent.glob(unpacked.name + "*"):
            left.unlink()


def _restore_file(file: Path, target: Path, *, replace: bool) -> None:
    with closing(SqliteStore(target)) as there:  # StoreUnavailable while a service has it
        if there.snapshot().classes and not replace:
            raise BackupRefused(f"There are classes in {target}: name another store, or say that it is to be replaced.")
    copy_file(file, target, now=time.time)


def _refuse_memory(address: str) -> None:
    if address.startswith("memory:"):
        raise BackupRefused("The store is memory, which nobody but the service can read.")
