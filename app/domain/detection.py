"""Things in a scene: where to look for them, which of many proofs and boxes speak of one place, and which class is there.

One thing is proved many times over: by several examples of its class, in overlapping tiles, and by classes that share its print.
A detector, where there is one, sees it too, and what has no print it alone sees. Callers cap what comes in, so that quads may be
compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.domain.calibration import ProofCalibration, RegionCalibration, probability_of
from app.domain.decision import SAME_PLACE, Ranked, rank
from app.domain.model_set import ModelSet
from app.domain.posterior import SAME_BOX, probability_at
from app.domain.values import Box, ClassState, Evidence, FloatArray, Outcome, Reason
from app.domain.verification import NO_FINDS, Finds, Found, clipped, overlap, polygon_area

DoubleArray = NDArray[np.float64]
Quad = tuple[tuple[float, float], ...]

Tiles = Literal["auto", "on", "off"]

VIEW_PX = 512  # longest side at which a view of a scene is looked at
TILED_FROM_PX = 768  # longest side from which `auto` has tiles: up to there they would show little that the overview does not
TILE_OVERLAP = 0.25  # of a tile's side: what is not larger than that is whole in one of them
SAME_THING = 0.5  # of the smaller of two quads of one class, the share inside the other from which both show one thing

SAME_POINTS = 0.5  # of the points of a proof, the share that a stronger one of something else has used


@dataclass(frozen=True, slots=True)
class Tiling:
    """How finely a scene is looked at."""

    a_side: int  # tiles along the longest side, at most
    tile_px: int  # no tile is smaller
    from_px: int  # longest side from which there are tiles beside the overview

    @property
    def wanted_px(self) -> int:
        """Longest side that a picture should be decoded to, for each tile to be looked at in full."""
        return math.ceil(VIEW_PX * self._tiles_long)

    @property
    def _tiles_long(self) -> float:
        return self.a_side - (self.a_side - 1) * TILE_OVERLAP

    def views(self, width: int, height: int) -> list[Box]:
        """The whole of a picture, then its tiles."""
        whole, longest = Box(0, 0, width, height), max(width, height)
        if self.a_side == 1 or longest <= self.from_px:
            return [whole]
        side = max(self.tile_px, math.ceil(longest / self._tiles_long))
        tiles = [Box(x, y, min(side, width), min(side, height)) for y, x in product(_starts(height, side), _starts(width, side))]
        return list(dict.fromkeys([whole, *tiles]))


TILINGS: dict[Tiles, Tiling] = {
    "off": Tiling(a_side=1, tile_px=VIEW_PX, from_px=0),
    "auto": Tiling(a_side=2, tile_px=VIEW_PX, from_px=TILED_FROM_PX),
    "on": Tiling(a_side=3, tile_px=VIEW_PX // 2, from_px=0),
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """An example of a class, seen somewhere in a scene."""

    class_name: str
    found: Found


@dataclass(frozen=True, slots=True, eq=False)
class SeenRegion:
    """A box of a scene in which a detector sees a thing."""

    quad: DoubleArray  # (4, 2) corners of the box
    objectness: float  # 0 to 1
    embedding: FloatArray  # (e,) in the detector's space


@dataclass(frozen=True, slots=True, eq=False)
class Spotting:
    """A box of a scene in which a detector sees a thing, and the classes that it is nearest to."""

    class_names: tuple[str, ...]  # one or more, nearest first
    region: SeenRegion


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where something was seen that may be a thing of any of these classes."""

    quad: DoubleArray  # (4, 2) of a proof, or else of the region
    class_names: tuple[str, ...]  # the first is the one whose quad it is
    region: SeenRegion | None = None  # what a detector sees there
    is_box: bool = False  # it is a detector's: nothing is proved, and others lie in it as their hulls do

    def shows(self, class_name: str, quad: DoubleArray) -> bool:
        return _shows(self.class_names[0], self.quad, class_name, _hull(quad) if self.is_box else quad)

    def shows_region(self, region: SeenRegion) -> bool:
        """What lies inside another box may be a thing of its own: only the shapes say, as long as nobody knows what it is."""
        return _is_one_place(_hull(self.quad), region.quad, SAME_BOX if self.is_box else SAME_PLACE)

    def seen_as(self, spotting: Spotting) -> Place:
        """With classes that it may be too. The first region is the one that counts: the likeliest."""
        names = dict.fromkeys((*self.class_names, *spotting.class_names))
        return replace(self, class_names=tuple(names), region=self.region or spotting.region)


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A class that a place may show, and where exactly."""

    ranked: Ranked
    quad: DoubleArray  # (4, 2) of its strongest proof; of a detector's box where nothing is proved

    @property
    def is_box(self) -> bool:
        return not self.ranked.found

    @property
    def class_name(self) -> str:
        return self.ranked.candidate.class_name


@dataclass(frozen=True, slots=True)
class SeenClass:
    """A class at a place, by what is known of it without a proof."""

    look: Ranked  # by the embedding of the pixels of the place alone
    lead: float  # similarity by which it is ahead of the nearest of other classes and of strangers
    posterior: float  # of the class in the detector's space, 0 to 1
    objectness: float  # of the place's region, 0 to 1


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a candidate for one place."""

    position: int  # among those that were judged
    outcome: Outcome
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Detection:
    class_name: str
    box: Box  # upright hull of the quad, or what the detector sees; clipped to the picture
    similarity: float  # of what is there, -1 to 1
    probability: float  # 0 to 1, calibrated
    outcome: Outcome  # match or doubtful
    reason: Reason | None  # why it is no match
    accepted: bool
    threshold: float
    quad: Quad | None  # may reach outside of the picture; None where nothing is proved
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Detections:
    """What /detect says of one scene."""

    width: int  # of the whole upright picture
    height: int
    version: int  # of the gallery that was asked
    model: str  # id of the model set
    detections: tuple[Detection, ...]  # most probable first

    @property
    def outcome(self) -> Outcome:
        """Of the scene: the best there is in it."""
        found = {detection.outcome for detection in self.detections}
        return next((outcome for outcome in (Outcome.MATCH, Outcome.DOUBTFUL) if outcome in found), Outcome.UNKNOWN)


