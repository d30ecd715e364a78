"""Fits what a similarity means, on classes that neither training nor reporting uses, and writes the manifest.

    python -m training calibrate --data DIR --models models

Enrolled: brand marks and package fronts of split 7 (rendered), objects and car emblems held back from training. Foreign:
`caltech101-dev`, and the half of split 7 that is not enrolled: other brands are what a brand is confused with. Enrolment
itself is the service's own (`app.domain`): views, representatives, thresholds. What every number means stands in
app/domain/calibration.py.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from app.adapters.images import resize
from app.adapters.networks import OnnxEmbedder
from app.domain.calibration import CALIBRATED_CLASSES, Calibration, ProofCalibration, nearest_of_cohort
from app.domain.checks import WarningLimits
from app.domain.model_set import ModelSet
from app.domain.representatives import fit_class
from app.domain.values import Example, FloatArray, PixelArray, Provenance
from app.domain.views import crop, view_boxes
from training import data, points, render, run, synthesizer
from training.batches import BOX_PACKS, CLASS_PACKS, HELD_BACK_PACKS, LEFT_OUT, held_back, photograph_items, training_split
from training.evaluate.open_set import calibration_error, reliability
from training.evaluate.rules import probabilities_of
from training.synthesizer import NO_SYNTHESIS, Synthesis

TARGET_FAR = 5e-4
SHOTS = (1, 2, 5)
LEAST_MEASURED = 2  # classes: with one there is nothing to take for another
CEILING = 0.95  # similarity: where no class needs more, none shall ask for more
ASKED = 3  # pictures asked of each calibration class
THRESHOLD_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # to choose from
FARTHEST = 50  # times rarer false accepts than of one class: the rarest that can be measured here
CANVAS_PX = 128  # side at which pictures are rendered
COMPETING_SHARE = 0.05  # of the cohort: docs/experiments.md, "thresholds from the nearest of the cohort"
VIEW_SHARES = ()  # no crops beside the whole picture: docs/experiments.md, "support views"
UNFITTED = ProofCalibration(  # looks at nothing, accepts nothing: `python -m training proofs` fits it
    target_far=0.01, looked_from=1e3, line=1e3, doubtful_line=1e3,
    log_points=0.0, coverage=0.0, agreement=0.0, votes=0.0, look=0.0, bias=0.0, ambiguous_margin=0.0,
)  # fmt: skip
PREPROCESSING = "uint8 RGB stretched to a square; everything else is inside the network"


@dataclass(frozen=True)
class Config:
    data: Path = field(default=Path("data"), metadata={"help": "folder with the data packs"})
    models: Path = field(default=Path("models"), metadata={"help": "folder with embedding.onnx; the manifest is written there"})
    name: str = field(default="firstsight", metadata={"help": "of the model set"})
    target_far: float = field(default=TARGET_FAR, metadata={"help": "share of foreign pictures that one class may accept"})
    cohort: int = field(default=2000, metadata={"help": "embeddings in the background cohort"})
    classes: int = field(default=400, metadata={"help": "of each rendered pack; half are enrolled, half are foreign"})
    command: str = field(
        default="make train-embedding train-model-set", metadata={"help": "that made the network, for the manifest"}
    )
    commit: str = field(default="", metadata={"help": "of the code that made the network, for the manifest"})
    seed: int = 0


@dataclass(frozen=True)
class CalibrationClass:
    """Pictures of one class, uint8 (n, h, w, 3): the first `max(SHOTS)` can be enrolled, the rest are asked."""

    kind: str
    support: Sequence[PixelArray]
    asked: Sequence[PixelArray]


@dataclass(frozen=True)
class Enrolled:
    """A calibration class embedded: what `fit_class` is given, and what is asked."""

    examples: list[Example]
    asked: FloatArray  # (asked, d): as many of each class


@dataclass(frozen=True)
class Measured:
    """Similarities of calibration classes enrolled with `shots` pictures each."""

    shots: int
    own: np.ndarray  # (classes, asked): of a class's asked pictures to the class
    asked: np.ndarray  # (classes, asked, classes): of all asked pictures to all classes
    foreign: np.ndarray  # (pictures, classes)
    cohort: np.ndarray  # (classes,): of the cohort's nearest to each class


def to_pixels(pictures: Tensor) -> list[PixelArray]:
    """[0, 1] (n, 3, h, w) -> uint8 (h, w, 3) each."""
    return list((pictures * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy())


def rendered_classes(config: Config, pack: str, grounds: Tensor) -> Iterator[CalibrationClass]:
    """Split 7: the clean mark and four plain renders to enrol, hard renders to ask."""
    marks = data.load(data.pack_items(config.data / pack, split=lambda split: split == "7"), side_px=CANVAS_PX, mode="RGBA")
    first = torch.cumsum(marks.counts, 0) - marks.counts
    for position in first[: config.classes or None]:
        face, aspect = marks.pixels[position][None].float() / 255, marks.aspects[position][None]

        def renders(count: int, spec: render.RenderSpec, face: Tensor = face, aspect: Tensor = aspect) -> list[PixelArray]:
            under = grounds[torch.randint(len(grounds), (count,))]
            return to_pixels(render.render(face.expand(count, -1, -1, -1), aspect.expand(count), under, spec))

        support = to_pixels(render.clean(face, CANVAS_PX)) + renders(max(SHOTS) - 1, render.PLAIN)
        yield CalibrationClass(pack, support, renders(ASKED, render.HARD))


def photographed_classes(config: Config) -> Iterator[CalibrationClass]:
    """Objects and emblems held back from training. Views lie in a circle: what is asked is no neighbour of what is enrolled."""
    rng = np.random.default_rng(config.seed)
    for pack in HELD_BACK_PACKS:
        items = [item for item in data.pack_items(config.data / pack) if held_back(item.class_name)]
        pictures = data.load([item for item in items if not item.class_name.startswith(LEFT_OUT)], side_px=CANVAS_PX)
        for label in range(len(pictures.class_names)):
            views = to_pixels(pictures.pixels[pictures.labels == label].float() / 255)
            start = rng.integers(len(views))
            around = views[start:] + views[:start]
            support, across = around[: max(SHOTS)], around[max(SHOTS) + 1 : -1]
            if len(across) >= ASKED:
                yield CalibrationClass(pack, support, [across[p] for p in rng.permutation(len(across))[:ASKED]])


class Enroller:
    """Embeds as the service does: one thread a picture, as many pictures at once as there are cores."""

    def __init__(self, embedder: OnnxEmbedder, view_shares: Sequence[float] = VIEW_SHARES) -> None:
        self.embedder, self.view_shares = embedder, view_shares
        self._pool = ThreadPoolExecutor(os.cpu_count())

    def embed(self, pictures: Sequence[PixelArray]) -> FloatArray:
        """Pictures (h, w, 3) of any size -> (n, d)."""
        return np.concatenate(list(self._pool.map(self._embed_one, pictures)))

    def enrol(self, one: CalibrationClass) -> Enrolled:
        return Enrolled([self.example(picture) for picture in one.support], self.embed(one.asked))

    def _embed_one(self, picture: PixelArray) -> FloatArray:
        return self.embedder(resize(picture, self.embedder.side_px)[np.newaxis]).embedding

    def example(self, picture: PixelArray) -> Example:
        """As it would be enrolled."""
        height, width = picture.shape[:2]
        boxes = view_boxes(width, height, self.view_shares)
        views = self.embed([crop(picture, box) for box in boxes]).astype(np.float64)
        mean = views.mean(0) / np.linalg.norm(views.mean(0))
        identity = hashlib.sha256(picture.tobytes()).hexdigest()[:32]
        return Example(identity, boxes[0], mean.astype(np.float32), max(0.0, 1 - float((views @ mean).mean())))


def measure(
    classes: Sequence[Enrolled],
    foreign: FloatArray,
    cohort: FloatArray,
    *,
    synthesis: Synthesis = NO_SYNTHESIS,
    competing_share: float = COMPETING_SHARE,
) -> list[Measured]:
    """The same classes enrolled with each number of shots, as far as they have examples; foreign (n, d), cohort (m, d)."""
    model_set, found = placeholder_model_set(cohort, synthesis.real_share), []
    for shots in SHOTS:
        able = [one for one in classes if len(one.examples) >= shots]
        if len(able) < LEAST_MEASURED:
            continue
        asked = np.stack([one.asked for one in able])  # (classes, asked, d)
        models = [fit_class(one.examples[:shots], model_set=model_set, synthesize=synthesis.synthesize) for one in able]
        kept = [model.representatives for model in models]
        similar = np.stack([(asked @ rows.T).max(-1) for rows in kept], -1)  # (classes, asked, classes)
        background = np.stack([(cohort @ rows.T).max(1) for rows in kept], 1)  # (cohort, classes)
        own = similar[np.arange(len(able)), :, np.arange(len(able))]
        outside = np.stack([(foreign @ rows.T).max(1) for rows in kept], 1)
        nearest = np.apply_along_axis(nearest_of_cohort, 0, background, competing_share)
        found.append(Measured(shots, own, similar, outside, nearest))
    return found


def fit_above_cohort(measured: Sequence[Measured], far: float) -> float:
    """Where between the cohort's nearest (0) and 1 a class accepts a share `far` of foreign pictures, over all shots."""
    above = [(each.foreign - each.cohort) / (1 - each.cohort) for each in measured]
    return float(np.quantile(np.concatenate([values.ravel() for values in above]), 1 - far))


