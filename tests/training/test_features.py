"""Cached features say what may be shown and what asked, and come back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from safetensors.torch import save_file  # noqa: E402

from tests.training.packs import mark, photograph, write_boxes, write_zip  # noqa: E402
from training import features, mini_imagenet  # noqa: E402
from training.batches import BOX_PACKS, CLASS_PACKS  # noqa: E402


def draw_packs(folder: Path) -> Path:
    mini = {f"val/c{label}/{n:08d}.webp": photograph(10 * label + n) for label in range(3) for n in range(6)}
    write_zip(folder / "mini-imagenet" / "images-1.zip", mini)
    # One of each source and one that is for evaluation only; by their names' hashes some are held back.
    names = [f"{source}-{number}" for source in ("coil100", "eth80", "smvsdvd") for number in range(8)]
    views = {f"train/{name}/{n:02d}.webp": photograph(n) for name in names for n in range(3)}
    write_zip(folder / "object-views-dev" / "images.zip", views)
    return folder


def colours(pixels: torch.Tensor) -> np.ndarray:
    """Stands for a network: the mean colour."""
    return pixels.float().mean((2, 3)).numpy()


def test_photographs_are_for_showing_or_for_asking_and_those_shown_have_views(tmp_path: Path) -> None:
    config = features.Config(data=draw_packs(tmp_path), split="val", each=5, shown=2)
    found = features.extract(features.pictures_of(config), colours, views=3, seed=0)
    assert found.features.shape == (15, 3)
    assert found.may_show.tolist() == [True, True, False, False, False] * 3
    assert (found.may_ask == ~found.may_show).all()
    assert found.views.shape == (6, 3, 3)
    assert found.class_names == ("mini-imagenet/c0", "mini-imagenet/c1", "mini-imagenet/c2")


def test_a_view_is_of_its_own_picture(tmp_path: Path) -> None:
    config = features.Config(data=draw_packs(tmp_path), split="val", each=6, shown=6)
    pictures = features.pictures_of(config)
    plain = torch.arange(18, dtype=torch.uint8)[:, None, None, None].expand_as(pictures.pixels)
    found = features.extract(replace(pictures, pixels=plain), colours, views=2, seed=0)
    assert np.allclose(found.views, found.features[:, None], atol=1e-3)


def test_objects_that_are_held_back_are_in_no_training_file(tmp_path: Path) -> None:
    config = features.Config(data=draw_packs(tmp_path), pack="object-views-dev", split="train")
    base, kept = (features.pictures_of(replace(config, split=split)) for split in ("train", "held-back"))
    assert len(base.class_names) + len(kept.class_names) == 16
    assert not set(base.class_names) & set(kept.class_names)
    assert not any("smvsdvd" in name for name in (*base.class_names, *kept.class_names))
    assert base.in_circle


@pytest.mark.parametrize("pack", ["brand-marks", "package-fronts"])
def test_of_print_the_first_clean_picture_of_a_class_is_rendered(tmp_path: Path, pack: str) -> None:
    entries = {f"{split}/{name}/{n}.webp": mark(n) for split in (0, 7) for name in ("acme", "other") for n in range(2)}
    write_zip(tmp_path / pack / "images.zip", entries)
    write_zip(tmp_path / "imagenet-1-per-class" / "images.zip", {f"train/c{n}/0.webp": photograph(n) for n in range(4)})
    config = features.Config(data=tmp_path, pack=pack, split="train")
    found = features.pictures_of(config)
    each = 1 + features.RENDERED_PLAIN + features.RENDERED_HARD
    assert len(found.labels) == each * len(found.class_names)
    assert found.may_show.view(-1, each).sum(1).tolist() == [1 + features.RENDERED_PLAIN] * len(found.class_names)
    assert (found.may_ask == ~found.may_show).all()
    clean = found.pixels[::each].float()
    assert not torch.equal(clean[0], found.pixels[1].float())


def test_other_photographs_are_those_of_the_packs_that_have_no_features_of_their_own(tmp_path: Path) -> None:
    draw_packs(tmp_path)
    for pack in CLASS_PACKS:
        if pack != "object-views-dev":
            classes = {f"train/c{label}/{n}.webp": photograph(n) for label in range(3) for n in range(5 if label else 4)}
            write_zip(tmp_path / pack / "images.zip", classes)
    for pack in BOX_PACKS:
        write_boxes(tmp_path / pack, {"a.jpg": photograph(1)}, [("a.jpg", "c", [1, 1, 40, 40])])
    found = features.pictures_of(features.Config(data=tmp_path, pack="photographs", classes=2, each=3))
    packs = {name.split("/")[0] for name in found.class_names}
    assert packs <= set(CLASS_PACKS) - {"object-views-dev", "tiny-imagenet-dev"}
    assert "pokemon-pictures-dev" in packs
    assert not any(name.endswith("/c0") for name in found.class_names), "c0 has too few"
    assert set(torch.bincount(found.labels).tolist()) == {3}
    assert (found.may_show & found.may_ask).all()


def test_another_pack_is_refused_with_the_names_of_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"package-fronts and photographs, not of 'gtsrb-dev'"):
        features.pictures_of(features.Config(data=tmp_path, pack="gtsrb-dev"))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    config = features.Config(data=draw_packs(tmp_path), split="val", each=5, shown=2)
    found = features.extract(features.pictures_of(config), colours, views=1, seed=0)
    features.write(found, tmp_path / "deep" / "val.npz")
    again = features.read(tmp_path / "deep" / "val.npz")
    assert np.array_equal(again.features, found.features.astype(np.float16))
    assert again.class_names == found.class_names
    assert (again.may_show == found.may_show).all()


def test_classes_are_taken_out_with_their_views(tmp_path: Path) -> None:
    config = features.Config(data=draw_packs(tmp_path), split="val", each=5, shown=2)
    found = features.extract(features.pictures_of(config), colours, views=1, seed=0)
    part = found.of_classes(np.array([True, False, True]))
    assert part.class_names == ("mini-imagenet/c0", "mini-imagenet/c2")
    assert part.labels.tolist() == [0] * 5 + [1] * 5
    assert np.array_equal(part.views, found.views[[0, 1, 4, 5]])


def test_arrays_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    config = features.Config(data=draw_packs(tmp_path), split="val", each=5, shown=2)
    found = features.extract(features.pictures_of(config), colours, views=1, seed=0)
    with pytest.raises(ValueError, match="views are of 6"):
        replace(found, views=found.views[1:])
    with pytest.raises(ValueError, match="in order"):
        replace(found, labels=found.labels[::-1].copy())


def test_weights_are_read_bare_and_from_a_checkpoint(tmp_path: Path) -> None:
    network = mini_imagenet.ResNet10(width=8)
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, tmp_path / "bare.safetensors")
    average = {f"average.{name}": value for name, value in weights.items()}
    save_file(average | {"learner.network.stem.0.weight": torch.zeros(1)}, tmp_path / "checkpoint.safetensors")
    pixels = torch.randint(0, 256, (2, 3, 84, 84), dtype=torch.uint8)
    bare, checkpoint = (features.embedder_of(tmp_path / f"{name}.safetensors", 48) for name in ("bare", "checkpoint"))
    assert bare(pixels).shape == (2, 64)
    assert np.array_equal(bare(pixels), checkpoint(pixels))
