"""One scene -> views of it -> places where an example is seen -> each asked as a picture of its own -> detections.

Examples are seen by their print, and by a detector where the model set has one. A view shows several things, and its points vote
for all of them at once; a detector knows no class. So what is seen in a view only says where to look; what a thing is, and how
sure that is, is decided as in classification, by the pixels of its place alone. Views and places are jobs of their own, so that a
large scene is looked at by several threads, and waits its turn among other requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np

from app.domain.boxes import MIN_SIDE_PX
from app.domain.decision import evidence_of, verified_of
from app.domain.detection import (
    TILINGS,
    VIEW_PX,
    Detection,
    Detections,
    DoubleArray,
    Judged,
    Place,
    Placed,
    Quad,
    Sighting,
    Spotting,
    Tiles,
    box_of,
    finds_at,
    judge,
    placed_at,
    places_of,
    seen_from,
    with_regions,
)
from app.domain.model_set import ModelSet
from app.domain.prints import Vote
from app.domain.values import Box, Example, FloatArray, PixelArray, Points, Upload
from app.domain.verification import NO_FINDS, AskedPoints, Finds, Found, Proof, extent_of
from app.domain.views import crop
from app.service.collection import Collection
from app.service.embed import PictureCodec
from app.service.follow import Served
from app.service.pools import Deadline, Pools, stage
from app.service.ports import Embedder, PointFinder
from app.service.spot import Spotter
from app.service.verify import ALIKE, Verifier

MOST_POINTS = 900  # of a view
VOTED = 30  # examples looked for in a view
MOST_INSTANCES = 20  # of one example in a view
MOST_REPEATS = 40  # sightings in a view beside the first of each example: a texture is seen without end
MOST_SIGHTINGS = 150  # of all views, compared with each other; and as many of the detector's
MOST_PLACES = 30  # asked as pictures of their own, those seen most strongly
MOST_UNPROVED_PLACES = 20  # and of those that only the detector sees


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

    def in_picture(self, quad: DoubleArray) -> Quad:
        """From longest sides of `pixels` to pixels of the whole picture."""
        longest = max(self.region.width, self.region.height)
        return tuple((self.region.x + x * longest, self.region.y + y * longest) for x, y in quad.tolist())


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A class at a place."""

    query: FloatArray  # (d,) of the place
    placed: Placed


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen in a view."""

    sightings: Sequence[Sighting] = ()  # by its print
    spottings: Sequence[Spotting] = ()  # by the detector


_See = Callable[[_Scene, Box, Served, frozenset[str] | None], _Seen]


class Detect:
    def __init__(
        self,
        *,
        collection: Collection,
        pools: Pools,
        codec: PictureCodec,
        embedder: Embedder,
        find_points: PointFinder,
        spotter: Spotter | None,
        verifier: Verifier,
        verifies: bool,
        model_set: ModelSet,
    ) -> None:
        """Unless it `verifies`, only what the `spotter` sees is found; without one, only what is verified."""
        self._collection = collection
        self._pools = pools
        self._codec = codec
        self._embedder = embedder
        self._find_points = find_points
        self._spotter = spotter
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

        async def look(view: Box, see: _See) -> _Seen:
            return await self._pools.infer(see, scene, view, served, classes, deadline=deadline)

        async def ask(place: Place) -> list[_Candidate]:
            return await self._pools.infer(self._ask, scene, place, served, classes, deadline=deadline)

        views = TILINGS[tiles].views(*scene.shape)
        looks = [(view, see) for see in self._ways_to_see(served, len(views)) for view in views]
        seen = await self._pools.for_each(looks, lambda each: look(*each))
        places = await self._pools.infer(self._places, seen, deadline=deadline)
        found = await self._pools.for_each(places, ask)
        shown = await self._pools.infer(self._shown, scene, found, served, max_detections, deadline=deadline)
        return Detections(scene.width, scene.height, served.gallery.version, self._model_set.id, shown)

    def _decode(self, upload: Upload, tiles: Tiles) -> _Scene:
        with stage("decode"):
            wanted_px = TILINGS[tiles].wanted_px
            picture = self._codec.decode(upload.data, box=upload.box, wanted_px=wanted_px, field=upload.field)
            return _Scene(picture.pixels, picture.box, picture.width, picture.height)

    def _ways_to_see(self, served: Served, views: int) -> list[_See]:
        """Those by which something can be seen in a scene of so many views."""
        ways: list[_See] = []
        if self._verifies and served.prints.parts:
            ways.append(self._look)
        if self._spotter is not None and served.gallery.knows_regions:
            ways.append(partial(_spot, self._spotter, views))
        return ways

    def _look(self, scene: _Scene, view: Box, served: Served, classes: frozenset[str] | None) -> _Seen:
        """What a view (in pixels of the scene) shows of the examples that its points vote for."""
        with stage("points"):
            points = self._find_points(crop(scene.pixels, view), side_px=VIEW_PX, most=MOST_POINTS, sharpen=True)
        with stage("vote"):
            votes = served.prints.vote(points, VOTED, classes)
        with stage("verify"):
            sightings = self._sightings(points, votes)
            return _Seen(sightings=[Sighting(one.class_name, scene.seen(view, one.found)) for one in sightings])

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

    def _places(self, seen: Sequence[_Seen]) -> list[Place]:
        with stage("decide"):
            sightings = sorted(chain.from_iterable(one.sightings for one in seen), key=self._by_points, reverse=True)
            spottings = sorted(chain.from_iterable(one.spottings for one in seen), key=_by_objectness, reverse=True)
            places = places_of(sightings[:MOST_SIGHTINGS], MOST_PLACES)
            return with_regions(places, spottings[:MOST_SIGHTINGS], MOST_UNPROVED_PLACES)

    def _ask(self, scene: _Scene, place: Place, served: Served, classes: frozenset[str] | None) -> list[_Candidate]:
        """Which classes a place shows, by the same steps as a picture of it would be classified."""
        box = box_of(place.quad * max(scene.shape), *scene.shape)
        if min(box.width, box.height) < MIN_SIDE_PX:
            return []
        pixels = crop(scene.pixels, box)
        with stage("embed"):
            query = self._embedder(self._codec.resize(pixels, self._embedder.side_px)[np.newaxis]).embedding[0]  # (d,)
        placed_with = partial(self._placed, place, query, served, classes)
        # Print is looked for where it was seen, and where a box may be worth a person's look without it: docs/experiments.md.
        if place.is_box and not placed_with(NO_FINDS):
            return []
        return [_Candidate(query, one) for one in placed_with(self._finds(scene, box, query, place, served, classes))]

    def _placed(
        self, place: Place, query: FloatArray, served: Served, classes: frozenset[str] | None, finds: Finds
    ) -> list[Placed]:
        """The classes that a place may show, by the embedding (d,) of its pixels and what of their print was found in them."""
        with stage("search"):
            names = set(finds)
            seen: Mapping[str, float] = {}
            strangers = 0.0
            if place.region is not None:  # where a thing is, the detector says; what it is, its look says as well
                alike = served.best_classes(query, ALIKE, classes)
                names |= {*place.class_names, *(state.name for state, _ in alike)}
                seen = served.gallery.similarities_at(place.region.embedding, names)
                strangers = self._model_set.nearest_strangers(query)
            scored = served.gallery.similarities_to(query, names)
        with stage("decide"):
            competing = len(served.gallery) if classes is None else len(classes)
            return placed_at(place, scored, finds, seen, self._model_set, classes=competing, strangers=strangers)

    def _finds(
        self, scene: _Scene, box: Box, query: FloatArray, place: Place, served: Served, classes: frozenset[str] | None
    ) -> Finds:
        """What the pixels of a place, those in the box, prove to be there."""
        if not self._verifies or not served.prints.parts:
            return NO_FINDS
        in_box = self._verifier.finds(crop(scene.pixels, box), query, place.class_names, served, classes)
        in_scene = {name: [scene.seen(box, found) for found in several] for name, several in in_box.items()}
        with stage("verify"):
            return finds_at(place, in_scene, self._model_set.calibration.proof)

    def _shown(
        self, scene: _Scene, found: Sequence[Sequence[_Candidate]], served: Served, max_detections: int
    ) -> tuple[Detection, ...]:
        with stage("decide"):
            candidates = list(chain.from_iterable(found))
            judged = judge([candidate.placed for candidate in candidates], self._model_set)
            return tuple(_detection_of(candidates[one.position], one, served, scene) for one in judged[:max_detections])


def _spot(spotter: Spotter, views: int, scene: _Scene, view: Box, served: Served, classes: frozenset[str] | None) -> _Seen:
    """What a detector sees in a view, one of so many."""
    return _Seen(spottings=spotter(scene.pixels, view, views=views, gallery=served.gallery, among=classes))


def _by_objectness(spotting: Spotting) -> float:
    return spotting.region.objectness


def _proofs(asked: AskedPoints, examples: Sequence[Example]) -> list[Proof | None]:
    return asked.proofs([example.points for example in examples], [extent_of(example.box) for example in examples])


def _detection_of(candidate: _Candidate, judged: Judged, served: Served, scene: _Scene) -> Detection:
    ranked = candidate.placed.ranked
    of_class = ranked.candidate
    quad = verified_of(ranked.found[0].proof, scene.region).quad if ranked.found else None
    return Detection(
        class_name=of_class.class_name,
        box=box_of(quad or scene.in_picture(candidate.placed.quad), scene.width, scene.height),
        similarity=of_class.similarity,
        probability=of_class.probability,
        outcome=judged.outcome,
        reason=judged.reason,
        accepted=of_class.accepted,
        threshold=of_class.threshold,
        quad=quad,
        evidence=evidence_of(candidate.query, served.gallery[of_class.class_name].examples, ranked.found, scene.region),
    )
