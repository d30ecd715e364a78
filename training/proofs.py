"""Fits what a proof of print says: how likely the class is, from where it is accepted, and when two cannot be told apart.

    python -m training proofs --data DIR --models models

Enrolled, one clean picture each: all package fronts, brand marks of split 7, held-back objects. Asked: renders of split 7, fronts
as a telephone takes them and marks as hard as those that are reported; other views of the objects. Foreign: `caltech101-dev`.
Points, vote and proofs are the service's own. Reads the manifest that `calibrate` wrote and puts `calibration.proof` into it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from app.adapters.images import resize
from app.adapters.index_faiss import FaissIndex, FaissPointIndex
from app.adapters.local_features import SiftPoints
from app.adapters.model_set import LoadedModelSet, read_model_set
from app.adapters.networks import OnnxEmbedder
from app.domain.calibration import Calibration, ProofCalibration
from app.domain.changes import Snapshot
from app.domain.decision import SAME_PLACE, rank
from app.domain.gallery import Gallery
from app.domain.prints import CodeBook, Prints
from app.domain.representatives import fit_class, no_synthesis
from app.domain.values import Box, ClassState, Example, FloatArray, PixelArray, Points
from app.domain.verification import NO_FINDS, Found, overlap
from app.service.classify import SHORTLIST
from app.service.follow import Served
from app.service.verify import Verifier
from training import data, render, run
from training.batches import LEFT_OUT, held_back
from training.calibrate import CANVAS_PX, to_pixels
from training.points import pictures_of

# A printed thing in a telephone's picture: smaller than the frame, anywhere in it, its colours kept.
PHONE = render.RenderSpec(
    scale=(0.55, 1.1), rotation_sd=8, shear_sd=0.07, perspective_sd=0.13, p_cylinder=0.25, shift=0.25, stretch=(0, 0), p_invert=0,
    p_grey=0, p_tint=0, p_flat=0, light=0.4, contrast=(0.4, 1.2), p_resample=0.7, resample=(2,), p_occluder=0.15, noise=0.03,
    colour=0.15,
)  # fmt: skip
PHONE_PX = 160
LONGEST_SHOWN = 112  # as the photographs of printed things in the packs have it
AMBIGUOUS_RIGHT = 0.9  # share of right answers below which the better of two proofs decides nothing
DOUBTFUL_FAR = 5  # times the false accepts that the lower line lets pass


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "model set; its manifest is written again"})
    target_far: float = field(default=0.01, metadata={"help": "share of foreign pictures in which any class may be accepted"})
    fronts: int = field(default=0, metadata={"help": "enrolled beside those of split 7; 0: all"})
    marks: int = field(default=700, metadata={"help": "brands enrolled and asked"})
    asked: int = field(default=2, metadata={"help": "renders of each front"})
    foreign: int = field(default=1200, metadata={"help": "pictures of nothing enrolled"})
    seed: int = 0


@dataclass(frozen=True)
class Seen:
    """A picture as the service sees it."""

    embedding: FloatArray  # (d,)
    points: Points
    box: Box


@dataclass(frozen=True)
class Asked:
    seen: Seen
    truth: str | None  # None: foreign


@dataclass(frozen=True)
class Rows:
    """Everything that was proved of any picture, one row a proof."""

    features: np.ndarray  # (n, 4) ln(points), root of coverage, root of agreement, share of the votes
    by_similarity: np.ndarray  # (n,) log-odds
    right: np.ndarray  # (n,) bool
    picture: np.ndarray  # (n,) position of the picture that was asked
    proofs: tuple[Found, ...]


class Looker:
    """Embeds and finds points as the service does, as many pictures at once as there are cores."""

    def __init__(self, loaded: LoadedModelSet) -> None:
        self.embedder, self.find_points = OnnxEmbedder(loaded.embedding_network), SiftPoints(loaded.points)
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def __call__(self, pictures: Sequence[PixelArray] | Iterator[PixelArray]) -> list[Seen]:
        return list(self._pool.map(self._one, pictures))

    def _one(self, picture: PixelArray) -> Seen:
        height, width = picture.shape[:2]
        embedding = self.embedder(resize(picture, self.embedder.side_px)[np.newaxis]).embedding[0]
        return Seen(embedding, self.find_points(picture), Box(0, 0, width, height))


def shown(pictures: torch.Tensor) -> list[PixelArray]:
    return [resize(picture, LONGEST_SHOWN) for picture in to_pixels(pictures)]


def enrolled_items(config: Config) -> list[data.Item]:
    """One clean picture of each class."""
    rng = np.random.default_rng(config.seed)
    fronts = data.pack_items(config.data / "package-fronts")
    kept = set(rng.permutation(len(fronts))[: config.fronts or None].tolist())
    asked_of = {item.class_name for item in split_7(config, "package-fronts", 0)}
    chosen = [item for position, item in enumerate(fronts) if position in kept or item.class_name in asked_of]
    return chosen + split_7(config, "brand-marks", config.marks) + [views[0] for views in objects(config).values()]


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


def renders(
    config: Config, pack: str, spec: render.RenderSpec, side_px: int, most: int, each: int
) -> Iterator[tuple[str, PixelArray]]:
    """`each` renders of marks of split 7, over photographs."""
    items = split_7(config, pack, most)
    marks = data.load(items, side_px=side_px, mode="RGBA")
    scenes = data.load(data.pack_items(config.data / "imagenet-1-per-class"), side_px=side_px).pixels
    for position in torch.arange(len(marks.pixels)).repeat(each).split(64):
        grounds = scenes[torch.randint(len(scenes), (len(position),))].float() / 255
        pictures = render.render(marks.pixels[position].float() / 255, marks.aspects[position], grounds, spec)
        for label, picture in zip(marks.labels[position].tolist(), shown(pictures), strict=True):
            yield marks.class_names[label], picture


def asked_pictures(config: Config, look: Looker) -> list[Asked]:
    named = [
        *renders(config, "package-fronts", PHONE, PHONE_PX, 0, config.asked),
        *renders(config, "brand-marks", render.HARD, CANVAS_PX, config.marks, 1),
    ]
    views = [view for views in objects(config).values() for view in views[len(views) // 3 : 2 * len(views) // 3 + 1]]
    foreign = data.pack_items(config.data / "caltech101-dev")
    order = np.random.default_rng(config.seed).permutation(len(foreign))[: config.foreign]
    truths = [name for name, _ in named] + [view.class_name for view in views] + [None] * len(order)
    pictures = [picture for _, picture in named] + list(pictures_of(views))
    seen = look(pictures) + look(pictures_of([foreign[position] for position in order]))
    return [Asked(one, truth) for one, truth in zip(seen, truths, strict=True)]


def serve(items: Sequence[data.Item], look: Looker, loaded: LoadedModelSet) -> Served:
    """A gallery of one picture a class."""
    states = []
    for item, seen in zip(items, look(pictures_of(items)), strict=True):
        example = Example(item.entry, seen.box, seen.embedding, 0.0, seen.points)
        model = fit_class([example], model_set=loaded.model_set, synthesize=no_synthesis)
        states.append(ClassState(item.class_name, 1, (example,), model))
    snapshot = Snapshot(1, tuple(sorted(states, key=lambda state: state.name)))
    gallery = Gallery.from_snapshot(snapshot, loaded.model_set.provenance.networks)
    words = loaded.points.words
    prints = Prints(loaded.model_set.provenance.points, CodeBook(words), partial(FaissPointIndex, words=len(words)))
    return Served(gallery, FaissIndex(gallery.block.representatives()), prints.from_snapshot(snapshot))


def prove(asked: Sequence[Asked], served: Served, verifier: Verifier, calibration: Calibration) -> Rows:
    def proved(position: int) -> list[tuple[list[float], float, bool, int, Found]]:
        one = asked[position]
        scored = served.best_classes(one.seen.embedding, SHORTLIST)
        by_look = [each.candidate.class_name for each in rank(scored, NO_FINDS, calibration, classes=len(served.gallery))]
        finds = verifier.finds_of(one.seen.points, one.seen.embedding, by_look, served, None)
        similarities = served.gallery.similarities_to(one.seen.embedding, finds)
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
    features, by_similarity, right, picture, proofs = zip(*rows, strict=True)
    return Rows(np.array(features), np.array(by_similarity), np.array(right), np.array(picture), proofs)


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


def fit_weights(rows: Rows, pictures: int) -> tuple[float, np.ndarray, float]:
    """Bias, the weights of the four features, and of similarity.

    All proofs say what a feature is worth beside another. What it comes to in log-odds the strongest proof of each picture says:
    that is the one that answers, and weaker ones beside it would make it look less sure than it is.
    """
    _, weights = fit_logistic(np.column_stack([rows.features, rows.by_similarity]), rows.right)
    strengths = rows.features @ weights[:-1]
    best = strongest(strengths, rows, pictures)
    best = best[best >= 0]
    bias, (scale, similarity) = fit_logistic(np.column_stack([strengths, rows.by_similarity])[best], rows.right[best])
    return bias, scale * weights[:-1], float(similarity)


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
    order = np.argsort(gaps)
    wrong = np.array(gaps)[order][~np.array(right, bool)[order]]
    print(f"two proofs of one place: {len(gaps)}, the better one right {np.mean(right or [1]):.3f}")
    if not len(wrong):
        return 0.0
    # Of those below a gap, wrong ones are at least a tenth: the largest such gap.
    below = np.arange(1, len(order) + 1)
    share_right = np.cumsum(np.array(right, float)[order]) / below
    short = np.flatnonzero(share_right < AMBIGUOUS_RIGHT)
    return float(np.array(gaps)[order][short[-1]]) if len(short) else 0.0


def fit(rows: Rows, asked: Sequence[Asked], config: Config) -> ProofCalibration:
    bias, weights, similarity = fit_weights(rows, len(asked))
    weights = weights.round(4)
    strengths = rows.features @ weights
    log_odds = np.maximum(rows.by_similarity, similarity * rows.by_similarity + bias + strengths)
    best = strongest(strengths, rows, len(asked))
    reached = np.where(best >= 0, strengths[best], 0.0)
    foreign = np.array([one.truth is None for one in asked])
    line = float(np.quantile(reached[foreign], 1 - config.target_far))
    doubtful_line = float(np.quantile(reached[foreign], max(0.0, 1 - DOUBTFUL_FAR * config.target_far)))
    margin = fit_ambiguous_margin(log_odds, strengths, rows, line)
    right = (best >= 0) & rows.right[best] & (reached >= line)
    kinds = [one.truth.split("/")[0] if one.truth else "foreign" for one in asked]
    for kind in sorted(set(kinds)):
        mine = np.array([other == kind for other in kinds])
        print(f"{kind}: accepted and right {right[mine].mean():.3f}, and wrong {((reached >= line) & ~right)[mine].mean():.3f}")
    log_points, coverage, agreement, votes = weights.tolist()
    return ProofCalibration(
        target_far=config.target_far,
        line=round(line, 4),
        doubtful_line=round(min(doubtful_line, line), 4),
        log_points=log_points,
        coverage=coverage,
        agreement=agreement,
        votes=votes,
        bias=round(bias, 4),
        similarity=round(similarity, 4),
        ambiguous_margin=round(margin, 4),
    )


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit what a proof of print says.")
    torch.manual_seed(config.seed)
    loaded = read_model_set(config.models)
    look, calibration = Looker(loaded), loaded.model_set.calibration
    served = serve(enrolled_items(config), look, loaded)
    asked = asked_pictures(config, look)
    verifier = Verifier(find_points=look.find_points, model_set=loaded.model_set, mode="always")
    fitted = replace(calibration, proof=fit(prove(asked, served, verifier, calibration), asked, config))
    path = config.models / "manifest.json"
    manifest = json.loads(path.read_text()) | {"calibration": asdict(fitted)}
    path.write_text(json.dumps(manifest, indent=2) + "\n")
    print(json.dumps(asdict(fitted.proof), indent=2))
