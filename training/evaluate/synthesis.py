"""Does synthesis in feature space help one to five examples, and against what? Paired, over one list of episodes.

    python -m training evaluate synthesis --base train.npz --novel val.npz --out runs/synthesis.json

Files are those of `python -m training features`. A quarter of the base classes, by name, is held out: every option of every arm
(shrinkage, weight of the real shots, temperature …) is chosen there, for each number of shots, and all else is learnt from the
other three quarters, delta-encoders included. Of the novel classes nothing is chosen. What an arm is compared with is the nearest
mean of supports averaged over their views, centred and normalised (CL2N + views), and what it may stand on are plain supports or
those averages (`--support`); arms that train a classifier for each episode answer the first `--sampled` episodes of the list.

Hours on one core with all ablations; each arm is kept in `--out` as it is found, and each delta-encoder in `--runs`.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training import delta_encoder, features, run
from training.delta_encoder import Base, DeltaEncoder, Space
from training.evaluate import heads, spread
from training.evaluate.feature_episodes import FeatureEpisodes, batches, draw, right_by_class
from training.evaluate.heads import Classifier, Knowledge
from training.evaluate.intervals import Interval, two_level
from training.features import FeatureSet

SHOTS = (1, 2, 5)
REAL_SHOT_WEIGHTS = (1.0, 0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.0)
OFF = 0.95  # a real-shot weight from which synthesis does nothing worth its cost
SHRINKAGES = (0.1, 0.3, 0.5)
MADE = 128  # of a shot
CURVE = (1, 2, 4, 9, 32, 128)  # made-up pictures beside one real one
SAMPLED_STEPS, SAMPLED_EACH = 320, 256  # of the classifiers of sampled arms; made-up pictures a class, at most MADE of a shot
PAPER_STEPS, PAPER_EACH = 1280, 1024
PAPER_RATE = 8192 * 1e-5  # of Adam, times the hidden units: what is learnt by a layer in a step goes by the product
DONOR_TEMPERATURE = 0.1
REFERENCE = "CL2N + views"
HINTS = (  # recipes of which it is asked what they say about thresholds
    "Gaussian deltas", "real deltas, near references", "residual, stored codes", "residual, near donors",
    "residual, mean and spread taught, stored codes", "paper, stored codes",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    base: Path = field(default=Path("runs/features/train.npz"), metadata={"help": "cached features of base classes"})
    novel: Path = field(default=Path("runs/features/val.npz"), metadata={"help": "and of the classes that are reported"})
    donors: str = field(default="", metadata={"help": "another file, whose pairs of pictures lend their differences as well"})
    out: Path = field(default=Path("runs/synthesis.json"), metadata={"help": "results"})
    runs: Path = field(default=Path("runs/synthesis"), metadata={"help": "folder of the delta-encoders' runs"})
    support: str = field(default="views", metadata={"help": "what arms stand on: views (averages over them) or plain"})
    ways: int = field(default=5, metadata={"help": "classes of an episode"})
    asked: int = field(default=15, metadata={"help": "pictures asked of a class, where it has so many"})
    episodes: int = field(default=2000, metadata={"help": "of the list"})
    sampled: int = field(default=200, metadata={"help": "episodes of arms that train a classifier in each"})
    choosing: int = field(default=600, metadata={"help": "episodes of held-out base classes"})
    most: int = field(default=10, metadata={"help": "shots of the curve of real pictures, where there are so many"})
    hidden: int = field(default=512, metadata={"help": "units of the delta-encoders"})
    ablations: bool = field(default=True, metadata={"help": "other losses and code sizes, too"})
    seed: int = 2026
    smoke: bool = field(default=False, metadata={"help": "six steps of every delta-encoder: does it run at all"})


# ------------------------------------------------------------------------------------------------------------------ worlds


@dataclass(frozen=True)
class World:
    """Classes that are asked about: vectors of asked pictures (n, d) and of those that may be shown (s, d), by kind of space."""

    asked: dict[str, Tensor]
    shots: dict[str, Tensor]
    made: dict[str, Tensor]  # by recipe: what is made of each that may be shown, averaged, unit length (s, d)
    alike: dict[str, Tensor]  # by recipe: mean similarity to the shot of what is made of it (s,)
    episodes: FeatureEpisodes

    def shown(self, space: str, episodes: FeatureEpisodes) -> Tensor:
        """(e, ways, k, d)"""
        return self.shots[space][episodes.shown]


def world_of(found: FeatureSet, space: Space, episodes: FeatureEpisodes, support: str) -> World:
    raw, shown = torch.from_numpy(found.features), torch.from_numpy(found.features[found.may_show])
    averaged = torch.cat([shown[:, None], torch.from_numpy(found.views)], 1)  # (s, 1 + views, d)
    of_views = F.normalize(space(averaged).mean(1), dim=-1)
    plain = space(shown)
    power = heads.DistributionCalibration.power(released_scale(raw))
    asked = {"raw": raw, "l2n": F.normalize(raw, dim=-1), "cl2n": space(raw), "power": power}
    shots = {
        "raw": shown,
        "power": power[torch.from_numpy(found.may_show)],
        "l2n": F.normalize(shown, dim=-1),
        "plain": plain,
        "views": of_views,
    }
    shots["cl2n"] = shots[support]
    return World(asked, shots, {}, {}, episodes)


def released_scale(raw: Tensor) -> Tensor:
    """Features (n, d) for Distribution Calibration, whose 0.21 is for about 1 a number: an embedding of length 1 is scaled up."""
    has_unit_length = bool((raw.norm(dim=1) - 1).abs().max() < 0.01)
    return raw * raw.shape[1] ** 0.5 if has_unit_length else raw


@dataclass(frozen=True)
class Arm:
    """`answer` makes linear classifiers of episodes, given an option; the best option is chosen on held-out base classes."""

    name: str
    answer: Callable[[World, FeatureEpisodes, Any], Classifier]
    options: Sequence[Any] = (None,)
    space: str = "cl2n"
    sampled: bool = False  # answers the first episodes only


# -------------------------------------------------------------------------------------------------------------------- arms


def by_angle(name: str, shown: str, space: str = "cl2n") -> Arm:
    """Nearest mean of what is shown in one space, of what is asked in another, which may be the same."""
    return Arm(name, lambda world, episodes, _: heads.cosine(world.shown(shown, episodes).mean(2)), space=space)


def baselines(knowledge: Knowledge) -> list[Arm]:
    """Section 6.5 of the dossier, those that work on features."""

    def regression(world: World, episodes: FeatureEpisodes, strength: float) -> Classifier:
        shots = world.shown("cl2n", episodes)
        labels = torch.arange(shots.shape[1]).repeat_interleave(shots.shape[2])
        return heads.logistic(shots.flatten(1, 2), labels, shots.shape[1], strength)

    def lda(world: World, episodes: FeatureEpisodes, shrinkage: float) -> Classifier:
        return heads.discriminant(world.shown("cl2n", episodes).mean(2), knowledge.precision(shrinkage))

    def whitened(world: World, episodes: FeatureEpisodes, shrinkage: float) -> Classifier:
        precision = knowledge.precision(shrinkage)  # as (a - b) precision (a - b) is the distance of whitened vectors
        means = world.shown("cl2n", episodes).mean(2)
        lengths = ((means @ precision) * means).sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
        return means @ precision / lengths, means.new_zeros(means.shape[:2])

    return [
        Arm("NCM", lambda world, episodes, _: heads.nearest_mean(world.shown("raw", episodes).mean(2)), space="raw"),
        by_angle("L2N (as served)", "l2n", "l2n"),
        by_angle("CL2N", "plain"),
        by_angle(REFERENCE, "views"),
        Arm("shrunk tied LDA", lda, SHRINKAGES),
        Arm("shrunk tied LDA, by angle", whitened, (*SHRINKAGES, 0.7, 0.9, 1.0)),
        Arm("ridge", lambda world, episodes, strength: heads.ridge(world.shown("cl2n", episodes), strength), (0.1, 1.0, 10.0)),
        Arm("logistic regression", regression, (0.1, 1.0, 10.0)),
    ]


def rectifiers(knowledge: Knowledge) -> list[Arm]:
    """A class's mean guessed from its shots without a network."""

    def towards_base(world: World, episodes: FeatureEpisodes, option: tuple[float, float]) -> Classifier:
        temperature, weight = option
        mean = F.normalize(world.shown("cl2n", episodes).mean(2), dim=-1)
        others = heads.softmax_means(mean, knowledge.class_means, temperature=temperature)
        return heads.cosine(weight * mean + (1 - weight) * others)

    @functools.cache
    def gaussian(count: int, within: float, between: float) -> tuple[Tensor, Tensor]:
        return knowledge.conditional(count, within=within, between=between)

    def conditional(world: World, episodes: FeatureEpisodes, option: tuple[float, float]) -> Classifier:
        shots = world.shown("cl2n", episodes)
        return heads.cosine(shots.mean(2) @ gaussian(shots.shape[2], *option)[0])

    def conditional_discriminant(world: World, episodes: FeatureEpisodes, option: tuple[float, float]) -> Classifier:
        shots = world.shown("cl2n", episodes)
        gain, precision = gaussian(shots.shape[2], *option)
        return heads.discriminant(shots.mean(2) @ gain, precision)

    both = [(within, between) for within in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0) for between in (0.1, 0.3, 0.5, 0.7, 0.9)]
    near = [(temperature, weight) for temperature in (0.02, 0.05, 0.1) for weight in (1.0, 0.95, 0.9, 0.8, 0.7, 0.6)]
    return [
        Arm("mean correction (1.11 item 4)", towards_base, near),
        Arm("conditional mean, closed form", conditional, both),
        Arm("conditional mean and its covariance (PLDA)", conditional_discriminant, both),
    ]


