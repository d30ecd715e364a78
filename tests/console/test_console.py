"""What a person does on the console, done in Chromium."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import JSHandle, Page, Route

from app.api.auth import Scope, create_key
from demo.server import Server, serving
from tests.console.conftest import DESKTOP, PHONE, Open, origin_of

pytestmark = pytest.mark.timeout(300)

CHOOSE = "main input[type=file] >> nth=0"

# What a screen reader has to find: each control has a name, each picture a text, the page one heading.
NAMELESS = """() => {
  const named = (node) => node.getAttribute("aria-label") || node.textContent.trim() || node.labels?.length || node.title
  return [...document.querySelectorAll("button, a, input, select")]
    .filter((node) => !node.closest("[hidden]") && !named(node))
    .map((node) => node.outerHTML)
    .concat([...document.querySelectorAll("img:not([alt])")].map((node) => node.outerHTML))
    .concat(document.querySelectorAll("main h1").length === 1 ? [] : ["no single h1"])
}"""
WIDER_THAN_THE_WINDOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def teach(server: Server, pictures: Path, *numbers: int) -> None:
    for number in numbers:
        data = (pictures / f"mark{number}.jpg").read_bytes()
        server.http.post(f"/classes/brand{number}/examples", files=[("image", data)]).raise_for_status()


def examples_of(server: Server, name: str) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = server.http.get(f"/classes/{name}/examples").json()["examples"]
    return listed


def transfer_of(page: Page, file: Path) -> JSHandle:
    """What a browser hands over when a file is dropped or pasted."""
    make = """([name, data]) => {
      const transfer = new DataTransfer()
      transfer.items.add(new File([Uint8Array.from(atob(data), (one) => one.charCodeAt(0))], name, { type: "image/jpeg" }))
      return transfer
    }"""
    return page.evaluate_handle(make, [file.name, base64.b64encode(file.read_bytes()).decode()])


def draw_box(page: Page, *, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With the pointer, from and to these shares of the picture."""
    frame = page.locator(".editor").bounding_box()
    assert frame is not None
    (x0, y0), (x1, y1) = ((frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in (start, end))
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1)
    page.mouse.up()


def test_who_comes_first_is_told_how_to_begin(open_page: Open) -> None:
    page = open_page()

    page.get_by_role("link", name="Teach the first one").click()

    page.get_by_role("heading", name="Teach a brand or product").wait_for()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(open_page: Open, server: Server, pictures: Path, way: str) -> None:
    teach(server, pictures, 0)
    page = open_page()
    transfer = transfer_of(page, pictures / "scene0.jpg")

    if way == "drop":
        page.dispatch_event("main", "drop", {"dataTransfer": transfer})
    else:
        paste = "(transfer) => window.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer }))"
        page.evaluate(paste, transfer)

    page.locator(".decision", has_text="brand0").wait_for()


def test_a_phone_takes_a_photo(open_page: Open, pictures: Path) -> None:
    page = open_page("/#teach", size=PHONE)
    page.get_by_text("Take a photo").wait_for()

    page.set_input_files("main input[capture=environment]", pictures / "mark0.jpg")

    page.locator(".editor").wait_for()


def test_a_write_that_gets_no_answer_is_sent_again_with_its_key(open_page: Open, server: Server, pictures: Path) -> None:
    in_progress = {"type": "urn:firstsight:problem:idempotency-key-in-progress", "status": 409, "detail": "At work."}
    keys: list[str] = []

    def unlucky(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.abort()  # whether it was done nobody knows
        elif len(keys) == 2:
            route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(in_progress))
        else:
            route.continue_()

    page = open_page("/#teach")
    page.route("**/classes/*/examples?", unlucky)
    page.set_input_files(CHOOSE, pictures / "mark0.jpg")
    page.get_by_label("Name of the class").fill("acme")
    page.get_by_role("button", name="Teach 1 picture").click()
    page.get_by_text("From now on it knows").wait_for()

    assert (len(keys), len(set(keys))) == (3, 1)
    assert len(examples_of(server, "acme")) == 1


