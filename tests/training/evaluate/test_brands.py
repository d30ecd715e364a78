"""Brands of split 8 are asked in plain and hard renders, and only what may be published is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.domain.values import Answer, Candidate, Outcome
from tests.model_sets import write_model_set
from tests.training.packs import mark, photograph, write_zip
from training.evaluate import brands, items
from training.evaluate.brands import Confusion

FREE, OWNED = "simple-icons", "landscape-cncf"


def draw_packs(folder: Path) -> Path:
    """Two brands to learn from and four to ask about, of which the last is not free; one has a second mark."""
    pack = folder / "brand-marks"
    entries = {
        f"{split}/brand-{split}{n}/0.webp": mark(10 * split + n) for split, count in ((0, 2), (8, 4)) for n in range(count)
    }
    write_zip(pack / "images.zip", entries | {"8/brand-80/1.webp": mark(99)})
    listed = [{"slug": name.split("/")[1], "marks": [{"src": FREE}]} for name in entries]
    listed[-1]["marks"] = [{"src": OWNED}, {"src": FREE}]
    (pack / "brands.json").write_text(json.dumps(listed))
    write_zip(folder / "imagenet-1-per-class" / "images.zip", {f"train/x/{n}.webp": photograph(n) for n in range(4)})
    return pack


def candidate(name: str, probability: float) -> Candidate:
    return Candidate(f"brand-marks/{name}", 0.5, probability, accepted=True, threshold=0.4, evidence=())


def test_every_brand_is_shown_once_and_those_of_split_8_are_asked_in_two_renders(tmp_path: Path) -> None:
    shown, asked = items.brands(draw_packs(tmp_path))
    assert [item.id for item in shown] == [item.source.entry for item in shown]
    assert len(shown) == 6
    assert {item.form for item in shown} == {"clean"}
    assert sorted({item.id for item in asked}) == sorted(
        f"8/brand-8{n}/0.webp@{form}" for n in range(4) for form in ("plain", "hard")
    )
    pixels = [np.asarray(one) for one in items.pictures_of(items.uploads_of(asked, tmp_path))]
    assert {one.shape for one in pixels} == {(items.RENDER_PX, items.RENDER_PX, 3)}
    assert not np.array_equal(pixels[0], pixels[4])  # a brand's two renders


def test_what_is_drawn_is_free_wrong_and_the_surest_first(tmp_path: Path) -> None:
    pack = draw_packs(tmp_path)
    shown, asked = items.brands(pack)
    on_paper = [items.rendered_of(item, "on paper") for item in shown if item.class_name.startswith("brand-marks/brand-8")]
    asked = [*asked[:1], *on_paper]
    firsts = [
        candidate("brand-81", 0.9),  # wrong, but with a photograph behind it
        candidate("brand-00", 0.3),
        candidate("brand-82", 0.6),
        candidate("brand-83", 0.9),  # wrong, but not free
        candidate("brand-83", 0.9),  # right
    ]
    answers = [Answer(Outcome.MATCH, None, None, (first,), 1, "m") for first in firsts]
    free = brands.free_brands(pack)
    assert free == {f"brand-marks/{name}" for name in ("brand-00", "brand-01", "brand-80", "brand-81", "brand-82")}
    questions = items.uploads_of(asked, tmp_path)
    found = brands.confusions(brands.Config(data=tmp_path), shown, asked, questions, answers, free)
    names = [(one.truth.split("/")[1], one.taken_for.split("/")[1]) for one in found]
    assert names == [("brand-81", "brand-82"), ("brand-80", "brand-00")]
    pictures = items.pictures_of(questions)
    for one, number in zip(found, (2, 1), strict=True):  # the very renders that were asked
        assert np.array_equal(np.asarray(one.asked), np.asarray(pictures[number]))


def test_a_sheet_has_room_for_all(tmp_path: Path) -> None:
    colours = [Image.new("RGB", (50, 30), colour) for colour in ("red", "lime", "blue")]
    brands.draw_sheet([Confusion("p/a", "p/b", *colours)] * (brands.COLUMNS + 1), tmp_path / "sheet.webp")
    with Image.open(tmp_path / "sheet.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    pure = [(pixels[..., channel] - pixels.sum(-1) / 2 > 60) for channel in range(3)]
    half = len(pixels) // 2
    assert all(part[:half].sum() > part[half:].sum() > 0 for part in pure)  # four above, one below


def test_the_pack_is_scored_whole_and_a_sample_leaves_no_result(tmp_path: Path) -> None:
    draw_packs(tmp_path)
    models = write_model_set(tmp_path / "models")
    flags = {"--data": tmp_path, "--models": models, "--results": tmp_path / "results"}
    arguments = [str(part) for flag in flags.items() for part in flag]

    brands.main([*arguments, "--sample", "2"])
    assert not (tmp_path / "results").exists()

    brands.main(arguments)
    result = json.loads((tmp_path / "results" / "brands.json").read_text())
    assert (result["enrolled"], result["on_paper"], list(result["brands"])) == (6, 3, ["auto", "off"])
    for forms in result["brands"].values():
        assert {form: found["pictures"] for form, found in forms.items()} == {"plain": 4, "hard": 4}
    assert (tmp_path / "results" / brands.SHEET).exists()
