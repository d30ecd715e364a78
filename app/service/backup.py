"""Copies a collection from one store into another: what a backup of a shared store is, and its way back.

A class is one change, so it is there whole or not at all. What comes while the copy is made may be in it or not.
"""

from __future__ import annotations

from app.domain.changes import ClassRemoved, ClassRestored, Snapshot
from app.domain.values import ClassState
from app.errors import BackupRefused
from app.service.ports import Store

MOST_ROUNDS = 10  # through what has lost its crops meanwhile; one or two do, unless classes are renamed without end


def copy_collection(source: Store, target: Store) -> None:
    """Copies all classes with their crops into an empty store. BackupRefused where it is not empty."""
    if target.snapshot().classes:
        raise BackupRefused("There are classes in the store already: name an empty one, or say that it is to be replaced.")
    copied: dict[str, int] = {}  # class -> its version in the source
    for _ in range(MOST_ROUNDS):
        without_crops = _bring_up_to(source.snapshot(), copied, source, target)
        # Crops are read after the snapshot. Where one is missing, either none is kept, or its class has changed since.
        if not without_crops or without_crops.items() <= _versions(source.snapshot()).items():
            return
    raise BackupRefused("Classes change faster than they can be copied: stop the writers meanwhile.")


def _bring_up_to(snapshot: Snapshot, copied: dict[str, int], source: Store, target: Store) -> dict[str, int]:
    """Makes the copy that of a snapshot; returns the classes, with their versions, of which a crop was not found."""
    wanted = _versions(snapshot)
    for name in [name for name, version in copied.items() if wanted.get(name) != version]:
        _remove(name, target)
        del copied[name]
    missing = [state.name for state in snapshot.classes if state.name not in copied and not _copy(state, source, target)]
    copied.update(wanted)
    return {name: wanted[name] for name in missing}


def _copy(state: ClassState, source: Store, target: Store) -> bool:
    """Whether all crops were there."""
    crops = ((example.id, source.read_crop(state.name, example.id)) for example in state.examples)
    kept = {example_id: crop for example_id, crop in crops if crop is not None}
    restored = ClassRestored(state.name, state.examples, state.model, state.user_threshold, state.metadata)
    target.commit(restored, expected=0, crops=kept)
    return len(kept) == len(state.examples)


def _remove(class_name: str, target: Store) -> None:
    version = _versions(target.snapshot())[class_name]
    target.commit(ClassRemoved(class_name), expected=version, crops={})


def _versions(snapshot: Snapshot) -> dict[str, int]:
    return {state.name: state.version for state in snapshot.classes}
