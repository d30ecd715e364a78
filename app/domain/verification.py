"""Do the points of a picture lie as those of an example do? Matches -> transform -> verified points, coverage, quad.

One match of two points, each with position, size and angle, fixes a similarity transform; so every match is tried as a
hypothesis, all at once, instead of drawing random samples (Philbin et al., CVPR 2007, section 3). For the few dozen matches that
there are this is faster than RANSAC, finds more, and gives the same answer on every replica. The best few are refined to affine
transforms by least squares. The winner is confirmed on points that the ratio test had dropped, and tilted to a homography where
that finds more of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.domain.values import Box, Example, Points

DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LENGTH_SQUARED = 512.0**2  # of a descriptor
RATIO = 0.85  # a match is nearer than this, times the second nearest point of the example
MATCHED_SIMILARITY = 0.7  # of descriptors; what is less alike than this is not compared with the second nearest
MOST_MATCHES = 150  # the best: all hypotheses on all matches cost their square, and a net or a barcode would have hundreds
HYPOTHESES = 5  # refined
LEAST_POINTS = 4  # three points fit any affine transform
TOLERANCES = (0.047, 0.031, 0.023)  # of a match from where the transform puts it, in longest sides of the picture, round by round
ANGLE_TOLERANCE = 0.5  # radians between the rotation of a match and of the hypothesis
SIZE_TOLERANCE = 0.7  # ln of the ratio of their scales
GUIDED_SIMILARITY = 0.85  # of descriptors; a point where the transform puts it needs no ratio test
TILTED_FROM = 8  # points: a homography has two unknowns more than an affine transform, and takes more to be known
TILT_PENALTY = 1e-4  # on its tilt, squared, for each point: a few that are off their place must not tip the plane
LEAST_COVERAGE = 0.02  # share of the example: less is a word of its lettering, which stands on other things too
THINNEST = 0.01  # smallest over largest spread of points; nearly on a line, they leave the transform across it open


@dataclass(frozen=True, slots=True)
class Proof:
    """An example found in a picture."""

    points: int  # of the example, distinct, found where the transform puts them
    coverage: float  # share of the example inside the hull of those points
    agreement: float  # of the picture's points inside the quad, the share that was found too
    quad: DoubleArray  # (4, 2) corners of the example, in longest sides of the picture
    used: IntArray  # (m,) the picture's points that were found: the next instance must do without them


@dataclass(frozen=True, slots=True)
class Found:
    """An example whose print a picture shows."""

    example: Example
    proof: Proof
    votes: float  # share of the votes of the picture's points that its class got
    look: float | None = None  # similarity of what lies in the quad, upright and alone, to the example; None: not looked at


Finds = Mapping[str, Sequence[Found]]  # by class
NO_FINDS: Finds = {}


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """A homography from an example to the picture, both in longest sides."""

    matrix: DoubleArray  # (3, 3)

    def __call__(self, places: DoubleArray) -> DoubleArray:
        """(n, 2) -> (n, 2); points behind the camera come out as infinite."""
        mapped = places @ self.matrix[:, :2].T + self.matrix[:, 2]
        divisor = np.where(mapped[:, 2:] > 0, mapped[:, 2:], np.nan)
        return np.nan_to_num(mapped[:, :2] / divisor, nan=np.inf)


class AskedPoints:
    """A picture's points, laid out once to be compared with many examples."""

    def __init__(self, points: Points) -> None:
        self.descriptors = points.descriptors.astype(np.float32)
        self.frames = _Frames(points)

    def proofs(self, examples: Sequence[Points], extents: Sequence[tuple[float, float]]) -> list[Proof | None]:
        """For each example a proof, or None. `extents`: width and height of the example, in longest sides."""
        if not examples or not len(self.frames.places):
            return [None] * len(examples)
        everything = np.concatenate([points.descriptors for points in examples]).astype(np.float32)
        # Sums of products of bytes stay under 2**24: exact in float32, whatever the order in which a BLAS adds them up.
        similarities = self.descriptors @ everything.T  # (n, all points of all examples)
        ends = np.cumsum([len(points) for points in examples])
        return [
            self._proof(similarities[:, end - len(points) : end], _Frames(points), extent)
            for points, extent, end in zip(examples, extents, ends, strict=True)
        ]

    def without(self, used: IntArray) -> AskedPoints:
        """The same picture, in which these points are like nothing: what was proved by them is not found again."""
        rest = copy(self)
        rest.descriptors = self.descriptors.copy()
        rest.descriptors[used] = 0
        return rest

    def _proof(self, similarities: NDArray[np.float32], example: _Frames, extent: tuple[float, float]) -> Proof | None:
        own, others = matches_of(similarities)
        if len(own) < LEAST_POINTS:
            return None
        best: tuple[int, Transform] | None = None
        for agreeing in _hypotheses(self.frames, example, own, others):
            if len(agreeing) < LEAST_POINTS - 1 or (best is not None and len(agreeing) <= best[0]):
                break
            transform = _refined(self.frames, example, own, others, agreeing)
            if transform is None:
                continue
            fitting = _fitting(transform, self.frames.places[own], example.places[others], TOLERANCES[-1])
            count = min(_count_spots(self.frames, own[fitting]), _count_spots(example, others[fitting]))
            if count >= LEAST_POINTS and (best is None or count > best[0]):
                best = count, transform
        if best is None:
            return None
        return self._confirmed(similarities, example, extent, best[1])

    def _confirmed(
        self, similarities: NDArray[np.float32], example: _Frames, extent: tuple[float, float], transform: Transform
    ) -> Proof | None:
        """Points that the ratio test dropped, because print repeats itself, count where the transform says they belong."""
        own, others = np.nonzero(similarities >= GUIDED_SIMILARITY * LENGTH_SQUARED)
        proof = self._proof_by(transform, own, others, example, extent)
        if proof is None or proof.points < TILTED_FROM:
            return proof
        near = _fitting(transform, self.frames.places[own], example.places[others], TOLERANCES[-1])
        tilted = homography_through(example.places[others[near]], self.frames.places[own[near]])
        better = self._proof_by(tilted, own, others, example, extent)
        return better if better is not None and better.points > proof.points else proof

    def _proof_by(
        self, transform: Transform, own: IntArray, others: IntArray, example: _Frames, extent: tuple[float, float]
    ) -> Proof | None:
        """What a transform makes of points that are alike."""
        quad = transform(_corners(extent))
        if not is_sane(quad):
            return None
        fitting = _fitting(transform, self.frames.places[own], example.places[others], TOLERANCES[-1])
        own, others = own[fitting], others[fitting]
        points = min(_count_spots(self.frames, own), _count_spots(example, others))
        coverage = min(1.0, hull_area(example.places[np.unique(others)]) / (extent[0] * extent[1]))
        if points < LEAST_POINTS or coverage < LEAST_COVERAGE:
            return None
        inside = _inside(quad, self.frames.places)
        used = np.unique(own)
        return Proof(
            points=points,
            coverage=coverage,
            agreement=float(np.isin(np.flatnonzero(inside), used).sum() / max(1, inside.sum())),
            quad=quad,
            used=used,
        )