def made_means(recipe: str, knowledge: Knowledge) -> list[Arm]:
    """What is made of the shots, averaged with them by a weight of the real ones; then by angle, or by a discriminant."""

    def mean(world: World, episodes: FeatureEpisodes, weight: float) -> Tensor:
        made = world.made[recipe][episodes.shown].mean(2)
        return weight * world.shown("cl2n", episodes).mean(2) + (1 - weight) * made

    def lda(world: World, episodes: FeatureEpisodes, option: tuple[float, float]) -> Classifier:
        weight, shrinkage = option
        return heads.discriminant(mean(world, episodes, weight), knowledge.precision(shrinkage))

    grid = [(weight, shrinkage) for weight in (1.0, 0.9, 0.7, 0.5, 0.3) for shrinkage in SHRINKAGES]
    return [
        Arm(f"{recipe}: mean", lambda world, episodes, weight: heads.cosine(mean(world, episodes, weight)), REAL_SHOT_WEIGHTS),
        Arm(f"{recipe}: mean, LDA", lda, grid),
    ]


def made_covariance(recipe: str, covariance: Tensor) -> Arm:
    """A discriminant with the covariance of what is made, shared by all classes, in the place of that of base classes."""
    precisions = {share: torch.linalg.inv(heads.shrunk(covariance, share)).float() for share in SHRINKAGES}

    def lda(world: World, episodes: FeatureEpisodes, shrinkage: float) -> Classifier:
        return heads.discriminant(world.shown("cl2n", episodes).mean(2), precisions[shrinkage])

    return Arm(f"{recipe}: covariance, LDA", lda, SHRINKAGES)