def seen_from(view: Box, found: Found, longest: int) -> Found:
    """From longest sides of a view to those of the picture around it; `longest` is the picture's, in pixels as `view` has."""
    quad = (np.array([view.x, view.y]) + found.proof.quad * max(view.width, view.height)) / longest
    return replace(found, proof=replace(found.proof, quad=quad))


def places_of(sightings: Iterable[Sighting], most: int) -> list[Place]:
    """Sightings, strongest first -> the first `most` places where something was seen, each with all classes that it may be."""
    places: list[Place] = []
    for sighting in sightings:
        name, quad = sighting.class_name, sighting.found.proof.quad
        known = next((position for position, place in enumerate(places) if place.shows(name, quad)), None)
        if known is None:
            places.append(Place(quad, (name,)))
        elif name not in places[known].class_names:
            places[known] = replace(places[known], class_names=(*places[known].class_names, name))
    return places[:most]


def corners_of(boxes: FloatArray, view: Box, longest: int) -> DoubleArray:
    """Boxes (m, 4) in pixels of a view -> quads (m, 4, 2) in longest sides of the picture around it, as in `seen_from`."""
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64)
    return np.asarray((corners + np.array([view.x, view.y])) / longest)


def with_regions(places: Sequence[Place], spottings: Iterable[Spotting], most: int) -> list[Place]:
    """Places of proofs, and what a detector sees, likeliest first -> the same with regions, and `most` new ones after them."""
    joined = list(places)
    for spotting in spottings:
        known = next((position for position, place in enumerate(joined) if place.shows_region(spotting.region)), None)
        if known is not None:
            joined[known] = joined[known].seen_as(spotting)
        elif len(joined) < len(places) + most:
            joined.append(Place(spotting.region.quad, spotting.class_names, spotting.region, is_box=True))
    return joined


