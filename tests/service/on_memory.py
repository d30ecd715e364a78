"""The use cases on a memory store, the fake network and raw pictures. Tests call them without an event loop of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import numpy as np

from app.adapters.store_memory import MemoryStore
from app.domain.detection import Detections, Tiles
from app.domain.gallery import NumpyIndex
from app.domain.model_set import ModelSet
from app.domain.representatives import fit_class, no_synthesis
from app.domain.values import Answer, Box, Upload
from app.service.classes import Classes
from app.service.classify import Classify
from app.service.collection import Collection
from app.service.detect import Detect
from app.service.embed import CropEmbedder, PlaceEmbedder
from app.service.enrol import Enrol, EnrolmentReport
from app.service.follow import Galleries
from app.service.migrate import Migrate
from app.service.pools import Deadline, Pools
from app.service.ports import Detector, PointFinder, Store
from app.service.spot import Spotter
from app.service.verify import Mode, Verifier
from tests.fakes import (
    FakeEmbedder,
    FakePointFinder,
    model_set_for_tests,
    prints_for_tests,
    raw_bytes,
    raw_codec,
    rectify_nearest,
)

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 200, 20), (20, 20, 230), (250, 250, 250)
PINK = (255, 60, 60)  # near red, but not the same


def drawing(top: Colour, bottom: Colour | None = None, *, side_px: int = 64) -> bytes:
    """A picture of one or two bands of colour, with a fine grain so that it is not blank."""
    pixels = np.empty((side_px, side_px, 3), np.float64)
    pixels[: side_px // 2], pixels[side_px // 2 :] = top, bottom or top
    pixels += np.random.default_rng(0).normal(0, 4, pixels.shape)
    return raw_bytes(pixels.clip(0, 255).astype(np.uint8))


def printed(seed: int = 0, *, side_px: int = 64) -> bytes:
    """A picture full of print: squares of 2 pixels, black or white at random: no two blocks of 8 are alike."""
    squares = np.random.default_rng(seed).integers(0, 2, (side_px // 2, side_px // 2, 1), dtype=np.uint8) * 255
    return raw_bytes(squares.repeat(2, axis=0).repeat(2, axis=1).repeat(3, axis=2))


class Service:
    def __init__(
        self,
        pools: Pools,
        *,
        store: Store | None = None,
        model_set: ModelSet | None = None,
        find_points: PointFinder | None = None,
        detector: Detector | None = None,
        keep_crops: bool = True,
        verify: Mode = "always",
        max_examples: int = 1000,
    ) -> None:
        self.store = store or MemoryStore()
        self.model_set = model_set or model_set_for_tests(detector="fake detector" if detector else "")
        codec, embedder, find_points = raw_codec(), FakeEmbedder(), find_points or FakePointFinder()
        fit = partial(fit_class, model_set=self.model_set, synthesize=no_synthesis)
        crop_embedder = CropEmbedder(
            codec=codec,
            embedder=embedder,
            find_points=find_points,
            detector=detector,
            view_shares=self.model_set.view_shares,
        )
        self.galleries = Galleries(
            self.store,
            make_index=NumpyIndex,
            networks=self.model_set.provenance.networks,
            prints=prints_for_tests(self.model_set),
            detector=self.model_set.provenance.detector,
            in_background=lambda job: job(),
        )
        verifier = Verifier(
            find_points=find_points,
            embed_places=PlaceEmbedder(rectify=rectify_nearest, embedder=embedder),
            model_set=self.model_set,
            mode=verify,
        )
        self.galleries.start()
        self.collection = Collection(store=self.store, galleries=self.galleries, pools=pools, keep_crops=keep_crops)
        self.enrol_many = Enrol(
            collection=self.collection,
            pools=pools,
            codec=codec,
            crop_embedder=crop_embedder,
            fit=fit,
            verifier=verifier,
            limits=self.model_set.calibration.warnings,
            max_examples=max_examples,
        )
        self.classify_one = Classify(
            collection=self.collection,
            pools=pools,
            codec=codec,
            embedder=embedder,
            verifier=verifier,
            model_set=self.model_set,
        )
        self.detect_in = Detect(
            collection=self.collection,
            pools=pools,
            codec=codec,
            embedder=embedder,
            find_points=find_points,
            spotter=Spotter(detector=detector, settings=self.model_set.detector) if detector else None,
            verifier=verifier,
            verifies=verify != "off",
            model_set=self.model_set,
        )
        self.classes = Classes(collection=self.collection, pools=pools, fit=fit)
        self.migrate = Migrate(
            store=self.store, pools=pools, crop_embedder=crop_embedder, fit=fit, provenance=self.model_set.provenance
        )

    def enrol(self, class_name: str, *pictures: bytes, box: Box | None = None, dry_run: bool = False) -> EnrolmentReport:
        uploads = [Upload(data, box, field=f"images[{position}]") for position, data in enumerate(pictures)]
        return asyncio.run(self.enrol_many(class_name, uploads, dry_run=dry_run, deadline=Deadline.never()))

    def classify(self, picture: bytes, *, top_k: int = 5, classes: Sequence[str] | None = None) -> Answer:
        among = None if classes is None else frozenset(classes)
        return asyncio.run(self.classify_one(Upload(picture), top_k=top_k, classes=among, deadline=Deadline.never()))

    def detect(
        self,
        picture: bytes,
        *,
        box: Box | None = None,
        max_detections: int = 100,
        classes: Sequence[str] | None = None,
        tiles: Tiles = "auto",
        deadline: Deadline | None = None,
    ) -> Detections:
        among = None if classes is None else frozenset(classes)
        asked = {"max_detections": max_detections, "classes": among, "tiles": tiles, "deadline": deadline or Deadline.never()}
        return asyncio.run(self.detect_in(Upload(picture, box), **asked))

    @property
    def version(self) -> int:
        return self.store.snapshot().version
