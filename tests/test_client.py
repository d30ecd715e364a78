from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app import client as client_module
from app.api.samples import SAMPLES
from app.client import (
    Answer,
    Answered,
    AsyncFirstsight,
    Box,
    Busy,
    Conflict,
    Firstsight,
    NotAllowed,
    NotFound,
    Picture,
    Problem,
    ProblemDetails,
    Unreachable,
    UnreadableAnswer,
)
from tests.api.drawings import ACME, OTHER, STRANGE
from tests.conftest import MakeClient

DESCRIPTION = json.loads((Path(__file__).parent.parent / "docs" / "openapi.json").read_text())
SCHEMAS = DESCRIPTION["components"]["schemas"]

# Shape of the client -> its name in the description.
SHAPES = {
    "Answer": "AnswerOut",
    "Candidate": "CandidateOut",
    "ClassInfo": "ClassOut",
    "ClassPage": "ClassPageOut",
    "Detection": "DetectionOut",
    "Detections": "DetectionsOut",
    "EnrolledExample": "EnrolledExampleOut",
    "EnrolmentReport": "EnrolmentReportOut",
    "Evidence": "EvidenceOut",
    "Example": "ExampleOut",
    "ExamplePage": "ExamplePageOut",
    "Info": "InfoOut",
    "Limits": "LimitsOut",
    "NearestClass": "NearestClassOut",
    "PlacedBox": "BoxShape",
    "ProblemDetails": "Problem",
    "Removed": "RemovedOut",
    "Size": "SizeOut",
    "Verified": "VerifiedOut",
    "Warned": "WarningOut",
}
NOT_FOR_PROGRAMS = {("get", "/healthz"), ("get", "/readyz"), ("get", "/metrics")}

Respond = Callable[[httpx.Request], httpx.Response]


def on_service(http: TestClient) -> Firstsight:
    """A client of an application in this process."""
    return Firstsight("http://testserver", transport=http._transport)


def answering(respond: Respond, *, pauses: list[float] | None = None, **told: Any) -> Firstsight:
    """A client of whatever `respond` says. Its pauses are noted, and not slept."""
    noted = [] if pauses is None else pauses
    return Firstsight("http://elsewhere", transport=httpx.MockTransport(respond), sleep=noted.append, **told)


