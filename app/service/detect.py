"""One scene -> views of it -> places where print of an example is seen -> each asked as a picture of its own -> detections.

A view shows several things, and its points vote for all of them at once. So what is seen in it only says where to look; what a
thing is, and how sure that is, is decided as in classification, by the pixels of its place alone. Views and places are jobs of
their own, so that a large scene is looked at by several threads, and waits its turn among other requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np

from app.domain.boxes import MIN_SIDE_PX
from app.domain.decision import Ranked, evidence_of, rank, verified_of
from app.domain.detection import (
    TILINGS,
    VIEW_PX,
    Detection,
    Detections,
    Judged,
    Place,
    Sighting,
    Tiles,
    box_of,
    finds_at,
    judge,
    places_of,
    seen_from,
)
from app.domain.model_set import ModelSet
from app.domain.prints import Vote
from app.domain.values import Box, Example, FloatArray, PixelArray, Points, Upload
from app.domain.verification import AskedPoints, Found, Proof, extent_of
from app.domain.views import crop
from app.service.collection import Collection
from app.service.embed import PictureCodec
from app.service.follow import Served
from app.service.pools import Deadline, Pools, stage
from app.service.ports import Embedder, PointFinder
from app.service.verify import Verifier

MOST_POINTS = 900  # of a view
VOTED = 30  # examples looked for in a view
MOST_INSTANCES = 20  # of one example in a view
MOST_REPEATS = 40  # sightings in a view beside the first of each example: a texture is seen without end
MOST_SIGHTINGS = 150  # of all views, compared with each other
MOST_PLACES = 30  # asked as pictures of their own, those seen most strongly


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What is asked of one picture, decoded."""

    pixels: PixelArray  # (h, w, 3) of the region, often smaller than it
    region: Box  # in the upright picture
    width: int  # of the whole upright picture
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of `pixels`."""
        height, width = self.pixels.shape[:2]
        return width, height

    def seen(self, view: Box, found: Found) -> Found:
        """From longest sides of a part of `pixels` to those of all of it."""
        return seen_from(view, found, max(self.shape))


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A class at a place."""

    query: FloatArray  # (d,) of the place
    ranked: Ranked


