"""A view of a scene -> where a detector sees a thing there, and the classes that each is nearest to. Detection comes here."""

from __future__ import annotations

import numpy as np

from app.domain.detection import SeenRegion, Spotting, corners_of
from app.domain.gallery import Gallery
from app.domain.model_set import DetectorSettings
from app.domain.posterior import SAME_BOX, nearest_classes
from app.domain.regions import side_for, whole_in
from app.domain.values import Box, PixelArray
from app.domain.views import crop
from app.service.pools import stage
from app.service.ports import Detector

MOST_SPOTTED = 30  # places in a view


class Spotter:
    def __init__(self, *, detector: Detector, settings: DetectorSettings) -> None:
        self._detector = detector
        self._settings = settings

    def __call__(
        self, scene: PixelArray, view: Box, *, views: int, gallery: Gallery, among: frozenset[str] | None
    ) -> list[Spotting]:
        """What is seen in a view of a scene (h, w, 3), one of so many, beside the classes `among`; likeliest first."""
        height, width = scene.shape[:2]
        with stage("regions"):
            regions = self._detector(crop(scene, view), side_for(view, views, self._detector.sides_px))
            regions = regions.at(whole_in(view, regions.boxes, width, height))
            regions = regions.proposals(MOST_SPOTTED, largest_overlap=SAME_BOX)
            regions = regions.at(np.flatnonzero(regions.objectness >= self._settings.calibration.looked_from))
        with stage("search"):
            class_names, similarities = gallery.region_similarities(regions.embeddings, among)
            nearest = nearest_classes(similarities)
            quads = corners_of(regions.boxes, view, max(width, height))
            seen = map(SeenRegion, quads, regions.objectness.tolist(), regions.embeddings)
            names = [tuple(class_names[number] for number in numbers) for numbers in nearest]
            return [Spotting(of_one, region) for of_one, region in zip(names, seen, strict=True) if of_one]