def in_turn(*responses: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> Respond:
    """One after the other; what is an exception is raised."""
    left = list(responses)

    def respond(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        response = left.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    return respond


def problem(status: int, kind: str, **headers: str) -> httpx.Response:
    body = {**SAMPLES["Problem"], "status": status, "type": f"urn:firstsight:problem:{kind}"}
    return httpx.Response(status, content=json.dumps(body), headers={"Content-Type": "application/problem+json", **headers})


def removed(**headers: str) -> httpx.Response:
    return httpx.Response(200, json={"version": 44}, headers=headers)


# Against the description of the service


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_has_the_fields_of_the_description(shape: str) -> None:
    described = SCHEMAS[SHAPES[shape]]
    ours = getattr(client_module, shape).model_json_schema(by_alias=True)

    assert set(ours["properties"]) == set(described["properties"])
    always_there = {name for name, field in described["properties"].items() if "default" in field} | set(described["required"])
    assert set(ours["required"]) <= always_there


def test_every_shape_is_held_against_the_description() -> None:
    shapes = {name for name, kind in vars(client_module).items() if inspect.isclass(kind) and issubclass(kind, Answered)}

    assert shapes - {"Answered"} == SHAPES.keys()


CALLS: dict[str, Callable[[Firstsight], object]] = {
    "enrol": lambda client: client.enrol("Acme/Cola", Picture(ACME, Box(1, 2, 30, 40)), dry_run=True),
    "classify": lambda client: client.classify(Picture(ACME, Box(1, 2, 30, 40)), top_k=3, classes=["acme"]),
    "classify_batch": lambda client: client.classify_batch([ACME, OTHER], top_k=3, classes=["acme"]),
    "detect": lambda client: client.detect(Picture(ACME, Box(1, 2, 30, 40)), max_detections=3, classes=["acme"], tiles="on"),
    "list_classes": lambda client: list(client.classes()),
    "read_class": lambda client: client.read_class("Acme/Cola"),
    "change_class": lambda client: client.change_class("acme", name="Acme", threshold=0.5, metadata={"sku": 1}, expected=3),
    "remove_class": lambda client: client.remove_class("acme", expected=3),
    "list_examples": lambda client: list(client.examples("acme")),
    "read_example": lambda client: client.read_example("acme", "id1"),
    "read_example_image": lambda client: client.example_image("acme", "id1"),
    "remove_example": lambda client: client.remove_example("acme", "id1", expected=3),
    "info": lambda client: client.info(),
}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def sent_by(call: Callable[[Firstsight], object]) -> httpx.Request:
    """The first request of a call, which gets no answer."""
    seen: list[httpx.Request] = []
    with pytest.raises(Problem):
        call(answering(in_turn(problem(422, "invalid-input"), seen=seen)))
    return seen[0]


def test_every_operation_for_programs_has_a_call() -> None:
    described = {one["operationId"] for method, path, one in operations() if (method, path) not in NOT_FOR_PROGRAMS}

    assert described == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_sends_what_the_description_knows(name: str) -> None:
    (method, path, operation), *_ = [one for one in operations() if one[2]["operationId"] == name]

    request = sent_by(CALLS[name])

    known = {parameter["name"].lower() for parameter in operation["parameters"]} if "parameters" in operation else set()
    assert request.method == method.upper()
    assert re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.raw_path.decode().partition("?")[0])
    assert set(request.url.params.keys()) <= known
    assert ("if-match" in request.headers) == ("if-match" in known)
    if "requestBody" in operation:
        assert request.headers["content-type"].partition(";")[0] in operation["requestBody"]["content"]


# On the whole service


def test_what_is_enrolled_is_recognised(client: TestClient) -> None:
    firstsight = on_service(client)

    report = firstsight.enrol("acme", ACME)
    answer = firstsight.classify(ACME)

    assert (report.class_name, report.version, len(report.examples)) == ("acme", 1, 1)
    assert (answer.outcome, answer.decision) == ("match", "acme")
    assert answer.candidates[0].evidence[0].example == report.examples[0].id


def test_an_answer_is_there_as_it_was_sent_too(client: TestClient) -> None:
    firstsight = on_service(client)
    firstsight.enrol("acme", ACME)

    shown = firstsight.classify(ACME).as_json()

    assert shown == client.post("/classify", content=ACME, headers={"Content-Type": "image/png"}).json()


def test_a_batch_tells_answers_from_problems(client: TestClient) -> None:
    firstsight = on_service(client)
    firstsight.enrol("acme", ACME)

    answer, refused = firstsight.classify_batch([ACME, b"no picture"])

    assert isinstance(answer, Answer)
    assert isinstance(refused, ProblemDetails)
    assert (answer.decision, refused.status) == ("acme", 415)


def test_pictures_are_read_from_paths_and_boxes_follow_them(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "acme.png").write_bytes(ACME)

    boxed = Picture(tmp_path / "acme.png", Box(0, 0, 32, 16))
    report = on_service(client).enrol("acme", str(tmp_path / "acme.png"), boxed)

    assert [(one.box.width, one.box.height) for one in report.examples] == [(64, 64), (32, 16)]


def test_classes_are_read_over_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 2)
    firstsight = on_service(client)
    for name in "abcde":
        firstsight.enrol(name, ACME, OTHER, STRANGE)

    assert [one.class_name for one in firstsight.classes()] == list("abcde")
    assert len({one.id for one in firstsight.examples("a")}) == 3


def test_classes_are_changed_and_removed(client: TestClient) -> None:
    firstsight = on_service(client)
    first = firstsight.enrol("a/b", ACME)

    renamed = firstsight.change_class("a/b", name="c", threshold=0.5, expected=first.version)
    reset = firstsight.change_class("c", threshold="computed")
    firstsight.remove_example("c", first.examples[0].id)

    assert (renamed.class_name, renamed.threshold) == ("c", 0.5)
    assert reset.threshold == first.threshold
    assert firstsight.read_class("c").examples == 0
    assert firstsight.remove_class("c") == firstsight.info().gallery_version
    with pytest.raises(NotFound) as unknown:
        firstsight.read_class("c")
    assert unknown.value.type == "unknown-class"


