"""The description of what FastAPI cannot see: the body forms, which `bodies.py` reads, the shape of problems, and samples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.samples import SAMPLES
from app.api.schemas import ClassPatch, OnePictureIn, PicturesIn, Problem

REF = "#/components/schemas/{model}"
RAW_PICTURE: dict[str, Any] = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}


def install_openapi(app: FastAPI) -> None:
    """Adds the shapes that bodies and problems refer to, and the samples."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes, tags=None)
            _, shapes = models_json_schema(
                [(shape, "validation") for shape in (ClassPatch, OnePictureIn, PicturesIn, Problem)], ref_template=REF
            )
            schemas = description["components"]["schemas"]
            schemas |= shapes["$defs"]
            for name, sample in SAMPLES.items():
                schemas[name]["examples"] = [sample]
            app.openapi_schema = description
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the description


def _pictures(shape: type[OnePictureIn] | type[PicturesIn], image: dict[str, Any]) -> dict[str, Any]:
    form = {
        "schema": {
            "type": "object",
            "required": ["image"],
            "properties": {"image": image, "box": {"type": "string", "description": "x,y,width,height; follows its image."}},
        }
    }
    json = {"schema": {"$ref": REF.format(model=shape.__name__)}}
    content = {
        "multipart/form-data": form,
        "application/json": json,
        "image/*": RAW_PICTURE,
        "application/octet-stream": RAW_PICTURE,
    }
    return {"requestBody": {"required": True, "content": content}}


ONE_PICTURE = _pictures(OnePictureIn, RAW_PICTURE["schema"])
SEVERAL_PICTURES = _pictures(PicturesIn, {"type": "array", "items": RAW_PICTURE["schema"]})
CLASS_PATCH = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"$ref": REF.format(model="ClassPatch")}}}}
}