def fit_competition(measured: Sequence[Measured], far: float) -> float:
    """How much further up a class accepts for each unit of ln(classes), so that together they accept as few foreign pictures.

    The tail is nearly a straight line over the logarithm of the rate, from one class's rate to a fiftieth of it.
    """
    return max(0.0, (fit_above_cohort(measured, far / FARTHEST) - fit_above_cohort(measured, far)) / math.log(FARTHEST))


def thresholds(each: Measured, calibration: Calibration) -> np.ndarray:
    bound = each.cohort + calibration.above_cohort * (1 - each.cohort)
    return np.clip(bound, calibration.threshold_floor, calibration.threshold_ceiling)  # (classes,)


def references(each: Measured, calibration: Calibration) -> np.ndarray:
    """(classes,) what probability is counted from, in a small gallery."""
    return np.array([calibration.reference_among(limit, 1) for limit in thresholds(each, calibration).tolist()])


def fit_threshold_share(measured: Sequence[Measured], calibration: Calibration) -> float:
    """With which the own class of the most pictures comes first among all, over all shots."""

    def right(share: float) -> float:
        counted = replace(calibration, threshold_share=share)
        first = [(each.asked - references(each, counted)).argmax(-1) for each in measured]  # (classes, asked) each
        return float(np.mean([(best == np.arange(len(best))[:, None]).mean() for best in first]))

    return max(THRESHOLD_SHARES, key=right)


