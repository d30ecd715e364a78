"""Fits what a proof of print says: how likely the class is, from where it is accepted, and when two cannot be told apart.

    python -m training proofs --data DIR --models models

Enrolled, one clean picture each: package fronts and siblings of some, brand marks of split 7, held-back objects. Asked: renders
of split 7, fronts as a telephone takes them and marks as hard as those that are reported; other views of the objects. Foreign:
`caltech101-dev`, and renders of fronts that are left out of those enrolled. Points, vote, proofs and looks are the service's
own. Reads the manifest that `calibrate` wrote and puts `calibration.proof` into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from app.adapters.images import resize
from app.adapters.index_faiss import FaissIndex, FaissPointIndex
from app.adapters.local_features import SiftPoints
from app.adapters.model_set import LoadedModelSet, read_model_set
from app.adapters.networks import OnnxEmbedder, open_synthesizer
from app.adapters.warp import rectify
from app.domain.calibration import Calibration, ProofCalibration
from app.domain.changes import Snapshot
from app.domain.decision import SAME_PLACE, rank
from app.domain.gallery import Gallery
from app.domain.looks import quads_to_look_at, with_looks
from app.domain.model_set import ModelSet
from app.domain.prints import CodeBook, Prints
from app.domain.representatives import fit_class
from app.domain.values import Box, ClassState, Example, FloatArray, PixelArray
from app.domain.verification import NO_FINDS, Found, overlap
from app.service.classify import SHORTLIST
from app.service.embed import PlaceEmbedder
from app.service.follow import Served
from app.service.verify import Verifier
from training import data, render, run
from training.batches import LEFT_OUT, held_back
from training.calibrate import CANVAS_PX, UNFITTED, to_pixels
from training.points import pictures_of
from training.siblings import sibling_of

PHONE_PX = 160
LONGEST_SHOWN = 112  # as the photographs of printed things in the packs have it
AMBIGUOUS_RIGHT = 0.9  # share of right answers below which the better of two proofs decides nothing
DOUBTFUL_FAR = 5  # times the false accepts that the lower line lets pass
BY_POINTS = ("log_points", "coverage", "agreement", "votes")  # as `features_of` has them
NOT_LOOKED_AT = 0.01  # share of the right proofs whose points are too weak for their place to be looked at


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set; its manifest is written again"})
    target_far: float = field(default=0.01, metadata={"help": "share of foreign pictures in which any class may be accepted"})
    fronts: int = field(default=0, metadata={"help": "enrolled beside those of split 7; 0: all"})
    unknown: int = field(default=150, metadata={"help": "fronts of split 7 that are asked, but not enrolled"})
    siblings: int = field(default=100, metadata={"help": "fronts of split 7 enrolled beside another print of their template"})
    marks: int = field(default=500, metadata={"help": "brands enrolled and asked"})
    asked: int = field(default=1, metadata={"help": "renders of each front"})
    foreign: int = field(default=1200, metadata={"help": "pictures of nothing enrolled"})
    seed: int = 0


@dataclass(frozen=True)
class Asked:
    pixels: PixelArray
    truth: str | None  # None: nothing that is enrolled
    kind: str  # what is counted together


@dataclass(frozen=True)
class Fronts:
    """Those of split 7, and the other prints made of some; (n, 4, side, side) uint8, and width over height."""

    names: list[str]
    pixels: torch.Tensor
    aspects: torch.Tensor
    enrolled: int  # the first so many
    siblings: torch.Tensor
    templates: list[int]  # the fronts that those are siblings of


@dataclass(frozen=True)
class Rows:
    """Everything that was proved of any picture, one row a proof."""

    features: np.ndarray  # (n, 4) ln(points), root of coverage, root of agreement, share of the votes
    by_similarity: np.ndarray  # (n,) log-odds
    right: np.ndarray  # (n,) bool
    picture: np.ndarray  # (n,) position of the picture that was asked
    proofs: tuple[Found, ...]


def fronts_of(config: Config) -> Fronts:
    items = split_7(config, "package-fronts", 0)
    marks = data.load(items, side_px=PHONE_PX, mode="RGBA")
    rng = np.random.default_rng(config.seed)
    order = torch.from_numpy(rng.permutation(len(items)))
    pixels, enrolled = marks.pixels[order], max(1, len(items) - config.unknown)
    clean = list(pixels.permute(0, 2, 3, 1).numpy())
    twins = [(place, sibling_of(clean[place], clean[place - 1], rng)) for place in range(min(config.siblings, enrolled))]
    changed = [(place, twin) for place, twin in twins if twin is not None]
    return Fronts(
        names=[marks.class_names[label] for label in marks.labels[order].tolist()],
        pixels=pixels,
        aspects=marks.aspects[order],
        enrolled=enrolled,
        siblings=pixels.new_tensor(np.array([twin for _, twin in changed]).reshape(-1, PHONE_PX, PHONE_PX, 4)).permute(
            0, 3, 1, 2
        ),
        templates=[place for place, _ in changed],
    )


def sibling_name(name: str) -> str:
    return f"{name}, another print"


def enrolled_pictures(config: Config, fronts: Fronts) -> Iterator[tuple[str, PixelArray]]:
    """One clean picture of each class."""
    rng = np.random.default_rng(config.seed)
    items = data.pack_items(config.data / "package-fronts")
    kept = set(rng.permutation(len(items))[: config.fronts or None].tolist())
    known, unknown = set(fronts.names[: fronts.enrolled]), set(fronts.names[fronts.enrolled :])
    chosen = [item for position, item in enumerate(items) if position in kept or item.class_name in known]
    chosen = [item for item in chosen if item.class_name not in unknown]
    chosen += split_7(config, "brand-marks", config.marks) + [views[0] for views in objects(config).values()]
    yield from zip([item.class_name for item in chosen], pictures_of(chosen), strict=True)
    for place, sibling in zip(fronts.templates, fronts.siblings, strict=True):
        yield sibling_name(fronts.names[place]), unstretched(sibling, fronts.aspects[place].item())


def unstretched(front: torch.Tensor, aspect: float) -> PixelArray:
    """(4, side, side) uint8 -> (h, w, 3) over white, of the width over height that it had."""
    square = data.over(Image.fromarray(front.permute(1, 2, 0).numpy()))
    longest = square.width
    return np.asarray(square.resize((round(longest * min(1, aspect)), round(longest / max(1, aspect)))))


def split_7(config: Config, pack: str, most: int) -> list[data.Item]:
    """The first picture of each class, in a random order that does not depend on how many are taken."""
    first: dict[str, data.Item] = {}
    for item in data.pack_items(config.data / pack, split=lambda split: split == "7"):
        first.setdefault(item.class_name, item)
    items = list(first.values())
    return [items[position] for position in np.random.default_rng(config.seed).permutation(len(items))[: most or None]]


def objects(config: Config) -> dict[str, list[data.Item]]:
    """Views of each held-back object; what is asked lies across from what is enrolled."""
    found: dict[str, list[data.Item]] = {}
    for item in data.pack_items(config.data / "object-views-dev"):
        if held_back(item.class_name) and not item.class_name.startswith(LEFT_OUT):
            found.setdefault(item.class_name, []).append(item)
    return {name: views for name, views in found.items() if len(views) > 4}


def renders(config: Config, marks: torch.Tensor, aspects: torch.Tensor, spec: render.RenderSpec) -> Iterator[PixelArray]:
    """One of each mark (n, 4, side, side), over photographs."""
    side_px = marks.shape[-1]
    scenes = data.load(data.pack_items(config.data / "imagenet-1-per-class"), side_px=side_px).pixels
    for position in torch.arange(len(marks)).split(64):
        grounds = scenes[torch.randint(len(scenes), (len(position),))].float() / 255
        pictures = render.render(marks[position].float() / 255, aspects[position], grounds, spec)
        yield from (resize(picture, LONGEST_SHOWN) for picture in to_pixels(pictures))


def asked_pictures(config: Config, fronts: Fronts) -> list[Asked]:
    asked: list[Asked] = []
    known = fronts.names[: fronts.enrolled]
    twins = [sibling_name(fronts.names[place]) for place in fronts.templates]
    for _ in range(config.asked):
        shown = renders(config, fronts.pixels, fronts.aspects, render.PHONE)
        asked += [Asked(pixels, name, "fronts") for name, pixels in zip(known, islice(shown, len(known)), strict=True)]
        asked += [Asked(pixels, None, "unknown fronts") for pixels in shown]
        shown = renders(config, fronts.siblings, fronts.aspects[fronts.templates], render.PHONE)
        asked += [Asked(pixels, name, "siblings") for name, pixels in zip(twins, shown, strict=True)]
    marks = data.load(split_7(config, "brand-marks", config.marks), side_px=CANVAS_PX, mode="RGBA")
    names = [marks.class_names[label] for label in marks.labels.tolist()]
    shown = renders(config, marks.pixels, marks.aspects, render.HARD)
    asked += [Asked(pixels, name, "marks") for name, pixels in zip(names, shown, strict=True)]
    views = [view for views in objects(config).values() for view in views[len(views) // 3 : 2 * len(views) // 3 + 1]]
    asked += [Asked(pixels, view.class_name, "objects") for view, pixels in zip(views, pictures_of(views), strict=True)]
    foreign = data.pack_items(config.data / "caltech101-dev")
    order = np.random.default_rng(config.seed).permutation(len(foreign))[: config.foreign]
    strangers = pictures_of([foreign[position] for position in order])
    return asked + [Asked(pixels, None, "foreign") for pixels in strangers]


class Eyes:
    """What the service sees with: its network, and its points."""

    def __init__(self, loaded: LoadedModelSet) -> None:
        self.embedder, self.find_points = OnnxEmbedder(loaded.embedding_network), SiftPoints(loaded.points)
        self.embed_places = PlaceEmbedder(rectify=rectify, embedder=self.embedder)

    def embedding_of(self, picture: PixelArray) -> FloatArray:
        """(h, w, 3) -> (d,)"""
        return self.embedder(resize(picture, self.embedder.side_px)[np.newaxis]).embedding[0]

    def example_of(self, name: str, picture: PixelArray) -> Example:
        height, width = picture.shape[:2]
        return Example(name, Box(0, 0, width, height), self.embedding_of(picture), 0.0, self.find_points(picture))


def serve(pictures: Iterable[tuple[str, PixelArray]], eyes: Eyes, loaded: LoadedModelSet) -> Served:
    """A gallery of one picture a class."""
    synthesize = open_synthesizer(loaded)

    def state_of(named: tuple[str, PixelArray]) -> ClassState:
        example = eyes.example_of(*named)
        model = fit_class([example], model_set=loaded.model_set, synthesize=synthesize)
        return ClassState(named[0], 1, (example,), model)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        states = list(pool.map(state_of, pictures))
    snapshot, provenance = Snapshot(1, tuple(sorted(states, key=lambda state: state.name))), loaded.model_set.provenance
    gallery = Gallery.from_snapshot(snapshot, provenance.networks, provenance.detector)
    words = loaded.points.words
    prints = Prints(provenance.points, CodeBook(words), partial(FaissPointIndex, words=len(words)))
    return Served(gallery, FaissIndex(gallery.block.representatives()), prints.from_snapshot(snapshot))


def prove(asked: Sequence[Asked], served: Served, eyes: Eyes, model_set: ModelSet) -> Rows:
    """All that is proved by points; nothing is looked at yet."""
    calibration = model_set.calibration
    verifier = Verifier(
        find_points=eyes.find_points, embed_places=eyes.embed_places, model_set=unlooked(model_set), mode="always"
    )

    def proved(position: int) -> list[tuple[list[float], float, bool, int, Found]]:
        one = asked[position]
        query = eyes.embedding_of(one.pixels)
        scored = served.best_classes(query, SHORTLIST)
        by_look = [each.candidate.class_name for each in rank(scored, NO_FINDS, calibration, classes=len(served.gallery))]
        finds = verifier.finds(one.pixels, query, by_look, served, None)
        similarities = served.gallery.similarities_to(query, finds)
        return [
            (
                features_of(found),
                log_odds_of(state, similarity, calibration, len(served.gallery)),
                state.name == one.truth,
                position,
                found,
            )
            for state, similarity in similarities
            for found in finds[state.name]
        ]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [row for found in pool.map(proved, range(len(asked))) for row in found]
    if not rows:
        raise SystemExit("No point of any picture that was asked proved anything: is this the right folder of packs?")
    features, by_similarity, right, picture, proofs = zip(*rows, strict=True)
    return Rows(np.array(features), np.array(by_similarity), np.array(right), np.array(picture), proofs)


def unlooked(model_set: ModelSet) -> ModelSet:
    proof = replace(model_set.calibration.proof, looked_from=np.inf)
    return replace(model_set, calibration=replace(model_set.calibration, proof=proof))


def look_at(rows: Rows, asked: Sequence[Asked], draft: ProofCalibration, embed_places: PlaceEmbedder) -> Rows:
    """The same proofs, with the looks that the service takes at their places."""

    def looked(picture: int) -> list[tuple[int, Found]]:
        mine = np.flatnonzero(rows.picture == picture).tolist()
        finds = {str(row): [rows.proofs[row]] for row in mine}
        quads = quads_to_look_at(finds, draft)
        if quads:
            finds = dict(with_looks(finds, quads, embed_places(asked[picture].pixels, quads)))
        return [(row, finds[str(row)][0]) for row in mine]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(row for rows_of_one in pool.map(looked, range(len(asked))) for row in rows_of_one)
    return replace(rows, proofs=tuple(found[row] for row in range(len(rows.proofs))))


def features_of(found: Found) -> list[float]:
    proof = found.proof
    return [np.log(proof.points), proof.coverage**0.5, proof.agreement**0.5, found.votes]


def log_odds_of(state: ClassState, similarity: float, calibration: Calibration, classes: int) -> float:
    (ranked,) = rank([(state, similarity)], NO_FINDS, calibration, classes=classes)
    return ranked.log_odds


def fit_logistic(inputs: np.ndarray, right: np.ndarray) -> tuple[float, np.ndarray]:
    """Logistic regression of `right` (n,) on inputs (n, k) -> bias and weights (k,).

    No weight is negative, so that more of anything never speaks against a class.
    """
    values, truth = torch.from_numpy(inputs), torch.from_numpy(right.astype(np.float64))
    raw = torch.zeros(inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw, bias], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        weights = F.softplus(raw)
        loss = F.binary_cross_entropy_with_logits(values @ weights + bias, truth) + 1e-3 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return bias.item(), F.softplus(raw).detach().numpy()


def fit_points(rows: Rows, asked: Sequence[Asked]) -> ProofCalibration:
    """What a feature of points is worth beside another, and from where on a place is worth the look: the rest is still open."""
    _, weights = fit_logistic(np.column_stack([rows.features, rows.by_similarity]), rows.right)
    log_points, coverage, agreement, votes = weights[:-1].tolist()
    by_points = rows.features @ weights[:-1]
    best = strongest(by_points, rows, len(asked))
    best = best[best >= 0]
    right = by_points[best[rows.right[best]]]
    looked_from = float(np.quantile(right, NOT_LOOKED_AT)) if len(right) else 0.0
    return replace(UNFITTED, log_points=log_points, coverage=coverage, agreement=agreement, votes=votes, looked_from=looked_from)


def fit_weights(rows: Rows, pictures: int, draft: ProofCalibration) -> ProofCalibration:
    """What the points together and the look are worth.

    All proofs say what one is worth beside another. What it comes to in log-odds the strongest proof of each picture says: that
    is the one that answers, and weaker ones beside it would make it look less sure than it is.
    """
    by_points, looks = rows.features @ weights_of(draft), looks_of(rows)
    _, (points, look) = fit_logistic(np.column_stack([by_points, looks]), rows.right)
    strengths = points * by_points + look * looks
    best = strongest(strengths, rows, pictures)
    best = best[best >= 0]
    bias, (scale,) = fit_logistic(strengths[best, np.newaxis], rows.right[best])
    scaled = {name: round(scale * points * getattr(draft, name), 4) for name in (*BY_POINTS, "looked_from")}
    return replace(draft, **scaled, look=round(scale * look, 4), bias=round(bias, 4))


def weights_of(calibration: ProofCalibration) -> np.ndarray:
    return np.array([getattr(calibration, name) for name in BY_POINTS])


def looks_of(rows: Rows) -> np.ndarray:
    return np.array([max(0.0, found.look or 0.0) for found in rows.proofs])


def strongest(strengths: np.ndarray, rows: Rows, pictures: int) -> np.ndarray:
    """Of each picture the row of its strongest proof; -1 where nothing was proved."""
    best = np.full(pictures, -1)
    for row in np.argsort(strengths, kind="stable"):
        best[rows.picture[row]] = row
    return best


def fit_ambiguous_margin(log_odds: np.ndarray, strengths: np.ndarray, rows: Rows, line: float) -> float:
    """The gap between two accepted proofs of one place below which the better one is right less than nine times in ten."""
    gaps, right = [], []
    for picture in np.unique(rows.picture[strengths >= line]):
        mine = np.flatnonzero((rows.picture == picture) & (strengths >= line))
        mine = mine[np.argsort(-log_odds[mine], kind="stable")]
        if not rows.right[mine].any():
            continue  # a thing that is not enrolled: no margin tells it from its sibling
        rivals = [row for row in mine[1:] if overlap(rows.proofs[mine[0]].proof.quad, rows.proofs[row].proof.quad) > SAME_PLACE]
        if rivals:
            gaps.append(log_odds[mine[0]] - log_odds[rivals[0]])
            right.append(rows.right[mine[0]])
    print(f"two proofs of one place: {len(gaps)}, the better one right {np.mean(right or [1]):.3f}")
    return margin_of(np.array(gaps), np.array(right, bool))


def margin_of(gaps: np.ndarray, right: np.ndarray) -> float:
    """The largest of the gaps (n,) up to which the better of two is `right` (n,) less than nine times in ten, or 0."""
    order = np.argsort(gaps)
    share_right = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    short = np.flatnonzero(share_right < AMBIGUOUS_RIGHT)
    return float(gaps[order][short[-1]]) if len(short) else 0.0


def fit(rows: Rows, asked: Sequence[Asked], draft: ProofCalibration, target_far: float) -> ProofCalibration:
    """Of rows that have been looked at."""
    weighed = fit_weights(rows, len(asked), draft)
    strengths = rows.features @ weights_of(weighed) + weighed.look * looks_of(rows)
    log_odds = np.maximum(rows.by_similarity, weighed.bias + strengths)
    best = strongest(strengths, rows, len(asked))
    reached = np.where(best >= 0, strengths[best], 0.0)
    foreign = np.array([one.truth is None for one in asked])
    line = float(np.quantile(reached[foreign], 1 - target_far))
    doubtful_line = float(np.quantile(reached[foreign], max(0.0, 1 - DOUBTFUL_FAR * target_far)))
    margin = fit_ambiguous_margin(log_odds, strengths, rows, line)
    right = (best >= 0) & rows.right[best] & (reached >= line)
    for kind in dict.fromkeys(one.kind for one in asked):
        mine = np.array([one.kind == kind for one in asked])
        print(f"{kind}: accepted and right {right[mine].mean():.3f}, and wrong {((reached >= line) & ~right)[mine].mean():.3f}")
    return replace(
        weighed,
        target_far=target_far,
        line=round(line, 4),
        doubtful_line=round(min(doubtful_line, line), 4),
        ambiguous_margin=round(margin, 4),
    )


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit what a proof of print says.")
    torch.manual_seed(config.seed)
    loaded = read_model_set(config.models)
    eyes, fronts = Eyes(loaded), fronts_of(config)
    served = serve(enrolled_pictures(config, fronts), eyes, loaded)
    asked = asked_pictures(config, fronts)
    rows = prove(asked, served, eyes, loaded.model_set)
    draft = fit_points(rows, asked)
    fitted = fit(look_at(rows, asked, draft, eyes.embed_places), asked, draft, config.target_far)
    path = config.models / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["calibration"]["proof"] = asdict(fitted)
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps(asdict(fitted), indent=2))
