"""A sample of each shape, as `/openapi.json` shows it. A test holds them against the shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EXAMPLE_ID = "bed2ebdb61036b1ff2cc1d93526b9f82"
MODEL = "8745ad2d1ed7e37b"
BOX = {"x": 120, "y": 80, "width": 300, "height": 210}
QUAD = [[118.4, 86.1], [417.2, 74.3], [424.0, 281.9], [121.7, 295.2]]
PICTURE = {"data": "iVBORw0KGgoAAAANSUhEUgAA...", "box": BOX}

ANSWER = {
    "outcome": "match",
    "decision": "acme",
    "reason": None,
    "version": 43,
    "model": MODEL,
    "candidates": [
        {
            "class": "acme",
            "similarity": 0.83,
            "probability": 0.97,
            "accepted": True,
            "threshold": 0.61,
            "evidence": [{"example": EXAMPLE_ID, "similarity": 0.81, "verified": None}],
        }
    ],
}
DETECTION = {
    "class": "acme",
    "box": {"x": 118, "y": 74, "width": 306, "height": 221},
    "similarity": 0.71,
    "probability": 0.98,
    "outcome": "match",
    "reason": None,
    "accepted": True,
    "threshold": 0.61,
    "quad": QUAD,
    "evidence": [{"example": EXAMPLE_ID, "similarity": 0.7, "verified": {"points": 41, "coverage": 0.57, "quad": QUAD}}],
}
CLASS = {"class": "acme", "examples": 2, "threshold": 0.61, "version": 43, "metadata": {"sku": "A-1"}}
EXAMPLE = {"id": EXAMPLE_ID, "box": BOX, "similarity": 0.79}
PROBLEM = {
    "type": "urn:firstsight:problem:invalid-picture",
    "title": "The picture cannot be used",
    "status": 422,
    "detail": "A picture has sides of 8 pixels or more, this one is 4 x 4.",
    "field": "images[1]",
    "limit": 8,
}

# Name of the shape in schemas.py -> its sample.
SAMPLES: Mapping[str, Any] = {
    "OnePictureIn": {"image": PICTURE},
    "PicturesIn": {"images": [PICTURE]},
    "ClassPatch": {"name": "Acme", "threshold": 0.65, "metadata": {"sku": "A-1"}},
    "EnrolmentReportOut": {
        "class": "acme",
        "version": 43,
        "dry_run": False,
        "threshold": 0.61,
        "examples": [
            {
                "id": EXAMPLE_ID,
                "box": BOX,
                "warnings": [
                    {
                        "code": "closer_to_other",
                        "detail": "It is more similar to class 'other' than to the other examples of its own.",
                        "value": 0.72,
                        "limit": 0.58,
                        "class": "other",
                        "example": None,
                    }
                ],
            }
        ],
        "nearest": [{"class": "other", "similarity": 0.55}],
    },
    "AnswerOut": ANSWER,
    "BatchOut": {"results": [{"status": 200, **ANSWER}, {"status": 422, "problem": PROBLEM}]},
    "DetectionsOut": {"image": {"width": 800, "height": 600}, "version": 43, "model": MODEL, "detections": [DETECTION]},
    "ClassOut": CLASS,
    "ClassPageOut": {"classes": [CLASS], "next_cursor": None},
    "ExampleOut": EXAMPLE,
    "ExamplePageOut": {"examples": [EXAMPLE], "next_cursor": None},
    "RemovedOut": {"version": 44},
    "ReadyOut": {"ready": False, "waiting_for": "the new model set: 120 of 300 classes are fitted to it"},
    "Problem": PROBLEM,
}
