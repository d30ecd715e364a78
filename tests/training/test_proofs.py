"""What is fitted to proofs finds what was put in, keeps to the stated rate, and is what the service reads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the extra `training` is not installed")

from app.adapters.model_set import read_model_set  # noqa: E402
from app.domain.calibration import ProofCalibration  # noqa: E402
from app.domain.values import PixelArray  # noqa: E402
from app.domain.verification import Found, Proof  # noqa: E402
from app.service.embed import PlaceEmbedder  # noqa: E402
from tests.fakes import FakeEmbedder, calibration_for_tests, rectify_nearest  # noqa: E402
from tests.model_sets import write_model_set  # noqa: E402
from tests.training.packs import draw_print_packs, print_of, write_zip  # noqa: E402
from tests.values import example_of  # noqa: E402
from training import batches, proofs  # noqa: E402

QUAD = np.array([[0, 0], [0.5, 0], [0.5, 1], [0, 1]])
BLANK = np.full((64, 64, 3), 200, np.uint8)
TARGET_FAR = 0.05


def proved(left: float = 0.0, look: float | None = None) -> Found:
    return Found(example_of("e"), Proof(9, 0.5, 0.5, QUAD + np.array([left, 0]), np.arange(9)), 0.5, look)


def rows_of(
    features: np.ndarray,
    right: Sequence[bool] | np.ndarray,
    picture: Sequence[int] | np.ndarray,
    *,
    similarity: float = -3.0,
    looks: Sequence[float | None] | None = None,
) -> proofs.Rows:
    count = len(features)
    found = tuple(proved(look=look) for look in looks or [None] * count)
    return proofs.Rows(features, np.full(count, similarity), np.array(right), np.array(picture), found)


def asked_of(*truths: str | None) -> list[proofs.Asked]:
    return [proofs.Asked(BLANK, truth, "foreign" if truth is None else "fronts") for truth in truths]


def drawn(count: int, *, seed: int = 0) -> np.ndarray:
    """Logarithms of 4 to 100 points, and three shares."""
    return np.random.default_rng(seed).uniform((1.4, 0, 0, 0), (4.6, 1, 1, 1), (count, 4))


def drafted(rows: proofs.Rows, asked: Sequence[proofs.Asked]) -> ProofCalibration:
    return proofs.fit_points(rows, asked)


def fitted_to(rows: proofs.Rows, asked: Sequence[proofs.Asked]) -> ProofCalibration:
    return proofs.fit(rows, asked, drafted(rows, asked), TARGET_FAR)


def weights_of(calibration: ProofCalibration) -> list[float]:
    return proofs.weights_of(calibration).tolist()


@pytest.mark.parametrize("look", [0.0, 4.0])
def test_the_fitted_weights_are_those_that_drew_the_answers(look: float) -> None:
    rng, features = np.random.default_rng(1), drawn(4_000)
    by_similarity, looks = rng.normal(-3, 4, 4_000), rng.uniform(0, 1, 4_000)
    log_odds = -4 - look / 2 + features @ (0.5, 1.0, 2.0, 3.0) + look * looks
    right = rng.random(4_000) < 1 / (1 + np.exp(-log_odds))
    found = tuple(proved(look=look) for look in looks.tolist())
    rows = proofs.Rows(features, by_similarity, right, np.arange(4_000), found)
    fitted = proofs.fit_weights(rows, 4_000, drafted(rows, asked_of(*["pack/thing"] * 4_000)))
    found_weights = (fitted.bias + look / 2, *weights_of(fitted), fitted.look)
    assert found_weights == pytest.approx((-4, 0.5, 1.0, 2.0, 3.0, look), abs=0.6)


@pytest.mark.parametrize("misleading", range(4))
def test_what_speaks_against_a_class_has_no_weight_rather_than_a_negative_one(misleading: int) -> None:
    features = drawn(500)
    right = features[:, misleading] < np.median(features[:, misleading])
    rows = rows_of(features, right, range(500))
    fitted = proofs.fit_weights(rows, 500, drafted(rows, asked_of(*["pack/thing"] * 500)))
    assert min(weights_of(fitted)) >= 0
    assert weights_of(fitted)[misleading] == pytest.approx(0, abs=0.05)


def test_a_look_that_speaks_against_a_class_has_no_weight_rather_than_a_negative_one() -> None:
    features, looks = drawn(500), np.random.default_rng(1).uniform(0, 1, 500)
    rows = rows_of(features, looks < 0.5, range(500), looks=looks.tolist())
    fitted = proofs.fit_weights(rows, 500, drafted(rows, asked_of(*["pack/thing"] * 500)))
    assert 0 <= fitted.look == pytest.approx(0, abs=0.05)


def test_what_the_whole_picture_looks_like_has_no_part_in_what_a_proof_comes_to() -> None:
    rows, asked = some_rows(200, looked_at=True)
    likely = replace(rows, by_similarity=np.where(rows.right, 5.0, -5.0))
    draft = drafted(rows, asked)
    assert proofs.fit_weights(likely, len(asked), draft) == proofs.fit_weights(rows, len(asked), draft)


def test_what_similarity_explains_is_not_laid_to_the_points() -> None:
    features, rng = drawn(4_000), np.random.default_rng(1)
    by_similarity = rng.normal(-3, 4, 4_000)
    features[:, 3] = np.clip(0.5 + by_similarity / 20, 0, 1)
    right = rng.random(4_000) < 1 / (1 + np.exp(-by_similarity - 3))
    rows = replace(rows_of(features, right, range(4_000)), by_similarity=by_similarity)
    assert weights_of(drafted(rows, asked_of(*["pack/thing"] * 4_000))) == pytest.approx([0, 0, 0, 0], abs=0.5)


def test_a_look_that_decides_between_proofs_of_equal_points_gets_weight() -> None:
    # Two proofs of each picture by the same points. Of 200 pictures one is right and alike: points say nothing, and the look all.
    features, pictures = np.repeat(drawn(300), 2, axis=0), np.repeat(np.arange(300), 2)
    right, looks = np.tile([True, False], 300) & (pictures < 200), [0.9, 0.3] * 200 + [0.3] * 200
    rows = rows_of(features, right, pictures, looks=looks)
    fitted = proofs.fit_weights(rows, 300, drafted(rows, asked_of(*["pack/thing"] * 200, *[None] * 100)))
    assert fitted.look * 0.6 > 3
    assert fitted.look > 3 * max(weights_of(fitted))


def test_a_place_that_was_not_looked_at_or_is_the_opposite_counts_as_one_that_is_like_nothing() -> None:
    features, rng = drawn(400), np.random.default_rng(1)
    right = rng.random(400) < 0.5
    looks = np.where(right, 0.8, 0.0).tolist()
    as_none = rows_of(features, right, range(400), looks=[look or None for look in looks])
    as_opposite = rows_of(features, right, range(400), looks=[look or -0.9 for look in looks])
    asked = asked_of(*["pack/thing"] * 400)
    draft = drafted(as_none, asked)
    assert proofs.fit_weights(as_none, 400, draft) == proofs.fit_weights(as_opposite, 400, draft)


def some_rows(foreign: int, enrolled: int = 100, *, looked_at: bool = False) -> tuple[proofs.Rows, list[proofs.Asked]]:
    """Two proofs of each picture, of which a right one is much stronger; pictures of nothing enrolled first."""
    pictures = foreign + enrolled
    features = np.concatenate([drawn(pictures), 0.5 * drawn(pictures, seed=1)])
    right = (np.arange(2 * pictures) >= foreign) & (np.arange(2 * pictures) < pictures)
    features[right] += 1
    order = np.random.default_rng(2).permutation(2 * pictures)  # the weaker one may come first
    picture, looks = np.tile(np.arange(pictures), 2)[order], None
    if looked_at:
        looks = (np.random.default_rng(3).uniform(-0.2, 0.6, 2 * pictures) + 0.4 * right[order]).tolist()
    rows = rows_of(features[order], right[order], picture, looks=looks)
    return rows, asked_of(*[None] * foreign, *["pack/thing"] * enrolled)


def as_found(rows: proofs.Rows, row: int) -> Found:
    """The proof that has the features of a row."""
    points, coverage, agreement, votes = rows.features[row]
    proof = Proof(np.exp(points), coverage**2, agreement**2, QUAD, np.arange(1))
    return replace(rows.proofs[row], proof=proof, votes=votes)


def test_the_draft_looks_at_all_but_one_in_a_hundred_of_the_right_places() -> None:
    rows, asked = some_rows(200, enrolled=400)
    draft = drafted(rows, asked)
    right = np.array([draft.by_points(as_found(rows, row)) for row in np.flatnonzero(rows.right)])
    assert (right >= draft.looked_from).mean() == pytest.approx(0.99, abs=0.0026)  # one of 400


def test_a_right_proof_that_is_not_the_strongest_of_its_picture_does_not_lower_from_where_places_are_looked_at() -> None:
    rows, asked = some_rows(200)
    weak = np.flatnonzero(~rows.right & (rows.picture >= 200))
    also_right = rows.right.copy()
    also_right[weak] = True
    both = replace(rows, right=also_right)
    draft = drafted(both, asked)
    by_points = rows.features @ proofs.weights_of(draft)
    stronger = [by_points[rows.picture == picture].max() for picture in range(200, 300)]
    assert draft.looked_from == pytest.approx(np.quantile(stronger, proofs.NOT_LOOKED_AT))


def test_the_draft_keeps_its_measure_of_what_is_looked_at_when_the_weights_are_scaled() -> None:
    rows, asked = some_rows(200, enrolled=400, looked_at=True)
    draft, fitted = drafted(rows, asked), fitted_to(rows, asked)
    worth = [
        [calibration.by_points(as_found(rows, row)) >= calibration.looked_from for row in range(len(rows.features))]
        for calibration in (draft, fitted)
    ]
    assert sum(one != other for one, other in zip(*worth, strict=True)) <= 1  # weights are rounded


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize(("foreign", "passing"), [(200, 10), (400, 20)])
def test_the_line_lets_the_stated_share_of_foreign_pictures_pass(foreign: int, passing: int, looked_at: bool) -> None:
    rows, asked = some_rows(foreign, looked_at=looked_at)
    fitted = fitted_to(rows, asked)
    strongest: dict[int, float] = {}
    for row, picture in enumerate(rows.picture.tolist()):
        strongest[picture] = max(fitted.strength(as_found(rows, row)), strongest.get(picture, 0.0))
    reached = np.array([strongest[picture] for picture in range(foreign)])
    assert fitted.target_far == TARGET_FAR
    assert (reached >= fitted.line).sum() == passing
    assert (reached >= fitted.doubtful_line).sum() == proofs.DOUBTFUL_FAR * passing


def test_foreign_pictures_in_which_nothing_was_proved_count_among_those_that_do_not_pass() -> None:
    # 100 foreign pictures with a proof each, and 900 without any: 5 % of them all is half of those that have one.
    rows, asked = some_rows(100)
    fitted = fitted_to(rows, asked + asked_of(*[None] * 900))
    best = [(rows.features[rows.picture == picture] @ weights_of(fitted)).max() for picture in range(100)]
    assert sum(strength >= fitted.line for strength in best) == 50
    assert fitted.doubtful_line == 0


def test_what_is_fitted_is_a_calibration_without_negative_weights() -> None:
    fitted = fitted_to(*some_rows(200, looked_at=True))  # or it would refuse to be made
    assert min(*weights_of(fitted), fitted.look, fitted.looked_from) >= 0
    assert 0 <= fitted.doubtful_line <= fitted.line


def test_what_was_accepted_is_said_for_each_kind_of_picture(capsys: pytest.CaptureFixture[str]) -> None:
    rows, asked = some_rows(200)
    fitted_to(rows, [replace(one, kind="unknown fronts") if n < 50 else one for n, one in enumerate(asked)])
    said = capsys.readouterr().out
    shares = re.findall(r"^(.+): accepted and right ([\d.]+), and wrong ([\d.]+)$", said, re.MULTILINE)
    assert [kind for kind, _, _ in shares] == ["unknown fronts", "foreign", "fronts"]
    (_, of_unknown), (_, of_foreign), of_fronts = ((float(right), float(wrong)) for _, right, wrong in shares)
    assert (50 * of_unknown + 150 * of_foreign) / 200 == pytest.approx(TARGET_FAR, abs=0.001)
    assert of_fronts == (1.0, 0.0)


def striped(*colours: tuple[int, int, int]) -> PixelArray:
    """Bands of colour from left to right, each 32 wide and 32 high."""
    return np.repeat([colours], 32, axis=0).repeat(32, axis=1).astype(np.uint8)


RED, GREEN = (230, 20, 20), (20, 200, 20)
EMBED_PLACES = PlaceEmbedder(rectify=rectify_nearest, embedder=FakeEmbedder())


def test_the_places_of_all_pictures_are_looked_at_as_the_service_does() -> None:
    red, green = (FakeEmbedder()(striped(colour)[np.newaxis]).embedding[0] for colour in (RED, GREEN))
    halves = [QUAD * (1, 0.5) + (left, 0) for left in (0.0, 0.5)]  # of a picture twice as wide as high
    found = [
        Found(example_of(name, embedding), Proof(points, 0.5, 0.5, quad, np.arange(points)), 0.5)
        for name, embedding, points, quad in (
            ("red", red, 60, halves[0]),
            ("sibling", green, 50, halves[0]),
            ("green", green, 40, halves[1]),
            ("weak", green, 4, halves[1] * (0.5, 0.5)),
        )
    ]
    order = [0, 3, 1, 2]  # rows of a picture need not lie together
    rows = proofs.Rows(
        drawn(5), np.zeros(5), np.zeros(5, bool), np.array([0, 0, 0, 0, 1]), (*(found[n] for n in order), found[0])
    )
    asked = [proofs.Asked(striped(RED, GREEN), None, "foreign"), proofs.Asked(striped(GREEN, RED), None, "foreign")]
    draft = replace(calibration_for_tests().proof, looked_from=3.0)
    looked = proofs.look_at(rows, asked, draft, EMBED_PLACES)
    unlike = round(float(red.astype(np.float64) @ green), 6)
    assert [one.example.id for one in looked.proofs] == ["red", "weak", "sibling", "green", "red"]
    assert [one.look for one in looked.proofs] == [1.0, None, unlike, 1.0, unlike]
    assert looked.features is rows.features


def test_where_nothing_is_proved_the_run_ends_with_a_word_about_the_packs(tmp_path: Path) -> None:
    loaded = read_model_set(write_model_set(tmp_path / "models"))
    eyes = proofs.Eyes(loaded)
    served = proofs.serve([("pack/thing", np.asarray(print_of(1).convert("RGB")))], eyes, loaded)
    with pytest.raises(SystemExit, match=r"No point of any picture.*folder of packs"):
        proofs.prove(asked_of(None, "pack/thing"), served, eyes, loaded.model_set)


def test_what_is_proved_is_right_by_the_class_it_shows_and_has_not_been_looked_at(tmp_path: Path) -> None:
    loaded = read_model_set(write_model_set(tmp_path / "models"))
    eyes = proofs.Eyes(loaded)
    pictures = {f"pack/{n}": np.asarray(print_of(n).convert("RGB")) for n in (1, 2)}
    served = proofs.serve(pictures.items(), eyes, loaded)
    asked = [proofs.Asked(pictures[shown], truth, "fronts") for shown, truth in (("pack/1", "pack/1"), ("pack/2", None))]
    rows = proofs.prove([*asked_of(None), *asked], served, eyes, loaded.model_set)
    assert (rows.picture.tolist(), rows.right.tolist()) == ([1, 2], [True, False])
    assert [one.example.id for one in rows.proofs] == ["pack/1", "pack/2"]
    assert [one.look for one in rows.proofs] == [None, None]
    assert rows.features[:, 0].tolist() == [np.log(one.proof.points) for one in rows.proofs]


def test_the_strongest_proof_of_each_picture_by_hand() -> None:
    rows = rows_of(drawn(5), [True] * 5, [2, 0, 2, 0, 2])
    assert proofs.strongest(np.array([1.0, 3.0, 5.0, 2.0, 4.0]), rows, 4).tolist() == [1, -1, 2, -1]


def margin_of(gaps: Sequence[float], right: Sequence[bool], *, left: float = 0.0, second: float = 9.0) -> float:
    """Of pictures with two proofs each, the better one `right` or the other, so far apart in log-odds."""
    count = len(gaps)
    log_odds = np.concatenate([np.asarray(gaps, np.float64), np.zeros(count)])
    strengths = np.concatenate([np.full(count, 9.0), np.full(count, second)])
    found = (proved(),) * count + (proved(left),) * count
    picture = np.tile(np.arange(count), 2)
    rows = proofs.Rows(drawn(2 * count), log_odds, np.concatenate([right, ~np.asarray(right)]), picture, found)
    return proofs.fit_ambiguous_margin(log_odds, strengths, rows, line=5.0)


# Gaps of 0.1 to 3.0; the better proof is wrong at 0.1 and at 0.3. Up to 1.9, 17 of 19 are right: 89.5 %. Up to 2.0, 18 of 20.
GAPS = [round(0.1 * number, 1) for number in range(1, 31)]
RIGHT = [number not in (1, 3) for number in range(1, 31)]


def test_the_ambiguous_margin_is_the_last_gap_up_to_which_the_better_is_right_too_seldom() -> None:
    assert margin_of(GAPS, RIGHT) == 1.9
    backwards = list(reversed(GAPS)), list(reversed(RIGHT))
    assert margin_of(*backwards) == 1.9


def test_there_is_no_margin_where_the_better_proof_is_always_right_or_there_are_no_two() -> None:
    assert margin_of(GAPS, [True] * 30) == 0.0
    assert margin_of([], np.array([], bool)) == 0.0


def test_proofs_of_two_places_are_no_rivals() -> None:
    assert margin_of(GAPS, RIGHT, left=0.5) == 0.0
    assert margin_of(GAPS, RIGHT, left=0.1) == 1.9  # four fifths of each quad: two thirds of what both cover


def test_a_proof_below_the_line_is_no_rival() -> None:
    assert margin_of(GAPS, RIGHT, second=4.0) == 0.0


def test_pictures_of_nothing_enrolled_say_nothing_about_the_margin() -> None:
    count = len(GAPS)
    log_odds = np.concatenate([GAPS, np.zeros(count)])
    rows = proofs.Rows(
        drawn(2 * count), log_odds, np.zeros(2 * count, bool), np.tile(np.arange(count), 2), (proved(),) * 2 * count
    )
    assert proofs.fit_ambiguous_margin(log_odds, np.full(2 * count, 9.0), rows, line=5.0) == 0.0


def objects(count: int, *, held_back: bool) -> list[str]:
    names = (f"object{n}" for n in range(1000))
    return list(islice((name for name in names if batches.held_back(f"object-views-dev/{name}") == held_back), count))


def config_for(folder: Path, models: Path, **changed: int) -> proofs.Config:
    config = proofs.Config(
        data=folder, models=models, target_far=0.1, fronts=3, unknown=1, siblings=2, marks=3, asked=1, foreign=20
    )
    return replace(config, **changed)


def test_fronts_that_are_asked_as_unknown_are_not_enrolled_and_siblings_are(tmp_path: Path) -> None:
    draw_print_packs(tmp_path, objects=objects(2, held_back=True))
    config = config_for(tmp_path, tmp_path / "models", fronts=0)  # all that there are, so that none is left out by chance
    fronts = proofs.fronts_of(config)
    enrolled = dict(proofs.enrolled_pictures(config, fronts))
    of_split_7 = {f"package-fronts/package-fronts-7-{n}" for n in range(4)}
    (unknown,) = fronts.names[3:]
    assert set(fronts.names) == of_split_7
    assert {name for name in enrolled if "fronts-7" in name and "," not in name} == of_split_7 - {unknown}
    siblings = [name for name in enrolled if "," in name]
    assert siblings == [proofs.sibling_name(name) for name in fronts.names[:2]]
    for name in fronts.names[:2]:
        assert (enrolled[proofs.sibling_name(name)] != 255).any()


def test_each_kind_of_picture_is_asked_with_its_truth(tmp_path: Path) -> None:
    draw_print_packs(tmp_path, objects=objects(2, held_back=True))
    config = config_for(tmp_path, tmp_path / "models")
    fronts = proofs.fronts_of(config)
    truths: dict[str, list[str | None]] = {}
    for one in proofs.asked_pictures(config, fronts):
        truths.setdefault(one.kind, []).append(one.truth)
    assert truths["fronts"] == fronts.names[:3]
    assert truths["siblings"] == [proofs.sibling_name(name) for name in fronts.names[:2]]
    assert truths["unknown fronts"] == [None]
    assert truths["foreign"] == [None] * 20
    assert len(set(truths["marks"])) == 3
    assert {name for name in truths["objects"] if name} <= {f"object-views-dev/{name}" for name in objects(2, held_back=True)}
    enrolled = dict(proofs.enrolled_pictures(config, fronts))
    assert {truth for kind in truths.values() for truth in kind if truth} <= enrolled.keys()


def draw_fronts(folder: Path, *fronts: Image.Image) -> None:
    drawn = {f"7/package-fronts-7-{number}/0.webp": front for number, front in enumerate(fronts)}
    write_zip(folder / "package-fronts" / "images.zip", drawn)


def test_only_fronts_of_which_a_change_shows_are_templates(tmp_path: Path) -> None:
    # What follows the coloured front gets a band of it; the grey ones after that are all the same.
    grey, coloured = print_of(6).convert("L").convert("RGB"), print_of(1)
    draw_fronts(tmp_path, grey, grey, coloured, grey, grey)
    fronts = proofs.fronts_of(config_for(tmp_path, tmp_path / "models", unknown=0, siblings=5))
    place = fronts.names.index("package-fronts/package-fronts-7-2")
    assert fronts.templates == sorted([place, (place + 1) % 5])
    assert len(fronts.siblings) == 2


def test_a_sibling_goes_by_the_name_of_the_front_that_it_was_made_of(tmp_path: Path) -> None:
    draw_print_packs(tmp_path, objects=objects(2, held_back=True))
    grey = print_of(6).convert("L").convert("RGB")
    draw_fronts(tmp_path, grey, print_of(1), grey, grey, grey)
    config = config_for(tmp_path, tmp_path / "models", unknown=0, siblings=5)
    fronts = proofs.fronts_of(config)
    twins = [proofs.sibling_name(fronts.names[place]) for place in fronts.templates]
    enrolled = dict(proofs.enrolled_pictures(config, fronts))
    asked = [one.truth for one in proofs.asked_pictures(config, fronts) if one.kind == "siblings"]
    assert [name for name in enrolled if "," in name] == asked == twins


def test_without_siblings_the_rest_is_enrolled_and_asked_as_it_is(tmp_path: Path) -> None:
    draw_print_packs(tmp_path, objects=objects(2, held_back=True))
    config = config_for(tmp_path, tmp_path / "models", siblings=0)
    fronts = proofs.fronts_of(config)
    assert (len(fronts.siblings), fronts.templates) == (0, [])
    assert not [name for name, _ in proofs.enrolled_pictures(config, fronts) if "," in name]
    kinds = {one.kind for one in proofs.asked_pictures(config, fronts)}
    assert kinds == {"fronts", "unknown fronts", "marks", "objects", "foreign"}


@pytest.mark.parametrize(("aspect", "shape"), [(2.0, (32, 64, 3)), (0.5, (64, 32, 3)), (1.0, (64, 64, 3))])
def test_a_front_lies_over_white_in_the_shape_that_it_had(aspect: float, shape: tuple[int, ...]) -> None:
    front = torch.zeros((4, 64, 64), dtype=torch.uint8)
    front[3, :, :32] = 255  # the left half is black, the right one is not there
    picture = proofs.unstretched(front, aspect)
    assert picture.shape == shape
    middle = picture[shape[0] // 2]
    assert (middle[2].tolist(), middle[-3].tolist()) == ([0, 0, 0], [255, 255, 255])


def test_the_command_puts_what_it_fitted_into_the_manifest_and_leaves_the_rest(tmp_path: Path) -> None:
    unseen, learnt = objects(2, held_back=True), objects(2, held_back=False)
    draw_print_packs(tmp_path, objects=unseen + learnt)
    models = write_model_set(tmp_path / "models")
    before = json.loads((models / "manifest.json").read_text())
    config = config_for(tmp_path, models)
    enrolled = dict(proofs.enrolled_pictures(config, proofs.fronts_of(config)))
    assert {name for name in enrolled if "object" in name} == {f"object-views-dev/{name}" for name in unseen}

    flags = asdict(config)
    proofs.main([str(part) for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", value)])

    fitted = read_model_set(models).model_set.calibration
    assert fitted.proof.target_far == 0.1
    assert fitted.proof != calibration_for_tests().proof
    after = json.loads((models / "manifest.json").read_text())
    assert after["calibration"].pop("proof") == asdict(fitted.proof)
    before["calibration"].pop("proof")
    assert after == before