def test_a_person_teaches_recognises_finds_and_corrects(open_page: Open, server: Server, pictures: Path) -> None:
    page = open_page("/#teach")

    page.set_input_files(CHOOSE, pictures / "mark0.jpg")
    page.get_by_label("Name of the class").fill("Acme/Cola")
    page.get_by_role("button", name="Teach 1 picture").click()
    page.get_by_text("From now on it knows").wait_for()
    page.get_by_role("link", name="Try it on a picture").click()
    taught = server.http.get("/classes").headers["X-Version"]
    with page.expect_request(re.compile("/classify")) as asked:
        page.set_input_files(CHOOSE, pictures / "scene0.jpg")
    assert asked.value.headers["x-min-version"] == taught  # what was taught a moment ago, on whatever replica
    page.locator(".decision", has_text="Acme/Cola").wait_for()
    assert page.locator(".badge").inner_text() == "Match"
    page.locator(".decided .crop img").wait_for()  # the example that decided, beside the picture

    page.get_by_text("Several things").click()
    page.locator(".found-row", has_text="Acme/Cola").wait_for()
    page.get_by_text("One thing").click()
    page.set_input_files("#more", pictures / "scene1.jpg")
    page.get_by_role("heading", name="What is it?").wait_for()
    page.get_by_label("Class", exact=True).fill("Other")
    page.get_by_role("button", name="Teach", exact=True).click()
    page.locator(".decision", has_text="Other").wait_for()
    assert len(examples_of(server, "Other")) == 1

    page.get_by_role("button", name="Undo").click()
    page.get_by_role("heading", name="What is it?").wait_for()
    assert server.http.get("/classes/Other").status_code == 404


def test_a_wrong_answer_is_put_right_in_one_click(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0, 1)
    page = open_page()

    page.set_input_files(CHOOSE, pictures / "shelf.jpg")
    button = page.get_by_role("button", name=re.compile("It is brand.:")).first
    right = button.locator("xpath=..").locator(".class-link").inner_text()
    button.click()
    page.get_by_text(f"Learnt: this is {right}.").wait_for()

    assert len(examples_of(server, right)) == 2


