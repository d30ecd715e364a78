"""Fits everything that a model set needs beside its network, on a user's own pictures or on the project's packs.

    python -m training fit --model mine --data pictures

`mine` holds embedding.onnx: from `export`, or a copy of what ships. Stage by stage: the code book of the vote is kept, or the
shipped one is taken over; the shipped network keeps its synthesizer, another one is given one of its own; cohort, thresholds,
probabilities and warnings are fitted by `calibrate`; then what a proof of print says. The manifest is written last, and what
came out is opened as the service does.

`pictures` is whatever `evaluate classify` reads: class folders, a zip of a pack, COCO boxes. Of each class some photographs go
into the cohort; the others are enrolled and asked, in many draws: half of the classes are enrolled in each, and the rest is
foreign to them. Classes that a synthesizer was taught with are not among these: it knows them. Near duplicates count once. A
folder of packs is split as the project's own stages do it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
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
from training import calibrate, features, proofs, run, synthesizer
from training.calibrate import Enrolled, Enroller
from training.evaluate.items import AskedItem
from training.evaluate.near_duplicates import groups_of, perceptual_hashes
from training.evaluate.sources import Source, decoded, read_items
from training.features import FeatureSet
from training.points import WORDS_FILE
from training.synthesizer import NO_SYNTHESIS, Synthesis, synthesis_of

LEAST_CLASSES = 10  # five to enrol and five that are foreign to them
LEAST_PHOTOGRAPHS = 3  # of a class: one for the cohort, one to enrol, one to ask
MOST_CLASSES, MOST_PHOTOGRAPHS = 400, 16  # more make it slower, not surer
ENROLLED = 400  # classes over all draws, about as many as `calibrate` enrols
STORED_PX = 512  # longest side of what the service embeds
# Of those of the cohort that compete with a class, one in so many may be of its own: whoever calibrates on a catalogue will enrol
# it, and a threshold that is taken between a class and itself lets none of its pictures pass.
OWN_AMONG_COMPETING = 20
LEAST_FOR_SYNTHESIS = 100  # classes: half of them teach it, and on the others it has to show its worth
TRIED = 20  # draws of examples in which it does
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


def with_synthesizer(classes: Sequence[Photographed], config: Config) -> Sequence[Photographed]:
    """Teaches a synthesizer with half of the classes, and keeps it where it helps the others; -> those that it does not know."""
    if len(classes) < LEAST_FOR_SYNTHESIS:
        print(f"synthesizer: none; it takes {LEAST_FOR_SYNTHESIS} classes to teach one and to see what it is worth")
        return classes
    taught, others = classes[::2], classes[1::2]
    wanted = replace(synthesizer.Config(), models=config.model, seed=config.seed)
    synthesizer.write(*synthesizer.train(wanted, [feature_set_of(taught)]), wanted)
    without, with_it = (right_first(others, each, config.seed) for each in (NO_SYNTHESIS, synthesis_of(config.model)))
    figures = f"{100 * without:.1f} % of pictures find their class without it, {100 * with_it:.1f} with it"
    if with_it <= without:
        synthesizer.removed(config.model)
        print(f"synthesizer: none; of {len(others)} classes that it does not know {figures}")
        return classes
    print(f"synthesizer: taught with {len(taught)} classes; of {len(others)} others {figures}")
    return others


def feature_set_of(classes: Sequence[Photographed]) -> FeatureSet:
    vectors = np.concatenate([one.asked for one in classes])
    labels = np.arange(len(classes)).repeat([len(one.asked) for one in classes])
    either, names = np.ones(len(labels), bool), tuple(str(number) for number in range(len(classes)))
    views = np.empty((len(labels), 0, vectors.shape[1]), np.float32)
    return FeatureSet(vectors, labels, names, either, either, views, in_circle=False)


def right_first(classes: Sequence[Photographed], synthesis: Synthesis, seed: int) -> float:
    """The share of pictures whose own class is the most alike of all, over numbers of examples and draws."""
    rng = np.random.default_rng(seed)
    cohort = np.concatenate([one.cohort for one in classes])
    draws = [[enrolled_of(one, rng) for one in classes] for _ in range(TRIED)]
    found = [each.asked for drawn in draws for each in calibrate.measure(drawn, cohort, cohort, synthesis=synthesis)]
    return float(np.mean([(asked.argmax(-1) == np.arange(len(asked))[:, None]).mean() for asked in found]))


def calibration_on(classes: Sequence[Photographed], config: Config) -> Calibration:
    """All but the proofs. SystemExit where the network does not tell these classes apart."""
    rng, measured = np.random.default_rng(config.seed), []
    synthesis = synthesis_of(config.model)
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
    unknown = classes if network == shipped.embedding_network else with_synthesizer(classes, config)
    calibration = replace(calibration_on(unknown, config), proof=taken_over(shipped, network))
    command, packs = origin_of(config, network, shipped)
    calibrate.write_model_set(
        config.model, name=config.name or config.model.resolve().name, calibration=calibration, side_px=embedder.side_px,
        cohort=calibrate.as_stored(np.concatenate([one.cohort for one in classes])),
        training={"command": command, "commit": "", "packs": packs},
    )  # fmt: skip


def teach_with_packs(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        of_pack = ["--data", str(config.data), "--model", str(config.model / "embedding.onnx")]
        features.main([*of_pack, "--pack", features.BASE, "--out", folder, "--seed", str(config.seed)])
        synthesizer.main(["--features", folder, "--models", str(config.model), "--seed", str(config.seed)])


def fit_on_packs(config: Config, network: bytes, shipped: LoadedModelSet) -> None:
    command, _ = origin_of(config, network, shipped)
    folders = ["--data", str(config.data), "--models", str(config.model), "--seed", str(config.seed)]
    name = config.name or config.model.resolve().name
    if network != shipped.embedding_network:
        teach_with_packs(config)
    calibrate.main([*folders, "--name", name, "--command", command, "--target-far", str(config.target_far)])
    proofs.main(folders)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(Config, arguments, description="Fit all of a model set but its network.")
    try:
        network, shipped = (config.model / "embedding.onnx").read_bytes(), read_model_set(config.shipped)
        if not (config.model / WORDS_FILE).exists():
            print(f"{WORDS_FILE}: as shipped")
            shutil.copy(config.shipped / WORDS_FILE, config.model / WORDS_FILE)
        if network != shipped.embedding_network:
            synthesizer.removed(config.model)  # whichever network that was for
        if any((config.data / "brand-marks").glob("images*.zip")):
            fit_on_packs(config, network, shipped)
        else:
            fit_on_pictures(config, network, shipped)
        fitted = read_model_set(config.model)
        open_embedder(fitted, threads=1, device="cpu")
    except (OSError, CorruptModelSet) as error:
        raise SystemExit(str(error)) from error  # names the file
    print(f"{config.model} is complete: model set {fitted.model_set.id}, '{fitted.name}'")