def top_candidates(measured: Sequence[Measured], calibration: Calibration, seed: int) -> list[tuple[np.ndarray, ...]]:
    """For each number of shots: shots, similarity above the reference, whether right, and gap to the second, of the best class
    in random galleries; half of what is asked is foreign."""
    rng, found = np.random.default_rng(seed), []
    for each in measured:
        limits, counted_from = thresholds(each, calibration), references(each, calibration)
        for _ in range(60):
            members = rng.choice(len(limits), min(CALIBRATED_CLASSES, len(limits)), replace=False)
            known = each.asked[members][:, :, members].reshape(-1, len(members))
            unknown = each.foreign[rng.choice(len(each.foreign), len(known))][:, members]
            sims = np.concatenate([known, unknown])
            truth = np.concatenate([np.repeat(np.arange(len(members)), each.asked.shape[1]), np.full(len(unknown), -1)])
            margins = sims - counted_from[members]
            best = margins.argmax(1)
            rows = np.arange(len(sims))
            second = np.where(np.eye(len(members), dtype=bool)[best], -2.0, sims).max(1)
            both = (sims >= limits[members]).sum(1) > 1
            gap = np.where(both, sims[rows, best] - second, np.inf)
            found.append((np.full(len(sims), each.shots), margins[rows, best], best == truth, gap))
    return found


