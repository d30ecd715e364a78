from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.client import Answer, Firstsight
from app.commands import evaluate
from app.commands.evaluation import Asked, Evaluation
from tests.api.drawings import ACME, BLUE, GREEN, OTHER, RED, STRANGE, YELLOW, drawing, form
from tests.commands.conftest import Run


@pytest.fixture
def taught(client: TestClient) -> TestClient:
    for name, picture in {"acme": ACME, "other": OTHER}.items():
        assert client.post(f"/classes/{name}/examples", files=form(picture)).status_code == 201
    return client


@pytest.fixture
def pictures(folder: Path) -> Path:
    """As `folder`, with a second picture of other, and one of acme that lies among those of other."""
    (folder / "other").mkdir()
    (folder / "other" / "again.png").write_bytes(drawing(BLUE, YELLOW, side_px=80))
    (folder / "other" / "mixed-up.png").write_bytes(drawing(RED, GREEN, side_px=72))
    return folder


def test_right_wrong_and_foreign_pictures_are_counted(run: Run, taught: TestClient, pictures: Path) -> None:
    told = json.loads(run("evaluate", pictures, "--json").stdout)

    rows = {row["class_name"]: row for row in told["classes"]}
    assert (told["pictures"], told["foreign"]) == (5, 1)
    assert (rows["acme"]["right"], rows["acme"]["taken_for_it"]) == (2, 1)
    assert (rows["other"]["pictures"], rows["other"]["right"], rows["other"]["wrong"]) == (3, 2, 1)
    assert told["recall"]["share"] == pytest.approx(4 / 5)
    assert told["false_accepts"]["share"] == 0
    (pair,) = told["confusions"]
    assert (pair["truth"], pair["said"], Path(pair["files"][0]).name) == ("other", "acme", "mixed-up.png")


def test_people_are_given_a_table(run: Run, taught: TestClient, pictures: Path) -> None:
    told = run("evaluate", pictures)

    assert told.exit_code == 0
    assert re.search(r"matched right +80\.0%", told.stdout)
    assert "1 × other taken for acme: mixed-up.png" in told.stdout


@pytest.mark.parametrize(
    ("gates", "code"),
    [
        (["--min-recall", "0.8", "--min-precision", "0.8", "--max-false-accepts", "0"], 0),
        (["--min-recall", "0.81"], 6),
        (["--min-precision", "0.81"], 6),
    ],
)
def test_a_gate_decides_how_it_ends(run: Run, taught: TestClient, pictures: Path, gates: list[str], code: int) -> None:
    ended = run("evaluate", pictures, *gates)

    assert ended.exit_code == code
    assert ("80.0%, not 81.0%" in ended.stderr) == (code == 6)


@pytest.mark.parametrize(("most", "code"), [("0.5", 0), ("0.49", 6)])
def test_more_foreign_pictures_matched_than_the_gate_lets_through_end_with_6(
    run: Run, taught: TestClient, pictures: Path, most: str, code: int
) -> None:
    (pictures / "_none" / "alike.png").write_bytes(drawing(RED, GREEN, side_px=88))  # matched as acme: one of two

    assert run("evaluate", pictures, "--max-false-accepts", most).exit_code == code


def test_a_gate_that_nothing_measures_is_not_passed(run: Run, taught: TestClient, pictures: Path) -> None:
    (pictures / "_none" / "strange.png").unlink()

    assert run("evaluate", pictures, "--max-false-accepts", "1").exit_code == 6


def test_pictures_of_classes_that_are_not_enrolled_are_foreign(run: Run, client: TestClient, pictures: Path) -> None:
    client.post("/classes/acme/examples", files=form(ACME))

    told = run("evaluate", pictures, "--json")

    assert json.loads(told.stdout)["foreign"] == 4
    assert "other" in told.stderr


def test_a_picture_that_cannot_be_used_is_left_out_and_named(run: Run, taught: TestClient, pictures: Path) -> None:
    (pictures / "acme" / "broken.png").write_bytes(ACME[:100])

    ended = run("evaluate", pictures, "--json")

    told = json.loads(ended.stdout)
    assert (ended.exit_code, told["pictures"]) == (5, 5)
    assert [Path(file).name for file in told["failed"]] == ["broken.png"]


