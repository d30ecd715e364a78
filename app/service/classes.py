"""Managing what is enrolled: list, read, rename, set threshold and metadata, delete; the same for the examples of a class."""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

import numpy as np

from app.domain.changes import (
    Change,
    ClassConfigured,
    ClassRemoved,
    ClassRenamed,
    Committed,
    ExampleRemoved,
    Receipt,
    fold_change,
)
from app.domain.representatives import similarities_to_rest
from app.domain.values import ClassModel, ClassState, Example
from app.errors import InvalidInput, NotFound, UnknownExample, VersionConflict
from app.service.collection import Collection, no_receipt
from app.service.pools import Deadline, Pools

MAX_METADATA_BYTES = 4096  # of compact JSON in UTF-8; design section 3


class Unchanged(Enum):
    """Marks a value that a request leaves as it is, where None has a meaning of its own."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class ClassPage:
    classes: tuple[ClassState, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class ListedExample:
    example: Example
    similarity: float | None  # to its class without it; None if it is alone


@dataclass(frozen=True, slots=True)
class ExamplePage:
    examples: tuple[ListedExample, ...]
    next_cursor: str | None


class Classes:
    """`expected`, where a call takes it, is the version that the caller has seen: VersionConflict if the class has changed."""

    def __init__(self, *, collection: Collection, pools: Pools, fit: Callable[[Sequence[Example]], ClassModel]) -> None:
        self._collection = collection
        self._pools = pools
        self._fit = fit

    def page(self, limit: int, cursor: str | None) -> ClassPage:
        """Up to `limit` classes by name. `cursor` is the `next_cursor` of the page before; what comes meanwhile moves nothing."""
        gallery = self._collection.served.gallery
        names = gallery.names(after=_key_of(cursor), limit=limit + 1)
        states = [state for name in names[:limit] if (state := gallery.get(name)) is not None]
        return ClassPage(tuple(states), _cursor_of(names[limit - 1]) if len(names) > limit else None)

    def get(self, class_name: str) -> ClassState:
        return self._collection.state_of(class_name)

    async def configure(
        self,
        class_name: str,
        *,
        new_name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        metadata: Mapping[str, Any] | Unchanged = UNCHANGED,
        expected: int | None = None,
        deadline: Deadline,
        receipt_of: Callable[[ClassState], Receipt | None] = no_receipt,
    ) -> ClassState:
        """The class after the change. A `threshold` of None returns to the computed one. Raises NameTaken."""
        _check_threshold(threshold)
        _check_metadata(metadata)

        def configured(state: ClassState) -> Change:
            user_threshold = state.user_threshold if threshold is UNCHANGED else threshold
            new_metadata = state.metadata if metadata is UNCHANGED else metadata
            if new_name is UNCHANGED:
                return ClassConfigured(class_name, user_threshold, new_metadata)
            return ClassRenamed(class_name, new_name, user_threshold, new_metadata)

        def receipt(before: ClassState, change: Change) -> Receipt | None:
            return receipt_of(_changed(before, Committed(0, change)))

        return _changed(*await self._change(class_name, configured, expected, deadline, receipt))

    async def remove(
        self, class_name: str, *, expected: int | None = None, deadline: Deadline, receipt: Receipt | None = None
    ) -> int:
        """Returns the version of the removal."""
        removed = await self._change(
            class_name, lambda state: ClassRemoved(state.name), expected, deadline, lambda before, change: receipt
        )
        return removed[1].version

    async def examples(self, class_name: str, limit: int, cursor: str | None, *, deadline: Deadline) -> ExamplePage:
        """Up to `limit` examples by id, as in `page`."""
        examples = self._collection.state_of(class_name).examples
        start = bisect_right(examples, _key_of(cursor), key=lambda example: example.id)
        more = start + limit < len(examples)
        listed = await self._pools.infer(_listed, examples, slice(start, start + limit), deadline=deadline)
        return ExamplePage(listed, _cursor_of(examples[start + limit - 1].id) if more else None)

    async def example(self, class_name: str, example_id: str, *, deadline: Deadline) -> ListedExample:
        examples = self._collection.state_of(class_name).examples
        position = _position_of(example_id, class_name, examples)
        (listed,) = await self._pools.infer(_listed, examples, slice(position, position + 1), deadline=deadline)
        return listed

    async def remove_example(
        self,
        class_name: str,
        example_id: str,
        *,
        expected: int | None = None,
        deadline: Deadline,
        receipt: Receipt | None = None,
    ) -> int:
        """Fits the class again without the example. A class may have none left, and then never answers."""

        def without_it(state: ClassState) -> Change:
            position = _position_of(example_id, class_name, state.examples)
            rest = state.examples[:position] + state.examples[position + 1 :]
            return ExampleRemoved(class_name, example_id, self._fit(rest) if rest else None)

        removed = await self._change(class_name, without_it, expected, deadline, lambda before, change: receipt)
        return removed[1].version

    async def crop(self, class_name: str, example_id: str, *, deadline: Deadline) -> bytes:
        """The stored crop, encoded as JPEG. UnknownExample, or NotFound where crops are not stored."""
        _position_of(example_id, class_name, self._collection.state_of(class_name).examples)
        crop = await self._collection.read_crop(class_name, example_id, deadline)
        if crop is None:
            raise NotFound(f"The picture of example {example_id!r} is not stored.", field="id")
        return crop

    async def _change(
        self,
        class_name: str,
        change_of: Callable[[ClassState], Change],
        expected: int | None,
        deadline: Deadline,
        receipt_of: Callable[[ClassState, Change], Receipt | None],
    ) -> tuple[ClassState, Committed]:
        """Commits the change that a class as it is asks for; again, if somebody else changed the class in between."""
        while True:
            state = self._collection.state_of(class_name)
            if expected is not None and expected != state.version:
                raise VersionConflict(class_name, expected=expected, found=state.version)
            change = await self._pools.infer(change_of, state, deadline=deadline)
            try:
                receipt = receipt_of(state, change)
                version = await self._collection.commit(change, expected=state.version, deadline=deadline, receipt=receipt)
                return state, Committed(version, change)
            except VersionConflict:
                await self._collection.catch_up(deadline)


def _changed(before: ClassState, committed: Committed) -> ClassState:
    return cast(ClassState, fold_change(before, committed))  # only a removal leaves no class


def _check_threshold(threshold: float | Unchanged | None) -> None:
    if isinstance(threshold, int | float) and not -1 <= threshold <= 1:
        raise InvalidInput(f"A threshold is a similarity between -1 and 1, not {threshold}.", field="threshold", limit="-1 to 1")


def _check_metadata(metadata: Mapping[str, Any] | Unchanged) -> None:
    if isinstance(metadata, Unchanged):
        return
    size = len(json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":")).encode())
    if size > MAX_METADATA_BYTES:
        raise InvalidInput(
            f"Metadata are up to {MAX_METADATA_BYTES} bytes of JSON, these are {size}.",
            field="metadata",
            limit=MAX_METADATA_BYTES,
        )


def _position_of(example_id: str, class_name: str, examples: Sequence[Example]) -> int:
    for position, example in enumerate(examples):
        if example.id == example_id:
            return position
    raise UnknownExample(class_name, example_id)


def _listed(examples: Sequence[Example], asked: slice) -> tuple[ListedExample, ...]:
    # Takes time in proportion to all examples of the class, however few are asked for: not for the event loop.
    if len(examples) < 2:
        return tuple(ListedExample(example, None) for example in examples[asked])
    similarities = similarities_to_rest(np.stack([example.embedding for example in examples]), asked)
    return tuple(ListedExample(example, sim) for example, sim in zip(examples[asked], similarities, strict=True))


def _cursor_of(key: str) -> str:
    """Opaque to callers: names the last thing of a page, so that nothing is skipped or repeated when others come and go."""
    return urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _key_of(cursor: str | None) -> str:
    if cursor is None:
        return ""
    try:
        return b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True).decode()
    except ValueError as error:
        raise InvalidInput("This cursor is none that a page has given.", field="cursor") from error