class _Frames:
    """Places, sizes and angles as numbers: longest sides and radians."""

    def __init__(self, points: Points) -> None:
        measures = points.places.astype(np.float64)
        self.places = measures[:, :2] / 65535  # (n, 2)
        self.spots = points.places[:, 0].astype(np.int64) << 16 | points.places[:, 1]  # (n,) the same for points at one place
        self.sizes = np.maximum(measures[:, 2], 1) / 65535
        self.angles = measures[:, 3] * (2 * np.pi / 65536)


def matches_of(similarities: NDArray[np.float32]) -> tuple[IntArray, IntArray]:
    """Similarities (n, m) of a picture's points to an example's -> positions of points that are alike, by the ratio test."""
    if similarities.shape[1] < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first = similarities.max(axis=1)
    alike = np.flatnonzero(first >= MATCHED_SIMILARITY * LENGTH_SQUARED)
    rows, first, rest = np.arange(len(alike)), first[alike], similarities[alike]
    nearest = rest.argmax(axis=1)
    rest[rows, nearest] = -1
    ratio = np.maximum(LENGTH_SQUARED - first, 1) / np.maximum(LENGTH_SQUARED - rest.max(axis=1), 1)  # of squared distances
    chosen = np.flatnonzero(ratio < RATIO**2)
    chosen = np.sort(chosen[np.argsort(ratio[chosen], kind="stable")[:MOST_MATCHES]])
    return alike[chosen], nearest[chosen]