def test_the_box_of_a_thing_found_becomes_an_example_of_the_right_class(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    page = open_page()

    page.get_by_text("Several things").click()
    page.set_input_files(CHOOSE, pictures / "shelf.jpg")
    page.get_by_role("button", name="Wrong?").first.click()
    page.get_by_label("It is").fill("right")
    page.get_by_role("button", name="Teach", exact=True).click()
    page.get_by_text("Learnt: this is right.").wait_for()

    (example,) = examples_of(server, "right")
    whole = server.http.post("/detect", files=[("image", (pictures / "shelf.jpg").read_bytes())]).json()["image"]
    assert 0 < example["box"]["width"] < whole["width"]  # type: ignore[index]


def test_what_a_thing_found_may_be_instead_is_one_click_away(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0, 1)
    page = open_page()

    page.get_by_text("Several things").click()
    page.set_input_files(CHOOSE, pictures / "shelf.jpg")
    row = page.locator(".found-row", has_text="brand0").first
    row.get_by_role("button", name="Wrong?").click()
    row.get_by_role("button", name="It is brand1:").click()
    page.get_by_text("Learnt: this is brand1.").wait_for()

    assert len(examples_of(server, "brand0")) == 1
    _, corrected = examples_of(server, "brand1")
    assert corrected["box"]["width"] < 320  # type: ignore[index]  # of the shelf's 640 and more


def test_a_part_of_a_picture_is_asked_about_and_taught(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0, 1)
    page = open_page()
    page.set_input_files(CHOOSE, pictures / "scene0.jpg")
    page.locator(".decision").wait_for()

    page.get_by_role("button", name="Ask about a part of it").click()
    with page.expect_request(re.compile("/classify")) as asked:
        draw_box(page, start=(0.25, 0.25), end=(0.75, 0.5))
    page.get_by_role("button", name="It is brand1:").click()
    page.get_by_text("Learnt: this is brand1.").wait_for()

    _, x, y, width, height = re.split("box=|%2C", asked.value.url.partition("?")[2].partition("&")[2])
    boxes = [example["box"] for example in examples_of(server, "brand1")]
    assert {"x": int(x), "y": int(y), "width": int(width), "height": int(height)} in boxes


def test_a_box_is_moved_by_keyboard_and_asked_about_where_it_stops(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    page = open_page()
    page.set_input_files(CHOOSE, pictures / "scene0.jpg")
    page.locator(".decision").wait_for()

    page.get_by_role("button", name="Ask about a part of it").click()
    with page.expect_request(re.compile("/classify.*box=")):
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
    page.get_by_text("Only what is in the box is asked about").wait_for()

    # In one look: an answer that comes in between puts another editor there.
    assert page.evaluate("document.activeElement.id") == "box-editor"


def test_the_report_says_what_is_wrong_with_an_example_before_it_is_stored(
    open_page: Open, server: Server, pictures: Path
) -> None:
    page = open_page("/#teach")

    page.set_input_files(CHOOSE, pictures / "small.png")
    page.get_by_label("Name of the class").fill("acme")
    page.get_by_role("button", name="Check first").click()
    page.locator(".warnings").wait_for()

    assert "larger file" in page.locator(".warnings").inner_text()
    assert server.http.get("/classes").json()["classes"] == []


def test_a_box_is_drawn_with_the_pointer(open_page: Open, server: Server, pictures: Path) -> None:
    page = open_page("/#teach")
    page.set_input_files(CHOOSE, pictures / "mark0.jpg")
    page.locator(".editor").wait_for()
    size = page.locator(".editor img").evaluate("(image) => [image.naturalWidth, image.naturalHeight]")

    draw_box(page, start=(0.25, 0.25), end=(0.5, 0.5))
    page.get_by_label("Name of the class").fill("acme")
    page.get_by_role("button", name="Teach 1 picture").click()
    page.get_by_text("From now on it knows").wait_for()

    box = examples_of(server, "acme")[0]["box"]
    for name, wanted in {"x": size[0] / 4, "width": size[0] / 4, "y": size[1] / 4, "height": size[1] / 4}.items():
        assert abs(box[name] - wanted) <= 2  # type: ignore[index]


def test_everything_can_be_done_by_keyboard(open_page: Open, server: Server, pictures: Path) -> None:
    page = open_page("/#teach")
    page.set_input_files(CHOOSE, pictures / "mark0.jpg")

    page.locator(".editor").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.get_by_text("Box: ").wait_for()
    page.keyboard.press("Delete")
    page.get_by_text("The whole picture is meant").wait_for()
    page.get_by_label("Name of the class").focus()
    page.keyboard.type("acme")
    page.keyboard.press("Enter")
    page.get_by_text("From now on it knows").wait_for()

    assert len(examples_of(server, "acme")) == 1
    assert page.locator("#spoken").inner_text().startswith("Learnt acme")


def test_who_goes_by_keyboard_stays_where_they_are(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    page = open_page()
    page.set_input_files(CHOOSE, [pictures / "scene0.jpg", pictures / "scene1.jpg"])
    second = page.locator(".strip-item").nth(1)
    second.focus()

    page.keyboard.press("Enter")
    page.locator(".strip-item[aria-pressed=true]").nth(0).wait_for()

    assert second.get_attribute("aria-pressed") == "true"
    # In one step: an answer that comes between two draws the strip again.
    assert page.evaluate("document.activeElement === document.querySelectorAll('.strip-item')[1]")


def test_a_class_is_renamed_given_a_threshold_and_deleted(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    server.http.post("/classes/brand0/examples", files=[("image", (pictures / "scene0.jpg").read_bytes())])
    page = open_page("/#classes")

    page.get_by_role("link", name="brand0").click()
    page.get_by_label("Accept from similarity").fill("0.99")
    page.get_by_text("0 of 2 stored examples").wait_for()
    page.get_by_role("button", name="Set threshold").click()
    page.get_by_text("The threshold is set.").wait_for()
    assert server.http.get("/classes/brand0").json()["threshold"] == 0.99

    page.get_by_label("Name", exact=True).fill("Brand 0 / new")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("heading", name="Brand 0 / new").wait_for()
    page.get_by_role("button", name=re.compile("Remove example")).first.click()
    page.get_by_text("the only one").wait_for()

    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("Nothing has been taught yet").wait_for()
    assert server.http.get("/classes").json()["classes"] == []


def test_the_slider_shows_its_effect_on_examples_of_this_class_and_of_others(
    open_page: Open, server: Server, pictures: Path
) -> None:
    teach(server, pictures, 0, 1)
    server.http.post("/classes/brand0/examples", files=[("image", (pictures / "scene0.jpg").read_bytes())])
    held = server.http.get("/classes/brand0").json()["threshold"]
    page = open_page("/#class=brand0")

    page.get_by_role("button", name="Compare with other classes").click()
    slider = page.get_by_label("Accept from similarity")
    slider.fill("1")
    page.get_by_text("0 of 1 example of other classes").wait_for()
    page.get_by_text("0 of 2 stored examples").wait_for()
    assert page.locator(".example.left-out").count() == 2
    slider.fill("-0.2")
    page.get_by_text("1 of 1 example of other classes").wait_for()
    page.get_by_text("2 of 2 stored examples").wait_for()
    page.locator(".taken img").wait_for()

    assert page.locator(".example.left-out").count() == 0
    assert server.http.get("/classes/brand0").json()["threshold"] == held


def test_a_change_over_somebody_elses_is_not_made_and_told(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    page = open_page("/#class=brand0")
    page.get_by_label("Accept from similarity").fill("0.9")

    server.http.patch("/classes/brand0", json={"threshold": 0.5}).raise_for_status()
    page.get_by_role("button", name="Set threshold").click()
    page.get_by_text("Somebody else has changed this class meanwhile").wait_for()

    assert server.http.get("/classes/brand0").json()["threshold"] == 0.5


def test_what_is_no_picture_is_told_in_the_words_of_the_service(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    page = open_page()

    page.set_input_files(CHOOSE, pictures / "notes.jpg")

    page.get_by_role("alert").wait_for()
    assert "JPEG" in page.get_by_role("alert").inner_text()


def test_where_there_are_keys_it_asks_for_one(open_page: Open, pictures: Path, tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.json", key_id="shop", scope=Scope.ENROL)
    with serving({"STORE": "memory://", "API_KEYS_FILE": str(tmp_path / "keys.json")}) as guarded:
        page = open_page("/#classes", at=origin_of(guarded.http))
        page.get_by_role("textbox", name="Key").fill(key)
        page.get_by_role("button", name="Use this key").click()
        page.get_by_text("Nothing has been taught yet").wait_for()


def test_another_key_begins_anew(open_page: Open, pictures: Path, tmp_path: Path) -> None:
    """Versions count by collection: what was seen with one key must not be asked for with the other."""
    file = tmp_path / "keys.json"
    full, empty = (create_key(file, key_id=name, scope=Scope.ENROL, collection=name) for name in ("full", "empty"))
    with serving({"STORE": "memory://", "API_KEYS_FILE": str(file)}) as guarded:
        http = {"headers": {"Authorization": f"Bearer {full}"}, "files": [("image", (pictures / "mark0.jpg").read_bytes())]}
        guarded.http.post("/classes/acme/examples", **http).raise_for_status()  # type: ignore[arg-type]
        page = open_page("/#classes", at=origin_of(guarded.http))
        page.get_by_role("textbox", name="Key").fill(full)
        page.get_by_role("button", name="Use this key").click()
        page.get_by_role("link", name="acme").wait_for()

        page.get_by_role("button", name="API key").click()
        page.get_by_role("textbox", name="Key").fill(empty)
        page.get_by_role("button", name="Use this key").click()

        page.get_by_text("Nothing has been taught yet").wait_for()


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
@pytest.mark.parametrize("dark", [False, True])
def test_every_view_fits_its_window_and_names_what_is_in_it(
    open_page: Open, server: Server, pictures: Path, size: tuple[int, int], dark: bool
) -> None:
    teach(server, pictures, 0, 1)
    page = open_page(size=size, dark=dark)

    def check() -> None:
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate(WIDER_THAN_THE_WINDOW) <= 0

    check()
    page.set_input_files(CHOOSE, pictures / "shelf.jpg")
    page.locator(".candidates").wait_for()
    check()
    page.get_by_text("Several things").click()
    page.locator(".found").wait_for()
    check()
    for place, sign in {"#classes": ".card", "#class=brand0": "#threshold", "#teach": ".drop"}.items():
        page.evaluate("(place) => { location.hash = place }", place)
        page.locator(sign).first.wait_for()
        check()


def test_going_elsewhere_and_back_keeps_what_was_dropped(open_page: Open, server: Server, pictures: Path) -> None:
    teach(server, pictures, 0)
    page = open_page()
    page.set_input_files(CHOOSE, pictures / "scene0.jpg")
    page.locator(".decision", has_text="brand0").wait_for()

    page.get_by_role("link", name="Classes").click()
    page.get_by_role("heading", name="Classes").wait_for()
    page.go_back()

    page.locator(".decision", has_text="brand0").wait_for()
