"""Arms of every form embed pictures, each picture once; supports may be means of views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from onnx import TensorProto  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from app.adapters.networks import OnnxEmbedder  # noqa: E402
from tests.model_sets import write_model_set  # noqa: E402
from tests.tiny_network import SIDE_PX, tiny_network  # noqa: E402
from tests.training.packs import photograph, write_folder  # noqa: E402
from training import mini_imagenet  # noqa: E402
from training.evaluate import arms, embedded, sources  # noqa: E402
from training.evaluate.items import AskedItem  # noqa: E402
from training.evaluate.rules import Served, unit  # noqa: E402

PICTURES = [photograph(n) for n in range(5)]


@pytest.fixture
def items(tmp_path: Path) -> list[AskedItem]:
    folder = write_folder(tmp_path / "pictures", {f"a/{n}.webp": picture for n, picture in enumerate(PICTURES)})
    return sources.read_items(sources.Source("--data", folder))


def arm(wanted: str, items: list[AskedItem]) -> embedded.Measured:
    (found,) = embedded.measured_arms(wanted, items, Path("no-teacher"))
    return found


def benchmark_weights(path: Path, **more: torch.Tensor) -> mini_imagenet.ResNet10:
    torch.manual_seed(0)
    network = mini_imagenet.ResNet10(width=8).eval()
    save_file({name: tensor.half() for name, tensor in network.state_dict().items()} | more, path, {"side_px": "48"})
    network.load_state_dict({name: tensor.half().to(tensor.dtype) for name, tensor in network.state_dict().items()})
    return network


def test_a_model_set_embeds_as_it_serves_and_brings_its_calibration(tmp_path: Path, items: list[AskedItem]) -> None:
    models = write_model_set(tmp_path / "models")
    found = arm(str(models), items)
    served = OnnxEmbedder((models / "embedding.onnx").read_bytes())(arms.squares(PICTURES, SIDE_PX)).embedding
    assert found.embed(PICTURES) == pytest.approx(served, abs=1e-6)
    assert found.name == "models"
    assert isinstance(found.own_rule, Served)
    assert found.calibrated


def test_a_bare_network_gives_its_first_output_at_unit_length(tmp_path: Path, items: list[AskedItem]) -> None:
    (tmp_path / "net.onnx").write_bytes(tiny_network(scale=3.0))
    found = arm(f"mine={tmp_path / 'net.onnx'}", items)
    served = OnnxEmbedder(tiny_network())(arms.squares(PICTURES, SIDE_PX)).embedding
    assert found.embed(PICTURES) == pytest.approx(served, abs=1e-6)
    assert (found.name, found.own_rule) == ("mine", None)


def test_weights_of_the_benchmark_network_are_centred_where_the_file_says_so(tmp_path: Path, items: list[AskedItem]) -> None:
    network = benchmark_weights(tmp_path / "plain.safetensors")
    pixels = torch.from_numpy(arms.squares(PICTURES, mini_imagenet.STORED_PX)).permute(0, 3, 1, 2)
    features = mini_imagenet.features_of(network, pixels, 48).numpy()
    assert arm(str(tmp_path / "plain.safetensors"), items).embed(PICTURES) == pytest.approx(unit(features), abs=1e-5)
    (tmp_path / "run").mkdir()
    benchmark_weights(tmp_path / "run" / "backbone.safetensors", centre=torch.from_numpy(features.mean(0)))
    centred = arm(str(tmp_path / "run"), items)
    assert centred.embed(PICTURES) == pytest.approx(unit(features - features.mean(0)), abs=1e-4)
    assert centred.name == "run"


@pytest.mark.parametrize("name", ["histogram", "hog", "random"])
def test_baselines_go_by_their_names(name: str, items: list[AskedItem]) -> None:
    vectors = arm(name, items).embed(PICTURES)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5))
    assert vectors[0] @ vectors[1] < 0.9999


def test_arms_that_are_not_there_are_refused(tmp_path: Path, items: list[AskedItem]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.onnx").write_bytes(b"no network")
    save_file({"other.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    benchmark_weights(tmp_path / "short.safetensors", centre=torch.zeros(3))
    (tmp_path / "notes.txt").write_text("")
    for wanted, why in (
        ("mobilenet", "no arm has that name, and there is no such path; the names are histogram, hog, random, teacher"),
        (str(tmp_path / "empty"), "the folder holds neither manifest.json nor backbone.safetensors"),
        (str(tmp_path / "notes.txt"), "a file ends in .onnx or .safetensors"),
        (str(tmp_path / "other.onnx"), "it cannot be opened"),
        (str(tmp_path / "other.safetensors"), "does not hold the weights of training.mini_imagenet.ResNet10"),
        (str(tmp_path / "short.safetensors"), r"its centre is \(3,\), its features are \(64,\)"),
        ("teacher", "there is no no-teacher; --teacher says where it lies"),
        ("", "it is empty"),
    ):
        with pytest.raises(SystemExit, match=f"^--model {wanted}: .*{why}"):
            arm(wanted, items)
    with pytest.raises(SystemExit, match="--model: two are called hog; NAME=PATH"):
        embedded.measured_arms("hog,hog", items, Path())


def test_a_network_of_floats_is_refused(tmp_path: Path, items: list[AskedItem]) -> None:
    (tmp_path / "floats.onnx").write_bytes(tiny_network(input_type=TensorProto.FLOAT))
    with pytest.raises(SystemExit, match=r"it takes tensor\(float\) \['n', 32, 32, 3\], not uint8"):
        arm(str(tmp_path / "floats.onnx"), items)


def test_each_picture_is_embedded_once_for_all_arms(items: list[AskedItem]) -> None:
    seen: list[int] = []

    def count(pictures: list[Image.Image]) -> np.ndarray:
        seen.append(len(pictures))
        return np.array([[1.0, picture.width] for picture in pictures])

    first, second = embedded.embed_all([embedded.Measured(n, count) for n in "xy"], items, np.array([1, 4]), embedded.whole)
    assert sum(seen) == 2 * 2
    assert first.tolist() == second.tolist() == [[0, 0], [1, 60], [0, 0], [0, 0], [1, 60]]


def test_supports_are_means_of_the_picture_and_its_crops(items: list[AskedItem]) -> None:
    hog = arm("hog", items)
    wholes, shown = [hog.embed(PICTURES).astype(np.float32)], np.array([2])
    (alone,) = embedded.support_vectors([hog], items, shown, wholes, 1)
    assert alone == pytest.approx(wholes[0], abs=1e-6)
    (vectors,) = embedded.support_vectors([hog], items, shown, wholes, 3)
    crops = [embedded.random_crop(number)(items[2], PICTURES[2]) for number in (1, 2)]
    expected = unit(wholes[0][2:3] + hog.embed(crops).sum(0))[0]
    assert vectors[2] == pytest.approx(expected, abs=1e-5)
    assert vectors[3] == pytest.approx(wholes[0][3], abs=1e-6)  # not shown
    assert crops[0].size != crops[1].size
    for crop in crops:
        assert 0.45 < crop.width * crop.height / 3600 <= 1  # half of the area or more, but for whole pixels