def _hypotheses(asked: _Frames, example: _Frames, own: IntArray, others: IntArray) -> list[IntArray]:
    """The matches that agree with each of the best hypotheses, most agreed with first."""
    scale = asked.sizes[own] / example.sizes[others]  # (m,)
    turn = asked.angles[own] - example.angles[others]
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    ex, ey = example.places[others].T
    qx, qy = asked.places[own].T
    shift_x, shift_y = qx - (cos * ex - sin * ey), qy - (sin * ex + cos * ey)
    # Row h: where hypothesis h puts each match's point of the example, less where it was found.
    off_x = np.outer(cos, ex) - np.outer(sin, ey) + (shift_x[:, None] - qx)
    off_y = np.outer(sin, ex) + np.outer(cos, ey) + (shift_y[:, None] - qy)
    agreeing = off_x**2 + off_y**2 < TOLERANCES[0] ** 2
    agreeing &= np.abs((turn[:, None] - turn + np.pi) % (2 * np.pi) - np.pi) < ANGLE_TOLERANCE
    agreeing &= np.abs(np.log(scale)[:, None] - np.log(scale)) < SIZE_TOLERANCE
    best = np.argsort(-agreeing.sum(axis=1), kind="stable")[:HYPOTHESES]
    return [np.flatnonzero(agreeing[hypothesis]) for hypothesis in best]


def _refined(asked: _Frames, example: _Frames, own: IntArray, others: IntArray, agreeing: IntArray) -> Transform | None:
    """Least squares on the matches that agree, then on those that agree with that."""
    targets, sources, transform = asked.places[own], example.places[others], None
    for tolerance in (*TOLERANCES[1:], TOLERANCES[-1]):
        if _count_spots(example, others[agreeing]) < LEAST_POINTS - 1:
            return None
        transform = affine_through(sources[agreeing], targets[agreeing])
        if transform is None:
            return None
        agreeing = _fitting(transform, targets, sources, tolerance)
    return transform


def affine_through(sources: DoubleArray, targets: DoubleArray) -> Transform | None:
    """The least-squares affine transform (n, 2) -> (n, 2); None for one that no flat print undergoes."""
    middle, landing = sources.mean(axis=0), targets.mean(axis=0)
    centred = sources - middle
    scatter = centred.T @ centred
    thin, long = _stretches(scatter)
    if thin <= THINNEST * long:
        return None
    # Two by two is written out: the solvers of numpy take ten times as long to begin as to solve it.
    (a, b), (_, d) = scatter.tolist()
    linear = (targets - landing).T @ centred @ np.array([[d, -b], [-b, a]]) / (a * d - b * b)
    least, most = _stretches(linear.T @ linear)
    (a, b), (c, d) = linear.tolist()
    if a * d <= b * c or most > 4 * least or not 0.05 < most < 10:
        return None
    return Transform(np.vstack([np.column_stack([linear, landing - linear @ middle]), [0, 0, 1]]))


def _stretches(squared: DoubleArray) -> tuple[float, float]:
    """The smaller and the larger singular value of a matrix, of which this is the square: symmetric, (2, 2)."""
    (a, b), (_, d) = squared.tolist()
    mean, apart = (a + d) / 2, math.hypot((a - d) / 2, b)
    return math.sqrt(max(0.0, mean - apart)), math.sqrt(mean + apart)