def test_a_change_of_what_has_changed_since_is_a_conflict(client: TestClient) -> None:
    firstsight = on_service(client)
    first = firstsight.enrol("acme", ACME)
    firstsight.enrol("acme", OTHER)

    with pytest.raises(Conflict, match="at version 2, not 1"):
        firstsight.change_class("acme", name="c", expected=first.version)


def test_a_key_goes_along(make_client: MakeClient, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    http = make_client(api_keys_file=tmp_path / "keys.json")

    with pytest.raises(NotAllowed) as refused:
        Firstsight("http://testserver", key="wrong", transport=http._transport).info()
    assert (refused.value.type, refused.value.details.field) == ("unauthenticated", "Authorization")
    assert refused.value.request_id


def test_the_stored_picture_of_an_example_is_a_jpeg(client: TestClient) -> None:
    firstsight = on_service(client)
    example = firstsight.enrol("acme", ACME).examples[0]

    assert firstsight.example_image("acme", example.id).startswith(b"\xff\xd8")
    assert firstsight.read_example("acme", example.id).similarity is None


def test_the_calls_of_both_clients_are_the_same() -> None:
    def calls(kind: type) -> dict[str, list[str]]:
        return {name: list(inspect.signature(one).parameters) for name, one in vars(kind).items() if inspect.isfunction(one)}

    there = {name.replace("__a", "__"): parameters for name, parameters in calls(AsyncFirstsight).items()}
    assert there == calls(Firstsight)


def test_the_calls_of_the_asynchronous_client_can_be_awaited(client: TestClient) -> None:
    async def journey() -> tuple[str | None, list[str], int]:
        async with AsyncFirstsight("http://testserver", transport=httpx.ASGITransport(client.app)) as firstsight:
            await firstsight.enrol("acme", ACME)
            decision = (await firstsight.classify(ACME)).decision
            names = [one.class_name async for one in firstsight.classes()]
            examples = [one.id async for one in firstsight.examples("acme")]
            return decision, names, len(examples)

    assert client.portal is not None
    assert client.portal.call(journey) == ("acme", ["acme"], 1)


# Again


def test_a_busy_service_is_asked_again_after_the_time_it_names() -> None:
    pauses: list[float] = []
    client = answering(in_turn(problem(503, "overloaded", **{"Retry-After": "3"}), removed()), pauses=pauses)

    assert client.remove_class("acme") == 44
    assert len(pauses) == 1
    assert 3 <= pauses[0] <= 4.5


def test_a_lost_connection_is_tried_again_with_longer_pauses() -> None:
    pauses: list[float] = []
    lost = [httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.ReadTimeout("late")]

    assert answering(in_turn(*lost, removed()), pauses=pauses).remove_class("acme") == 44
    assert [low <= pause <= 1.5 * low for low, pause in zip((0.25, 0.5, 1.0), pauses, strict=True)] == [True] * 3


def test_a_write_keeps_its_key_when_it_is_sent_again_and_the_next_has_another() -> None:
    seen: list[httpx.Request] = []
    client = answering(in_turn(httpx.ReadError("reset"), removed(), removed(), seen=seen))

    client.remove_class("acme")
    client.remove_class("acme")

    first, again, other = (request.headers["Idempotency-Key"] for request in seen)
    assert first == again != other


def test_a_pictures_bytes_are_sent_again() -> None:
    seen: list[httpx.Request] = []
    report = httpx.Response(201, json=SAMPLES["EnrolmentReportOut"])

    answering(in_turn(problem(503, "starting"), report, seen=seen)).enrol("acme", ACME)

    assert all(ACME in request.content for request in seen)


def test_a_write_that_is_still_in_progress_is_waited_for() -> None:
    client = answering(in_turn(httpx.ReadTimeout("late"), problem(409, "idempotency-key-in-progress"), removed()))

    assert client.remove_class("acme") == 44


def test_reads_carry_no_key() -> None:
    assert "Idempotency-Key" not in sent_by(CALLS["classify"]).headers
    assert "Idempotency-Key" in sent_by(CALLS["enrol"]).headers


@pytest.mark.parametrize(("kind", "status"), [("overloaded", 503), ("rate-limited", 429)])
def test_after_the_last_retry_the_problem_is_told(kind: str, status: int) -> None:
    pauses: list[float] = []
    client = answering(in_turn(*[problem(status, kind) for _ in range(3)]), pauses=pauses, retries=2)

    with pytest.raises(Busy) as busy:
        client.info()
    assert (busy.value.type, len(pauses)) == (kind, 2)


@pytest.mark.parametrize(("status", "kind"), [(422, "invalid-input"), (404, "unknown-class"), (500, "internal-error")])
def test_what_would_fail_again_is_not_sent_again(status: int, kind: str) -> None:
    seen: list[httpx.Request] = []

    with pytest.raises(Problem):
        answering(in_turn(problem(status, kind), seen=seen)).read_class("acme")
    assert len(seen) == 1


def test_nobody_there_is_told_with_the_address() -> None:
    client = answering(in_turn(*[httpx.ConnectError("Connection refused")] * 3), retries=2)

    with pytest.raises(Unreachable, match="Nobody answers at http://elsewhere: Connection refused"):
        client.info()


@pytest.mark.parametrize("url", ["elsewhere:8000", "http://elsewhere:port"])
def test_what_is_no_url_is_not_tried_again(url: str) -> None:
    pauses: list[float] = []

    with pytest.raises(Unreachable):
        Firstsight(url, sleep=pauses.append).info()
    assert pauses == []


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404, html="<p>Not found"),
        httpx.Response(200, html="<p>Welcome"),
        httpx.Response(200, json={"name": "another service"}),
        httpx.Response(307, headers={"Location": "/login"}),
    ],
)
def test_what_is_not_firstsight_is_told(response: httpx.Response) -> None:
    with pytest.raises(UnreadableAnswer, match=r"http://elsewhere/info answered \d+ with .*: is that Firstsight\?"):
        answering(in_turn(response)).info()


