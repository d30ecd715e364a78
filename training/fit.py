"""Fits everything that a model set needs beside its network, on a user's own pictures or on the project's packs.

    python -m training fit --model mine --data pictures

`mine` holds embedding.onnx: from `export`, or a copy of what ships. Stage by stage: the code book of the vote is kept, or the
shipped one is taken over; a synthesizer stays if it was trained for this network; cohort, thresholds, probabilities and
warnings are fitted by `calibrate`; then what a proof of print says. The manifest is written last, and what came out is opened
as the service does.

`pictures` is whatever `evaluate classify` reads: class folders, a zip of a pack, COCO boxes. Of each class some photographs go
into the cohort; the others are enrolled and asked, in many draws: half of the classes are enrolled in each, and the rest is
foreign to them. Near duplicates count once. A folder of packs is split as `calibrate` and `proofs` do it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
from tqdm import tqdm

from app.adapters.model_set import LoadedModelSet, read_model_set
from app.adapters.networks import OnnxEmbedder, open_embedder
from app.domain.calibration import Calibration, ProofCalibration
from app.domain.checks import WarningLimits
from app.domain.values import Example, FloatArray
from app.errors import CorruptModelSet
from training import calibrate, proofs, run, synthesizer
from training.calibrate import Enrolled, Enroller
from training.evaluate.items import AskedItem
from training.evaluate.near_duplicates import groups_of, perceptual_hashes
from training.evaluate.sources import Source, decoded, read_items
from training.points import WORDS_FILE

LEAST_CLASSES = 10  # five to enrol and five that are foreign to them
LEAST_PHOTOGRAPHS = 3  # of a class: one for the cohort, one to enrol, one to ask
MOST_CLASSES, MOST_PHOTOGRAPHS = 400, 16  # more make it slower, not surer
ENROLLED = 400  # classes over all draws, about as many as `calibrate` enrols
STORED_PX = 512  # longest side of what the service embeds
# Of those of the cohort that compete with a class, one in so many may be of its own: whoever calibrates on a catalogue will enrol
# it, and a threshold that is taken between a class and itself lets none of its pictures pass.
OWN_AMONG_COMPETING = 20
NEVER = 1e3  # a strength that no proof has


@dataclass(frozen=True)
class Config:
    model: Path = field(metadata={"help": "folder with embedding.onnx; the rest of the model set is written there"})
    data: Path = field(metadata={"help": "class folders, a zip or COCO boxes of your pictures, or the folder with the packs"})
    shipped: Path = field(default=Path("models"), metadata={"help": "model set to take over what cannot be fitted from"})
    name: str = field(default="", metadata={"help": "of the model set; that of its folder, unless said"})
    target_far: float = field(
        default=calibrate.TARGET_FAR, metadata={"help": "share of pictures of nothing enrolled that one class may accept"}
    )
    seed: int = 0


@dataclass(frozen=True)
class Photographed:
    """A class embedded, near duplicates left out: n photographs to enrol or to ask, and m for the cohort."""

    examples: Sequence[Example]  # n
    asked: FloatArray  # (n, d): the same photographs as queries
    tighter: FloatArray  # (n, d): and cropped a little
    cohort: FloatArray  # (m, d)


def read_classes(config: Config, enroller: Enroller) -> list[Photographed]:
    """SystemExit where too few classes have photographs enough."""
    items: dict[str, list[AskedItem]] = {}
    for item in read_items(Source("--data", config.data)):
        items.setdefault(item.class_name, []).append(item)
    rng = np.random.default_rng(config.seed)
    names = sorted(name for name, own in items.items() if len(own) >= LEAST_PHOTOGRAPHS)
    drawn = sorted(names[position] for position in rng.permutation(len(names))[:MOST_CLASSES])
    found = []
    for name in tqdm(drawn, desc="embedding classes", disable=None):
        order = np.sort(rng.permutation(len(items[name]))[:MOST_PHOTOGRAPHS])
        if one := photographed([items[name][position] for position in order], enroller):
            found.append(one)
    if len(found) < LEAST_CLASSES:
        raise SystemExit(
            f"--data {config.data}: {len(found)} of its {len(items)} classes have {LEAST_PHOTOGRAPHS} pictures or more, near "
            f"duplicates counted once; it takes {LEAST_CLASSES} such classes to say what a similarity means"
        )
    count = sum(len(one.examples) + len(one.cohort) for one in found)
    print(f"{count} photographs of {len(found)} classes, of {len(items)} that are there")
    return found


def photographed(items: Sequence[AskedItem], enroller: Enroller) -> Photographed | None:
    """Items of one class, embedded; None where too few are left without near duplicates."""
    pictures = list(decoded(items))
    for picture in pictures:
        picture.thumbnail((STORED_PX, STORED_PX))
    _, first = np.unique(groups_of(items, perceptual_hashes(pictures)), return_index=True)
    if len(first) < LEAST_PHOTOGRAPHS:
        return None
    pixels = [np.asarray(pictures[position]) for position in sorted(first)]
    kept, cohort = np.split(np.arange(len(pixels)), [-max(1, len(pixels) // 4)])
    own = [pixels[position] for position in kept]
    return Photographed(
        examples=[enroller.example(one) for one in own],
        asked=enroller.embed(own),
        tighter=enroller.embed([calibrate.tighter(one) for one in own]),
        cohort=enroller.embed([pixels[position] for position in cohort]),
    )


def calibration_on(classes: Sequence[Photographed], config: Config) -> Calibration:
    """All but the proofs. SystemExit where the network does not tell these classes apart."""
    rng, measured = np.random.default_rng(config.seed), []
    synthesis = synthesizer.synthesis_of(config.model)
    share = min(1.0, max(calibrate.COMPETING_SHARE, OWN_AMONG_COMPETING / len(classes)))
    half = len(classes) // 2
    for _ in range(max(2, round(ENROLLED / half))):
        order = rng.permutation(len(classes))
        enrolled = [enrolled_of(classes[position], rng) for position in order[:half]]
        others = [classes[position] for position in order[half:]]
        foreign, cohort = (np.concatenate(rows) for rows in zip(*((one.asked, one.cohort) for one in others), strict=True))
        measured += calibrate.measure(enrolled, foreign, cohort, synthesis=synthesis, competing_share=share)
    repeated = np.concatenate([(one.asked * one.tighter).sum(1) for one in classes])
    limits = calibrate.similarity_limits([one.asked for one in classes], repeated, [m for m in measured if m.shots == 1])
    say_how_sure(classes, config.target_far)
    try:
        return calibrate.fit(
            measured, WarningLimits(**calibrate.PICTURE_LIMITS, **limits),
            target_far=config.target_far, seed=config.seed, competing_share=share,
        )  # fmt: skip
    except ValueError as error:
        raise SystemExit(f"--model {config.model}: this network does not tell the classes of --data apart: {error}") from error


def enrolled_of(one: Photographed, rng: np.random.Generator) -> Enrolled:
    """One photograph to ask, the others to enrol, as far as they are wanted."""
    asked, *support = rng.permutation(len(one.examples))
    return Enrolled([one.examples[position] for position in support[: max(calibrate.SHOTS)]], one.asked[[asked]])


def say_how_sure(classes: Sequence[Photographed], target_far: float) -> None:
    pairs = sum(len(one.examples) for one in classes) * (len(classes) - 1)
    print(f"false accepts among {pairs} pairs of a picture and another class; --target-far lets {pairs * target_far:.1f} pass")
    if pairs * target_far < 10:
        print("these are few to go by: more classes or pictures, or a larger --target-far, make the thresholds surer")


def taken_over(shipped: LoadedModelSet, network: bytes) -> ProofCalibration:
    """What the shipped model set says of proofs: points are the same under any network, the look of a place is not."""
    proof = shipped.model_set.calibration.proof
    if network == shipped.embedding_network:
        print("proofs of print: as shipped")
        return proof
    print("proofs of print: as shipped by their points; the look of a place is left out, because it was another network's")
    return replace(proof, look=0.0, looked_from=NEVER)


def origin_of(config: Config, network: bytes, shipped: LoadedModelSet) -> tuple[str, list[str]]:
    """The commands that made it, and the packs that it learnt from, as far as the files say."""
    this = f"python -m training fit --data {config.data.name}"
    if network == shipped.embedding_network:
        training = json.loads((config.shipped / "manifest.json").read_text())["training"]
        return f"{training['command']}; {this}", [*training["packs"], config.data.name]
    said = {entry.key: entry.value for entry in onnx.load_model_from_string(network).metadata_props}
    made = f"{said['command']} ({said['weights']})" if "command" in said else "embedding.onnx of unknown origin"
    return f"{made}; {this}", [config.data.name]


def fit_on_pictures(config: Config, network: bytes, shipped: LoadedModelSet) -> None:
    embedder = OnnxEmbedder(network)
    classes = read_classes(config, Enroller(embedder))
    calibration = replace(calibration_on(classes, config), proof=taken_over(shipped, network))
    command, packs = origin_of(config, network, shipped)
    calibrate.write_model_set(
        config.model, name=config.name or config.model.resolve().name, calibration=calibration, side_px=embedder.side_px,
        cohort=calibrate.as_stored(np.concatenate([one.cohort for one in classes])),
        training={"command": command, "commit": "", "packs": packs},
    )  # fmt: skip


def fit_on_packs(config: Config, network: bytes, shipped: LoadedModelSet) -> None:
    command, _ = origin_of(config, network, shipped)
    folders = ["--data", str(config.data), "--models", str(config.model), "--seed", str(config.seed)]
    name = config.name or config.model.resolve().name
    calibrate.main([*folders, "--name", name, "--command", command, "--target-far", str(config.target_far)])
    proofs.main(folders)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit all of a model set but its network.")
    try:
        network, shipped = (config.model / "embedding.onnx").read_bytes(), read_model_set(config.shipped)
        if not (config.model / WORDS_FILE).exists():
            print(f"{WORDS_FILE}: as shipped")
            shutil.copy(config.shipped / WORDS_FILE, config.model / WORDS_FILE)
        if network != shipped.embedding_network and synthesizer.removed(config.model):
            print("synthesizer: none; the one in the folder was trained for another network, and is removed")
        if any((config.data / "brand-marks").glob("images*.zip")):
            fit_on_packs(config, network, shipped)
        else:
            fit_on_pictures(config, network, shipped)
        fitted = read_model_set(config.model)
        open_embedder(fitted, threads=1, device="cpu")
    except (OSError, CorruptModelSet) as error:
        raise SystemExit(str(error)) from error  # names the file
    print(f"{config.model} is complete: model set {fitted.model_set.id}, '{fitted.name}'")
