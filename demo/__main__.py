"""The main job against a live server: enrol one picture of each brand, then ask about scenes that it has never seen.

First about scenes with one thing each, which are classified, then about scenes with several, in which they are to be found.

    python -m demo [--url http://127.0.0.1:8000] [--picture build/demo.png]

Without a URL it starts a server of its own, with its state in memory. It leaves one picture with every answer in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from demo.brands import ENROLLED, STRANGER, Brand
from demo.scenes import CROWDS, EMPTY, SCENES, Crowd, Quad, Scene, as_jpeg, photograph, photograph_of_many
from demo.server import serving
from demo.sheet import (
    FOUND_HEIGHT_PX,
    FOUND_WIDTH_PX,
    RIGHT,
    UNSURE,
    WRONG,
    Column,
    Outline,
    Tile,
    contact_sheet,
    outlined,
)

OVOLUNE, KESTRIKA, BRUMELO, TINDRAX, PELLAWI = ENROLLED
IN_CROWDS = (
    (OVOLUNE, KESTRIKA, BRUMELO, TINDRAX),
    (PELLAWI, TINDRAX, PELLAWI, STRANGER),
    (BRUMELO, STRANGER, OVOLUNE, KESTRIKA),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Enrols one picture of each brand, and asks about scenes.")
    parser.add_argument("--url", help="a server that is running; without it, one is started")
    parser.add_argument("--picture", type=Path, default=Path("build/demo.png"), help="where the result goes")
    flags = parser.parse_args()
    show_main_job(flags.url, flags.picture)


def show_main_job(url: str | None, picture: Path) -> None:
    with server(url) as http:
        for brand in ENROLLED:
            enrol(http, brand)
        columns = [ask_about(http, brand, seed=number) for number, brand in enumerate(ENROLLED)]
        columns.append(ask_about_strangers(http))
        scenes = [
            look_for(http, crowd, brands, seed=70 + row)
            for row, (crowd, brands) in enumerate(zip(CROWDS, IN_CROWDS, strict=True))
        ]
    picture.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(columns, scenes).save(picture, optimize=True, quality=88)
    tiles = [*(tile for column in columns for tile in column.asked), *scenes]
    print(f"{sum(tile.colour == RIGHT for tile in tiles)} of {len(tiles)} answers are right: see {picture}")


@contextmanager
def server(url: str | None) -> Iterator[httpx.Client]:
    if url is None:
        with serving({"STORE": "memory://"}) as own:
            yield own.http
    else:
        with httpx.Client(base_url=url, timeout=30) as http:
            yield http


def enrol(http: httpx.Client, brand: Brand) -> None:
    report = http.post(f"/classes/{brand.name}/examples", files={"image": as_jpeg(brand.mark())}).raise_for_status().json()
    warnings = [warning["code"] for example in report["examples"] for warning in example["warnings"]]
    print(f"enrolled {brand.name:10} threshold {report['threshold']:.2f}  {' '.join(warnings)}")


def ask_about(http: httpx.Client, brand: Brand, *, seed: int) -> Column:
    """A column of scenes with a brand that was enrolled: right is its name."""
    tiles = [ask(http, scene, brand, seed=10 * seed + row, right=brand.name) for row, scene in enumerate(SCENES)]
    return Column(brand.name, brand.mark(), tiles)


def ask_about_strangers(http: httpx.Client) -> Column:
    """A column of scenes with nothing that was enrolled: right is to say so."""
    asked = [*((scene, STRANGER) for scene in SCENES[1:]), (EMPTY, None)]
    tiles = [ask(http, scene, brand, seed=90 + row, right=None) for row, (scene, brand) in enumerate(asked)]
    return Column("others", None, tiles)


def ask(http: httpx.Client, scene: Scene, brand: Brand | None, *, seed: int, right: str | None) -> Tile:
    picture = photograph(scene, brand.mark() if brand else None, seed=seed)
    answer = http.post("/classify", files={"image": as_jpeg(picture)}).raise_for_status().json()
    best = answer["candidates"][0]
    print(f"asked {brand.name if brand else 'shore':10} {answer['outcome']:8} {best['class']:10} {best['probability']:.2f}")
    return tile_of(picture, answer, right)


def tile_of(picture: Image.Image, answer: dict[str, Any], right: str | None) -> Tile:
    best = answer["candidates"][0]
    if answer["outcome"] == "match":
        colour = RIGHT if answer["decision"] == right else WRONG
        return Tile(picture, f"{answer['decision']}, {best['probability']:.0%}", colour)
    if answer["outcome"] == "doubtful":
        return Tile(picture, f"doubtful: {best['class']}, {best['probability']:.0%}", UNSURE)
    return Tile(picture, "unknown", RIGHT if right is None else UNSURE)


def look_for(http: httpx.Client, crowd: Crowd, brands: Sequence[Brand], *, seed: int) -> Tile:
    """A scene with several brands: right is to find each that was enrolled, where it is, and nothing else."""
    picture = photograph_of_many(crowd, [brand.mark() for brand in brands], seed=seed)
    answer = http.post("/detect", files={"image": as_jpeg(picture)}).raise_for_status().json()
    there = [(brand.name, corners) for brand, corners in zip(brands, crowd.corners, strict=True) if brand is not STRANGER]
    right = [one for one in answer["detections"] if any(is_at(one, name, corners) for name, corners in there)]
    for one in answer["detections"]:
        print(f"found {one['class']:10} {one['outcome']:8} {one['probability']:.2f}  {'right' if one in right else 'wrong'}")
    told = sum(any(is_at(one, *thing) and one["outcome"] == "match" for one in right) for thing in there)
    wrong = sum(one["outcome"] == "match" and one not in right for one in answer["detections"])
    caption = f"{told} of {len(there)} found" + (f", {wrong} wrong" if wrong else "")
    colour = WRONG if wrong else RIGHT if told == len(there) else UNSURE
    drawn = outlined(picture, [outline_of(one, is_right=one in right) for one in answer["detections"]])
    return Tile(drawn, caption, colour, (FOUND_WIDTH_PX, FOUND_HEIGHT_PX))


def is_at(detection: dict[str, Any], name: str, corners: Quad) -> bool:
    """Whether it is that brand, with each corner within a tenth of the picture's width of where it was drawn."""
    off = [abs(x - drawn_x) + abs(y - drawn_y) for (x, y), (drawn_x, drawn_y) in zip(detection["quad"], corners, strict=True)]
    return detection["class"] == name and max(off) < 48


def outline_of(detection: dict[str, Any], *, is_right: bool) -> Outline:
    box = detection["box"]
    colour = UNSURE if detection["outcome"] == "doubtful" else RIGHT if is_right else WRONG
    name = f"{detection['class']}, {detection['probability']:.0%}"
    edges = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
    return Outline(name, detection["quad"], edges, colour)


if __name__ == "__main__":
    main()
