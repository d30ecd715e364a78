"""The start: what it waits for, what stops it, what it takes up again."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.adapters.images import decode_crop
from app.adapters.model_set import read_model_set
from app.adapters.store_memory import MemoryStore
from app.domain.values import Embeddings, PixelArray
from app.errors import CorruptModelSet
from app.main import Adapters, create_app, open_adapters, open_store
from app.service.migrate import Migrate, Progress
from app.settings import Settings
from tests.api.drawings import ACME, ACME_AGAIN, encoded, form, printed
from tests.conftest import Logged, MakeClient, fake_adapters, settings_for_tests, wait_for_start
from tests.fakes import FakeEmbedder, FakePointFinder, model_set_for_tests
from tests.model_sets import described, some_deltas, write_model_set
from tests.tiny_network import DIM, SIDE_PX, tiny_detector, tiny_network
from tests.values import plain


def waiting_beyond(step: str, client: TestClient) -> str:
    """What the service waits for once it has passed a step of its start."""
    while (waiting_for := client.get("/readyz").json()["waiting_for"]) in ("the start", step):
        pass
    return str(waiting_for)


def test_the_port_answers_before_the_service_is_ready() -> None:
    opened = threading.Event()

    def open_slowly(settings: Settings) -> Adapters:
        opened.wait()
        return fake_adapters(settings)

    with TestClient(create_app(settings_for_tests(), open_adapters=open_slowly)) as client:
        ready, early, alive = client.get("/readyz"), client.get("/classes"), client.get("/healthz")
        opened.set()
        wait_for_start(client)
        late = client.get("/classes")

    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert "networks" in ready.json()["waiting_for"]
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
    assert early.json()["type"] == "urn:firstsight:problem:starting"
    assert (alive.status_code, late.status_code) == (200, 200)


def test_a_fault_at_the_start_is_told_and_handed_on(logged: Logged) -> None:
    given_up = threading.Event()

    def open_nothing(settings: Settings) -> Adapters:
        raise CorruptModelSet("manifest.json of the model set cannot be read.")

    app = create_app(settings_for_tests(), open_adapters=open_nothing, on_failed_start=given_up.set)
    with TestClient(app) as client:
        wait_for_start(client)
        assert client.get("/readyz").status_code == 503

    told = next(line for line in logged() if line["event"] == "start failed")
    assert given_up.is_set()
    assert told["detail"] == "manifest.json of the model set cannot be read."
    assert "exception" not in told  # the sentence says it all


def test_what_was_enrolled_is_there_after_a_restart(make_client: MakeClient, tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'var' / 'firstsight.db'}"
    with TestClient(
        create_app(settings_for_tests(), open_adapters=lambda s: fake_adapters(s, store=open_store(address)))
    ) as first:
        wait_for_start(first)
        first.post("/classes/acme/examples", files=form(ACME))
        before = first.post("/classify", files=form(ACME)).json()

    second = make_client(on_store=open_store(address))

    assert second.post("/classify", files=form(ACME)).json() == before


def test_a_restart_under_another_model_set_says_so_refuses_meanwhile_and_then_serves(tmp_path: Path) -> None:
    address, go_on = f"sqlite:///{tmp_path / 'firstsight.db'}", threading.Event()

    class WaitingEmbedder(FakeEmbedder):
        def __call__(self, pictures: PixelArray) -> Embeddings:
            go_on.wait()
            return super().__call__(pictures)

    def open_others(settings: Settings) -> Adapters:
        others = replace(model_set_for_tests(networks="other networks"), id="another model set")
        return replace(fake_adapters(settings, store=open_store(address)), model_set=others, embedder=WaitingEmbedder())

    with TestClient(
        create_app(settings_for_tests(), open_adapters=lambda s: fake_adapters(s, store=open_store(address)))
    ) as before:
        wait_for_start(before)
        before.post("/classes/acme/examples", files=form(ACME))
    with TestClient(create_app(settings_for_tests(), open_adapters=open_others)) as after:
        waiting_for = waiting_beyond("the networks and the store", after)
        early = after.post("/classify", files=form(ACME))
        go_on.set()
        wait_for_start(after)
        ready, late = after.get("/readyz"), after.post("/classify", files=form(ACME)).json()
    with closing(open_store(address)) as store:
        (acme,) = store.snapshot().classes

    assert waiting_for == "the new model set: 0 of 1 classes are fitted to it"
    assert (early.status_code, early.headers["Retry-After"]) == (503, "1")
    assert early.json()["type"] == "urn:firstsight:problem:starting"
    assert ready.status_code == 200
    assert (late["decision"], late["model"]) == ("acme", "another model set")
    assert acme.model is not None
    assert acme.model.provenance.networks == "other networks"


def test_a_start_that_is_stopped_half_way_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never_done(self: Migrate, report: Progress) -> None:
        report(1, 3)
        await asyncio.Event().wait()

    monkeypatch.setattr(Migrate, "__call__", never_done)
    with TestClient(create_app(settings_for_tests(), open_adapters=fake_adapters)) as client:
        waiting_for = waiting_beyond("the networks and the store", client)

    assert waiting_for == "the new model set: 1 of 3 classes are fitted to it"


@pytest.mark.parametrize("slashes", ["sqlite:///", "sqlite:////"])
def test_three_slashes_are_a_relative_path_and_four_an_absolute_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slashes: str
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = tmp_path / "var" / "here.db"

    open_store(slashes + ("var/here.db" if slashes == "sqlite:///" else str(wanted).lstrip("/"))).close()

    assert wanted.exists()


def test_each_collection_has_a_file_of_its_own(tmp_path: Path) -> None:
    for collection in ("default", "shop"):
        open_store(f"sqlite:///{tmp_path}/here.db", collection).close()

    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["here-shop.db", "here.db"]


def test_the_memory_store_has_no_path() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize("wrong", [{"side_px": SIDE_PX + 8}, {"dim": DIM + 1}])
def test_a_network_that_does_not_fit_its_manifest_is_never_opened(tmp_path: Path, wrong: dict[str, int]) -> None:
    cohort = np.eye(wrong.get("dim", DIM), dtype=np.float32)
    models = write_model_set(tmp_path / "models", lambda manifest: manifest["embedding"].update(wrong), cohort=cohort)

    with pytest.raises(CorruptModelSet, match="its manifest says"):
        open_adapters(settings_for_tests(models_dir=models, device="cpu"))


def test_a_class_has_as_many_examples_as_the_settings_allow(make_client: MakeClient) -> None:
    client = make_client(max_examples_per_class=1)

    first, second = (client.post("/classes/acme/examples", files=form(picture)) for picture in (ACME, ACME_AGAIN))

    assert (first.status_code, second.status_code) == (201, 422)
    assert (second.json()["field"], second.json()["limit"]) == ("image", 1)
    assert client.get("/classes/acme").json()["examples"] == 1


def test_what_an_example_keeps_is_found_in_its_crop_as_it_is_stored(make_client: MakeClient) -> None:
    store = MemoryStore()
    make_client(on_store=store).post("/classes/acme/examples", files=form(printed()))

    (example,) = store.snapshot().classes[0].examples
    crop = store.read_crop("acme", example.id)

    assert crop is not None
    assert len(example.points) > 0
    assert plain(example.points) == plain(FakePointFinder()(decode_crop(crop)))


def test_a_model_set_in_a_folder_is_opened_whole(tmp_path: Path) -> None:
    models = write_model_set(tmp_path / "models", lambda manifest: manifest["points"].update(most=7))
    settings = settings_for_tests(models_dir=models, device="cpu")

    adapters = open_adapters(settings)

    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(adapters.find_points(noise)) == 7
    with TestClient(create_app(settings, open_adapters=lambda given: adapters)) as client:
        wait_for_start(client)
        assert client.post("/classes/acme/examples", files=form(ACME)).status_code == 201
        assert client.post("/classify", files=form(ACME)).json()["model"] == adapters.model_set.id


def test_a_store_that_was_written_with_one_model_set_opens_and_answers_under_another(tmp_path: Path) -> None:
    before, after = write_model_set(tmp_path / "before"), tmp_path / "after"

    def with_another_network(manifest: dict[str, Any]) -> None:
        (after / "embedding.onnx").write_bytes(tiny_network(side_px=2 * SIDE_PX))
        manifest["embedding"].update(described(after / "embedding.onnx"), side_px=2 * SIDE_PX)

    write_model_set(after, with_another_network)
    answers = []
    for models in (before, after):
        settings = settings_for_tests(store=f"sqlite:///{tmp_path}/here.db", models_dir=models, device="cpu")
        with TestClient(create_app(settings)) as client:
            wait_for_start(client)
            if models == before:
                assert client.post("/classes/acme/examples", files=form(ACME)).status_code == 201
            answers.append(client.post("/classify", files=form(ACME)).json())

    assert [answer["decision"] for answer in answers] == ["acme", "acme"]
    assert answers[0]["model"] != answers[1]["model"]
    assert answers[1]["candidates"][0]["similarity"] > 0.99  # of two vectors of one network, not of two
    assert answers[1]["version"] > answers[0]["version"]


def test_synthesis_that_is_switched_off_and_on_fits_the_classes_of_a_store_again(tmp_path: Path) -> None:
    models, fitted, ids = write_model_set(tmp_path / "models", deltas=some_deltas()), [], []
    address = f"sqlite:///{tmp_path}/here.db"
    for synthesis in ("on", "off", "on"):
        with TestClient(create_app(settings_for_tests(store=address, models_dir=models, synthesis=synthesis))) as client:
            wait_for_start(client)
            if not fitted:
                assert client.post("/classes/acme/examples", files=form(ACME)).status_code == 201
            ids.append(client.get("/info").json()["model"])
        with closing(open_store(address)) as store:
            (acme,) = store.snapshot().classes
            assert acme.model is not None
            fitted.append((acme.model.representatives.tobytes(), acme.model.threshold))
    on, off, on_again = fitted
    assert (ids[0], on) == (ids[2], on_again)
    assert ids[0] != ids[1]
    assert on[0] != off[0]
    assert on[1] != off[1]


def thing_on_grey() -> bytes:
    """A red square of one colour, without print, 60 px right and 40 px down."""
    pixels = np.full((160, 240, 3), 128, np.uint8)
    pixels[40:104, 60:124] = (230, 20, 20)
    return encoded(pixels, "PNG")


def test_a_detector_that_a_model_set_gets_finds_what_is_there_already_and_goes_without_a_trace(tmp_path: Path) -> None:
    plain_set, detecting = write_model_set(tmp_path / "plain"), write_model_set(tmp_path / "detecting", detector=tiny_detector())
    red = encoded(np.full((64, 64, 3), (230, 20, 20), np.uint8), "PNG")
    found, versions = [], []
    for models in (plain_set, detecting, plain_set, detecting):
        settings = settings_for_tests(store=f"sqlite:///{tmp_path}/here.db", models_dir=models, device="cpu")
        with TestClient(create_app(settings)) as client:
            wait_for_start(client)
            if not versions:
                assert client.post("/classes/red/examples", files=form(red)).status_code == 201
            answer = client.post("/detect", files=form(thing_on_grey())).json()
            found.append(answer["detections"])
            versions.append(answer["version"])

    assert versions == [1, 2, 2, 2]  # one commit a class, once
    assert (found[0], found[2]) == ([], [])
    assert found[1] == found[3]
    (one,) = found[1]
    assert (one["class"], one["outcome"], one["accepted"], one["quad"]) == ("red", "match", True, None)
    assert [one["box"][side] for side in ("x", "y", "width", "height")] == pytest.approx([60, 40, 64, 64], abs=4)
    assert one["evidence"][0]["verified"] is None
    assert list(one) == [
        *("class", "box", "similarity", "probability", "outcome", "reason", "accepted", "threshold", "quad", "evidence")
    ]


def test_a_detector_that_is_switched_off_sees_nothing_and_on_again_what_was_enrolled_meanwhile(tmp_path: Path) -> None:
    plain_set, detecting = write_model_set(tmp_path / "plain"), write_model_set(tmp_path / "detecting", detector=tiny_detector())
    red, blue = (encoded(np.full((64, 64, 3), colour, np.uint8), "PNG") for colour in ((230, 20, 20), (20, 20, 230)))
    address, ids, found, stored = f"sqlite:///{tmp_path}/here.db", [], [], []
    enrolled = [[("early", red)], [("early", blue), ("late", blue)], []]
    for switch, pictures in zip(("on", "off", "on"), enrolled, strict=True):
        settings = settings_for_tests(store=address, models_dir=detecting, device="cpu", detector=switch)
        with TestClient(create_app(settings)) as client:
            wait_for_start(client)
            for name, picture in pictures:
                assert client.post(f"/classes/{name}/examples", files=form(picture)).status_code == 201
            ids.append(client.get("/info").json()["model"])
            found.append([one["class"] for one in client.post("/detect", files=form(thing_on_grey())).json()["detections"]])
        with closing(open_store(address)) as store:
            stored.append({one.name: [len(example.regions) for example in one.examples] for one in store.snapshot().classes})

    assert found == [["early"], [], ["early"]]
    assert ids == [ids[0], read_model_set(plain_set).model_set.id, ids[0]]
    assert ids[0] != ids[1]
    assert [sorted(each.get("early", [])) for each in stored] == [[3], [0, 3], [3, 3]]
    assert [each.get("late") for each in stored] == [None, [0], [3]]


@pytest.mark.parametrize("network", [tiny_detector(32), tiny_network()])
def test_a_detector_that_is_not_as_its_manifest_says_stops_the_start(tmp_path: Path, network: bytes) -> None:
    models = write_model_set(tmp_path / "models", detector=network)
    with pytest.raises(CorruptModelSet, match="The detector takes"):
        open_adapters(settings_for_tests(models_dir=models, device="cpu"))
