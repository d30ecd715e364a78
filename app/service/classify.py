"""One picture -> embedding -> candidates -> outcome with evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from app.domain.decision import decide, evidence_of, rank
from app.domain.model_set import ModelSet
from app.domain.values import Answer, PixelArray, Upload
from app.errors import FirstsightError, InvalidInput
from app.service.collection import Collection
from app.service.embed import PictureCodec
from app.service.follow import Served
from app.service.pools import Deadline, Pools, stage
from app.service.ports import Embedder

# Pixels decoded for each pixel the network sees: from twice as many on, the reduced decode of JPEG cannot be told from a full one
# (Pillow's own default in `thumbnail`).
OVERSAMPLING = 2
# Classes found by similarity, and then ranked and decided among. One number, and not less than any `top_k`, so that how many are
# shown never changes the decision: a class with a low threshold may be accepted from far down.
SHORTLIST = 100


class Classify:
    def __init__(
        self, *, collection: Collection, pools: Pools, codec: PictureCodec, embedder: Embedder, model_set: ModelSet
    ) -> None:
        self._collection = collection
        self._pools = pools
        self._codec = codec
        self._embedder = embedder
        self._model_set = model_set

    async def __call__(self, upload: Upload, *, top_k: int, classes: frozenset[str] | None, deadline: Deadline) -> Answer:
        """The best `top_k`, SHORTLIST at most, of all classes or of `classes`.

        InvalidInput for a name in `classes` that is not enrolled.
        """
        served = self._served(classes)
        return await self._classify(upload, served, top_k, classes, deadline)

    async def batch(
        self, uploads: Sequence[Upload], *, top_k: int, classes: frozenset[str] | None, deadline: Deadline
    ) -> list[Answer | FirstsightError]:
        """One answer or error for each picture, in their order; they share no fate but the `classes` filter."""
        served = self._served(classes)

        async def classify(upload: Upload) -> Answer | FirstsightError:
            try:
                return await self._classify(upload, served, top_k, classes, deadline)
            except FirstsightError as error:
                return error

        return await self._pools.for_each(uploads, classify)

    def _served(self, classes: frozenset[str] | None) -> Served:
        served = self._collection.served
        for name in sorted(classes or ()):
            if served.gallery.get(name) is None:
                raise InvalidInput(f"There is no class {name!r}.", field="classes")
        return served

    async def _classify(
        self, upload: Upload, served: Served, top_k: int, classes: frozenset[str] | None, deadline: Deadline
    ) -> Answer:
        pixels = await self._pools.decode(self._decode, upload, deadline=deadline)
        return await self._pools.infer(self._answer, pixels, served, top_k, classes, deadline=deadline)

    def _decode(self, upload: Upload) -> PixelArray:
        with stage("decode"):
            side_px = self._embedder.side_px
            picture = self._codec.decode(upload.data, box=upload.box, wanted_px=OVERSAMPLING * side_px, field=upload.field)
            return self._codec.resize(picture.pixels, side_px)

    def _answer(self, pixels: PixelArray, served: Served, top_k: int, classes: frozenset[str] | None) -> Answer:
        with stage("embed"):
            query = self._embedder(pixels[np.newaxis]).embedding[0]  # (d,)
        with stage("search"):
            scored = served.best_classes(query, SHORTLIST, classes)
        with stage("decide"):
            calibration = self._model_set.calibration
            candidates = rank(scored, calibration)
            outcome, decision, reason = decide(candidates, calibration)
            examples = {state.name: state.examples for state, _ in scored}
            best = [replace(shown, evidence=evidence_of(query, examples[shown.class_name])) for shown in candidates[:top_k]]
        return Answer(
            outcome=outcome,
            decision=decision,
            reason=reason,
            candidates=tuple(best),
            version=served.gallery.version,
            model=self._model_set.id,
        )