def trained(name: str, bank: Callable[[World], Tensor] | None, *, each: int, steps: int) -> Arm:
    """The paper's classifier, trained in each episode on the shots and on what was made of them beforehand (s, m, d)."""
    cache: dict[int, Tensor] = {}

    def answer(world: World, episodes: FeatureEpisodes, _: None) -> Classifier:
        if bank is not None and id(world) not in cache:
            cache.clear()
            cache[id(world)] = bank(world)
        parts = []
        for _, part in batches(episodes, 25):
            shots = world.shown("cl2n", part)  # (e, ways, k, d)
            if bank is not None:
                made = cache[id(world)][part.shown, : max(1, each // shots.shape[2])]  # (e, ways, k, m, d)
                shots = torch.cat([shots, made.flatten(2, 3).float()], 2)
            labels = torch.arange(shots.shape[1]).repeat_interleave(shots.shape[2])
            parts.append(delta_encoder.linear_classifier(shots.flatten(1, 2), labels, shots.shape[1], steps=steps))
        return heads.stacked(parts)

    return Arm(name, answer, sampled=True)


def distribution_calibration(found: FeatureSet, base_rows: np.ndarray) -> Arm:
    """Before any normalisation, as released."""
    features_of_base = released_scale(torch.from_numpy(found.features))[base_rows]
    method = heads.DistributionCalibration(features_of_base, torch.from_numpy(found.labels[base_rows]))

    def answer(world: World, episodes: FeatureEpisodes, _: None) -> Classifier:
        generator, parts = torch.Generator().manual_seed(0), []
        for _, part in batches(episodes, 10):
            parts.append(method(world.shown("power", part), generator))
        return heads.stacked(parts)

    return Arm("Distribution Calibration", answer, space="power", sampled=True)


# ------------------------------------------------------------------------------------------------------------------ recipes

Recipe = Callable[[Tensor, torch.Generator], Tensor]  # shots (n, d) -> made of each (n, MADE or so, d), unit length


@dataclass(frozen=True)
class Maker:
    """Ways to make pictures of a shot, of what base classes, and perhaps donors, show."""

    knowledge: Knowledge
    donors: Base | None

    @property
    def base(self) -> Base:
        return self.knowledge.base

    def of_network(self, network: DeltaEncoder, count: int) -> dict[str, Recipe]:
        """Codes stored once for all shots; drawn for each; of classes near the shot; of nothing; of the donors."""

        def stored(base: Base) -> Recipe:
            bank = codes(network, base, count, torch.Generator().manual_seed(0))  # one for all shots, and so it could ship
            return lambda shots, generator: delta_encoder.synthesise(network, shots, bank)

        x, y = self.base.pairs(16 * count, torch.Generator().manual_seed(1))
        many = delta_encoder.codes_of(network, self.base, (x, y))

        def drawn(shots: Tensor, generator: torch.Generator) -> Tensor:
            return delta_encoder.synthesise(
                network, shots, many[torch.randint(len(many), (len(shots), count), generator=generator)]
            )

        def near(shots: Tensor, generator: torch.Generator) -> Tensor:
            centres = F.normalize(self.knowledge.class_means, dim=-1)
            alike = (shots @ centres.T / DONOR_TEMPERATURE).softmax(-1)[:, self.base.labels[y]]  # (n, 16 count)
            return delta_encoder.synthesise(network, shots, many[torch.multinomial(alike, count, generator=generator)])

        def nothing(shots: Tensor, generator: torch.Generator) -> Tensor:
            return delta_encoder.synthesise(network, shots, torch.zeros(1, network.code))

        found = {"stored": stored(self.base), "drawn": drawn, "near donors": near, "zero": nothing}
        return found | ({"with donors": stored(self.donors)} if self.donors else {})

    def without_network(self, count: int) -> dict[str, Recipe]:
        """Differences of real pairs, of all classes or of references near the shot; of donors; Gaussian ones."""
        factor = torch.linalg.cholesky(2 * heads.shrunk(self.knowledge.within, 0.1)).float()  # of a difference: twice

        def real(base: Base) -> Recipe:
            def recipe(shots: Tensor, generator: torch.Generator) -> Tensor:
                x, y = base.pairs(count, generator)
                return F.normalize(shots[:, None] + (base.vectors[x] - base.vectors[y]), dim=-1)

            return recipe

        def near(shots: Tensor, generator: torch.Generator) -> Tensor:
            made = []
            for shot in shots:
                share = (self.base.vectors @ shot / DONOR_TEMPERATURE).softmax(0)
                x, y = self.base.pairs(count, generator, share=share)
                made.append(shot + self.base.vectors[x] - self.base.vectors[y])
            return F.normalize(torch.stack(made), dim=-1)

        def gaussian(shots: Tensor, generator: torch.Generator) -> Tensor:
            noise = torch.randn(len(shots), count, shots.shape[1], generator=generator)
            return F.normalize(shots[:, None] + noise @ factor.T, dim=-1)

        found = {"real deltas": real(self.base), "real deltas, near references": near, "Gaussian deltas": gaussian}
        return found | ({"real deltas of donors": real(self.donors)} if self.donors else {})


def codes(network: DeltaEncoder, base: Base, count: int, generator: torch.Generator) -> Tensor:
    return delta_encoder.codes_of(network, base, base.pairs(count, generator))


def made_of(recipe: Recipe, shots: Tensor, seed: int) -> Tensor:
    """In half precision, in parts: (s, d) -> (s, m, d)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([recipe(part, generator).half() for part in shots.split(32)])


def apply(name: str, recipe: Recipe, world: World, seed: int) -> None:
    """Keeps of what a recipe makes of each shot its mean, and how alike to the shot it is."""
    shots, generator = world.shots["cl2n"], torch.Generator().manual_seed(seed)
    made = recipe(shots, generator)
    world.made[name] = F.normalize(made.mean(1), dim=-1)
    if name in HINTS:
        world.alike[name] = (made * shots[:, None]).sum(-1).mean(1)


def covariance_of(recipe: Recipe, base: Base, seed: int) -> Tensor:
    """Of what is made of some base pictures around its mean, pooled: (d, d)."""
    generator = torch.Generator().manual_seed(seed)
    shots = base.vectors[torch.randperm(len(base.vectors), generator=generator)[:64]]
    made = recipe(shots, generator).double()
    apart = (made - made.mean(1, keepdim=True)).flatten(0, 1)
    return apart.T @ apart / (len(apart) - len(shots))


# ---------------------------------------------------------------------------------------------------------------- networks


def variants(config: Config) -> dict[str, delta_encoder.Config]:
    """The residual form of section 1.10 of the dossier, the paper's, and with `ablations` what changes one thing of either."""
    paper = delta_encoder.Config(
        features=config.base, run=config.runs / "paper", hidden=config.hidden, rate=PAPER_RATE / config.hidden, seed=config.seed
    )  # fmt: skip
    residual = replace(
        paper, run=config.runs / "residual", residual=True, detached=True, rate=3e-4, batch=512, steps=600,
        weight_decay=1e-4,
    )  # fmt: skip
    start = str(residual.run / "checkpoint.safetensors")
    taught = replace(residual, run=config.runs / "residual-taught", start_from=start, steps=0, meta_steps=200)
    found = {"residual": residual, "residual, mean and spread taught": taught, "paper": paper}
    if config.ablations:
        found |= {
            "paper, weights detached": replace(paper, run=config.runs / "paper-detached", detached=True),
            "residual, code of 4": replace(residual, run=config.runs / "residual-code-4", code=4),
            "residual, code of 64": replace(residual, run=config.runs / "residual-code-64", code=64),
        }
    if config.smoke:
        return {name: replace(one, steps=min(6, one.steps), meta_steps=min(6, one.meta_steps)) for name, one in found.items()}
    return found


# ------------------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True)
class Study:
    """Where options are chosen, and where arms are reported."""

    config: Config
    chosen_on: World
    reported_on: World

    def values(self, arm: Arm, world: World, shots: int, option: Any) -> np.ndarray:
        """Share of right answers (e, classes), NaN where a class is not in an episode."""
        episodes = world.episodes.of_shots(shots)
        if arm.sampled:
            episodes = episodes.first(self.config.sampled)
        weights, biases = arm.answer(world, episodes, option)
        table = world.asked[arm.space]
        return right_by_class(weights, biases, table, episodes)

    def choose(self, arm: Arm, shots: int) -> Any:
        if len(arm.options) == 1:
            return arm.options[0]
        means = [float(np.nanmean(self.values(arm, self.chosen_on, shots, option))) for option in arm.options]
        return arm.options[int(np.argmax(means))]

    @functools.cached_property
    def reference(self) -> dict[int, np.ndarray]:
        return {shots: self.values(by_angle(REFERENCE, "views"), self.reported_on, shots, None) for shots in self.shots}

    @functools.cached_property
    def shots(self) -> tuple[int, ...]:
        return tuple(shots for shots in SHOTS if shots <= self.reported_on.episodes.shown.shape[2])

    def report(self, arm: Arm) -> dict[str, Any]:
        """By number of shots: accuracy, its difference from the reference, and the option."""
        found, start = {}, time.monotonic()
        for shots in self.shots:
            option = self.choose(arm, shots)
            values = self.values(arm, self.reported_on, shots, option)
            found[str(shots)] = {
                "accuracy": two_level(values).numbers(),
                "gain": two_level(values - self.reference[shots][: len(values)]).numbers(),
                "option": option, "episodes": len(values),
            }  # fmt: skip
        print(row_of(arm.name, found), f"  ({time.monotonic() - start:.0f} s)", flush=True)
        return found


def row_of(name: str, found: dict[str, Any]) -> str:
    """A row of the table: accuracy, and the gain with its interval, for each number of shots."""
    cells = []
    for entry in found.values():
        gain = Interval(**entry["gain"])
        weight = entry["option"][0] if isinstance(entry["option"], tuple | list) else entry["option"]
        cells.append(f"{100 * entry['accuracy']['mean']:.1f} | {gain}" + (f" ({weight:g})" if weight is not None else ""))
    return f"| {name} | " + " | ".join(cells) + " |"


def real_against_made(study: Study, recipe: Recipe) -> dict[str, Any]:
    """The paper's curve: k real pictures, and one with m made-up ones beside it; nearest mean and trained classifier."""
    world, found, steps = study.reported_on, {}, 6 if study.config.smoke else SAMPLED_STEPS
    bank = made_of(recipe, world.shots["cl2n"], study.config.seed)
    most = world.episodes.shown.shape[2]
    for real in [count for count in (1, 2, 3, 5, 7, 10) if count <= most]:
        episodes = world.episodes.of_shots(real)
        for name, arm in (("nearest mean", ncm_of(None, 0)), ("classifier", trained("", None, each=0, steps=steps))):
            part = episodes.first(study.config.sampled) if arm.sampled else episodes
            values = right_by_class(*arm.answer(world, part, None), world.asked["cl2n"], part)
            found[f"{real} real, {name}"] = two_level(values).numbers()
    for count in CURVE:
        episodes = world.episodes.of_shots(1)
        for name, arm in (
            ("nearest mean", ncm_of(bank, count)),
            ("classifier", trained("", lambda _: bank, each=count, steps=steps)),
        ):
            part = episodes.first(study.config.sampled) if arm.sampled else episodes
            values = right_by_class(*arm.answer(world, part, None), world.asked["cl2n"], part)
            found[f"1 real and {count} made-up, {name}"] = two_level(values).numbers()
    for name, value in found.items():
        print(f"curve: {name}: {Interval(**value)}", flush=True)
    return found


def ncm_of(bank: Tensor | None, count: int) -> Arm:
    """Nearest mean of the shots and the first `count` made-up pictures of each, each counting as one."""

    def answer(world: World, episodes: FeatureEpisodes, _: None) -> Classifier:
        total = world.shown("cl2n", episodes).sum(2)
        if bank is not None:
            total = total + bank[:, :count].float().sum(1)[episodes.shown].sum(2)
        return heads.cosine(total)

    return Arm("", answer)


def study_of(config: Config) -> tuple[Study, Knowledge, FeatureSet]:
    base, novel = features.read(config.base), features.read(config.novel)
    space, learnt = delta_encoder.learnt_from(base)
    kept = base.of_classes(np.array([delta_encoder.held_out(name) for name in base.class_names]))
    worlds = []
    for found, count in ((kept, config.choosing), (novel, config.episodes)):
        fewest = min(int(found.may_show[found.labels == label].sum()) for label in set(found.labels.tolist()))
        most = max(SHOTS) if found.in_circle else max(max(SHOTS), min(config.most, fewest))
        drawn = draw(found, ways=config.ways, shots=most, asked=config.asked, episodes=count, seed=config.seed)
        support = config.support if found.views.shape[1] else "plain"
        worlds.append(world_of(found, space, drawn, support))
    return Study(config, *worlds), Knowledge(learnt), base


class Results:
    """What is found, written after each arm: an interrupted comparison goes on where it stopped."""

    def __init__(self, config: Config, episodes: FeatureEpisodes) -> None:
        self.path = config.out
        described = {name: str(value) for name, value in vars(config).items()}
        self.found: dict[str, Any] = {
            "config": described,
            "episodes": episodes.digest,
            "accuracy": {},
            "thresholds": {},
            "curve": {},
        }
        if self.path.exists():
            stored = json.loads(self.path.read_text())
            if (stored["config"], stored["episodes"]) == (described, episodes.digest):
                self.found = stored

    def keep(self, section: str, name: str, find: Callable[[], dict[str, Any]]) -> None:
        if name in self.found[section]:
            return
        self.found[section][name] = find()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.found, indent=1) + "\n")
        partial.replace(self.path)


