"""Every Prometheus series, described once. Labels come from closed lists: never a class, a key or a file name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_REGISTRY = CollectorRegistry()
ProcessCollector(registry=_REGISTRY)  # memory, processor time, open files

# Stages take from 0.1 ms (a decision) to seconds (a queue under load): three steps to a factor of ten.
_STAGE_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_REQUEST_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

_stage_seconds = Histogram(
    "firstsight_stage_seconds",
    "Time in one stage of a request: queue, decode, embed, points, regions, vote, verify, look, search, decide, commit.",
    ["stage"],
    buckets=_STAGE_BUCKETS_S,
    registry=_REGISTRY,
)
_requests = Counter(
    "firstsight_requests_total", "Answered requests by route and status.", ["method", "route", "status"], registry=_REGISTRY
)
_request_seconds = Histogram(
    "firstsight_request_seconds",
    "From the request's headers to the end of its response, by route.",
    ["route"],
    buckets=_REQUEST_BUCKETS_S,
    registry=_REGISTRY,
)
_outcomes = Counter(
    "firstsight_outcomes_total", "Pictures classified, by outcome: match, doubtful, unknown.", ["outcome"], registry=_REGISTRY
)
_detections = Counter(
    "firstsight_detections_total", "Things found in scenes, by outcome: match, doubtful.", ["outcome"], registry=_REGISTRY
)
_refusals = Counter(
    "firstsight_refusals_total",
    "Requests, and pictures of batches, refused for want of room or time, by reason: Starting, Overloaded, "
    "DeadlinePassed, Behind, KeyInProgress, RateExceeded, UnknownKeys.",
    ["reason"],
    registry=_REGISTRY,
)
_abandoned = Counter("firstsight_abandoned_total", "Requests whose client left before the answer.", registry=_REGISTRY)
_admitted = Gauge("firstsight_admitted_pictures", "Pictures admitted and not yet answered.", registry=_REGISTRY)
_classes = Gauge("firstsight_classes", "Classes that are served, of all collections.", registry=_REGISTRY)
_version = Gauge(
    "firstsight_version", "Version of the gallery that is served; with several collections their sum.", registry=_REGISTRY
)
_stale = Gauge(
    "firstsight_stale_seconds", "Seconds for which a shared store could not be followed; 0 when it can.", registry=_REGISTRY
)
_ready = Gauge("firstsight_ready", "1 when the service is ready to answer, else 0.", registry=_REGISTRY)


# (stage, seconds) of the request that is being answered; threads append to it.
_of_request: ContextVar[list[tuple[str, float]] | None] = ContextVar("stages of the request", default=None)


def begin_stages() -> list[tuple[str, float]]:
    """The list to which all stages observed from here on, in this context and its copies, are also added."""
    stages: list[tuple[str, float]] = []
    _of_request.set(stages)
    return stages


def observe_stage(stage: str, seconds: float) -> None:
    _stage_seconds.labels(stage).observe(seconds)
    if (stages := _of_request.get()) is not None:
        stages.append((stage, seconds))


def observe_request(*, method: str, route: str, status: int, seconds: float) -> None:
    _requests.labels(method, route, str(status)).inc()
    _request_seconds.labels(route).observe(seconds)


def count_outcome(outcome: str) -> None:
    _outcomes.labels(outcome).inc()


def count_detection(outcome: str) -> None:
    _detections.labels(outcome).inc()


def count_refusal(reason: str) -> None:
    _refusals.labels(reason).inc()


def count_abandoned() -> None:
    _abandoned.inc()


def set_admitted(pictures: int) -> None:
    _admitted.set(pictures)


class Watched(Protocol):
    """A gallery, as far as it is counted here."""

    @property
    def version(self) -> int: ...

    def __len__(self) -> int: ...


def watch_gallery(galleries: Callable[[], Sequence[Watched]]) -> None:
    """Reports on whatever galleries are served when the metrics are read."""
    _classes.set_function(lambda: sum(map(len, galleries())))
    _version.set_function(lambda: sum(gallery.version for gallery in galleries()))


def watch_staleness(stale_s: Callable[[], int]) -> None:
    _stale.set_function(stale_s)


def watch_readiness(is_ready: Callable[[], bool]) -> None:
    _ready.set_function(is_ready)


def exposition() -> bytes:
    """All series in Prometheus' text format."""
    return generate_latest(_REGISTRY)


def series() -> Iterator[tuple[str, str]]:
    """Name and description of every series of ours, for the documentation and its test."""
    for family in _REGISTRY.collect():
        if family.name.startswith("firstsight_"):
            yield (f"{family.name}_total" if family.type == "counter" else family.name), family.documentation
