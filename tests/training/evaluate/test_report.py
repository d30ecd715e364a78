"""The accuracy page says what the evaluations found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra `training` is not installed")

from training.evaluate import report

NUMBERS = {"mean": 0.5, "low": 0.4, "high": 0.6}
SHARES = {"right": 0.6, "wrong": 0.1, "doubtful": 0.2, "unknown": 0.1}
ANY = "50.0 [40.0, 60.0]"
PLAIN = {
    "pack": "p", "way": 12, "shots": 1, "episodes": 500, "times_scored": 2,
    "arms": {"shipped": NUMBERS, "hog": {"mean": 0.458, "low": 0.451, "high": 0.465}},
    "differences": {"shipped - hog": {"mean": 0.042, "low": 0.01, "high": 0.07}},
}  # fmt: skip
SERVICE = {
    "task": "p-iconic-1shot", "pack": "p", "part": "iconic", "way": 12, "shots": 1, "episodes": 10, "times_scored": 3,
    "service": {arm: {"top_1": NUMBERS, "answers": SHARES, "foreign": SHARES} for arm in ("off", "always")},
    "differences": {"always - off": {"mean": 0.042, "low": 0.01, "high": 0.07}},
    "foreign": {"packs": ["f"], "pictures": 900},
}  # fmt: skip
SCANNED = {
    "top_1": NUMBERS, "accepted_right": NUMBERS, "accepted_wrong": NUMBERS, "right_at_1_percent": NUMBERS,
    "answers": SHARES, "foreign": SHARES,
    "trade_off": [{"foreign": 0.0, "right": 0.3, "wrong": 0.0}, {"foreign": 0.01, "right": 0.7, "wrong": 0.02}],
    "by_source": {"beer": {"pictures": 82, "top_1": 0.8} | SHARES},
}  # fmt: skip
SCAN = {
    "task": "scan", "enrolled": 3360, "objects": 241, "asked": 337, "foreign": {"packs": ["f", "g"], "pictures": 1111},
    "scan": {"auto": SCANNED, "off": SCANNED}, "differences": {"auto - off": NUMBERS}, "times_scored": 1,
}  # fmt: skip
DETECT = {
    "task": "p-detect-1shot", "pack": "p", "way": 5, "shots": 1, "episodes": 20, "classes": 12,
    "photographs": 1000, "things": 1500, "times_scored": 4,
    "detect": {
        "quads": {
            "pooled_ap50": NUMBERS, "pooled_ap50_repeats_ignored": NUMBERS, "mean_ap50": NUMBERS, "boxes": 700,
            "precision_at_0.5": NUMBERS, "recall_at_0.5": NUMBERS, "precision_at_0.3": NUMBERS, "recall_at_0.3": NUMBERS,
        },
    },
}  # fmt: skip

CURVE = [step / 100 for step in range(101)]
BINS = [{"probability": n / 15, "right": n / 20, "answers": 9} for n in range(15)]
FIGURES = {"accuracy": NUMBERS, "auroc": NUMBERS, "fpr_at_95_tpr": NUMBERS, "roc": CURVE, "ece": None}
CLASSIFY = {
    "data": "p", "split": None, "support": None, "support_split": None, "way": 5, "views": 1, "shots": 5, "times_scored": 1,
    "classify": {
        "models": FIGURES | {"own_rule": FIGURES | {"ece": 0.125, "reliability": BINS}},
        "hog": FIGURES | {"auroc": None, "roc": None, "own_rule": None},
    },
}  # fmt: skip
BENCHMARK = CLASSIFY | {"data": "m", "split": "val", "classify": {"mini": FIGURES | {"own_rule": FIGURES}}}
FALSE_ACCEPTS = {
    "pack": "p", "service_verify": "auto", "episodes": 2, "target_far": 0.01, "foreign_packs": ["f"], "crops_of": "g",
    "foreign_pictures": 1511, "foreign_crops": 400, "times_scored": 3,
    "false_accepts": [
        {"classes": 1000, "shots": 5, "accepted_right": NUMBERS, "answers": SHARES, "foreign_matched": NUMBERS, "foreign": SHARES}
    ],
}  # fmt: skip
FORMS = {form: {"pictures": 1315, "top_1": NUMBERS, "answers": SHARES} for form in ("plain", "hard")}
BRANDS = {"enrolled": 12243, "on_paper": 400, "brands": {"auto": FORMS, "off": FORMS}, "times_scored": 1}


@pytest.fixture
def page(tmp_path: Path) -> str:
    for name, result in {
        "a": PLAIN,
        "b": SERVICE,
        "c": SCAN,
        "d": DETECT,
        "e": CLASSIFY,
        "f": FALSE_ACCEPTS,
        "g": BRANDS,
        "h": BENCHMARK,
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    report.main(["--results", str(tmp_path), "--out", str(tmp_path / "page.md")])
    return (tmp_path / "page.md").read_text()


def test_detectors_have_tables_of_their_own() -> None:
    curves = {f"pooled_ap{line}_repeats_ignored": NUMBERS for line in (30, 50, 70)} | {"largest_recall": NUMBERS}
    arms = {"repmet": DETECT["detect"]["quads"] | curves, "quads": DETECT["detect"]["quads"]}
    measured = DETECT | {
        "detect": arms,
        "differences": {"repmet - quads": dict.fromkeys(curves, NUMBERS)},
        "proposals": {"detector-320": {"recall_50": NUMBERS, "recall_70": NUMBERS, "average_recall": NUMBERS}},
    }
    page = report.page([measured])
    # Nothing where 90 % of the things are never found.
    assert f"| 5-way 1-shot | repmet | {ANY} | {ANY} | {ANY} | – | {ANY} |" in page
    assert f"| 5-way 1-shot | repmet - quads | {ANY} | {ANY} | {ANY} |" in page
    assert f"| 5-way 1-shot | detector-320 | {ANY} | {ANY} | {ANY} |" in page


def test_curves_are_drawn_of_results_that_have_them_and_scenes_are_shown_where_they_are_there(tmp_path: Path) -> None:
    drawn = {"quads": DETECT["detect"]["quads"] | {"curve": {"recall": [0.1, 0.6], "precision": [1.0, 0.5]}}}
    composed = {"task": "composites-detect-2shot", "pack": "composites", "way": 204, "classes": 204, "shots": 2, "detect": drawn}
    for name, result in {"older": DETECT, "newer": DETECT | composed}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    written = tmp_path / "page.md"
    report.main(["--results", str(tmp_path), "--out", str(written)])
    page = written.read_text()
    assert [file.name for file in tmp_path.glob("*.svg")] == ["composites-detect-2shot-precision-recall.svg"]
    assert re.findall(r"!\[.*\]\(accuracy/(.*)\)", page) == ["composites-detect-2shot-precision-recall.svg"]
    assert "Five of 12 brands" in page
    assert "204 brands of split 8" in page
    assert f"| 204-way 2-shot | quads | {ANY} |" in page
    (tmp_path / "scenes.webp").touch()
    report.main(["--results", str(tmp_path), "--out", str(written)])
    assert "![scenes](accuracy/scenes.webp)" in written.read_text()


def test_heads_of_classifiers_stand_beside_the_first_one() -> None:
    counts = {"classes": 64, "learnt": 34560, "asked": 3840, "steps": 600, "side_px": 32, "times_scored": 1}
    errors = {"softmax": NUMBERS, "RepMet, 3 a class": NUMBERS}
    page = report.page([counts | {"errors": errors, "differences": {"RepMet, 3 a class - softmax": NUMBERS}}])
    assert "errors on 3,840 pictures held out, after 600 steps on 34,560 others" in page
    assert f"| softmax | {ANY} | – |" in page
    assert f"| RepMet, 3 a class | {ANY} | {ANY} |" in page


def test_heads_on_learnt_classes_stand_beside_trained_representatives() -> None:
    counts = {"photographs": 243, "things": 1722, "classes": 123, "sources": 30, "asked_for": 234, "side_px": 320, "shots": 5}
    kinds = ("mean_ap50", "mean_ap30", "mean_ap70", "pooled_ap50", "pooled_ap50_repeats_ignored")
    figures = dict.fromkeys(kinds, NUMBERS) | {"mean_ap70": {"mean": 0.1, "low": 0.05, "high": 0.15}}
    arms = {"repmet, trained": figures, "repmet, linear": figures}
    result = counts | {"base_classes": arms, "differences": {"repmet, trained - repmet, linear": figures}, "times_scored": 2}
    page = report.page([result])
    assert "243 photographs kept out of the detectors' training, 1,722 things of\n123 classes in 30 sources" in page
    assert f"| repmet, linear | {ANY} | {ANY} | 10.0 [5.0, 15.0] | {ANY} | {ANY} | 2 times |" in page
    assert f"| repmet, trained - repmet, linear | {ANY} | {ANY} | 10.0 [5.0, 15.0] | {ANY} | {ANY} |" in page


def test_the_page_holds_each_figure_its_interval_and_how_often_it_was_scored(page: str) -> None:
    assert f"| p-1shot (12-way) | {ANY} | 45.8 [45.1, 46.5] | 500 | 2 times |" in page
    assert "| p-1shot (12-way) | 4.2 [1.0, 7.0] |" in page
    assert f"| p-iconic-1shot (12-way) | {ANY} | {ANY} | 4.2 [1.0, 7.0] | 10 | 3 times |" in page
    assert "| p-iconic-1shot (12-way) | always | 60.0 | 10.0 | 20.0 | 10.0 | 10.0 | 20.0 | 900 |" in page
    assert f"| auto | {ANY} | {ANY} | {ANY} | {ANY} | 10.0 | 20.0 | once |" in page
    assert f"| p, 5-way 5-shot | models, own rule | {ANY} | {ANY} | {ANY} | 12.5 | once |" in page
    assert f"| p, 5-way 5-shot | hog | {ANY} | – | {ANY} | – | once |" in page
    assert f"| m val, 5-way 5-shot | mini, own rule | {ANY} | {ANY} | {ANY} | – | once |" in page
    assert f"| p | 1,000 | 5 | {ANY} | 10.0 | 20.0 | 10.0 | {ANY} | 20.0 | 2 | 3 times |" in page
    assert "1,511 foreign ones: 1,111 whole photographs (`f`) and\n400 boxes of `g`. Thresholds are derived for" in page
    assert "derived for 1 % of foreign pictures a class" in page
    assert "in a gallery of 20\nis 20 %" in page
    assert f"| off | hard | {ANY} | 60.0 | 10.0 | 20.0 | 10.0 | once |" in page
    assert "each of 12,243 brands enrolled; 1,315 of them" in page
    assert "| beer | off | 82 | 80.0 | 60.0 | 10.0 | 20.0 | 10.0 |" in page
    assert "| 1.0 | 70.0 | 2.0 | 70.0 | 2.0 |" in page
    assert "beside 3,119 package" in page.replace("\n", " ")
    assert "| 5-way 1-shot | quads | " + " | ".join([ANY] * 7) + " | 1,000 | 1,500 | 700 | 20 | 4 times |" in page


def test_what_the_page_shows_is_drawn_beside_the_results(page: str, tmp_path: Path) -> None:
    shown = re.findall(r"!\[.*\]\(accuracy/(.*)\)", page)
    assert sorted(shown) == sorted(["confusions.webp", *(file.name for file in tmp_path.glob("*.svg"))])
    assert len(shown) == 6  # the benchmark's network gives no probabilities


def test_each_section_says_its_command(page: str) -> None:
    sections = page.split("\n## ")[1:]
    assert len(sections) == 7
    for section in sections:
        assert "\n    python -m training evaluate " in section


def test_an_arm_that_one_task_lacks_leaves_a_gap(tmp_path: Path) -> None:
    other = PLAIN | {"pack": "q", "arms": {"shipped": NUMBERS}, "differences": {}}
    assert f"| q-1shot (12-way) | {ANY} | – | 500 | 2 times |" in report.page([PLAIN, other])


def test_the_committed_page_is_the_one_that_the_committed_results_make() -> None:
    docs = Path(__file__).parents[3] / "docs"
    results = [json.loads(path.read_text()) for path in sorted((docs / "accuracy").glob("*.json"))]
    sheets = [sheet.name for sheet in (docs / "accuracy").glob("*.webp")]
    assert (docs / "accuracy.md").read_text() == report.page(results, sheets)
