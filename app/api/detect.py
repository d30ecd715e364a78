"""Which classes a scene shows, and where."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app import metrics
from app.api.auth import Scope, needs
from app.api.dependencies import CallDep, class_names
from app.api.openapi import ONE_PICTURE
from app.api.problems import problem_responses
from app.api.schemas import DetectionsOut, DetectParameters

router = APIRouter(
    tags=["detect"], dependencies=[needs(Scope.READ)], responses=problem_responses(400, 401, 403, 413, 415, 422, 503)
)


@router.post("/detect", openapi_extra=ONE_PICTURE)
async def detect(query: Annotated[DetectParameters, Query()], call: CallDep) -> DetectionsOut:
    """Finds things of the enrolled classes in one picture: accepted ones, and doubtful ones that are worth a look."""
    upload = await call.picture(box=query.box)
    found = await call.use_cases.detect(
        upload,
        max_detections=query.max_detections,
        classes=class_names(query.classes),
        tiles=query.tiles,
        deadline=call.deadline(),
    )
    for detection in found.detections:
        metrics.count_detection(detection.outcome)
    call.note_outcome(found.outcome)
    return DetectionsOut.of(found)
