"""Points of a picture -> votes -> proofs -> looks: which enrolled print it shows. Classification and enrolment come here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from app.domain.decision import Ranked, decide
from app.domain.looks import quads_to_look_at, with_looks
from app.domain.model_set import ModelSet
from app.domain.prints import Printed, Vote
from app.domain.values import Example, FloatArray, Outcome, PixelArray
from app.domain.verification import NO_FINDS, AskedPoints, Finds, Found, extent_of
from app.service.embed import PlaceEmbedder
from app.service.follow import Served
from app.service.pools import stage
from app.service.ports import PointFinder

Mode = Literal["auto", "always", "off"]

VOTED = 15  # examples verified because points vote for them; docs/experiments.md
MOST_VOTED = 50  # verified in all, where none of those is found: a soft picture gives most of its votes to chance
VOTED_AT_ENROLMENT = 5  # examples that a new one is compared with, for the warnings about its print
ALIKE = 5  # and because their classes look most alike
SURE = 0.95  # probability of a match by look alone from which `auto` asks no further


class Verifier:
    def __init__(self, *, find_points: PointFinder, embed_places: PlaceEmbedder, model_set: ModelSet, mode: Mode) -> None:
        self._find_points = find_points
        self._embed_places = embed_places
        self._calibration = model_set.calibration
        self._mode = mode

    @property
    def wanted_px(self) -> int:
        """Longest side that a picture should be decoded to; 0 where nothing will be verified."""
        return 0 if self._mode == "off" else self._find_points.side_px

    def may_change(self, by_look: Sequence[Ranked], served: Served) -> bool:
        """Whether proofs could change what similarities alone say."""
        if self._mode == "off" or not served.prints.parts:
            return False
        if self._mode == "always":
            return True
        outcome, _, _ = decide(by_look, self._calibration)
        return outcome is not Outcome.MATCH or by_look[0].candidate.probability < SURE

    def finds(
        self, pixels: PixelArray, query: FloatArray, by_look: Sequence[str], served: Served, among: frozenset[str] | None
    ) -> Finds:
        """What a picture (h, w, 3) with embedding (d,) shows of the print of examples, those of classes `among`.

        `by_look` are names of classes, the most alike first.
        """
        alike = _most_alike(query, by_look[:ALIKE], served)
        finds = self._found(pixels, alike, served, among, sharpen=True)
        if self._is_doubtful(finds):
            return finds
        # Sharpened, a picture that is not soft shows its noise: what is missed so may be found in it as it is.
        return _joined(finds, self._found(pixels, alike, served, among, sharpen=False))

    def finds_in(self, pixels: PixelArray, example: Example, served: Served) -> Finds:
        """What an example, whose crop has these pixels, shows of the print of others, itself among them."""
        if self._mode == "off" or not served.prints.parts:
            return NO_FINDS
        with stage("vote"):
            votes = served.prints.vote(example.points, VOTED_AT_ENROLMENT)
        with stage("verify"):
            finds = self._proved(AskedPoints(example.points), [vote.printed for vote in votes], _shares(votes))
        return self._looked_at(pixels, finds)

    def print_of_other(self, finds: Finds, class_name: str) -> tuple[str, Found] | None:
        """The strongest proof of another class than this, if it would be accepted."""
        proved = [
            (self._calibration.proof.strength(found), name, found)
            for name, several in finds.items()
            for found in several
            if name != class_name
        ]
        strength, name, found = max(proved, key=lambda one: (one[0], one[1]), default=(0.0, "", None))
        return None if found is None or strength < self._calibration.proof.line else (name, found)

    def _found(
        self, pixels: PixelArray, alike: Sequence[Printed], served: Served, among: frozenset[str] | None, *, sharpen: bool
    ) -> Finds:
        """Of the examples that the points vote for, and of those that look `alike`."""
        with stage("points"):
            points = self._find_points(pixels, sharpen=sharpen)
        with stage("vote"):
            votes = served.prints.vote(points, MOST_VOTED, among)
        with stage("verify"):
            asked, shares, voted = AskedPoints(points), _shares(votes), [vote.printed for vote in votes]
            first = _each_once([*voted[:VOTED], *alike])
            finds = self._proved(asked, first, shares)
            if not quads_to_look_at(finds, self._calibration.proof):
                later = _each_once([*first, *voted])[len(first) :]
                finds = _joined(finds, self._proved(asked, later, shares))
        return self._looked_at(pixels, finds)

    def _is_doubtful(self, finds: Finds) -> bool:
        """Whether a proof is strong enough to be shown to a person, at least."""
        proof = self._calibration.proof
        return any(proof.strength(found) >= proof.doubtful_line for several in finds.values() for found in several)

    def _looked_at(self, pixels: PixelArray, finds: Finds) -> Finds:
        with stage("look"):
            quads = quads_to_look_at(finds, self._calibration.proof)
            return with_looks(finds, quads, self._embed_places(pixels, quads)) if quads else finds

    def _proved(self, asked: AskedPoints, examples: Sequence[Printed], shares: Mapping[str, float]) -> Finds:
        proofs = asked.proofs(
            [printed.example.points for printed in examples], [extent_of(printed.example.box) for printed in examples]
        )
        finds: dict[str, list[Found]] = {}
        for printed, proof in zip(examples, proofs, strict=True):
            if proof is not None:
                finds.setdefault(printed.class_name, []).append(
                    Found(printed.example, proof, shares.get(printed.class_name, 0.0))
                )
        return finds


def _joined(some: Finds, more: Finds) -> Finds:
    """Of each example the proof with the most points."""
    joined: dict[str, list[Found]] = {}
    for name in {**some, **more}:
        found = sorted([*some.get(name, ()), *more.get(name, ())], key=lambda one: one.proof.points)
        joined[name] = list({one.example.id: one for one in found}.values())
    return joined


def _shares(votes: Iterable[Vote]) -> dict[str, float]:
    return {vote.printed.class_name: vote.share for vote in votes}


def _most_alike(query: FloatArray, names: Iterable[str], served: Served) -> list[Printed]:
    """Of each class the example that looks most like the picture."""
    found = []
    for name in names:
        examples = [example for example in served.gallery[name].examples if len(example.points)]
        if examples:
            found.append(Printed(name, _nearest(query, examples)))
    return found


def _nearest(query: FloatArray, examples: Sequence[Example]) -> Example:
    similarities = np.stack([example.embedding for example in examples]) @ query
    return examples[int(similarities.argmax())]


def _each_once(asked: Iterable[Printed]) -> list[Printed]:
    return list({(printed.class_name, printed.example.id): printed for printed in asked}.values())
