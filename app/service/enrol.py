"""Enrolment: pictures -> checks -> embeddings -> class model -> report. Nothing is stored unless every picture is usable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.domain.calibration import Calibration
from app.domain.values import Box, ClassModel, Example, ExampleWarning, Upload
from app.service.collection import Collection
from app.service.embed import CropEmbedder, PictureCodec
from app.service.pools import Deadline, Pools


@dataclass(frozen=True, slots=True)
class EnrolledExample:
    id: str
    box: Box
    warnings: tuple[ExampleWarning, ...]


@dataclass(frozen=True, slots=True)
class NearestClass:
    """Another class, and its greatest similarity to any of the pictures."""

    class_name: str
    similarity: float


@dataclass(frozen=True, slots=True)
class EnrolmentReport:
    """What was understood of the pictures, in the order they were sent."""

    class_name: str
    version: int  # of the class: after this enrolment; as it was, if nothing was stored (0: there is no such class)
    dry_run: bool
    threshold: float  # that the class has now, or would have
    examples: tuple[EnrolledExample, ...]
    nearest: tuple[NearestClass, ...]  # most similar first
    stored: bool  # False for a dry run and for a mere repeat


class Enrol:
    def __init__(
        self,
        *,
        collection: Collection,
        pools: Pools,
        codec: PictureCodec,
        crop_embedder: CropEmbedder,
        fit: Callable[[Sequence[Example]], ClassModel],
        calibration: Calibration,
    ) -> None: ...

    async def __call__(self, class_name: str, uploads: Sequence[Upload], *, dry_run: bool, deadline: Deadline) -> EnrolmentReport:
        raise NotImplementedError