def fit_probability(found: Sequence[tuple[np.ndarray, ...]]) -> tuple[float, float, float, float]:
    """Logistic regression of "the best class is right" on the similarity above its reference, slope and offset linear in
    log(shots) (Platt scaling; four numbers for all shots). -> slope, slope_log, offset, offset_log."""
    shots, margin, right, _ = (torch.tensor(np.concatenate(column), dtype=torch.float64) for column in zip(*found, strict=True))
    inputs = torch.stack([margin, margin * shots.log(), torch.ones_like(margin), shots.log()], 1)
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(inputs @ weights, right)
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, slope_log, offset, offset_log = weights.detach().tolist()
    return round(slope, 4), round(slope_log, 4), round(offset, 4), round(offset_log, 4)


def fit_ambiguous_margin(found: Sequence[tuple[np.ndarray, ...]]) -> float:
    """The gap to the second accepted class below which the first is right less than nine times in ten."""
    right, gap = (np.concatenate(column) for column in list(zip(*found, strict=True))[2:])
    order = np.argsort(gap)
    order = order[np.isfinite(gap[order])]
    if len(order) < 100:
        return 0.02
    share_right = np.convolve(right[order], np.ones(100) / 100, "valid")
    good = np.flatnonzero(share_right >= 0.9)
    limit = gap[order][good[0] + 50 if len(good) else -1]
    return round(max(0.0, float(limit)), 4)  # the class over its own reference by most need not be the most similar


def similarity_limits(photographs: Sequence[FloatArray], repeated: np.ndarray, single: Sequence[Measured]) -> dict[str, float]:
    """Limits of the warnings about similarity, each a quantile of what honest enrolments show.

    `photographs` are of one class each, (2 or more, d); `repeated` are similarities of a photograph to itself cropped a little
    tighter; `single` is measured at one shot.
    """
    best_of_own = [(one @ one.T - 2 * np.eye(len(one))).max(1) for one in photographs]
    between_classes = np.concatenate([each.asked[:, 0, :][~np.eye(len(each.asked), dtype=bool)] for each in single])
    return {
        "near_duplicate": round(float(np.quantile(repeated, 0.1)), 3),
        "unlike_class": round(float(np.quantile(np.concatenate(best_of_own), 0.05)), 3),
        "closer_to_other": round(float(np.quantile(between_classes, 0.9995)), 3),
    }


def similarities_of_repeats(classes: Sequence[CalibrationClass], enroller: Enroller) -> np.ndarray:
    """Of the first asked picture of each class to itself."""
    whole = enroller.embed([one.asked[0] for one in classes])
    return np.asarray((whole * enroller.embed([tighter(one.asked[0]) for one in classes])).sum(1))


def tighter(picture: PixelArray) -> PixelArray:
    """Cropped by 3 pixels of CANVAS_PX on each side."""
    height, width = (round(side * 3 / CANVAS_PX) for side in picture.shape[:2])
    return picture[height : picture.shape[0] - height, width : picture.shape[1] - width]


def placeholder_model_set(cohort: FloatArray, real_share: float = 1.0) -> ModelSet:
    """Representatives do not depend on the calibration; `fit_class` wants one all the same."""
    limits = WarningLimits(24, 0.0, 1.0, 1.0, -1.0, 1.0, 20, 1.0)
    neutral = Calibration(0.01, COMPETING_SHARE, 0.5, 0.0, -1.0, 1.0, 1.0, 0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, UNFITTED, limits)
    return ModelSet("", Provenance("", ""), neutral, VIEW_SHARES, cohort[:2], real_share)


