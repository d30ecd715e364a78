"""A view of a scene -> what a detector sees in it: boxes, and the classes that each is nearest to. Detection comes here."""

from __future__ import annotations

from app.domain.detection import SeenRegion, Spotting, corners_of
from app.domain.gallery import Gallery
from app.domain.model_set import DetectorSettings
from app.domain.posterior import see
from app.domain.regions import side_for, whole_in
from app.domain.values import Box, PixelArray
from app.domain.views import crop
from app.service.pools import stage
from app.service.ports import Detector

MOST_SPOTTED = 50  # boxes of classes in a view


class Spotter:
    def __init__(self, *, detector: Detector, settings: DetectorSettings) -> None:
        self._detector = detector
        self._settings = settings

    def __call__(
        self, scene: PixelArray, view: Box, *, views: int, gallery: Gallery, among: frozenset[str] | None
    ) -> list[Spotting]:
        """What is seen in a view of a scene (h, w, 3), one of so many, of the classes `among`; best first."""
        height, width = scene.shape[:2]
        with stage("regions"):
            regions = self._detector(crop(scene, view), side_for(view, views, self._detector.sides_px))
            regions = regions.likeliest(among=whole_in(view, regions.boxes, width, height))
        with stage("search"):
            class_names, similarities = gallery.region_similarities(regions.embeddings, among)
            least = self._settings.calibration.looked_from
            seen = see(regions, similarities, width=self._settings.width, least=least, most=MOST_SPOTTED)
            there = regions.at(seen.regions)
            quads = corners_of(there.boxes, view, max(width, height))
            places = map(SeenRegion, quads, there.objectness.tolist(), there.embeddings)
            names = (class_names[number] for number in seen.class_numbers)
            return list(map(Spotting, names, places, seen.scores.tolist()))
