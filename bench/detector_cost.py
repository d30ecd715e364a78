"""What does it cost to see a view of a scene with the detector, beside its network alone?

What the service does with a view: its square, the network, boxes, which of them are of one thing, and the nearest of 1,000
classes of three examples each. Everything on one core, by turns with the network alone in the same session. As many boxes as
can be are taken for worth a look, whatever a detector has learnt; so where the model set has none, an untrained one is
measured.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import onnx
import onnxruntime

from app.adapters.images import squared
from app.adapters.model_set import read_model_set
from app.adapters.networks import OPEN_SIDE, RegionNetwork
from app.cli import THREAD_LIMITS
from app.domain.calibration import RegionCalibration
from app.domain.changes import Snapshot
from app.domain.gallery import Gallery
from app.domain.model_set import DetectorSettings
from app.domain.posterior import Fit, Regions
from app.domain.regions import SHARES
from app.domain.representatives import regions_of
from app.domain.values import Box, ClassModel, ClassState, Example, PixelArray, Provenance
from app.service.spot import Spotter
from app.settings import Settings
from bench.figures import Figure, median_ratio, percentiles
from demo.brands import ENROLLED
from demo.scenes import SCENES, photograph

SIDE_PX = 320
CLASSES, EXAMPLES = 1_000, 3
ROUNDS = 200
WARM_UP = 5
MADE_BY = Provenance(networks="random", calibration="random", detector="random")
WIDTH = 0.5
ALL_LOOKED_AT = RegionCalibration(  # the other numbers weigh the pixels of a box, which are not looked at here
    looked_from=0.0, bias=0.0, look=1.0, log_posterior=1.0, log_objectness=1.0, line=0.0, doubtful_line=0.0, ambiguous_margin=0.0
)  # fmt: skip
VIEW = f"a view among {CLASSES:,} classes"
ALONE = "the network alone"
PRODUCTS = ("Conv", "MatMul")  # what nearly all of a network's arithmetic is


def measure() -> list[Figure]:
    # The BLAS under numpy reads how many threads it may have when it is loaded: a process of its own, as the service sets it up.
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    core = {min(os.sched_getaffinity(0))}
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=os.sched_setaffinity, initargs=(0, core)) as process:
        return process.submit(figures).result()


def figures() -> list[Figure]:
    model = detector_model()
    network = RegionNetwork(model, SIDE_PX)
    seconds = by_turns(network, gallery_of(network.dim), scenes())
    return [
        median_ratio(f"{VIEW}, over {ALONE}", seconds[VIEW], seconds[ALONE], unit="x time", goal="<= 1.3"),
        *percentiles(VIEW, seconds[VIEW]),
        *percentiles(f"{ALONE}, {SIDE_PX} px", seconds[ALONE]),
        Figure(f"multiplications and additions of the network, {SIDE_PX} px", gigaflops_of(model), "GFLOP", "<= 4"),
    ]


def detector_model() -> bytes:
    """ONNX: the detector of the model set, or an untrained one."""
    if (parts := read_model_set(Settings().models_dir).detector) is not None:
        return parts.network
    from training.detector import Detector  # torch, which the others do without
    from training.export_detector import to_onnx

    return to_onnx(Detector().eval()).SerializeToString()


def scenes() -> list[PixelArray]:
    return [np.asarray(photograph(scene, brand.mark(), seed=1)) for brand in ENROLLED for scene in SCENES]


@dataclass(frozen=True)
class AtOneSide:
    """A detector that has one side only."""

    network: RegionNetwork

    @property
    def sides_px(self) -> tuple[int, ...]:
        return (self.network.side_px,)

    def __call__(self, pixels: PixelArray, side_px: int) -> Regions:
        return self.network(pixels)


def gallery_of(dim: int) -> Gallery:
    """`CLASSES` that nobody photographed."""
    states = tuple(stranger(f"class {number:05}", dim, seed=number) for number in range(CLASSES))
    return Gallery.from_snapshot(Snapshot(1, states), MADE_BY.networks, MADE_BY.detector)


def stranger(class_name: str, dim: int, *, seed: int) -> ClassState:
    """A class of `EXAMPLES` that are alike in the space of the detector, and all the same in that of the embedding."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=dim) + rng.normal(0, 0.5, (EXAMPLES, len(SHARES), dim))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    look = np.array([1, 0], np.float32)
    examples = tuple(
        Example(id=f"{seed:030x}{number:02x}", box=Box(0, 0, 320, 320), embedding=look, spread=0.1, regions=regions)
        for number, regions in enumerate(vectors.astype(np.float16))
    )
    model = ClassModel(look[np.newaxis], spread=0.1, threshold=0.9, provenance=MADE_BY, regions=regions_of(examples))
    return ClassState(class_name, 1, examples, model)


def by_turns(network: RegionNetwork, gallery: Gallery, pictures: Sequence[PixelArray]) -> dict[str, list[float]]:
    """Seconds of each view as the service sees it, and of the network alone on the same."""
    spot = Spotter(detector=AtOneSide(network), settings=DetectorSettings(WIDTH, ALL_LOOKED_AT))

    squares = [squared(picture, Fit(picture.shape[1], picture.shape[0], network.side_px)) for picture in pictures]

    def seen(number: int) -> object:
        height, width = pictures[number].shape[:2]
        return spot(pictures[number], Box(0, 0, width, height), views=1, gallery=gallery, among=None)

    sides: dict[str, Callable[[int], object]] = {VIEW: seen, ALONE: lambda number: network.outputs_of(squares[number])}
    seconds: dict[str, list[float]] = {what: [] for what in sides}
    names = list(sides)
    for number in range(WARM_UP + ROUNDS):
        for turn in range(len(names)):
            what = names[(number + turn) % len(names)]  # so that none always finds the caches as another left them
            began = time.perf_counter()
            sides[what](number % len(pictures))
            seconds[what].append(time.perf_counter() - began)
    return {what: each[WARM_UP:] for what, each in seconds.items()}


def gigaflops_of(network: bytes) -> float:
    """Of its convolutions and matrix products at `SIDE_PX`, from the shapes that they have when it runs; the rest is small."""
    model = onnx.load_from_string(network)
    counted = [node for node in model.graph.node if node.op_type in PRODUCTS]
    said = {output.name for output in model.graph.output}
    asked = list(dict.fromkeys(name for node in counted for name in (node.input[1], node.output[0])))
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked if name not in said)
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name(OPEN_SIDE, SIDE_PX)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    picture = np.zeros((1, SIDE_PX, SIDE_PX, 3), np.uint8)
    found = session.run(asked, {session.get_inputs()[0].name: picture})
    shapes = {name: array.shape for name, array in zip(asked, found, strict=True)}
    operations = 0
    for node in counted:
        weights, made = shapes[node.input[1]], shapes[node.output[0]]
        summed = math.prod(weights[1:]) if node.op_type == "Conv" else weights[-2]  # products in each number that is made
        operations += 2 * math.prod(made) * summed
    return operations / 1e9