def main(arguments: list[str]) -> None:
    config = run.config_from_flags(
        Config, arguments, description="Compare ways to make more of few examples, on cached features."
    )
    study, knowledge, base = study_of(config)
    donors = delta_encoder.learnt_from(features.read(Path(config.donors)))[1] if config.donors else None
    results, maker = Results(config, study.reported_on.episodes), Maker(knowledge, donors)
    networks = {name: delta_encoder.train(variant) for name, variant in variants(config).items()}
    recipes = recipes_of(networks, maker)

    def report(arms: Sequence[Arm]) -> None:
        for arm in arms:
            results.keep("accuracy", arm.name, functools.partial(study.report, arm))

    report(baselines(knowledge) + rectifiers(knowledge))
    for name, recipe in recipes.items():
        for world in (study.chosen_on, study.reported_on):
            apply(name, recipe, world, config.seed)
        report(made_means(name, knowledge)[: 2 if name in HINTS else 1])
        if name in HINTS:
            report([made_covariance(name, covariance_of(recipe, knowledge.base, config.seed))])
    resamples = 10 if config.smoke else spread.RESAMPLES
    for shots in study.shots:
        find = functools.partial(spread.report, study.chosen_on, study.reported_on, knowledge, shots, resamples=resamples)
        results.keep("thresholds", str(shots), find)
    if config.sampled:
        rows = np.array([not delta_encoder.held_out(base.class_names[label]) for label in base.labels])
        report([*sampled_arms(config, recipes, networks, maker), distribution_calibration(base, rows)])
        results.keep("curve", "curve", functools.partial(real_against_made, study, recipes["residual, stored codes"]))