def test_the_page_needs_nothing_else_and_shows_the_confused_pictures(run: Run, taught: TestClient, pictures: Path) -> None:
    told = run("evaluate", pictures, "--html", pictures / "page.html")

    page = (pictures / "page.html").read_text()
    assert told.exit_code == 0
    assert "mixed-up.png" in page
    assert page.count("data:image/jpeg;base64,") == 2  # the one that was mixed up, and one of the class that it was taken for
    assert page.index("mixed-up.png") < page.index("again.png")
    assert re.findall(r"(?:src|href)=\"(?!data:)|<script|@import|url\(", page) == []


def test_names_in_the_page_are_text(tmp_path: Path) -> None:
    from app.commands.evaluation_page import page_of

    answer = answer_of({"<b>": 0.9}, decision="<b>")
    page = page_of(Evaluation([Asked(tmp_path / "<i>.png", "a&b", answer)]), title="<script>")

    assert "<script" not in page
    assert "<b>" not in page
    assert "a&amp;b" in page


# Against each other: the private service is the application of the test


@pytest.fixture
def private(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def here() -> Iterator[Firstsight]:
        yield Firstsight("http://testserver", transport=client._transport)

    monkeypatch.setattr(evaluate, "private_service", here)


@pytest.mark.usefixtures("private")
def test_each_picture_is_asked_against_all_the_others(run: Run, pictures: Path) -> None:
    told = json.loads(run("evaluate", pictures, "--leave-one-out", "--json").stdout)

    rows = {row["class_name"]: row for row in told["classes"]}
    assert told["pictures"] == 5
    assert rows["acme"]["right"] + rows["acme"]["wrong"] + rows["acme"]["doubtful"] == 2
    assert rows["other"]["right"] == 2
    assert told["foreign"] == 1


@pytest.mark.usefixtures("private")
def test_a_picture_is_no_example_while_it_is_asked_about(run: Run, pictures: Path) -> None:
    (pictures / "acme" / "again.png").write_bytes(STRANGE)  # of a class whose two pictures have nothing in common

    told = json.loads(run("evaluate", pictures, "--leave-one-out", "--json").stdout)

    (acme,) = (row for row in told["classes"] if row["class_name"] == "acme")
    assert (acme["pictures"], acme["right"]) == (2, 0)


@pytest.mark.usefixtures("private")
def test_a_class_with_one_picture_competes_and_is_not_asked(run: Run, folder: Path) -> None:
    told = run("evaluate", folder, "--leave-one-out", "--json")

    assert [row["class_name"] for row in json.loads(told.stdout)["classes"]] == ["acme"]
    assert "1 classes have one picture only" in told.stderr


@pytest.mark.usefixtures("private")
def test_more_examples_are_measured_on_the_same_pictures(run: Run, pictures: Path) -> None:
    for side_px in (96, 104):
        (pictures / "acme" / f"{side_px}.png").write_bytes(drawing(RED, GREEN, side_px=side_px))
        (pictures / "other" / f"{side_px}.png").write_bytes(drawing(BLUE, YELLOW, side_px=side_px))

    told = json.loads(run("evaluate", pictures, "--leave-one-out", "--json").stdout)

    assert [one["examples"] for one in told["shots"]] == [1, 2]
    assert all(0 <= one["right"]["share"] <= 1 for one in told["shots"])


@pytest.mark.usefixtures("private")
def test_what_more_examples_are_worth_is_asked_of_pictures_that_are_none(run: Run, tmp_path: Path) -> None:
    """Of each class the first two by name become examples; the two that are asked about have nothing in common with them."""
    for name, bands in {"acme": (RED, GREEN), "other": (BLUE, YELLOW)}.items():
        (tmp_path / name).mkdir()
        for side_px in (64, 72):
            (tmp_path / name / f"a{side_px}.png").write_bytes(drawing(*bands, side_px=side_px))
            (tmp_path / name / f"b{side_px}.png").write_bytes(drawing(*reversed(bands), side_px=side_px))

    told = json.loads(run("evaluate", tmp_path, "--leave-one-out", "--json").stdout)

    assert [(one["examples"], one["right"]["share"]) for one in told["shots"]] == [(1, 0), (2, 0)]


def test_without_networks_it_says_where_it_looks_for_them(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTSIGHT_MODELS_DIR", str(folder / "nowhere"))

    refused = run("evaluate", folder, "--leave-one-out")

    assert refused.exit_code == 1
    assert "FIRSTSIGHT_MODELS_DIR" in refused.stderr


def test_thresholds_are_not_applied_to_what_was_not_asked(run: Run, folder: Path) -> None:
    assert run("evaluate", folder, "--leave-one-out", "--apply").exit_code == 2


def test_a_folder_without_pictures_is_told(run: Run, tmp_path: Path) -> None:
    assert run("evaluate", tmp_path).exit_code == 1


# Figures, by hand


def answer_of(similarities: dict[str, float], *, decision: str | None = None) -> Answer:
    candidates = [
        {"class": name, "similarity": one, "probability": one, "accepted": True, "threshold": 0.3, "evidence": []}
        for name, one in similarities.items()
    ]
    outcome = "unknown" if decision is None else "match"
    told = {"outcome": outcome, "decision": decision, "reason": None, "version": 1, "model": "m", "candidates": candidates}
    return Answer.model_validate(told)


def test_precision_is_told_where_nine_of_ten_are_recalled() -> None:
    """By falling probability: five right, one wrong, four right. Nine of ten are recalled by all ten, nine of which are right."""
    given = [0.9] * 5 + [0.8] + [0.7] * 4
    asked = [Asked(Path("one"), "acme", answer_of({"other" if one == 0.8 else "acme": one})) for one in given]

    told = Evaluation(asked).as_json()["precision_at_recall"]

    assert told["recall"] == 0.9
    assert (told["reached"]["recall"], told["reached"]["precision"]) == (pytest.approx(0.9), pytest.approx(0.9))


def test_a_suggested_threshold_is_just_above_what_others_reach() -> None:
    own = [Asked(Path("own"), "acme", answer_of({"acme": one, "other": 0.1})) for one in (0.4, 0.7, 0.9)]
    others = [Asked(Path("foreign"), None, answer_of({"acme": one})) for one in (0.2, 0.5)]

    (suggested,) = Evaluation([*own, *others]).suggestions

    assert (suggested.class_name, suggested.threshold, suggested.now) == ("acme", 0.501, 0.3)
    assert (suggested.own_accepted, suggested.own_accepted_now) == (pytest.approx(2 / 3), 1.0)


def test_to_what_is_no_candidate_a_picture_is_as_alike_as_to_the_least_candidate() -> None:
    own = [Asked(Path("own"), "acme", answer_of({"acme": 0.25})) for _ in range(3)]
    others = [Asked(Path("foreign"), None, answer_of({"acme": 0.6} if number == 0 else {"other": 0.2})) for number in range(100)]

    (suggested,) = Evaluation([*own, *others]).suggestions

    assert suggested.threshold == pytest.approx(0.201)  # one of a hundred may pass: the one at 0.6


@pytest.mark.parametrize(("own", "suggested"), [((0.25, 0.4, 0.5), [0.201]), ((0.1, 0.4, 0.5), [])])
def test_a_lower_threshold_is_suggested_only_where_it_accepts_more(own: Sequence[float], suggested: list[float]) -> None:
    """The one that holds is 0.3, and others reach 0.2."""
    asked = [Asked(Path("own"), "acme", answer_of({"acme": one})) for one in own]
    foreign = [Asked(Path("foreign"), None, answer_of({"acme": 0.2}))]

    assert [one.threshold for one in Evaluation([*asked, *foreign]).suggestions] == suggested


def test_for_a_class_with_few_pictures_nothing_is_suggested() -> None:
    few = [Asked(Path("own"), "acme", answer_of({"acme": 0.9})), Asked(Path("foreign"), None, answer_of({"acme": 0.5}))]

    assert Evaluation(few).suggestions == []


def test_suggested_thresholds_are_set_when_asked_for(run: Run, taught: TestClient, pictures: Path) -> None:
    (pictures / "acme" / "third.png").write_bytes(drawing(RED, GREEN, side_px=96))
    suggested = json.loads(run("evaluate", pictures, "--json").stdout)["suggestions"]

    run("evaluate", pictures, "--apply")

    assert suggested
    for one in suggested:
        assert taught.get(f"/classes/{one['class_name']}").json()["threshold"] == one["threshold"]
