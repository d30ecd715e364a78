"""What cells are asked to say, what they say, and that a run of the detector goes on where it stopped."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from app.adapters.networks import RegionNetwork  # noqa: E402
from tests.training.packs import draw_detector_packs  # noqa: E402
from training import detector, export_detector, scenes  # noqa: E402
from training.export import probe_pictures  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"
SIDE_PX = 64  # cells: 64 of stride 8, 16 of stride 16, 4 of stride 32


def drawn(*boxes: tuple[list[float], int], side_px: int = SIDE_PX) -> scenes.Scenes:
    corners, labels = torch.tensor([[box for box, _ in boxes]]), torch.tensor([[label for _, label in boxes]])
    return scenes.Scenes(torch.zeros(1, 3, side_px, side_px), corners, labels, torch.tensor([True]))


def test_cells_lie_in_the_middle_of_their_squares() -> None:
    points, strides = detector.cells_of(SIDE_PX)
    assert len(points) == 64 + 16 + 4
    assert points[:2].tolist() == [[4, 4], [12, 4]]  # along a row first
    assert points[64].tolist() == [8, 8]
    assert points[-1].tolist() == [48, 48]
    assert strides.tolist() == [8] * 64 + [16] * 16 + [32] * 4


def test_boxes_and_distances_are_each_other_s_inverse() -> None:
    points, _ = detector.cells_of(SIDE_PX)
    boxes = torch.rand(len(points), 4) * 30 + torch.tensor([0.0, 0, 32, 32])
    assert torch.allclose(detector.boxes_from(points, detector.distances_to(points, boxes)), boxes, atol=1e-4)


def test_a_small_box_is_told_by_the_cells_around_its_middle() -> None:
    targets = detector.targets_of(drawn(([16.0, 16, 40, 40], 7)))  # 24 px: the finest level; middle 28, 28
    points, strides = detector.cells_of(SIDE_PX)
    own = points[targets.is_thing[0]]
    # 1.5 cells of 8 px around 28: 20, 28 and 36 each way.
    assert sorted(map(tuple, own.tolist())) == [(x, y) for x in (20, 28, 36) for y in (20, 28, 36)]
    assert set(strides[targets.is_thing[0]].tolist()) == {8.0}
    assert set(targets.labels[targets.is_thing].tolist()) == {7}
    assert bool((targets.boxes[targets.is_thing] == torch.tensor([16.0, 16, 40, 40])).all())
    assert bool((targets.is_background == ~targets.is_thing).all())


def test_levels_take_boxes_by_the_root_of_their_area() -> None:
    _, strides = detector.cells_of(512)
    for side, stride in ((55.0, 8), (57.0, 16), (143.0, 16), (145.0, 32)):
        box = [20.0, 20, 20 + 2 * side, 20 + side / 2]  # its root of area is `side`
        is_thing = detector.targets_of(drawn((box, 0), side_px=512)).is_thing[0]
        assert set(strides[is_thing].tolist()) == {float(stride)}


def test_a_thing_smaller_than_a_cell_has_the_one_that_its_middle_is_in() -> None:
    targets = detector.targets_of(drawn(([21.0, 5, 23, 7], 1)))
    assert detector.cells_of(SIDE_PX)[0][targets.is_thing[0]].tolist() == [[20, 4]]


def test_of_two_boxes_the_smaller_has_a_cell_and_what_is_ignored_is_neither() -> None:
    inner, outer = [24.0, 24, 36, 36], [8.0, 8, 50, 50]
    targets = detector.targets_of(
        drawn((outer, 1), (inner, 2), ([40.0, 0, 64, 24], scenes.IGNORED), ([0.0, 0, 0, 0], scenes.ABSENT))
    )
    points, _ = detector.cells_of(SIDE_PX)
    middle = int(((points[:64] - 28).abs().sum(1)).argmin())
    assert targets.labels[0, middle] == 2
    ignored = (points[:, 0] > 40) & (points[:, 1] < 24)
    assert not bool((targets.is_background[0] & ignored).any())
    assert set(targets.labels[0][targets.is_thing[0]].tolist()) == {1, 2}


def test_focal_loss_by_hand() -> None:
    # p = 0.5: entropy ln 2, factor (1 - 0.5)^2; a thing counts 0.25, background 0.75.
    found = detector.focal_loss(torch.zeros(3), torch.tensor([True, False, False]), torch.tensor([1.0, 1.0, 0.0]))
    assert float(found) == pytest.approx((0.25 + 0.75) * 0.25 * math.log(2))


def test_overlaps_by_hand() -> None:
    one, other = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10], [20, 0, 30, 10]])
    iou, generalised = detector.overlaps(one, other)
    # Half of each shared: 50 / 150, and the hull is no larger than the union. Apart: hull 300, union 200.
    assert iou.tolist() == pytest.approx([1 / 3, 0])
    assert generalised.tolist() == pytest.approx([1 / 3, -1 / 3])


def test_likely_cells_without_a_box_are_not_background_where_not_all_has_one() -> None:
    targets = detector.targets_of(drawn(([16.0, 16, 40, 40], 7)))
    logits = torch.full((1, 84), -9.0)
    logits[0, 63] = 3.0  # far from the box

    def objectness(is_complete: bool) -> float:
        found = detector.Found(logits, torch.zeros(1, 84), torch.ones(1, 84, 4), torch.zeros(1, 84, 4))
        return float(detector.box_losses(found, targets, torch.tensor([is_complete]), SIDE_PX)["objectness"])

    assert objectness(True) > objectness(False) + 0.1


def test_some_cells_of_each_thing_are_named_and_the_hardest_background() -> None:
    targets = detector.targets_of(drawn(([16.0, 16, 40, 40], 7), ([42.0, 42, 62, 62], scenes.UNNAMED), ([0.0, 40, 20, 60], 3)))
    logits = torch.linspace(-5, -4, 84)[None].clone()
    found = detector.Found(logits, logits, torch.ones(1, 84, 4), torch.zeros(1, 84, 4))
    cells, labels = detector.cells_to_name(found, targets, torch.tensor([True]))
    assert sorted(labels[labels >= 0].tolist()) == [3] * detector.CELLS_OF_A_THING + [7] * detector.CELLS_OF_A_THING
    assert bool(targets.is_clear[0][cells[labels < 0, 1]].all())
    assert int((labels < 0).sum()) == detector.HARD_CELLS
    assert len({tuple(cell) for cell in cells.tolist()}) == len(cells)
    _, unsure = detector.cells_to_name(found, targets, torch.tensor([False]))
    assert not bool((unsure < 0).any())


def test_classes_of_two_sources_are_not_told_apart() -> None:
    names = ("brand-marks/a", "multidomain-det-dev/kangaroo/kangaroo", "multidomain-det-dev/animals/kangaroo")
    groups = detector.groups_of(names)
    assert groups[0] == 0
    assert len(set(groups.tolist())) == 3
    learner = detector.Learner(detector.tiny_detector(4), torch.eye(4)[:3], modes=1)
    config = detector.Config(sampled=100, teach_weight=0)
    torch.manual_seed(0)
    features, label = torch.rand(1, 16), torch.tensor([1])
    before = learner.class_losses(features, label, groups, config)
    with torch.no_grad():  # the other kangaroo moves onto the first: no loss may notice
        learner.representatives.vectors[2] = learner.representatives.vectors[1]
        learner.classify.bias[3] = 50.0
    after = learner.class_losses(features, label, groups, config)
    assert {name: float(value) for name, value in before.items()} == pytest.approx({n: float(v) for n, v in after.items()})


def test_the_start_is_the_embedding_network_s() -> None:
    network, weights = detector.Detector(), load_file(MODELS / "embedding.safetensors")
    detector.start_weights(network, weights)
    assert torch.equal(network.stem[3].weight, weights["stem.3.weight"].float())
    assert torch.equal(
        network.stages[2].conv1.weight, weights["stages.4.conv1.weight"].float()
    )  # the first block of the third width
    with pytest.raises(ValueError, match="stem"):
        detector.start_weights(detector.tiny_detector(8), weights)


def test_the_network_costs_what_it_may() -> None:
    """4 GFLOP, a multiply-add being two, at 320 px: counted convolution by convolution."""
    network, counted = detector.Detector().eval(), 0

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        found = network(torch.zeros(1, 3, 320, 320))
    counted += found.features.shape[1] * network.project.in_features * network.project.out_features
    assert 2 * counted <= 4e9


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> detector.Config:
    draw_detector_packs(tmp_path / "packs")
    monkeypatch.setattr(scenes, "held_out", lambda name: name.startswith("toplogo10-dev/"))
    return detector.Config(
        data=tmp_path / "packs", run=tmp_path / "run", cache=tmp_path / "cache", embedding=MODELS / "embedding.safetensors",
        smoke=True, steps=2, batch=4, side_px=SIDE_PX, dim=16, precision="fp32", device="cpu",
    )  # fmt: skip


def test_a_run_goes_on_where_it_stopped_and_what_it_trained_is_what_is_exported(config: detector.Config, tmp_path: Path) -> None:
    detector.train(replace(config, steps=1))
    detector.train(config)
    lines = [json.loads(line) for line in (config.run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "rate" in line] == [1, 2]
    assert {"objectness", "boxes", "fit", "linear", "teach", "repmet", "margin"} <= lines[0].keys()
    assert {"recall", "named", "recall_photographs"} <= lines[-1].keys()

    export_detector.main(["--run", str(config.run), "--models", str(tmp_path / "models"), "--sides-px", str(SIDE_PX)])
    session = onnxruntime.InferenceSession(tmp_path / "models" / "detector.onnx", providers=["CPUExecutionProvider"])
    objectness, boxes, embeddings = session.run(export_detector.OUTPUTS, {"pictures": probe_pictures(SIDE_PX, count=1)})
    assert (objectness.shape, boxes.shape, embeddings.shape) == ((1, 84), (1, 84, 4), (1, 84, 16))
    assert np.allclose(np.linalg.norm(embeddings, axis=2), 1, atol=1e-3)
    assert 0.4 < float(session.get_modelmeta().custom_metadata_map["width"]) < 0.6

    # Training can go on from it: what was exported is the average, in half precision.
    exported, average = detector.weights_in(tmp_path / "models" / "detector.onnx"), detector.averaged_weights(config.run)
    assert exported.keys() == average.keys()
    assert all(torch.equal(exported[name], average[name].half().float()) for name in average)
    again = replace(config, run=tmp_path / "again", start_from=str(tmp_path / "models" / "detector.onnx"), steps=1, rate=0.0)
    detector.train(again)
    assert torch.equal(detector.averaged_weights(again.run)["say.weight"], exported["say.weight"])


@pytest.mark.parametrize("name", ["nothing.onnx", "foreign.onnx", "text.onnx", "no-run"])
def test_training_goes_on_from_nothing_but_a_detector(name: str, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "weight")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "foreign", [], [], [weight])), tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "no-run" / "checkpoint.safetensors").write_text("no weights")
    learner = detector.Learner(detector.tiny_detector(8), torch.zeros(3, 8), modes=2)
    with pytest.raises(SystemExit, match=f"--start-from .*{name}"):
        detector.start_from(learner, tmp_path / name)


def test_an_exported_network_computes_what_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = detector.tiny_detector(8).eval()
    model = export_detector.to_onnx(network)
    for side_px in (SIDE_PX, 2 * SIDE_PX):
        assert export_detector.difference(network, model, probe_pictures(side_px, count=3)).is_small
    torch.nn.init.normal_(network.say.weight)
    assert not export_detector.difference(network, model, probe_pictures(SIDE_PX, count=3)).is_small


def test_an_exported_network_is_one_that_the_service_opens() -> None:
    network = detector.tiny_detector(8)
    served = RegionNetwork(export_detector.to_onnx(network).SerializeToString(), SIDE_PX)
    assert (served.side_px, served.dim) == (SIDE_PX, 8)
    regions = served(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    assert len(regions) == len(detector.cells_of(SIDE_PX)[0])
    assert regions.boxes.max() <= 90


def test_vectors_of_classes_are_in_the_cache_whole_or_not_at_all(
    config: detector.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ranks make them at the same time, and neither may read what the other has written half."""
    stock, vectors, saved = scenes.read_stock(config.data, few=True), torch.eye(16), []

    def looked_at(tensors: dict[str, torch.Tensor], file: Path) -> None:
        save_file(tensors, file)
        saved.append(list(config.cache.glob("classes-*")))  # what another would take for whole meanwhile

    monkeypatch.setattr(detector, "class_vectors", lambda *_: vectors)
    monkeypatch.setattr(detector, "save_file", looked_at)
    lessons = [detector.read_lessons(config, stock, {}) for _ in range(2)]
    assert saved == [[]]
    assert torch.equal(*lessons)


def test_a_batch_that_cannot_be_quartered_is_refused(config: detector.Config) -> None:
    with pytest.raises(SystemExit, match="multiple of 4"):
        detector.train(replace(config, batch=6))