def homography_through(sources: DoubleArray, targets: DoubleArray) -> Transform:
    """The least-squares homography (n, 2) -> (n, 2), its tilt about the middle of the points held small (ridge regression)."""
    middle, count = sources.mean(axis=0), len(sources)
    system = np.zeros((2 * count + 2, 8))
    for axis in range(2):
        rows = system[axis * count : (axis + 1) * count]
        rows[:, 3 * axis : 3 * axis + 2] = sources - middle
        rows[:, 3 * axis + 2] = 1
        rows[:, 6:] = -targets[:, axis, None] * (sources - middle)
    system[-2, 6] = system[-1, 7] = np.sqrt(TILT_PENALTY * count)
    solution = np.linalg.lstsq(system, np.concatenate([*targets.T, [0, 0]]), rcond=None)[0]
    about_middle = np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1]])
    return Transform(np.append(solution, 1).reshape(3, 3) @ about_middle)


def _fitting(transform: Transform, own: DoubleArray, others: DoubleArray, tolerance: float) -> IntArray:
    offsets = transform(others) - own
    return np.flatnonzero((offsets**2).sum(axis=1) < tolerance**2)


def _count_spots(frames: _Frames, points: IntArray) -> int:
    """Places that points lie at: one that is found at two angles, or matched many times in print that repeats, counts once."""
    return len(np.unique(frames.spots[points]))


def extent_of(box: Box) -> tuple[float, float]:
    """Width and height in longest sides."""
    longest = max(box.width, box.height)
    return box.width / longest, box.height / longest


def _corners(extent: tuple[float, float]) -> DoubleArray:
    width, height = extent
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)


def is_sane(quad: DoubleArray) -> bool:
    """Convex, not mirrored, neither a speck nor far larger than the picture."""
    if not np.isfinite(quad).all():
        return False
    edges = np.roll(quad, -1, axis=0) - quad
    following = np.roll(edges, -1, axis=0)
    turns = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    return bool((turns > 0).all() and 1e-4 < polygon_area(quad) < 25)


def polygon_area(corners: DoubleArray) -> float:
    x, y = corners.T
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))


def hull_area(places: DoubleArray) -> float:
    """Area of the convex hull of (n, 2), by Andrew's monotone chain."""
    ordered = sorted(set(map(tuple, places.tolist())))
    if len(ordered) < 3:
        return 0.0
    hull = [*_chain(ordered), *_chain(ordered[::-1])]
    return polygon_area(np.array(hull))


def _chain(ordered: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    chain: list[tuple[float, ...]] = []
    for x, y in ordered:
        while len(chain) > 1 and (chain[-1][0] - chain[-2][0]) * (y - chain[-2][1]) <= (chain[-1][1] - chain[-2][1]) * (
            x - chain[-2][0]
        ):
            chain.pop()
        chain.append((x, y))
    return chain[:-1]


def _inside(quad: DoubleArray, places: DoubleArray) -> NDArray[np.bool_]:
    edges = np.roll(quad, -1, axis=0) - quad
    offsets = places[:, None] - quad  # (n, 4, 2)
    return np.asarray(((edges[:, 0] * offsets[..., 1] - edges[:, 1] * offsets[..., 0]) >= 0).all(axis=1))


def overlap(one: DoubleArray, other: DoubleArray) -> float:
    """Intersection over union of two convex quads (4, 2) whose corners run alike."""
    shared = polygon_area(clipped(one, other))
    return shared / (polygon_area(one) + polygon_area(other) - shared)


def clipped(subject: DoubleArray, window: DoubleArray) -> DoubleArray:
    """The part of one convex polygon inside another (Sutherland and Hodgman 1974) -> (n, 2), n 0 or more."""
    corners = subject.tolist()
    for (ax, ay), (bx, by) in zip(window.tolist(), np.roll(window, -1, axis=0).tolist(), strict=True):
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in corners]  # 0 or more: inside
        kept = []
        for position, ((x, y), side) in enumerate(zip(corners, sides, strict=True)):
            (px, py), before = corners[position - 1], sides[position - 1]
            if (side >= 0) != (before >= 0):
                share = before / (before - side)
                kept.append([px + share * (x - px), py + share * (y - py)])
            if side >= 0:
                kept.append([x, y])
        corners = kept
    return np.array(corners, np.float64).reshape(-1, 2)
