"""One picture -> embedding -> candidates -> outcome with evidence."""

from __future__ import annotations

from collections.abc import Sequence

from app.domain.model_set import ModelSet
from app.domain.values import Answer, Upload
from app.errors import FirstsightError
from app.service.collection import Collection
from app.service.embed import PictureCodec
from app.service.pools import Deadline, Pools
from app.service.ports import Embedder


class Classify:
    def __init__(
        self, *, collection: Collection, pools: Pools, codec: PictureCodec, embedder: Embedder, model_set: ModelSet
    ) -> None: ...

    async def __call__(self, upload: Upload, *, top_k: int, classes: frozenset[str] | None, deadline: Deadline) -> Answer:
        """The best `top_k` of all classes, or of `classes`. InvalidInput for a name in `classes` that is not enrolled."""
        raise NotImplementedError

    async def batch(
        self, uploads: Sequence[Upload], *, top_k: int, classes: frozenset[str] | None, deadline: Deadline
    ) -> list[Answer | FirstsightError]:
        """One answer or error for each picture, in their order; they share no fate but the `classes` filter."""
        raise NotImplementedError
