"""One picture -> embedding, points -> candidates -> outcome with evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.domain.decision import Ranked, decide, evidence_of, rank
from app.domain.model_set import ModelSet
from app.domain.values import Answer, Box, Candidate, ClassState, FloatArray, PixelArray, Upload
from app.domain.verification import NO_FINDS
from app.errors import FirstsightError
from app.service.collection import Collection
from app.service.embed import PictureCodec
from app.service.follow import Served
from app.service.pools import Deadline, Pools, stage
from app.service.ports import Embedder
from app.service.verify import Verifier

# Pixels decoded for each pixel the network sees: from twice as many on, the reduced decode of JPEG cannot be told from a full one
# (Pillow's own default in `thumbnail`).
OVERSAMPLING = 2
# Classes found by similarity, and then ranked and decided among. One number, and not less than any `top_k`, so that how many are
# shown never changes the decision: a class with a low threshold may be accepted from far down.
SHORTLIST = 100

Scored = list[tuple[ClassState, float]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of one picture, decoded."""

    pixels: PixelArray  # (h, w, 3) of the region, as large as verification wants it
    region: Box  # in the upright picture
    square: PixelArray  # (side, side, 3) for the network


class Classify:
    def __init__(
        self,
        *,
        collection: Collection,
        pools: Pools,
        codec: PictureCodec,
        embedder: Embedder,
        verifier: Verifier,
        model_set: ModelSet,
    ) -> None:
        self._collection = collection
        self._pools = pools
        self._codec = codec
        self._embedder = embedder
        self._verifier = verifier
        self._model_set = model_set

    async def __call__(self, upload: Upload, *, top_k: int, classes: frozenset[str] | None, deadline: Deadline) -> Answer:
        """The best `top_k`, SHORTLIST at most, of all classes or of `classes`.

        InvalidInput for a name in `classes` that is not enrolled.
        """
        served = self._collection.served_with(classes)
        return await self._classify(upload, served, top_k, classes, deadline)

    async def batch(
        self, uploads: Sequence[Upload], *, top_k: int, classes: frozenset[str] | None, deadline: Deadline
    ) -> list[Answer | FirstsightError]:
        """One answer or error for each picture, in their order; they share no fate but the `classes` filter."""
        served = self._collection.served_with(classes)

        async def classify(upload: Upload) -> Answer | FirstsightError:
            try:
                return await self._classify(upload, served, top_k, classes, deadline)
            except FirstsightError as error:
                return error

        return await self._pools.for_each(uploads, classify)

    async def _classify(
        self, upload: Upload, served: Served, top_k: int, classes: frozenset[str] | None, deadline: Deadline
    ) -> Answer:
        asked = await self._pools.decode(self._decode, upload, deadline=deadline)
        return await self._pools.infer(self._answer, asked, served, top_k, classes, deadline=deadline)

    def _decode(self, upload: Upload) -> _Asked:
        with stage("decode"):
            side_px = self._embedder.side_px
            wanted_px = max(OVERSAMPLING * side_px, self._verifier.wanted_px)
            picture = self._codec.decode(upload.data, box=upload.box, wanted_px=wanted_px, field=upload.field)
            return _Asked(picture.pixels, picture.box, self._codec.resize(picture.pixels, side_px))

    def _answer(self, asked: _Asked, served: Served, top_k: int, classes: frozenset[str] | None) -> Answer:
        with stage("embed"):
            query = self._embedder(asked.square[np.newaxis]).embedding[0]  # (d,)
        with stage("search"):
            scored = served.best_classes(query, SHORTLIST, classes)
        ranked = self._ranked(asked.pixels, query, scored, served, classes)
        with stage("decide"):
            outcome, decision, reason = decide(ranked, self._model_set.calibration)
            best = [_with_evidence(one, query, served, asked.region) for one in ranked[:top_k]]
        return Answer(
            outcome=outcome,
            decision=decision,
            reason=reason,
            candidates=tuple(best),
            version=served.gallery.version,
            model=self._model_set.id,
        )

    def _ranked(
        self, pixels: PixelArray, query: FloatArray, scored: Scored, served: Served, classes: frozenset[str] | None
    ) -> list[Ranked]:
        calibration = self._model_set.calibration
        competing = len(served.gallery) if classes is None else len(classes)
        by_look = rank(scored, NO_FINDS, calibration, classes=competing)
        if not self._verifier.may_change(by_look, served):
            return by_look
        finds = self._verifier.finds(pixels, query, [one.candidate.class_name for one in by_look], served, classes)
        with stage("search"):
            voted = served.gallery.similarities_to(query, finds.keys() - {state.name for state, _ in scored})
        return rank(scored + voted, finds, calibration, classes=competing)


def _with_evidence(one: Ranked, query: FloatArray, served: Served, region: Box) -> Candidate:
    examples = served.gallery[one.candidate.class_name].examples
    return replace(one.candidate, evidence=evidence_of(query, examples, one.found, region))