def placed_at(
    place: Place,
    scored: Sequence[tuple[ClassState, float]],
    finds: Finds,
    region_similarities: Mapping[str, float],
    model_set: ModelSet,
    *,
    classes: int,
    strangers: float,
) -> list[Placed]:
    """The classes of a place that are worth a person's look.

    Given are classes with their similarities to its pixels, what of their print was found there, and how near its region is to
    those that the detector knows. `classes` is the number of all that competed, `strangers` how alike its pixels are to the
    nearest of the cohort. The region counts beside the look where nothing
    is proved; what a proof says it may raise, never lower.
    """
    proofs, detector = model_set.calibration.proof, model_set.detector
    ranked = rank(scored, finds, model_set.calibration, classes=classes)
    proved = {one.candidate.class_name: one for one in ranked if one.strength >= proofs.doubtful_line}
    if place.region is None or detector is None:
        return [Placed(one, one.found[0].proof.quad) for one in proved.values()]
    known = seen_at(place, scored, region_similarities, model_set, classes=classes, strangers=strangers)
    seen = _by_region(known, scored, detector.calibration)
    raised = [Placed(_raised(one, seen.pop(name, None)), one.found[0].proof.quad) for name, one in proved.items()]
    return raised + [
        Placed(one, place.region.quad) for one in seen.values() if one.log_odds >= detector.calibration.doubtful_line
    ]


def seen_at(
    place: Place,
    scored: Sequence[tuple[ClassState, float]],
    region_similarities: Mapping[str, float],
    model_set: ModelSet,
    *,
    classes: int,
    strangers: float,
) -> list[SeenClass]:
    """What is known without a proof of the classes of a place that the detector knows. Arguments as of `placed_at`.

    Many places show nothing that is enrolled, and what such a place looks like says little: it has a nearest class all the same.
    How far that is ahead says more.
    """
    if place.region is None or model_set.detector is None:
        return []
    width, objectness = model_set.detector.width, place.region.objectness
    leads = _leads(scored, strangers)
    return [
        SeenClass(look, leads[name], probability_at(region_similarities[name], width), objectness)
        for look in rank(scored, NO_FINDS, model_set.calibration, classes=classes)
        if (name := look.candidate.class_name) in region_similarities
    ]


def _leads(scored: Sequence[tuple[ClassState, float]], strangers: float) -> dict[str, float]:
    """By name, how far each class is ahead of the nearest of the others and of strangers; negative behind it."""
    nearest, second = sorted([*(similarity for _, similarity in scored), strangers, -1.0], reverse=True)[:2]
    return {state.name: similarity - (second if similarity == nearest else nearest) for state, similarity in scored}


def _by_region(
    seen: Sequence[SeenClass], scored: Sequence[tuple[ClassState, float]], calibration: RegionCalibration
) -> dict[str, Ranked]:
    """By name, the classes of a place by its look and its region together."""
    thresholds, ranked = {state.name: state.user_threshold for state, _ in scored}, {}
    for one in seen:
        name = one.look.candidate.class_name
        log_odds = calibration.log_odds(one.look.log_odds, lead=one.lead, posterior=one.posterior, objectness=one.objectness)
        # What a user asks of the similarity of a class holds here, too; the computed threshold is a part of the log-odds.
        threshold = thresholds[name]
        is_alike = threshold is None or one.look.candidate.similarity >= threshold
        ranked[name] = _with_log_odds(one.look, log_odds, accepted=is_alike and log_odds >= calibration.line)
    return ranked


def finds_at(place: Place, finds: Finds, calibration: ProofCalibration) -> dict[str, list[Found]]:
    """What was found at a place, of all that was found in its pixels, less what is explained by something else there."""
    everything = [(name, found) for name, several in finds.items() for found in several]
    kept: dict[str, list[Found]] = {}
    for name, found in everything:
        others = [other for other_name, other in everything if other_name != name]
        if place.shows(name, found.proof.quad) and not any(_explains(other, found, calibration) for other in others):
            kept.setdefault(name, []).append(found)
    return kept


def judge(placed: Sequence[Placed], model_set: ModelSet) -> list[Judged]:
    """Candidates -> the best of each place, and those that cannot be told from it; most probable first."""
    kept: list[int] = []
    ambiguous: set[int] = set()
    for position in sorted(range(len(placed)), key=lambda position: _order_at_a_place(placed[position].ranked)):
        better = [other for other in kept if _are_at_one_place(placed[other], placed[position])]
        if all(_cannot_be_told_apart(placed[other], placed[position], model_set) for other in better):
            kept.append(position)
            ambiguous |= {position, *better} if better else set()
    judged = [_judged(position, placed[position].ranked, position in ambiguous) for position in kept]
    return sorted(judged, key=lambda one: (-placed[one.position].ranked.log_odds, placed[one.position].class_name))