# Versions


def test_what_was_seen_is_the_least_that_the_next_answer_may_show() -> None:
    seen: list[httpx.Request] = []
    versions = ("9-7", "9-5", "10-1", "no version")  # the third is of a store that was restored since
    told = [*(removed(**{"X-Version": version}) for version in versions), removed()]
    client = answering(in_turn(*told, seen=seen))

    for _ in told:
        client.remove_class("acme")

    assert [request.headers.get("X-Min-Version") for request in seen] == [None, "9-7", "9-7", "10-1", "10-1"]


def test_the_version_that_the_service_tells_is_the_one_that_it_is_asked_for(client: TestClient) -> None:
    told: list[str] = []
    asked: list[str | None] = []
    client.event_hooks = {
        "request": [lambda request: asked.append(request.headers.get("X-Min-Version"))],
        "response": [lambda response: told.append(response.headers["X-Version"])],
    }

    def through(request: httpx.Request) -> httpx.Response:
        response = client.request(request.method, str(request.url), content=request.read(), headers=dict(request.headers))
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    firstsight = Firstsight("http://testserver", transport=httpx.MockTransport(through))
    firstsight.enrol("acme", ACME)
    firstsight.read_class("acme")

    assert asked == [None, told[0]]


def test_a_service_that_names_no_version_is_asked_for_none() -> None:
    seen: list[httpx.Request] = []
    client = answering(in_turn(removed(), removed(), seen=seen))

    client.remove_class("acme"), client.remove_class("acme")

    assert "X-Min-Version" not in seen[1].headers


def test_the_asynchronous_client_tries_again_and_keeps_versions_too() -> None:
    seen: list[httpx.Request] = []
    respond = in_turn(httpx.ConnectError("refused"), removed(**{"X-Version": "9-7"}), removed(), seen=seen)
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    async def twice() -> None:
        async with AsyncFirstsight("http://elsewhere", transport=httpx.MockTransport(respond), sleep=note) as client:
            await client.remove_class("acme")
            await client.remove_class("acme")

    asyncio.run(twice())

    assert (len(pauses), seen[2].headers["X-Min-Version"]) == (1, "9-7")
    assert seen[0].headers["Idempotency-Key"] == seen[1].headers["Idempotency-Key"]


def test_iterating_asynchronously_is_an_async_iterator() -> None:
    assert isinstance(AsyncFirstsight().classes(), AsyncIterator)