def fit(
    measured: Sequence[Measured], limits: WarningLimits, *, target_far: float, seed: int, competing_share: float = COMPETING_SHARE
) -> Calibration:
    """All but the proofs. ValueError where probability would not grow with similarity."""
    accepting = fit_above_cohort(measured, target_far)
    doubting = fit_above_cohort(measured, min(10 * target_far, 0.5))
    # Of a network to which everything is alike, as to those that do not centre their features, a ceiling would let all pass.
    highest = max(float((each.cohort + accepting * (1 - each.cohort)).max()) for each in measured)
    room = 1 - float(np.mean([each.cohort.mean() for each in measured]))
    draft = Calibration(
        target_far=target_far, competing_share=competing_share,
        above_cohort=round(accepting, 4), above_cohort_log_classes=round(fit_competition(measured, target_far), 4),
        threshold_floor=0.0, threshold_ceiling=CEILING if highest < CEILING else 1.0,
        threshold_share=1.0, typical_threshold=0.0, slope=1.0, slope_log_examples=0.0, offset=0.0, offset_log_examples=0.0,
        doubtful_margin=round((accepting - doubting) * room, 4), ambiguous_margin=0.0, proof=UNFITTED, warnings=limits,
    )  # fmt: skip
    typical = float(np.mean([thresholds(each, draft).mean() for each in measured]))
    draft = replace(draft, typical_threshold=round(typical, 4))
    draft = replace(draft, threshold_share=fit_threshold_share(measured, draft))
    found = top_candidates(measured, draft, seed)
    slope, slope_log, offset, offset_log = fit_probability(found)
    fitted = replace(
        draft, slope=slope, slope_log_examples=slope_log, offset=offset, offset_log_examples=offset_log,
        ambiguous_margin=fit_ambiguous_margin(found),
    )  # fmt: skip
    print_report(measured, fitted)
    return fitted


def print_report(measured: Sequence[Measured], calibration: Calibration) -> None:
    rates = [calibration.target_far / fewer for fewer in (1, 2, 5, 10, 20, 50)]
    print("above the cohort:", ", ".join(f"{rate:.0e}: {fit_above_cohort(measured, rate):.4f}" for rate in rates))
    for shots in sorted({each.shots for each in measured}):
        alike = [(each, thresholds(each, calibration)) for each in measured if each.shots == shots]
        limits = np.concatenate([lines for _, lines in alike])
        accepted = np.concatenate([(each.own >= lines[:, None]).ravel() for each, lines in alike]).mean()
        passed = [each.foreign >= lines for each, lines in alike]  # (foreign, classes) each
        foreign = np.concatenate([one.ravel() for one in passed]).mean()
        fewest = min(one.shape[1] for one in passed)
        counts = sorted({min(count, fewest) for count in (10, 100, 200)})
        any_of = [f"{count}: {np.concatenate([one[:, :count].any(1) for one in passed]).mean():.3f}" for count in counts]
        print(
            f"{shots} shots: threshold {limits.mean():.3f} ± {limits.std():.3f}, own pictures accepted {accepted:.3f}, "
            f"foreign by one class {foreign:.5f}, by any of {', '.join(any_of)}"
        )
    for shots, error in calibration_errors(measured, calibration, seed=1).items():
        print(
            f"{shots} shots: probabilities are off by {error:.3f} in {CALIBRATED_CLASSES} classes, half of what is asked foreign"
        )


def calibration_errors(measured: Sequence[Measured], calibration: Calibration, *, seed: int) -> dict[int, float]:
    """The expected calibration error by number of shots, in random galleries; give another seed than what was fitted on had."""
    by_shots: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for shots, margin, right, _ in top_candidates(measured, calibration, seed):
        # The law is linear, so that it takes whole arrays as it takes numbers.
        log_odds: Any = calibration.log_odds(margin, reference=0.0, examples=int(shots[0]))  # type: ignore[arg-type]
        by_shots.setdefault(int(shots[0]), []).append((probabilities_of(log_odds), right))
    return {
        shots: calibration_error(reliability(*(np.concatenate(part) for part in zip(*found, strict=True))))
        for shots, found in sorted(by_shots.items())
    }


# Limits on the picture itself; how they were measured: `python -m training warning-limits`.
PICTURE_LIMITS = {"too_small_px": 32, "blurred": 0.035, "several_things": 0.533, "few_points": 20, "same_print": 0.5}


def read_foreign(config: Config, enroller: Enroller) -> FloatArray:
    pictures = data.load(data.pack_items(config.data / "caltech101-dev"), side_px=CANVAS_PX)
    return enroller.embed(to_pixels(pictures.pixels.float() / 255))