def box_of(quad: Quad | DoubleArray, width: int, height: int) -> Box:
    """The upright hull of a quad (4, 2) to the nearest pixel, clipped to a picture that it lies in; a pixel at least."""
    corners = np.rint(np.asarray(quad)).astype(np.int64)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    x, y = _within(left, width - 1), _within(top, height - 1)
    return Box(x, y, max(1, _within(right, width) - x), max(1, _within(bottom, height) - y))


def _within(place: int, most: int) -> int:
    return min(max(place, 0), most)


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of a side begin on a length, evenly."""
    lap = TILE_OVERLAP * side
    count = max(1, math.ceil((length - lap) / (side - lap)))
    return [round(number * (length - side) / (count - 1)) for number in range(count)] if count > 1 else [0]


def _is_one_thing(one: DoubleArray, other: DoubleArray) -> bool:
    """Of one class: a part of a thing that looks like the whole is not a second one."""
    smaller = min(polygon_area(one), polygon_area(other))
    return _are_near(one, other) and polygon_area(clipped(one, other)) > SAME_THING * smaller


def _is_one_place(one: DoubleArray, other: DoubleArray, most: float = SAME_PLACE) -> bool:
    """Of two classes, or where nobody knows yet: a mark on a package is where the package is, and another thing."""
    return _are_near(one, other) and overlap(one, other) > most


def _with_log_odds(one: Ranked, log_odds: float, *, accepted: bool) -> Ranked:
    candidate = replace(one.candidate, probability=probability_of(log_odds), accepted=accepted)
    return replace(one, candidate=candidate, log_odds=log_odds)


def _raised(proved: Ranked, seen: Ranked | None) -> Ranked:
    if seen is None:
        return proved
    log_odds, accepted = max(proved.log_odds, seen.log_odds), proved.candidate.accepted or seen.candidate.accepted
    return _with_log_odds(proved, log_odds, accepted=accepted)


def _shows(class_name: str, quad: DoubleArray, other_name: str, other: DoubleArray) -> bool:
    return _is_one_thing(quad, other) if other_name == class_name else _is_one_place(quad, other)


def _hull(quad: DoubleArray) -> DoubleArray:
    """Upright, (4, 2)."""
    (left, top), (right, bottom) = quad.min(axis=0), quad.max(axis=0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _explains(other: Found, found: Found, calibration: ProofCalibration) -> bool:
    """Whether the same points prove another class better, elsewhere: a part of the print of one thing stands on many others."""
    used = found.proof.used
    return (
        calibration.by_points(other) > calibration.by_points(found)
        and not _is_one_place(other.proof.quad, found.proof.quad)
        and np.isin(used, other.proof.used).sum() > SAME_POINTS * len(used)
    )


def _are_near(one: DoubleArray, other: DoubleArray) -> bool:
    """Whether the upright hulls touch: most do not, and that is quickly said."""
    return bool((one.max(axis=0) > other.min(axis=0)).all() and (other.max(axis=0) > one.min(axis=0)).all())


def _are_at_one_place(one: Placed, other: Placed) -> bool:
    quads = one.quad, other.quad
    if one.is_box or other.is_box:
        quads = _hull(one.quad), _hull(other.quad)
    return _shows(one.class_name, quads[0], other.class_name, quads[1])


def _order_at_a_place(one: Ranked) -> tuple[bool, float, str]:
    return not one.proved, -one.log_odds, one.candidate.class_name


def _cannot_be_told_apart(best: Placed, other: Placed, model_set: ModelSet) -> bool:
    if best.class_name == other.class_name:
        return False
    # A proof decides between looks that are alike, and what is accepted over what is not.
    one, two = best.ranked, other.ranked
    alike = (one.proved, one.candidate.accepted) == (two.proved, two.candidate.accepted)
    margin = model_set.calibration.proof.ambiguous_margin
    if model_set.detector is not None and best.is_box and other.is_box:
        margin = model_set.detector.calibration.ambiguous_margin
    return alike and one.log_odds - two.log_odds < margin


def _judged(position: int, one: Ranked, is_ambiguous: bool) -> Judged:
    if not one.candidate.accepted:
        return Judged(position, Outcome.DOUBTFUL, Reason.BELOW_THRESHOLD)
    return Judged(position, Outcome.DOUBTFUL, Reason.AMBIGUOUS) if is_ambiguous else Judged(position, Outcome.MATCH, None)