class Detect:
    def __init__(
        self,
        *,
        collection: Collection,
        pools: Pools,
        codec: PictureCodec,
        embedder: Embedder,
        find_points: PointFinder,
        verifier: Verifier,
        verifies: bool,
        model_set: ModelSet,
    ) -> None:
        """Unless it `verifies`, nothing is found: there is no other way to find things yet."""
        self._collection = collection
        self._pools = pools
        self._codec = codec
        self._embedder = embedder
        self._find_points = find_points
        self._verifier = verifier
        self._verifies = verifies
        self._model_set = model_set

    async def __call__(
        self, upload: Upload, *, max_detections: int, classes: frozenset[str] | None, tiles: Tiles, deadline: Deadline
    ) -> Detections:
        """The most probable `max_detections` things of all classes, or of `classes`, that a scene shows.

        InvalidInput for a name in `classes` that is not enrolled.
        """
        served = self._collection.served_with(classes)
        scene = await self._pools.decode(self._decode, upload, tiles, deadline=deadline)

        async def look(view: Box) -> list[Sighting]:
            return await self._pools.infer(self._look, scene, view, served, classes, deadline=deadline)

        async def ask(place: Place) -> list[_Candidate]:
            return await self._pools.infer(self._ask, scene, place, served, classes, deadline=deadline)

        views = TILINGS[tiles].views(*scene.shape) if self._verifies and served.prints.parts else []
        seen = await self._pools.for_each(views, look)
        places = await self._pools.infer(self._places, seen, deadline=deadline)
        found = await self._pools.for_each(places, ask)
        shown = await self._pools.infer(self._shown, scene, found, served, max_detections, deadline=deadline)
        return Detections(scene.width, scene.height, served.gallery.version, self._model_set.id, shown)

    def _decode(self, upload: Upload, tiles: Tiles) -> _Scene:
        with stage("decode"):
            wanted_px = TILINGS[tiles].wanted_px
            picture = self._codec.decode(upload.data, box=upload.box, wanted_px=wanted_px, field=upload.field)
            return _Scene(picture.pixels, picture.box, picture.width, picture.height)

    def _look(self, scene: _Scene, view: Box, served: Served, classes: frozenset[str] | None) -> list[Sighting]:
        """What a view (in pixels of the scene) shows of the examples that its points vote for."""
        with stage("points"):
            points = self._find_points(crop(scene.pixels, view), side_px=VIEW_PX, most=MOST_POINTS, sharpen=True)
        with stage("vote"):
            votes = served.prints.vote(points, VOTED, classes)
        with stage("verify"):
            return [Sighting(one.class_name, scene.seen(view, one.found)) for one in self._sightings(points, votes)]

    def _sightings(self, points: Points, votes: Sequence[Vote]) -> Iterator[Sighting]:
        asked = AskedPoints(points)
        proofs = _proofs(asked, [vote.printed.example for vote in votes])
        first = [
            Sighting(vote.printed.class_name, Found(vote.printed.example, proof, vote.share))
            for vote, proof in zip(votes, proofs, strict=True)
            if proof is not None
        ]
        strong = sorted(filter(self._is_strong, first), key=self._by_points, reverse=True)
        repeats = chain.from_iterable(self._repeats(asked, sighting) for sighting in strong)
        return chain(strong, islice(repeats, MOST_REPEATS))

    def _repeats(self, asked: AskedPoints, sighting: Sighting) -> Iterator[Sighting]:
        """The same example again, each time among the points that are left."""
        found = sighting.found
        for _ in range(MOST_INSTANCES - 1):
            asked = asked.without(found.proof.used)
            (proof,) = _proofs(asked, [found.example])
            if proof is None:
                return
            found = Found(found.example, proof, found.votes)
            again = Sighting(sighting.class_name, found)
            if not self._is_strong(again):
                return
            yield again

    def _by_points(self, sighting: Sighting) -> float:
        return self._model_set.calibration.proof.by_points(sighting.found)

    def _is_strong(self, sighting: Sighting) -> bool:
        """Whether it is worth another look."""
        return self._by_points(sighting) >= self._model_set.calibration.proof.looked_from

    def _places(self, seen: Sequence[Sequence[Sighting]]) -> list[Place]:
        with stage("decide"):
            strongest = sorted(chain.from_iterable(seen), key=self._by_points, reverse=True)
            return places_of(strongest[:MOST_SIGHTINGS], MOST_PLACES)

    def _ask(self, scene: _Scene, place: Place, served: Served, classes: frozenset[str] | None) -> list[_Candidate]:
        """Which classes a place shows, by the same steps as a picture of it would be classified."""
        box = box_of(place.quad * max(scene.shape), *scene.shape)
        if min(box.width, box.height) < MIN_SIDE_PX:
            return []
        pixels = crop(scene.pixels, box)
        with stage("embed"):
            query = self._embedder(self._codec.resize(pixels, self._embedder.side_px)[np.newaxis]).embedding[0]  # (d,)
        in_box = self._verifier.finds(pixels, query, place.class_names, served, classes)
        in_scene = {name: [scene.seen(box, found) for found in several] for name, several in in_box.items()}
        with stage("verify"):
            finds = finds_at(place, in_scene, self._model_set.calibration.proof)
        with stage("search"):
            scored = served.gallery.similarities_to(query, finds.keys())
        with stage("decide"):
            competing = len(served.gallery) if classes is None else len(classes)
            ranked = rank(scored, finds, self._model_set.calibration, classes=competing)
            line = self._model_set.calibration.proof.doubtful_line
            return [_Candidate(query, one) for one in ranked if one.strength >= line]

    def _shown(
        self, scene: _Scene, found: Sequence[Sequence[_Candidate]], served: Served, max_detections: int
    ) -> tuple[Detection, ...]:
        with stage("decide"):
            candidates = list(chain.from_iterable(found))
            judged = judge([candidate.ranked for candidate in candidates], self._model_set.calibration)
            return tuple(_detection_of(candidates[one.position], one, served, scene) for one in judged[:max_detections])


def _proofs(asked: AskedPoints, examples: Sequence[Example]) -> list[Proof | None]:
    return asked.proofs([example.points for example in examples], [extent_of(example.box) for example in examples])


def _detection_of(candidate: _Candidate, judged: Judged, served: Served, scene: _Scene) -> Detection:
    ranked = candidate.ranked
    of_class = ranked.candidate
    quad = verified_of(ranked.found[0].proof, scene.region).quad
    return Detection(
        class_name=of_class.class_name,
        box=box_of(quad, scene.width, scene.height),
        similarity=of_class.similarity,
        probability=of_class.probability,
        outcome=judged.outcome,
        reason=judged.reason,
        accepted=of_class.accepted,
        threshold=of_class.threshold,
        quad=quad,
        evidence=evidence_of(candidate.query, served.gallery[of_class.class_name].examples, ranked.found, scene.region),
    )