def make_cohort(config: Config, enroller: Enroller, grounds: Tensor) -> FloatArray:
    """Marks, fronts and photographs that training saw, drawn at random: (m, d) unit length, as it is stored."""
    rendered, share = [], {"brand-marks": 0.4, "package-fronts": 0.2}
    for pack, part in share.items():
        items = data.pack_items(config.data / pack, split=training_split)
        chosen = [items[position] for position in torch.randperm(len(items))[: round(config.cohort * part)]]
        marks = data.load(chosen, side_px=CANVAS_PX, mode="RGBA")
        under = grounds[torch.randint(len(grounds), (len(chosen),))]
        rendered += to_pixels(render.render(marks.pixels.float() / 255, marks.aspects, under, render.PLAIN))
    items = photograph_items(config.data)
    chosen = [items[position] for position in torch.randperm(len(items))[: config.cohort - len(rendered)]]
    photographs = to_pixels(data.load(chosen, side_px=CANVAS_PX).pixels.float() / 255)
    return as_stored(enroller.embed(rendered + photographs))


def as_stored(cohort: FloatArray) -> FloatArray:
    """Of half precision, so that the file packs well."""
    return cohort.astype(np.float16).astype(np.float32)


def write_model_set(
    folder: Path, *, name: str, calibration: Calibration, cohort: FloatArray, side_px: int, training: Mapping[str, object]
) -> None:
    """cohort.npy and, last, the manifest, beside embedding.onnx, words.npy and what `python -m training synthesizer` wrote.

    `training`: command, commit and packs.
    """
    np.save(folder / "cohort.npy", cohort)

    def described(file: str) -> dict[str, str]:
        return {"file": file, "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest()}

    manifest = {
        "format": 1,
        "name": name,
        "embedding": described("embedding.onnx")
        | {
            "side_px": side_px,
            "dim": int(cohort.shape[1]),
            "preprocessing": PREPROCESSING,
            "view_shares": list(VIEW_SHARES),
        },
        "points": points.SETTINGS | {"words": described(points.WORDS_FILE)},
        "cohort": described("cohort.npy"),
        "synthesis": synthesizer.manifest_entry(folder, described),
        "calibration": asdict(calibration),
        "training": training,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


# `imagenet-1-per-class`: the ground of the renders that discriminant and calibration are fitted on.
PACKS = ["brand-marks", "package-fronts", "mini-imagenet", *CLASS_PACKS, *BOX_PACKS, "imagenet-1-per-class"]


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit the calibration and write the manifest.")
    torch.manual_seed(config.seed)
    embedder = OnnxEmbedder((config.models / "embedding.onnx").read_bytes())
    enroller = Enroller(embedder)
    scenes = data.load(data.pack_items(config.data / "imagenet-1-per-class"), side_px=CANVAS_PX).pixels.float() / 255
    cohort = make_cohort(config, enroller, scenes)
    classes = [one for pack in ("brand-marks", "package-fronts") for one in rendered_classes(config, pack, scenes)]
    enrolled, others = classes[::2] + list(photographed_classes(config)), classes[1::2]
    order = np.random.default_rng(config.seed).permutation(len(enrolled))  # so that the first 10 or 100 are of all kinds
    enrolled = [enrolled[position] for position in order]
    embedded = [enroller.enrol(one) for one in enrolled]
    foreign = np.concatenate([read_foreign(config, enroller), enroller.embed([one.asked[0] for one in others])])
    measured = measure(embedded, foreign, cohort, synthesis=synthesizer.synthesis_of(config.models))
    photographs = [np.stack([e.embedding for e in one.examples[1:]]) for one in embedded]  # without the clean mark
    limits = similarity_limits(photographs, similarities_of_repeats(enrolled, enroller), measured[:1])
    calibration = fit(measured, WarningLimits(**PICTURE_LIMITS, **limits), target_far=config.target_far, seed=config.seed)
    write_model_set(
        config.models, name=config.name, calibration=calibration, cohort=cohort, side_px=embedder.side_px,
        training={"command": config.command, "commit": config.commit, "packs": PACKS},
    )  # fmt: skip
    print(json.dumps(asdict(calibration), indent=2))
