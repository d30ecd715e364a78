"""Managing what is enrolled: list, read, rename, set threshold and metadata, delete; the same for the examples of a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from app.domain.values import ClassModel, ClassState, Example
from app.service.collection import Collection
from app.service.pools import Deadline


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
    def __init__(self, *, collection: Collection, fit: Callable[[Sequence[Example]], ClassModel]) -> None: ...

    def page(self, limit: int, cursor: str | None) -> ClassPage: ...

    def get(self, class_name: str) -> ClassState: ...

    async def configure(
        self,
        class_name: str,
        *,
        new_name: str | Unchanged = UNCHANGED,
        threshold: float | None | Unchanged = UNCHANGED,
        metadata: Mapping[str, Any] | Unchanged = UNCHANGED,
        expected: int | None = None,
        deadline: Deadline,
    ) -> ClassState: ...

    async def remove(self, class_name: str, *, expected: int | None = None, deadline: Deadline) -> int: ...

    def examples(self, class_name: str, limit: int, cursor: str | None) -> ExamplePage: ...

    def example(self, class_name: str, example_id: str) -> ListedExample: ...

    async def remove_example(self, class_name: str, example_id: str, *, deadline: Deadline) -> int: ...

    async def crop(self, class_name: str, example_id: str, *, deadline: Deadline) -> bytes:
        """The stored crop, encoded as JPEG. UnknownExample, or NotFound where crops are not stored."""
        ...