def recipes_of(networks: dict[str, DeltaEncoder], maker: Maker) -> dict[str, Recipe]:
    """By name: without a network, all ways of the two networks that are compared most, and stored codes of the others."""
    found = maker.without_network(MADE)
    for name, network in networks.items():
        own = maker.of_network(network, MADE)
        kept = own if name in ("residual", "paper") else {"stored": own["stored"]}
        found |= {f"{name}, {way}" + ("" if way.endswith("donors") else " codes"): recipe for way, recipe in kept.items()}
    return found


def sampled_arms(config: Config, recipes: dict[str, Recipe], networks: dict[str, DeltaEncoder], maker: Maker) -> list[Arm]:
    """The paper's classifier on real shots, on each recipe that says something new, and with the paper's own numbers."""

    def bank(recipe: Recipe) -> Callable[[World], Tensor]:
        return lambda world: made_of(recipe, world.shots["cl2n"], config.seed)

    wanted = [name for name in recipes if name in (
        "Gaussian deltas", "real deltas", "residual, stored codes", "residual, drawn codes", "residual, near donors",
        "residual, zero codes", "paper, stored codes", "paper, weights detached, stored codes",
        "residual, mean and spread taught, stored codes",
    )]  # fmt: skip
    steps, published = (6, 6) if config.smoke else (SAMPLED_STEPS, PAPER_STEPS)
    found = [trained("classifier on real shots", None, each=0, steps=steps)]
    found += [trained(f"{name}: classifier", bank(recipes[name]), each=SAMPLED_EACH, steps=steps) for name in wanted]
    whole = bank(maker.of_network(networks["paper"], PAPER_EACH)["drawn"])
    found.append(trained("paper, as published: classifier on 1,024", whole, each=PAPER_EACH, steps=published))
    return found
