"""The service that ships, run in this process: its own use cases, settings and pools; only the caches are ours.

Over episodes and arms the same pictures come again and again. What the network and SIFT make of a picture depends on its pixels
alone, so both are asked once for each; everything after them is done anew, as for a user.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from app.api.dependencies import UseCases
from app.domain.posterior import Regions
from app.domain.values import Answer, Box, Embeddings, PixelArray, Points, Upload
from app.main import Adapters, Service, open_adapters, open_store
from app.service.pools import Deadline
from app.service.ports import Detector, Embedder, PointFinder
from app.settings import Settings

ARMS = ("off", "auto", "always")  # of FIRSTSIGHT_VERIFY
IN_MEMORY = "memory://"
AT_ONCE = 8  # requests in flight: enough that both pools of the service always have work
MOST_DETECTIONS = 100  # of a photograph; the service's own default
TOP_K = 5  # candidates of an answer, with evidence: the decision is not always the first

Item = TypeVar("Item")
Result = TypeVar("Result")


class Once(Generic[Result]):
    """Computes what belongs to a key once, whichever threads ask for it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[bytes, Future[Result]] = {}

    def __call__(self, key: bytes, compute: Callable[[], Result]) -> Result:
        with self._lock:
            known = self._found.get(key)
            mine = self._found.setdefault(key, Future())
        if known is None:
            try:
                mine.set_result(compute())
            except BaseException as error:
                mine.set_exception(error)
        return mine.result()


def key_of(pixels: PixelArray, *asked: object) -> bytes:
    """Of the pixels of a picture (h, w, 3), and what is asked of them."""
    digest = hashlib.blake2b(repr((pixels.shape, *asked)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


class CachedEmbedder:
    def __init__(self, embedder: Embedder) -> None:
        self.side_px = embedder.side_px
        self._embedder = embedder
        self._once = Once[Embeddings]()

    def __call__(self, pictures: PixelArray) -> Embeddings:
        found = [self._once(key_of(one), lambda one=one: self._embedder(one[np.newaxis])) for one in pictures]
        parts = {part.name: [getattr(one, part.name) for one in found] for part in fields(Embeddings)}
        return Embeddings(**{name: np.concatenate(arrays) for name, arrays in parts.items()})


class CachedPoints:
    def __init__(self, find_points: PointFinder) -> None:
        self.side_px = find_points.side_px
        self._find_points = find_points
        self._once = Once[Points]()

    def __call__(
        self, pixels: PixelArray, *, side_px: int | None = None, most: int | None = None, sharpen: bool = False
    ) -> Points:
        key = key_of(pixels, side_px, most, sharpen)
        return self._once(key, lambda: self._find_points(pixels, side_px=side_px, most=most, sharpen=sharpen))


class CachedDetector:
    """Takes 1 to 3 MB a picture."""

    def __init__(self, detector: Detector) -> None:
        self.sides_px = detector.sides_px
        self._detector = detector
        self._once = Once[Regions]()

    def __call__(self, pixels: PixelArray, side_px: int) -> Regions:
        return self._once(key_of(pixels, side_px), lambda: self._detector(pixels, side_px))


def open_cached(models: Path, *, keep_embeddings: bool = True, detector: bool = True) -> Adapters:
    """The adapters of the service with a model set, or with that but for its detector; caches last as long as they do.

    An embedding with its dense map takes 80 kB: not kept where hardly a picture comes twice.
    """
    adapters = open_adapters(Settings(store=IN_MEMORY, models_dir=models, detector="on" if detector else "off"))
    embedder = CachedEmbedder(adapters.embedder) if keep_embeddings else adapters.embedder
    seen = None if adapters.detector is None else CachedDetector(adapters.detector)
    return replace(adapters, embedder=embedder, find_points=CachedPoints(adapters.find_points), detector=seen)


def emptied(adapters: Adapters) -> Adapters:
    """The same, with nothing enrolled."""
    return replace(adapters, store=open_store(IN_MEMORY))


@asynccontextmanager
async def serving(adapters: Adapters, verify: str) -> AsyncIterator[UseCases]:
    """The service with FIRSTSIGHT_VERIFY=`verify` over the store of `adapters`, started and closed."""
    service = Service(Settings(store=IN_MEMORY, verify=verify), adapters)
    try:
        await service.start(lambda text: None)
        yield service.use_cases
    finally:
        service.close()


async def enrol_all(use_cases: UseCases, shown: Mapping[str, Sequence[Upload]]) -> None:
    """Classes by name, each with its pictures."""

    async def enrol(name: str) -> None:
        await use_cases.enrol(name, shown[name], dry_run=False, deadline=Deadline.never())

    await in_turn(shown, enrol)


async def ask_all(use_cases: UseCases, uploads: Sequence[Upload]) -> list[Answer]:
    """An answer for each picture, in their order."""

    async def ask(upload: Upload) -> Answer:
        return await use_cases.classify(upload, top_k=TOP_K, classes=None, deadline=Deadline.never())

    return await in_turn(uploads, ask)


class Detection(Protocol):
    """What is read of a detection."""

    class_name: str
    box: Box
    probability: float
    accepted: bool


async def detect_all(use_cases: UseCases, uploads: Sequence[Upload]) -> list[Sequence[Detection]]:
    """What is found in each picture, in their order."""

    async def detect(upload: Upload) -> Sequence[Detection]:
        asked = {"max_detections": MOST_DETECTIONS, "classes": None, "tiles": "auto"}
        answer = await use_cases.detect(upload, **asked, deadline=Deadline.never())
        return list(answer.detections)

    return await in_turn(uploads, detect)


async def in_turn(items: Iterable[Item], work: Callable[[Item], Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in the order of the items, AT_ONCE of them under way."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(item: Item) -> Result:
        async with turns:
            return await work(item)

    return list(await asyncio.gather(*(one(item) for item in items)))
