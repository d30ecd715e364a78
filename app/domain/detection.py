"""Things in a scene: where to look for them, which of many proofs speak of one place, and which class is there.

One thing is proved many times over: by several examples of its class, in overlapping tiles, and by classes that share its print.
Callers cap what comes in, so that quads may be compared pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.domain.calibration import Calibration, ProofCalibration
from app.domain.decision import SAME_PLACE, Ranked
from app.domain.values import Box, Evidence, Outcome, Reason
from app.domain.verification import Finds, Found, clipped, overlap, polygon_area

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
class Place:
    """Where something was seen that may be a thing of any of these classes."""

    quad: DoubleArray  # (4, 2)
    class_names: tuple[str, ...]  # the first is the one whose quad it is

    def shows(self, class_name: str, quad: DoubleArray) -> bool:
        return _is_one_thing(self.quad, quad) if class_name == self.class_names[0] else _is_one_place(self.quad, quad)


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a candidate for one place."""

    position: int  # among those that were judged
    outcome: Outcome
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Detection:
    class_name: str
    box: Box  # upright hull of the quad, clipped to the picture
    similarity: float  # of what is there, -1 to 1
    probability: float  # 0 to 1, calibrated
    outcome: Outcome  # match or doubtful
    reason: Reason | None  # why it is no match
    accepted: bool
    threshold: float
    quad: Quad | None  # may reach outside of the picture
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


def finds_at(place: Place, finds: Finds, calibration: ProofCalibration) -> dict[str, list[Found]]:
    """What was found at a place, of all that was found in its pixels, less what is explained by something else there."""
    everything = [(name, found) for name, several in finds.items() for found in several]
    kept: dict[str, list[Found]] = {}
    for name, found in everything:
        others = [other for other_name, other in everything if other_name != name]
        if place.shows(name, found.proof.quad) and not any(_explains(other, found, calibration) for other in others):
            kept.setdefault(name, []).append(found)
    return kept


def judge(ranked: Sequence[Ranked], calibration: Calibration) -> list[Judged]:
    """Candidates with a proof each -> the best of each place, and those that cannot be told from it; most probable first."""
    kept: list[int] = []
    ambiguous: set[int] = set()
    for position in sorted(range(len(ranked)), key=lambda position: _order_at_a_place(ranked[position])):
        better = [other for other in kept if _are_at_one_place(ranked[other], ranked[position])]
        if all(_cannot_be_told_apart(ranked[other], ranked[position], calibration) for other in better):
            kept.append(position)
            ambiguous |= {position, *better} if better else set()
    judged = [_judged(position, ranked[position], position in ambiguous) for position in kept]
    return sorted(judged, key=lambda one: (-ranked[one.position].log_odds, ranked[one.position].candidate.class_name))


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


def _is_one_place(one: DoubleArray, other: DoubleArray) -> bool:
    """Of two classes: a mark on a package is where the package is, and another thing."""
    return _are_near(one, other) and overlap(one, other) > SAME_PLACE


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


def _are_at_one_place(one: Ranked, other: Ranked) -> bool:
    is_one = _is_one_thing if one.candidate.class_name == other.candidate.class_name else _is_one_place
    return is_one(one.found[0].proof.quad, other.found[0].proof.quad)


def _order_at_a_place(one: Ranked) -> tuple[bool, float, str]:
    return not one.proved, -one.log_odds, one.candidate.class_name


def _cannot_be_told_apart(best: Ranked, other: Ranked, calibration: Calibration) -> bool:
    if best.candidate.class_name == other.candidate.class_name:
        return False
    # A proof decides between looks that are alike, and what is accepted over what is not.
    alike = (best.proved, best.candidate.accepted) == (other.proved, other.candidate.accepted)
    return alike and best.log_odds - other.log_odds < calibration.proof.ambiguous_margin


def _judged(position: int, one: Ranked, is_ambiguous: bool) -> Judged:
    if not one.candidate.accepted:
        return Judged(position, Outcome.DOUBTFUL, Reason.BELOW_THRESHOLD)
    return Judged(position, Outcome.DOUBTFUL, Reason.AMBIGUOUS) if is_ambiguous else Judged(position, Outcome.MATCH, None)
